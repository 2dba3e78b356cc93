"""Metrics of patching and ablation: one number for each row of logits, whatever was changed in the row."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from interp.analyzers.answers import Question
from interp.errors import UsageError, unknown
from interp.maths.metrics import answer_log_prob, kl_divergence, logit_difference

METRICS = ("probability", "log_prob", "logit_difference", "kl")
UNITS = {"probability": "probability", "log_prob": "nats", "logit_difference": "logits", "kl": "nats"}
MetricLike = str | Callable[[Tensor], Tensor]
"""A name among ``METRICS``, or a function from logits [batch d_vocab] at the last position to one number a row."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Metric:
    """What is read off the logits of the rows of a sweep.

    ``positions`` are those to unembed, counted from each prompt's end. ``score(logits, prompts)`` takes their logits
    [batch pos d_vocab] and the prompt of each row, and gives [batch]; it can be differentiated.
    """

    name: str
    unit: str
    positions: tuple[int, ...]
    score: Callable[[Tensor, Sequence[int]], Tensor]


def metric_of(
    spec: MetricLike,
    questions: Sequence[Question],
    *,
    reference: Float[Tensor, "batch pos d_vocab"] | None = None,
) -> Metric:
    """The metric called ``spec`` of these questions, one for each prompt of a run.

    ``probability`` is the product over the answer's tokens, ``log_prob`` its logarithm; ``logit_difference`` is between the first
    tokens of the answer and of the one against it, at the prompt's last position; ``kl`` is KL(reference || row), the mean over
    the answer's positions, with ``reference`` the logits of an unchanged run there.

    Raises UsageError for an unknown name, answers of several lengths, or a logit difference with nothing against the answer.
    """
    lengths = sorted({question.n_answer for question in questions})
    if len(lengths) != 1:
        raise UsageError(f"the answers have {lengths[0]} to {lengths[-1]} tokens; run answers of one length at a time")
    positions = tuple(range(-lengths[0], 0))
    if callable(spec):
        return Metric(name=getattr(spec, "__name__", "custom"), unit="", positions=positions[-1:], score=_custom(spec))
    if spec not in METRICS:
        raise unknown("metric", spec, METRICS)
    return Metric(name=spec, unit=UNITS[spec], positions=positions, score=_score(spec, questions, reference))


def _score(
    name: str, questions: Sequence[Question], reference: Tensor | None
) -> Callable[[Tensor, Sequence[int]], Tensor]:
    answers = torch.tensor([question.answer.ids for question in questions])
    if name == "kl":
        if reference is None:
            raise UsageError("the metric 'kl' needs the logits of an unchanged run to compare with")
        return lambda logits, prompts: kl_divergence(logits.float(), reference[list(prompts)].to(logits.device).float())
    if name == "logit_difference":
        if any(question.against is None for question in questions):
            raise UsageError("the metric 'logit_difference' needs an answer against the target; give against=...")
        others = torch.tensor([question.against.ids[0] for question in questions if question.against is not None])

        def difference(logits: Tensor, prompts: Sequence[int]) -> Tensor:
            chosen = torch.tensor(list(prompts))
            first = logits[:, 0].float()
            return logit_difference(first, answers[chosen, 0].to(logits.device), others[chosen].to(logits.device))

        return difference

    def log_prob(logits: Tensor, prompts: Sequence[int]) -> Tensor:
        return answer_log_prob(logits.float(), answers[torch.tensor(list(prompts))].to(logits.device))

    return log_prob if name == "log_prob" else lambda logits, prompts: log_prob(logits, prompts).exp()


def _custom(function: Callable[[Tensor], Tensor]) -> Callable[[Tensor, Sequence[int]], Tensor]:
    def score(logits: Tensor, prompts: Sequence[int]) -> Tensor:
        found = function(logits[:, -1])
        if not isinstance(found, Tensor) or found.shape != logits.shape[:1]:
            got = list(found.shape) if isinstance(found, Tensor) else type(found).__name__
            raise UsageError(
                f"a custom metric takes logits [batch d_vocab] and returns one number a row, [batch]; for {len(logits)} rows it "
                f"returned {got}"
            )
        return found

    return score
