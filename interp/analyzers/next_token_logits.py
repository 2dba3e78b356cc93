"""The last step of a forward: final norm, unembedding, logits, softmax, and why only differences of logits matter."""

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from jaxtyping import Float, Int
from torch import Tensor

from interp.analyzers.verification import check_log_probs
from interp.errors import UsageError
from interp.maths.logits import shifted_probabilities, spread
from interp.maths.ranking import top_lowest_first
from interp.maths.unembedding import Unembedding
from interp.prompts import PromptLike
from interp.results import Result
from interp.runner.model import Model
from interp.tokens import Tokens, visible, vocabulary

if TYPE_CHECKING:
    from pandas import DataFrame
    from plotly.graph_objects import Figure


@dataclass(frozen=True, kw_only=True, eq=False)
class NextTokenLogitsResult(Result):
    """From the stream of a prompt's last token to the probabilities of the next one.

    ``stream_norm`` and ``normed_norm`` are the lengths of the stream before and after the final norm, ``norm_divisor`` what the norm
    divides by (None for a model without one). The best tokens by logit are ``top_ids``, the greatest first: ``top_projections`` are what
    the unembedding gives them, ``top_logits`` what is left after ``scale`` and ``softcap``, ``top_probs`` their probabilities, and
    ``shifted_probs`` those when ``shift`` is added to every logit. ``shift_difference`` is the greatest change of any probability of the
    vocabulary by that, in float64. ``bin_counts`` is the histogram of all logits: intervals of ``bin_width`` from ``bin_start`` on.
    """

    kind: ClassVar[str] = "next_token_logits"
    schema_version: ClassVar[int] = 1

    tokens: Tokens
    stream_norm: float
    norm_divisor: float | None
    normed_norm: float
    scale: float
    softcap: float | None
    top_ids: Int[Tensor, " k"]
    top_projections: Float[Tensor, " k"]
    top_logits: Float[Tensor, " k"]
    top_probs: Float[Tensor, " k"]
    shift: float
    shifted_probs: Float[Tensor, " k"]
    shift_difference: float
    log_sum_exp: float
    logit_mean: float
    logit_std: float
    bin_counts: Int[Tensor, " bin"]
    bin_start: float
    bin_width: float
    vocabulary: dict[str, str]

    @property
    def pieces(self) -> tuple[str, ...]:
        """The text of the best tokens."""
        return tuple(self.vocabulary[str(number)] for number in self.top_ids.tolist())

    def to_frame(self) -> "DataFrame":
        """One row for each of the best tokens."""
        import pandas as pd

        return pd.DataFrame(
            {
                "token_id": self.top_ids.tolist(),
                "token": self.pieces,
                "projection": self.top_projections.tolist(),
                "logit": self.top_logits.tolist(),
                "logit_from_best": (self.top_logits - self.top_logits[0]).tolist(),
                "probability": self.top_probs.tolist(),
                "shifted_probability": self.shifted_probs.tolist(),
            }
        )

    def figure(self, *, shifted: bool = False) -> "Figure":
        """How many tokens have which logit, with the likeliest one marked; ``shifted`` with the constant added to all."""
        from interp.figures.logits import logit_histogram

        move = self.shift if shifted else 0.0
        return logit_histogram(
            self.bin_counts.numpy(),
            self.bin_start + move,
            self.bin_width,
            best=float(self.top_logits[0]) + move,
            token=visible(self.pieces[0]),
            prob=float((self.shifted_probs if shifted else self.top_probs)[0]),
        )


def next_token_logits(
    model: Model, prompt: PromptLike, *, top_k: int = 10, shift: float = 100.0
) -> NextTokenLogitsResult:
    """Takes a prompt's last stream through final norm, unembedding, the family's logit transform and softmax.

    Args:
        model: the model.
        prompt: text, token ids or a conversation.
        top_k: how many of the likeliest next tokens to keep.
        shift: what is added to every logit to show that no probability changes.

    Raises:
        UsageError: a bad prompt, top_k or shift.
        NumericsError: NaN or infinite logits.
        VerificationError: the stream through norm, unembedding and transform does not give the model's logits.

    """
    d_vocab = model.unembedding.weight.shape[0]
    if not 1 <= top_k <= d_vocab:
        raise UsageError(f"top_k is {top_k}; valid: 1 to {d_vocab}, the size of the vocabulary")
    if not math.isfinite(shift):
        raise UsageError(f"shift is {shift}; valid: a finite number")
    tokens = model.tokens(prompt)
    run = model.run(tokens, ["resid_post@-1"], positions=-1, logits="last")
    stream = run.cache["resid_post@-1"][0]
    logits = run.last_logits.float().cpu()  # float64 below, which not every device has
    normed = model.final_norm(stream)
    read = model.unembedding.logits(normed.to(model.unembedding.weight.dtype)).float().cpu().log_softmax(-1)
    best, ids = top_lowest_first(logits, top_k)
    check_log_probs(
        ids, read.gather(1, ids), run.last_logits, what="the final stream read through norm and unembedding"
    )
    before, after = shifted_probabilities(logits[0], shift)
    lie = spread(logits[0])
    norm, kept = model.final_norm_parts, ids[0]
    return NextTokenLogitsResult(
        provenance=model.provenance(),
        tokens=tokens,
        stream_norm=float(stream.float().norm()),
        norm_divisor=None if norm is None else float(norm.scale(stream)),
        normed_norm=float(normed.float().norm()),
        scale=model.unembedding.scale,
        softcap=model.unembedding.softcap,
        top_ids=kept,
        top_projections=_projections(model.unembedding, normed, kept).cpu(),
        top_logits=best[0],
        top_probs=before[kept].float(),
        shift=shift,
        shifted_probs=after[kept].float(),
        shift_difference=float((before - after).abs().max()),
        log_sum_exp=lie.log_sum_exp,
        logit_mean=lie.mean,
        logit_std=lie.std,
        bin_counts=lie.counts,
        bin_start=lie.start,
        bin_width=lie.width,
        vocabulary=vocabulary(model.tokenizer, kept.tolist()),
    )


def _projections(
    unembedding: Unembedding, normed: Float[Tensor, "1 d_model"], ids: Int[Tensor, " k"]
) -> Float[Tensor, " k"]:
    """What the unembedding gives some tokens, before scale and softcap."""
    rows = unembedding.rows(ids)
    plain = Unembedding(weight=rows.weight, bias=rows.bias)
    return plain.linear(normed.to(rows.weight.dtype))[0].float()
