"""Head profiles: what each head's attention does over a set of prompts, and which heads do one thing beyond what chance explains."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from interp.analyzers.head_measures import Measure, NamedHead, check_options, measures_of, named, naming_p_values
from interp.analyzers.head_prompts import PROMPTS
from interp.analyzers.profile_rows import PromptRows, measured_rows
from interp.errors import UsageError, unknown
from interp.heads import Head, HeadLike
from interp.maths.estimates import Estimate, Estimates
from interp.maths.head_profiles import CONTENT
from interp.maths.statistics import mean_estimates, paired_difference
from interp.models.cache import Step
from interp.results import Result
from interp.runner.batch import is_single_prompt
from interp.runner.model import Model
from interp.sites import Site, read_layer
from interp.tokens import Tokens

if TYPE_CHECKING:
    from pandas import DataFrame
    from plotly.graph_objects import Figure


@dataclass(frozen=True, kw_only=True, eq=False)
class HeadProfilesResult(Result):
    """What every head's attention does over prompts, each figure with an interval over prompts.

    ``value`` is the measure on the prompts; ``null`` its expectation where what it looks for is taken away, as ``Measure.null`` says;
    ``shuffled`` the measure at the same places of the prompts with their tokens shuffled; ``excess`` the paired difference of value
    and null. ``p`` tests that the excess lies above the measure's margin (one-sided t test over prompts); ``named`` marks the
    discoveries at the false-discovery ``rate`` over all heads and classes. What no prompt can show (text without repeats, a layer whose
    window hides such keys) is NaN. ``layers`` are those measured, in order; ``lengths`` the tokens of each prompt; ``n_with`` the
    number of prompts that have keys of each kind of content (duplicates, induction targets, punctuation).
    """

    kind: ClassVar[str] = "head_profiles"
    schema_version: ClassVar[int] = 1

    measures: tuple[Measure, ...]
    layers: tuple[int, ...]
    lengths: tuple[int, ...]
    n_with: tuple[int, ...]
    default_prompts: bool
    local: int
    n_shuffles: int
    rate: float
    confidence: float
    value: Estimates
    null: Estimates
    shuffled: Estimates
    excess: Estimates
    p: Float[Tensor, "measure layer head"]
    named: Bool[Tensor, "measure layer head"]

    def to_frame(self) -> "DataFrame":
        """One line for each measure and head. ``unit`` says what value, lower, upper, null, shuffled and excess are in."""
        import pandas as pd

        lines = []
        for index, measure in enumerate(self.measures):
            for row, layer in enumerate(self.layers):
                for head in range(self.p.shape[2]):
                    at = (index, row, head)
                    cell = self.value.at(*at)
                    lines.append(
                        {
                            "head": str(Head(layer, head)),
                            "layer": layer,
                            "measure": measure.name,
                            "unit": measure.unit,
                            "value": cell.value,
                            "lower": cell.lower,
                            "upper": cell.upper,
                            "n_prompts": cell.n,
                            "null": float(self.null.value[at]),
                            "shuffled": float(self.shuffled.value[at]),
                            "excess": float(self.excess.value[at]),
                            "p": float(self.p[at]),
                            "head_class": measure.head_class if bool(self.named[at]) else None,
                        }
                    )
        return pd.DataFrame(lines)

    def named_heads(self) -> tuple[NamedHead, ...]:
        """The heads of each class, classes in the order of the measures, in each the greatest value first."""
        found = []
        for index, measure in enumerate(self.measures):
            cells = [(row, head) for row, head in self.named[index].nonzero().tolist()]
            for row, head in sorted(cells, key=lambda cell: -float(self.value.value[index, cell[0], cell[1]])):
                assert measure.head_class is not None, f"{measure.name} names no class"
                found.append(
                    NamedHead(
                        head=Head(self.layers[row], head),
                        head_class=measure.head_class,
                        measure=measure.name,
                        value=self.value.at(index, row, head),
                        null=self.null.at(index, row, head),
                        p=float(self.p[index, row, head]),
                    )
                )
        return tuple(found)

    def profile(self, head: HeadLike) -> tuple[tuple[Measure, Estimate, Estimate], ...]:
        """Each measure of one head with its value and its null.

        Raises UsageError for a head that is misspelt, not in the model or in a layer that was not measured.
        """
        n_heads = self.p.shape[2]
        if isinstance(head, str):
            head = Head.parse(head, max(self.layers) + 1, n_heads)
        found = (head if isinstance(head, Head) else Head(*head)).checked(max(self.layers) + 1, n_heads)
        if found.layer not in self.layers:
            raise UsageError(
                f"{found} is in a layer that was not measured; valid layers: {', '.join(map(str, self.layers))}"
            )
        at = (self.layers.index(found.layer), found.head)
        return tuple((m, self.value.at(i, *at), self.null.at(i, *at)) for i, m in enumerate(self.measures))

    def index(self, measure: str) -> int:
        """The place of a measure on the first axis. Raises UsageError for an unknown one."""
        names = [item.name for item in self.measures]
        if measure not in names:
            raise unknown("measure", measure, names)
        return names.index(measure)

    def figure(self, measure: str = "previous_token") -> "Figure":
        """A map of layers by heads of one measure; ``measure`` is the name of one of ``measures``."""
        from interp.figures.head_profiles import profile_map

        index = self.index(measure)
        return profile_map(
            self.value.value[index].numpy(),
            self.null.value[index].numpy(),
            self.layers,
            title=measure.replace("_", " "),
            unit=self.measures[index].unit,
        )


def head_profiles(
    model: Model,
    prompts: Any = None,
    *,
    layers: int | Sequence[int] | None = None,
    n_back: int = 4,
    local: int = 8,
    n_shuffles: int = 4,
    margin: float = 0.15,
    sink_margin: float = 0.4,
    rate: float = 0.05,
    confidence: float = 0.95,
    seed: int = 0,
    progress: Step | None = None,
) -> HeadProfilesResult:
    """Profiles every head over prompts and names those that do one thing beyond their null.

    The measures and their formulas stand in ``interp.maths.head_profiles``. Patterns are reduced row by row as they are computed; none
    is kept. No single null is fair to all measures:

    - Measures of place (previous token, k back, current, first, local window) and the mean distance depend little on content, so
      shuffled content is no null for them. Theirs is the row's own weights dealt to its visible keys at random, whose expectation is
      exact: m of n visible keys get m / n of the mass.
    - Measures of content (duplicates, induction targets, punctuation) are compared with the mass at the *same places* of the same
      prompt after its tokens have been shuffled (all but position 0 and special tokens), the mean of ``n_shuffles`` shuffles. Distances,
      lengths and the sink stay what they were; only what stood there is gone.
    - What position explains is compared with the same measure of the shuffled prompts, each predicted from a shuffle of the others: a
      value below it is a pattern that real text bends more than a bag of the same tokens does. It names no class.

    A head is named when its value exceeds its null by more than ``margin`` of its attention: a paired one-sided t test over prompts of
    "the excess is at most the margin", Benjamini-Hochberg over heads and classes at ``rate``. Of the single places (previous, k back,
    current) only that of the greatest excess names a head, and a head is called local only where none does. An induction *candidate*
    looks where an induction head would; whether it is one takes more (``interp.induction_heads``).

    Args:
        model: the model.
        prompts: texts, conversations or token ids, one or several; None takes the texts that come with interp.
        layers: the layers to measure, all if None.
        n_back: how many tokens back single places are measured, at least 1.
        local: keys in the local window, the query's own included.
        n_shuffles: shuffles of each prompt for the null of content.
        margin: least excess over the null, as a share of attention, that names a class.
        sink_margin: the same for first-token heads, since nearly every head leaves some attention there.
        rate: false-discovery rate over heads and classes.
        confidence: of the intervals (Student t over prompts).
        seed: of the shuffles.
        progress: called with (what, done, total) as prompts are done.

    With one prompt there are values without intervals, and no head is named.

    Raises:
        UsageError: no prompt, a prompt of one token, a bad layer or option, or a model without attention patterns.

    """
    check_options(
        n_back=n_back,
        local=local,
        n_shuffles=n_shuffles,
        margin=margin,
        sink_margin=sink_margin,
        confidence=confidence,
        rate=rate,
    )
    default = prompts is None
    given = PROMPTS if default else [prompts] if is_single_prompt(prompts) else list(prompts)
    tokens = _checked([model.tokens(prompt) for prompt in given])
    sites = model.sites.sites("attn.pattern")
    wanted = sites if layers is None else _chosen(model, layers)
    rows = measured_rows(
        model,
        tokens,
        [site.layer or 0 for site in wanted],
        n_back=n_back,
        local=local,
        n_shuffles=n_shuffles,
        generator=torch.Generator().manual_seed(seed),
        progress=progress,
    )
    result = _result(
        model,
        rows,
        measures=measures_of(n_back, margin, sink_margin),
        layers=tuple(site.layer or 0 for site in wanted),
        lengths=tuple(len(item) for item in tokens),
        default_prompts=default,
        local=local,
        n_shuffles=n_shuffles,
        rate=rate,
        confidence=confidence,
        seed=seed,
    )
    _tell(model, result)
    return result


def _checked(tokens: list[Tokens]) -> list[Tokens]:
    if not tokens:
        raise UsageError("there is no prompt; give at least one, or none at all for the texts that come with interp")
    for index, item in enumerate(tokens):
        if len(item) < 2:
            raise UsageError(
                f"prompt {index} has one token ({item.labels[0]}); attention over one token says nothing, give two or more"
            )
    return tokens


def _chosen(model: Model, layers: int | Sequence[int]) -> tuple[Site, ...]:
    chosen = (layers,) if isinstance(layers, int) else tuple(layers)
    if not chosen:
        raise UsageError(
            f"no layers given; valid: 0 to {model.atlas.n_layers - 1}, or leave layers out for all of them"
        )
    return model.sites.sites([Site("attn.pattern", read_layer(layer, model.atlas.n_layers)) for layer in chosen])


def _result(model: Model, rows: PromptRows, *, seed: int, **settings: Any) -> HeadProfilesResult:
    measures, confidence = settings["measures"], settings["confidence"]
    value, null, shuffled = rows.samples()
    excess = paired_difference(value, null, confidence)
    p = naming_p_values(value.double() - null.double(), measures)
    found = [measure.name for measure in measures].index(CONTENT[0])
    return HeadProfilesResult(
        provenance=model.provenance(seed=seed),
        value=mean_estimates(value, confidence),
        null=mean_estimates(null, confidence),
        shuffled=mean_estimates(shuffled, confidence),
        excess=excess,
        p=p,
        named=named(p, excess.value, measures, settings["rate"]),
        n_with=tuple(int((~value[:, found + i].isnan()).flatten(1).any(1).sum()) for i in range(len(CONTENT))),
        **settings,
    )


def _tell(model: Model, result: HeadProfilesResult) -> None:
    """Says to the model's listener what could not be measured."""
    for name, count in zip(CONTENT, result.n_with, strict=True):
        if count < 2:
            missing = _MISSING[name]
            where = "no prompt has" if count == 0 else "only one prompt has"
            model.notify(
                f"{where} {missing}; {name} is {'NaN' if count == 0 else 'without an interval'} and names no head"
            )
    if len(result.lengths) < 2:
        model.notify("one prompt gives no interval, so no head is named; give several prompts")


_MISSING = {
    "duplicate_tokens": "a token that repeats (text without repeats)",
    "induction_targets": "a token that follows an earlier occurrence of the current one (text without repeats)",
    "punctuation": "punctuation after its first token",
}
