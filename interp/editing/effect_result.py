"""What an edit changed, as a result: answers, a continuation and the logit lens before and after it, and the proof of its undo."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import torch
from jaxtyping import Float, Int
from torch import Tensor

from interp.analyzers.answers import Answer
from interp.editing.edit import Edit
from interp.errors import unknown
from interp.prompts import Fact
from interp.results import Result
from interp.runner.generation import Generation
from interp.tokens import Tokens

if TYPE_CHECKING:
    from pandas import DataFrame
    from plotly.graph_objects import Figure

ROLES = ("prompt", "paraphrase", "neighbour")
FIGURES = ("lens", "answers", "curve")


@dataclass(frozen=True, kw_only=True, eq=False)
class Predictions:
    """What a model answers to several prompts: its likeliest next tokens, best first, and how likely two answers are.

    The log-probability of an answer is that of all its tokens, those before each given. ``target_rank`` counts the tokens that are
    likelier than the target's first one: 0 is the first choice. Natural logarithms.
    """

    top_ids: Int[Tensor, "batch k"]
    top_log_probs_nats: Float[Tensor, "batch k"]
    target_log_prob_nats: Float[Tensor, " batch"]
    target_rank: Int[Tensor, " batch"]
    old_log_prob_nats: Float[Tensor, " batch"]


@dataclass(frozen=True, kw_only=True)
class UndoProof:
    """The SHA-256 of one matrix's stored bytes: before the edit was applied, while it was, and after it was taken back."""

    layer: int
    path: str
    before_sha256: str
    applied_sha256: str
    undone_sha256: str

    @property
    def exact(self) -> bool:
        """Whether the bytes from before are back."""
        return self.before_sha256 == self.undone_sha256

    @property
    def changed(self) -> bool:
        """Whether the edit changed the bytes at all."""
        return self.before_sha256 != self.applied_sha256


@dataclass(frozen=True, kw_only=True, eq=False)
class Asked:
    """One prompt before and after the edit, for a table: its first choices, and the probabilities of target and old answer."""

    role: str  # one of ROLES
    tokens: Tokens
    before_token: str
    before_probability: float
    after_token: str
    after_probability: float
    target_before: float
    target_after: float
    target_rank_before: int
    target_rank_after: int
    old_before: float
    old_after: float
    changed: bool

    @property
    def verdict(self) -> str:
        """What became of the first choice: "kept", "changed", "now the target", or "the target already", which of a neighbour is "kept"."""
        if self.changed:
            return "changed" if self.target_rank_after else "now the target"
        return "kept" if self.target_rank_after or self.role == "neighbour" else "the target already"


