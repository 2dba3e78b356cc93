"""Ablation: what the model loses without each of its heads, MLPs, attentions or whole blocks, by exact resuming."""

import os
from collections.abc import Iterable, Sequence
from typing import Any

from interp.analyzers.ablation_result import AblationResult
from interp.analyzers.ablation_texts import (
    LOSS,
    Item,
    one_for_each,
    question_items,
    reference_texts,
    text_items,
    text_tokens,
)
from interp.analyzers.ablation_units import units_of
from interp.analyzers.ablation_work import Ablating
from interp.analyzers.answers import AnswerLike
from interp.analyzers.metrics import METRICS, UNITS, MetricLike
from interp.checkpoint import Checkpoint
from interp.errors import UsageError, unknown
from interp.models.cache import Step
from interp.models.progress import silent
from interp.runner.batch import is_single_prompt
from interp.runner.model import Model
from interp.sites import read_layer
from interp.tokens import Tokens

METHODS = ("zero", "mean", "resample")
_UNITS = {LOSS: "nats", **UNITS}


def ablation(
    model: Model,
    prompts: Any,
    *,
    units: str | Iterable[str] = "heads",
    method: str = "mean",
    metric: MetricLike | None = None,
    target: AnswerLike | Sequence[AnswerLike] | None = None,
    against: AnswerLike | Sequence[AnswerLike] | None = None,
    reference: Any = None,
    layers: int | Sequence[int] | None = None,
    positions: int | Sequence[int] | None = None,
    samples: int = 5,
    context: int | None = None,
    seed: int = 0,
    confidence: float = 0.95,
    checkpoint: str | os.PathLike[str] | None = None,
    progress: Step | None = None,
) -> AblationResult:
    """Takes components of a model out, one at a time, and measures what changes.

    What changes is always the metric without the component less the metric of the whole model, so a component that helps raises the
    loss by its ablation and lowers a probability.

    Args:
        model: the model.
        prompts: texts, conversations or token ids, one or several.
        units: "heads" (z of one head), "attention" (what the attention of a layer adds to the stream), "mlps" (what its MLP adds), "layers"
            (both, so that the stream passes the block unchanged where they are zero), or several of them.
        method: what the output becomes. "zero"; "mean", its mean over the reference texts and their positions, the first position apart;
            "resample", its value at the same position of another reference text.
        metric: "loss" (mean -ln p of the tokens of each text after its first, in nats a token), "probability", "log_prob", "kl" or
            "logit_difference" of an answer (see ``interp.activation_patching``), or a function from logits [batch d_vocab] at the last
            position to one number a row. None: the loss, or with a target its log probability, or with ``against`` too the
            logit difference.
        target: the answer: text, a token id or a list of ids; for several prompts also a list with one for each. None: what the model
            itself ranks first.
        against: the answer that the target is weighed against, given likewise.
        reference: texts that means and draws come from; None takes the prompts themselves.
        layers: whose components are taken out, all if None.
        positions: where the output is replaced, all if None; negative counts from the end of the prompt.
        samples: draws of "resample".
        context: the longest piece in tokens that a text is cut into; None: the model's context, at most 1,024. Pieces of a text
            share one token, so that each but the first is predicted once. Prompts with an answer are never cut.
        seed: of the draws.
        confidence: of the intervals (Student t over prompts; over draws where there is one prompt).
        checkpoint: a file for what is done, so that a stopped call goes on when it is made again; removed at the end.
        progress: called with (what, done, total).

    Zero is far from what later layers ever meet, and so tells how much rests on the component's presence; a mean keeps what does not
    depend on the text; another text's value keeps the distribution (Heimersheim & Nanda 2024). For "resample" each prompt takes
    reference texts with at least as many tokens as itself, never itself, each draw with equal chance and independent of the others.

    Raises:
        UsageError: an unknown unit, method or metric, a layer or position out of range, a prompt without a second token, no reference text
            that is long enough, a target for the loss, a checkpoint of other work.
        NumericsError: the model's logits hold NaN.

    """
    asked = _metric_of(metric, target, against)
    kinds, chosen = units_of(units), _layers(model, layers)
    _check(method, samples, confidence, reference)
    if checkpoint is not None and callable(asked):
        raise UsageError(
            "a checkpoint cannot tell one custom metric from another; leave checkpoint out, or name a metric"
        )
    items, texts = _read(model, prompts, asked, target, against, context)
    pool = [item.tokens for item in items] if reference is None else reference_texts(model, reference, context)
    work = Ablating(
        model=model,
        items=items,
        metric=asked,
        units=kinds,
        layers=chosen,
        method=method,
        pool=pool,
        own_pool=reference is None,
        positions=_positions(items, positions),
        samples=samples if method == "resample" else 1,
        seed=seed,
        step=progress or silent,
    )
    with Checkpoint(checkpoint, {} if checkpoint is None else work.key()) as kept:
        whole, ablated = work.run(kept)
    questions = [item.question for item in items if item.question is not None]
    return AblationResult(
        provenance=model.provenance(seed=seed),
        prompts=tuple(texts),
        units=kinds,
        layers=chosen,
        n_heads=model.atlas.n_heads,
        method=method,
        metric=asked if isinstance(asked, str) else getattr(asked, "__name__", "custom"),
        metric_unit=_UNITS.get(asked, "") if isinstance(asked, str) else "",
        answers=tuple(question.answer for question in questions),
        against=tuple(question.against for question in questions if question.against is not None),
        own_reference=reference is None and method != "zero",
        n_reference=0 if method == "zero" else len(pool),
        at_positions=None if positions is None else _indices(positions),
        context=max(len(item.tokens) for item in items) if asked == LOSS else 0,
        seed=seed,
        confidence=confidence,
        whole=whole,
        ablated=ablated,
    )


