"""One fact to be written, as tokens: its prompt in every context, and where the subject ends in each."""

from collections.abc import Sequence
from dataclasses import dataclass

from interp.analyzers.answers import Answer, continued, read_answer
from interp.errors import UsageError
from interp.prompts import Fact
from interp.runner.model import Model
from interp.tokens import Tokens

ESSENCE = "{} is a"
"""What must stay as it is: the prediction at the subject's last token here (Meng et al. 2022, eq. 4, "essence")."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Rewrite:
    """A fact as tokens.

    ``prompts[i]`` is the prompt in context i, followed by the target's tokens but the last, so that each is scored with those before
    it given; the first is the prompt without a context. ``positions[i]`` is where the subject's last token stands in it, found by
    character offsets. ``subjects`` and ``subject_positions`` are the same for "{subject} is a"; the first of them, without a context,
    is the essence prompt. ``seed`` is that of what is drawn at random for this fact.
    """

    fact: Fact
    target: Answer
    prompts: tuple[Tokens, ...]
    positions: tuple[int, ...]
    subjects: tuple[Tokens, ...]
    subject_positions: tuple[int, ...]
    seed: int = 0

    @property
    def essence(self) -> Tokens:
        """The prompt whose prediction at the subject's last token must stay as it is."""
        return self.subjects[0]

    @property
    def essence_position(self) -> int:
        """Where the subject's last token stands in it."""
        return self.subject_positions[0]

    @property
    def columns(self) -> list[list[int]]:
        """The positions of each prompt at which the target's tokens are predicted."""
        return [list(range(len(tokens) - len(self.target.ids), len(tokens))) for tokens in self.prompts]


def rewrite_of(model: Model, fact: Fact, contexts: Sequence[str], seed: int = 0) -> Rewrite:
    """The tokens of a fact; ``contexts[0]`` is empty.

    Raises UsageError for an empty target.
    """
    target = read_answer(model, fact.target)
    if contexts[0] != "":
        contexts = ("", *contexts)
    prompts, positions = _in_contexts(model, fact, contexts)
    subjects, subject_positions = _in_contexts(model, Fact(fact.subject, ESSENCE, fact.target), contexts)
    return Rewrite(
        fact=fact,
        target=target,
        prompts=tuple(continued(model, tokens, target) for tokens in prompts),
        positions=positions,
        subjects=subjects,
        subject_positions=subject_positions,
        seed=seed,
    )


def _in_contexts(model: Model, fact: Fact, contexts: Sequence[str]) -> tuple[tuple[Tokens, ...], tuple[int, ...]]:
    """The prompt of a fact in each context, and where the subject's last token stands."""
    tokens = tuple(model.tokens(context + fact.prompt) for context in contexts)
    end = fact.template.index("{}") + len(fact.subject)
    return tokens, tuple(last_token(t, len(context) + end) for t, context in zip(tokens, contexts, strict=True))


def last_token(tokens: Tokens, end: int) -> int:
    """The position of the token that holds the character before ``end``. Raises UsageError where no token does."""
    for position in reversed(range(len(tokens))):
        span = tokens.spans[position]
        if span is not None and span[0] < end <= max(span[1], end) and span[0] < span[1]:
            return position
    raise UsageError(f"no token of {tokens.text!r} holds the subject's last character")
