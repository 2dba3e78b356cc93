"""Path patching: what a head tells another head, or the logits, directly (Wang et al. 2022, "Interpretability in the Wild")."""

import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import torch
from torch import Tensor

from interp.analyzers.activation_patching import groups_of
from interp.analyzers.activation_patching_pairs import PromptPair, Targets, checked_metric, read_pairs
from interp.analyzers.activation_patching_sweep import Group
from interp.analyzers.metrics import Metric, MetricLike, metric_of
from interp.analyzers.path_patching_ends import LOGITS, ReceiverLike, read_receivers, read_senders
from interp.analyzers.path_patching_result import PathPatchingResult
from interp.analyzers.path_patching_rows import Paths, Reading
from interp.analyzers.sweep import read_metrics, request_key, sweep, tokens_at_once
from interp.checkpoint import Checkpoint
from interp.errors import UsageError, is_out_of_memory
from interp.heads import Head, HeadLike
from interp.models.cache import Step
from interp.models.progress import silent
from interp.runner.model import Model
from interp.runner.run import Run


def path_patching(
    model: Model,
    clean: Any,
    corrupted: Any,
    *,
    sender: "str | Head | Iterable[HeadLike] | None" = None,
    receiver: "ReceiverLike | Iterable[ReceiverLike]" = LOGITS,
    target: Targets = None,
    against: Targets = None,
    metric: MetricLike | None = None,
    direction: str = "noising",
    positions: int | Sequence[int] | None = None,
    freeze_mlps: bool = False,
    confidence: float = 0.95,
    seed: int = 0,
    checkpoint: str | os.PathLike[str] | None = None,
    progress: Step | None = None,
) -> PathPatchingResult:
    """Patches the paths from one head to others, or to the logits, that pass through no other head (Wang et al. 2022, section 3.1).

    Two passes over the base run, for every sender:

    1. the sender's output (its z) is that of the source run, every other head's that of the base run; MLPs and norms behind the
       sender compute anew on what reaches them, as in the paper, or stay those of the base run with ``freeze_mlps``. With the logits
       as receiver the metric is read here.
    2. the receivers' queries, keys or values are what they were in the first pass, and all else computes from them. The metric is read.

    As no head but the sender differs in the first pass, nothing moves between positions there: a sender patched at some ``positions``
    reaches its receivers at these. Under grouped-query attention a group of heads shares its keys and values, so the path to the
    keys of one is the path to those of all; the result names them. Each pass is resumed from the sender's or the receivers' layer.

    Args:
        model: the model.
        clean: a prompt, or a list of prompts; pairs, answers and metric are given as for ``activation_patching``.
        corrupted: as many prompts, each with as many tokens as its clean one.
        sender: heads such as "L5H3" or ["5.3", (7, 1)], each patched alone; None takes all heads before the last receiver.
        receiver: "logits", or inputs of heads, patched together: "L9H6.q", "L9H6.q,L9H9.q" or [(Head(9, 6), "q"), ...].
        target: the answer that is scored.
        against: the answer it is weighed against.
        metric: as for ``activation_patching``.
        direction: "noising" puts the corrupted prompt's head into the clean run, as the paper does; "denoising" the other way round.
        positions: where the sender is patched, counted in the prompt, negative from its end; None is everywhere.
        freeze_mlps: whether MLPs keep their outputs of the base run, so that only what passes through none counts.
        confidence: of the bootstrap intervals over pairs.
        seed: of the bootstrap.
        checkpoint: a file for finished parts, from which a stopped call goes on to the same result. It is removed at the end.
        progress: called with (what, done, total) as senders are done.

    Raises:
        UsageError: a sender that lies before no receiver, a receiver in the first layer, an unknown input or direction, a position
            outside a prompt, and all that ``activation_patching`` refuses of pairs and answers.
        NumericsError: the model's logits are not finite.
        MemoryLimitError: not even one pair fits in memory.

    """
    atlas = model.atlas
    receivers = read_receivers(receiver, atlas.n_layers, atlas.n_heads, atlas.n_kv_heads)
    senders = read_senders(sender, receivers, atlas.n_layers, atlas.n_heads)
    spec = checked_metric(metric, against, direction=direction, confidence=confidence)
    pairs = read_pairs(model, clean, corrupted, target, against, spec)
    places = None if positions is None else (positions,) if isinstance(positions, int) else tuple(positions)
    for pair in pairs:
        _columns(pair, places)  # refuses a position that a prompt lacks before anything runs
    request = _Request(
        model=model,
        pairs=pairs,
        spec=spec,
        senders=senders,
        reading=Reading.of(receivers, atlas.n_heads // atlas.n_kv_heads),
        direction=direction,
        positions=places,
        freeze_mlps=freeze_mlps,
    )
    for site in request.reading.heads:
        model.sites.sites(site)
    with Checkpoint(checkpoint, request.key(list(map(str, receivers)))) as kept:
        measured = _measure(request, kept, progress or silent)
    return PathPatchingResult(
        provenance=model.provenance(seed=seed),
        clean=tuple(pair.clean.prompt for pair in pairs),
        corrupted=tuple(pair.corrupted.prompt for pair in pairs),
        answers=tuple(pair.clean.answer for pair in pairs),
        against=tuple(pair.clean.against for pair in pairs if pair.clean.against is not None),
        direction=direction,
        metric=measured.metric.name,
        metric_unit=measured.metric.unit,
        senders=senders,
        receivers=receivers,
        positions=places,
        freeze_mlps=freeze_mlps,
        clean_metric=measured.clean,
        corrupted_metric=measured.corrupted,
        patched=measured.patched,
        confidence=confidence,
        seed=seed,
    )


@dataclass(frozen=True, kw_only=True, eq=False)
class _Request:
    """What is asked of every group of pairs."""

    model: Model
    pairs: Sequence[PromptPair]
    spec: MetricLike
    senders: tuple[Head, ...]
    reading: Reading
    direction: str
    positions: tuple[int, ...] | None
    freeze_mlps: bool

    def key(self, receivers: Sequence[str]) -> Any:
        """What the work is, for its checkpoint."""
        spec = (
            self.spec
            if isinstance(self.spec, str)
            else f"{self.spec.__module__}.{getattr(self.spec, '__qualname__', '')}"
        )
        questions = [question for pair in self.pairs for question in (pair.clean, pair.corrupted)]
        return request_key(
            self.model,
            analysis="path_patching",
            prompts=[[q.asked.ids, q.answer.ids, q.against.ids if q.against else None] for q in questions],
            metric=spec,
            senders=list(map(str, self.senders)),
            receivers=receivers,
            direction=self.direction,
            positions=self.positions,
            freeze_mlps=self.freeze_mlps,
        )

    def runs(self, group: Group) -> tuple[Run, Run, Metric]:
        """The clean and the corrupted run of a group, the base one ready to resume, and the metric of its pairs."""
        clean = [self.pairs[index].clean for index in group.pairs]
        corrupted = [self.pairs[index].corrupted for index in group.pairs]
        columns = range(-1, 0) if callable(self.spec) else range(-clean[0].n_answer, 0)
        frozen = ["attn.z", "mlp_out"] if self.freeze_mlps else ["attn.z"]
        found = [
            self.model.run(
                [question.asked for question in questions],
                frozen if is_base else "attn.z",
                logits=columns,
                resumable=is_base,
            )
            for questions, is_base in ((clean, self.direction == "noising"), (corrupted, self.direction == "denoising"))
        ]
        return found[0], found[1], metric_of(self.spec, clean, reference=found[0].logits)


class _Measured:
    """The metric of each pair: clean, corrupted, and patched for each sender."""

    def __init__(self, n_pairs: int, n_layers: int, n_heads: int) -> None:
        self.clean, self.corrupted = torch.full((2, n_pairs), torch.nan)
        self.patched = torch.full((n_pairs, n_layers, n_heads), torch.nan)
        self.metric: Metric


def _measure(request: _Request, kept: Checkpoint, progress: Step) -> _Measured:
    """All groups of pairs; those that do not fit in memory are halved."""
    atlas = request.model.atlas
    measured = _Measured(len(request.pairs), atlas.n_layers, atlas.n_heads)
    waiting = groups_of(request.pairs, custom=callable(request.spec))
    total, done = len(request.pairs) * len(request.senders), 0
    while waiting:
        group = waiting.pop(0)
        try:
            _measure_group(
                request, group, measured, kept, lambda now, before=done: progress("paths", before + now, total)
            )
        except (MemoryError, RuntimeError) as error:
            if len(group.pairs) == 1 or not is_out_of_memory(error):
                raise
            request.model.notify(
                f"{len(group.pairs)} pairs do not fit in memory; going on with {len(group.pairs) // 2} at once"
            )
            waiting = [*group.halves(), *waiting]
            continue
        done += len(group.pairs) * len(request.senders)
    progress("paths", total, total)
    return measured


def _measure_group(
    request: _Request, group: Group, measured: _Measured, kept: Checkpoint, step: Callable[[int], None]
) -> None:
    clean, corrupted, metric = request.runs(group)
    here, noising = list(group.pairs), request.direction == "noising"
    measured.metric = metric
    measured.clean[here] = read_metrics(clean, [metric])[:, 0]
    measured.corrupted[here] = read_metrics(corrupted, [metric])[:, 0]
    base, source = (clean, corrupted) if noising else (corrupted, clean)
    columns = sorted({place for index in group.pairs for place in _columns(request.pairs[index], request.positions)})
    if not request.reading.heads:  # to the logits nothing moves between positions, so only those that are read matter
        columns = [place for place in columns if place >= group.first_read]
    if not columns:
        for head in request.senders:
            measured.patched[here, head.layer, head.head] = (measured.clean if noising else measured.corrupted)[here]
        return
    paths = Paths(base, source, columns, request.reading, freeze_mlps=request.freeze_mlps)
    budget, done = tokens_at_once(base), 0
    for layer, chosen in groupby(request.senders, key=lambda head: head.layer):
        heads = list(chosen)
        name = f"pairs {here[0]}-{here[-1]}x{len(here)}/layer {layer}"
        step(done)
        part = paths.part(name, heads, budget, known=kept.get(name) is not None)
        found = sweep(base, [part], [metric], what="paths", progress=silent, kept=kept, token_budget=budget)[name]
        values: Tensor = found[:, 0].unflatten(0, (len(heads), len(here)))
        for head, of_pairs in zip(heads, values, strict=True):
            measured.patched[here, layer, head.head] = of_pairs
        done += len(part.rows)


def _columns(pair: PromptPair, positions: tuple[int, ...] | None) -> list[int]:
    """Where the sender is patched: the positions asked for, or all from the first token on that differs."""
    if positions is None:
        return list(range(pair.differs.index(True), len(pair.differs)))
    if not positions:
        raise UsageError("no positions given; leave positions out for all of them")
    return sorted({pair.clean.prompt.position(position) for position in positions})
