"""Two results of one kind side by side: two prompts, two models, or one model before and after an edit."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from interp.analyzers import compare_heads, compare_streams
from interp.analyzers.compare_axes import Aligner
from interp.analyzers.comparison import Comparison, Quantity, Side, Summary
from interp.errors import UsageError, unknown
from interp.results import Result
from interp.tokens import Tokens


@dataclass(frozen=True, kw_only=True)
class Comparable:
    """How results of one kind are compared: what they share on common axes, and numbers of each as a whole."""

    quantities: Callable[[Any, Any, Aligner], list[Quantity]]
    summaries: Callable[[Any, Any], list[Summary]]


COMPARABLE = {
    "logit_lens": Comparable(quantities=compare_streams.lenses, summaries=compare_streams.lens_summaries),
    "residual_story": Comparable(quantities=compare_streams.stories, summaries=compare_streams.story_summaries),
    "direct_logit_attribution": Comparable(
        quantities=compare_streams.attributions, summaries=compare_streams.attribution_summaries
    ),
    "attention_patterns": Comparable(quantities=compare_heads.patterns, summaries=compare_heads.pattern_summaries),
    "head_profiles": Comparable(quantities=compare_heads.profiles, summaries=compare_heads.profile_summaries),
    "causal_trace": Comparable(quantities=compare_heads.traces, summaries=compare_heads.trace_summaries),
}
"""The kinds of result that can be compared."""


def compare(a: Result, b: Result, *, names: tuple[str, str] | None = None) -> Comparison:
    """Puts two results of one kind side by side, with the difference b - a wherever the two are about the same thing.

    Args:
        a: a logit lens, residual story, direct logit attribution, attention patterns, head profiles or causal trace.
        b: another of the same kind.
        names: what to call the two, such as ("before", "after"); None: their models' names where these differ, else "A" and "B".

    Layers, components and heads are aligned by their numbers where both results have the same ones; between models of different depth they
    have no counterparts and only summaries are compared. Tokens are aligned by position; of prompts of different length from the end,
    where the answer is read, as far as the shorter one goes. Causal traces are compared by the places of the prompt too (Meng et
    al. 2022), which subjects of any length share. A cell that only one has, or that is about another token in each, has no
    difference: nothing is filled in. ``aligned`` and ``not_aligned`` of the result say what was done.

    Differences of estimates have Welch's interval, which takes the samples of the two for independent.

    Raises:
        UsageError: two kinds of result, or a kind that cannot be compared; the message names those that can.

    """
    if a.kind not in COMPARABLE:
        raise unknown("kind of result to compare", a.kind, COMPARABLE)
    if a.kind != b.kind:
        raise UsageError(f"A is a {a.kind!r} and B a {b.kind!r}; two results of one kind can be compared")
    axes, comparable = Aligner(a=a, b=b), COMPARABLE[a.kind]
    quantities = comparable.quantities(a, b, axes)
    called = names if names is not None else _names(a, b)
    return Comparison(
        provenance=a.provenance,
        compared=a.kind,
        a=_side(called[0], a),
        b=_side(called[1], b),
        quantities=tuple(quantities),
        summaries=tuple(comparable.summaries(a, b)),
        aligned=tuple(axes.aligned),
        not_aligned=tuple(axes.not_aligned),
        pairs=axes.pairs,
    )


def _names(a: Result, b: Result) -> tuple[str, str]:
    one, two = a.provenance.model, b.provenance.model
    return (one, two) if one != two else ("A", "B")


def _side(name: str, result: Any) -> Side:
    """A side with its prompt's tokens, where it has a prompt."""
    tokens = getattr(result, "tokens", getattr(result, "prompt", None))
    if not isinstance(tokens, Tokens):
        return Side(name=name, text="", provenance=result.provenance, tokens=None, positions=())
    positions = tuple(getattr(result, "positions", range(len(tokens))))
    return Side(name=name, text=tokens.text, provenance=result.provenance, tokens=tokens, positions=positions)