@dataclass(frozen=True, kw_only=True, eq=False)
class EditEffect(Result):
    """What a model says before and after an edit, for one of its facts.

    ``before`` and ``after`` are of the prompt, then the ``paraphrases``, then the ``neighbours``. ``old`` is the answer that the target
    takes the place of: the model's first choice before, unless another was named. ``answer_ids`` are the tokens that are among the
    prompt's likeliest before or after, ``answers_*_nats`` their log-probabilities at both times. ``lens_*_nats`` are the logit lens of
    the target's first token after each layer, at each position of the prompt. The continuations are greedy; None where none was asked for.
    ``subject_position`` is that of the subject's last token. ``vocabulary`` gives the text of every token id that occurs.
    """

    kind: ClassVar[str] = "edit_effect"
    schema_version: ClassVar[int] = 1

    edit: Edit
    fact: Fact
    prompt: Tokens
    subject_position: int
    target: Answer
    old: Answer
    paraphrases: tuple[Tokens, ...]
    neighbours: tuple[Tokens, ...]
    before: Predictions
    after: Predictions
    answer_ids: Int[Tensor, " k"]
    answers_before_nats: Float[Tensor, " k"]
    answers_after_nats: Float[Tensor, " k"]
    continuation_before: Generation | None
    continuation_after: Generation | None
    lens_before_nats: Float[Tensor, "layer pos"]
    lens_after_nats: Float[Tensor, "layer pos"]
    proofs: tuple[UndoProof, ...]
    vocabulary: dict[str, str]

    @property
    def undo_exact(self) -> bool:
        """Whether every matrix had its bytes from before again after the undo."""
        return all(proof.exact for proof in self.proofs)

    @property
    def rows(self) -> tuple[Asked, ...]:
        """The prompt, the paraphrases and the neighbours, each with its answers before and after."""
        prompts = (self.prompt, *self.paraphrases, *self.neighbours)
        roles = ["prompt"] + ["paraphrase"] * len(self.paraphrases) + ["neighbour"] * len(self.neighbours)
        return tuple(
            self._asked(row, role, tokens) for row, (role, tokens) in enumerate(zip(roles, prompts, strict=True))
        )

    def of(self, role: str) -> tuple[Asked, ...]:
        """The rows of one role: "prompt", "paraphrase" or "neighbour"."""
        if role not in ROLES:
            raise unknown("role", role, ROLES)
        return tuple(row for row in self.rows if row.role == role)

    def top(self, when: str, row: int = 0) -> tuple[tuple[str, float], ...]:
        """The likeliest next tokens of a row, each with its probability; ``when`` is "before" or "after"."""
        if when not in ("before", "after"):
            raise unknown("time", when, ("before", "after"))
        found = self.before if when == "before" else self.after
        probs = found.top_log_probs_nats[row].double().exp().tolist()
        return tuple(
            (self.vocabulary[str(i)], prob) for i, prob in zip(found.top_ids[row].tolist(), probs, strict=True)
        )

    @property
    def answers(self) -> tuple[tuple[str, float, float], ...]:
        """The tokens that are among the prompt's likeliest before or after, with their probability at both times, likeliest first."""
        pairs = torch.stack([self.answers_before_nats, self.answers_after_nats], 1).double().exp().tolist()
        found = [(self.vocabulary[str(i)], *pair) for i, pair in zip(self.answer_ids.tolist(), pairs, strict=True)]
        return tuple(sorted(found, key=lambda answer: -max(answer[1:])))

    def to_frame(self) -> "DataFrame":
        """One row a prompt, with its first choice and the probabilities of target and old answer before and after."""
        import pandas as pd

        return pd.DataFrame([_record(row) for row in self.rows])

    def figure(self, what: str = "lens") -> "Figure":
        """``what`` is "lens" (where the edit acts), "answers" (to the prompt) or "curve" (how the value was found)."""
        from interp.figures.edit_effect import answer_bars, lens_map

        if what not in FIGURES:
            raise unknown("figure", what, FIGURES)
        if what == "curve":
            return self.edit.figure()
        if what == "answers":
            words, before, after = zip(*self.answers, strict=True)
            return answer_bars(words, before, after)
        return lens_map(
            self.lens_before_nats.double().numpy(),
            self.lens_after_nats.double().numpy(),
            what="difference",
            labels=self.prompt.labels,
            subject=self.subject_position,
            edited=[change.layer for change in self.edit.layers],
        )

    def _asked(self, row: int, role: str, tokens: Tokens) -> Asked:
        (before_token, before_probability), (after_token, after_probability) = (
            self.top("before", row)[0],
            self.top("after", row)[0],
        )
        target_before, target_after, old_before, old_after = (
            float(found[row].double().exp())
            for found in (
                self.before.target_log_prob_nats,
                self.after.target_log_prob_nats,
                self.before.old_log_prob_nats,
                self.after.old_log_prob_nats,
            )
        )
        return Asked(
            role=role,
            tokens=tokens,
            before_token=before_token,
            before_probability=before_probability,
            after_token=after_token,
            after_probability=after_probability,
            target_before=target_before,
            target_after=target_after,
            target_rank_before=int(self.before.target_rank[row]),
            target_rank_after=int(self.after.target_rank[row]),
            old_before=old_before,
            old_after=old_after,
            changed=int(self.before.top_ids[row, 0]) != int(self.after.top_ids[row, 0]),
        )


def _record(row: Asked) -> Mapping[str, object]:
    return {
        "role": row.role,
        "text": row.tokens.text,
        "first_choice_before": row.before_token,
        "first_choice_probability_before": row.before_probability,
        "first_choice_after": row.after_token,
        "first_choice_probability_after": row.after_probability,
        "first_choice_changed": row.changed,
        "target_probability_before": row.target_before,
        "target_probability_after": row.target_after,
        "target_rank_before": row.target_rank_before,
        "target_rank_after": row.target_rank_after,
        "old_probability_before": row.old_before,
        "old_probability_after": row.old_after,
    }