def _read(
    model: Model, prompts: Any, metric: MetricLike, target: Any, against: Any, context: int | None
) -> tuple[list[Item], list[Tokens]]:
    """What the model runs on, and the prompts themselves."""
    single = is_single_prompt(prompts)
    given = [prompts] if single else list(prompts)
    if not given:
        raise UsageError("there is no prompt; give at least one")
    if metric == LOSS:
        texts = [text_tokens(model, text) for text in given]
        return text_items(model, texts, context), texts
    targets, others = (
        one_for_each(name, answers, len(given), single=single)
        for name, answers in (("target", target), ("against", against))
    )
    items = question_items(model, given, targets, others)
    return items, [item.asked for item in items]


def _metric_of(metric: MetricLike | None, target: Any, against: Any) -> MetricLike:
    """The metric that is meant, checked as far as it can be without a model."""
    if metric is None:
        return LOSS if target is None and against is None else "log_prob" if against is None else "logit_difference"
    if isinstance(metric, str) and metric not in (LOSS, *METRICS):
        raise unknown("metric", metric, (LOSS, *METRICS))
    if metric == LOSS and not (target is None and against is None):
        raise UsageError(
            f"the loss is of the text itself and has no target; leave target out, or choose another metric: {', '.join(METRICS)}"
        )
    if metric == "logit_difference" and against is None:
        raise UsageError("the metric 'logit_difference' needs an answer against the target; give against=...")
    return metric


def _check(method: str, samples: int, confidence: float, reference: Any) -> None:
    if method not in METHODS:
        raise unknown("method", method, METHODS)
    if samples < 1:
        raise UsageError(f"samples is {samples}; give 1 or more")
    if not 0 < confidence < 1:
        raise UsageError(f"confidence is {confidence}; valid: between 0 and 1, both excluded")
    if method == "zero" and reference is not None:
        raise UsageError(
            "zero ablation takes nothing from reference texts; leave reference out, or choose method='mean'"
        )


def _layers(model: Model, layers: int | Sequence[int] | None) -> tuple[int, ...]:
    n_layers = model.atlas.n_layers
    if layers is None:
        return tuple(range(n_layers))
    chosen = tuple(sorted({read_layer(layer, n_layers) for layer in _indices(layers)}))
    if not chosen:
        raise UsageError(f"no layers given; valid: 0 to {n_layers - 1}, or leave layers out for all of them")
    return chosen


def _positions(items: Sequence[Item], positions: int | Sequence[int] | None) -> list[tuple[int, ...] | None]:
    """The positions to ablate in each item, from 0."""
    if positions is None:
        return [None] * len(items)
    if len({item.prompt for item in items}) < len(items):
        raise UsageError(
            "positions are of whole prompts, and a text is cut into pieces here; give shorter texts, or no positions"
        )
    chosen = _indices(positions)
    if not chosen:
        raise UsageError("no positions given; leave positions out for all of them")
    return [tuple(sorted({item.asked.position(index) for index in chosen})) for item in items]


def _indices(given: int | Sequence[int]) -> tuple[int, ...]:
    return (given,) if isinstance(given, int) else tuple(given)
