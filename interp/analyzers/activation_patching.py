"""Activation patching: which activations carry the difference between two prompts (Wang et al. 2022, Heimersheim and Nanda 2024)."""

import os
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from interp.analyzers.activation_patching_pairs import PromptPair, Targets, checked_metric, read_pairs
from interp.analyzers.activation_patching_result import AXES_BY, ActivationPatchingResult
from interp.analyzers.activation_patching_sweep import Cut, Exchange, Group, captures_of, patched_metric
from interp.analyzers.answers import Question
from interp.analyzers.metrics import Metric, MetricLike, metric_of
from interp.analyzers.sweep import read_metrics, request_key
from interp.checkpoint import Checkpoint
from interp.errors import UsageError, is_out_of_memory, unknown
from interp.interventions import Patch
from interp.maths.patching import SMALLEST_DIFFERENCE
from interp.models.cache import Step
from interp.models.progress import silent
from interp.runner.model import Model
from interp.runner.plan import Plan
from interp.runner.run import Run
from interp.sites import ALIASES, Site, read_layer

STREAM_SITES = ("resid_pre", "resid_mid", "resid_post", "attn_out", "mlp_out")
HEAD_SITES = ("attn.z", "attn.q", "attn.k", "attn.v", "attn.pattern")
SITES = STREAM_SITES + HEAD_SITES
"""The sites that can be patched."""


def activation_patching(
    model: Model,
    clean: Any,
    corrupted: Any,
    *,
    target: Targets = None,
    against: Targets = None,
    metric: MetricLike | None = None,
    sites: str | Sequence[str] = ("resid_pre",),
    by: str = "position",
    direction: str = "denoising",
    layers: int | Sequence[int] | None = None,
    confidence: float = 0.95,
    seed: int = 0,
    checkpoint: str | os.PathLike[str] | None = None,
    progress: Step | None = None,
) -> ActivationPatchingResult:
    """Patches activations of one run into another, cell by cell, and measures how much of their difference goes with them.

    Denoising puts the clean prompt's activation into the corrupted run: what brings the answer back is enough for it. Noising puts
    the corrupted one into the clean run: what breaks the answer is needed for it (Heimersheim and Nanda 2024, section 2). Effects
    are shares of the metric's difference between the clean and the corrupted run, with a bootstrap interval over pairs.

    The numbers are those of one full forward for each cell, up to rounding; each cell is resumed from its layer and position. Not run at
    all, because causal attention carries nothing there, are positions before the first token in which a pair differs, equal tokens in
    the first block, and positions of the last block whose logits are not read: they hold the unpatched run's own value.

    Args:
        model: the model.
        clean: a prompt, or a list of prompts (text, conversations or token ids).
        corrupted: as many prompts, each with as many tokens as its clean one. By "position" and "head_position" all pairs must have
            one length.
        target: the answer that is scored, of one token or several: one for all pairs or one for each. None is what the model ranks
            first after the clean prompt. An answer of several tokens is scored with its earlier tokens given.
        against: the answer it is weighed against by the logit difference. None is what the model ranks first after the corrupted prompt.
        metric: "probability", "log_prob", "logit_difference", "kl" (from the clean run's distribution, in nats) or a function from
            logits [batch d_vocab] at the last position to [batch]. None is the logit difference where ``against`` is given, else the
            probability.
        sites: any of resid_pre, resid_mid, resid_post, attn_out, mlp_out, attn.z, attn.q, attn.k, attn.v and attn.pattern. The
            pattern at a position is the row of that query. attn.k and attn.v have key/value heads, which query heads may share.
        by: "position" (all heads at one position of the prompt), "layer" (all positions), and for the sites of attention "head" (one
            head, all positions) or "head_position".
        direction: "denoising" or "noising".
        layers: the layers to patch, all if None.
        confidence: of the bootstrap intervals.
        seed: of the bootstrap.
        checkpoint: a file for finished parts, from which a stopped call goes on to the same result. It is removed at the end.
        progress: called with (what, done, total) as cells are done.

    Raises:
        UsageError: pairs that differ in length or not at all, an answer that is the corrupted run's own or the one it is weighed
            against, a site that the model lacks or that cannot be cut this way, another unknown value, or the checkpoint of other work.
        NumericsError: the model's logits are not finite.
        MemoryLimitError: not even one pair fits in memory.

    """
    chosen = checked_sites(model, sites, by)
    wanted = checked_layers(model, layers, chosen)
    spec = checked_metric(metric, against, direction=direction, confidence=confidence)
    pairs = read_pairs(model, clean, corrupted, target, against, spec)
    if "position" in AXES_BY[by]:
        check_one_length(pairs, by)
    cuts = [Cut.of(model, site, by, wanted) for site in chosen]
    with Checkpoint(checkpoint, _key(model, pairs, spec, chosen, by, direction, wanted)) as kept:
        work = _Work(model, pairs, spec, cuts, direction, wanted, kept, progress or silent)
        measured = work.done()
    result = ActivationPatchingResult(
        provenance=model.provenance(seed=seed),
        clean=tuple(pair.clean.prompt for pair in pairs),
        corrupted=tuple(pair.corrupted.prompt for pair in pairs),
        answers=tuple(pair.clean.answer for pair in pairs),
        against=tuple(pair.clean.against for pair in pairs if pair.clean.against is not None),
        direction=direction,
        sites=chosen,
        by=by,
        layers=wanted,
        n_heads=model.atlas.n_heads,
        confidence=confidence,
        seed=seed,
        **measured,
    )
    _tell(model, result)
    return result


class _Work:
    """One call's sweep over all groups of pairs."""

    def __init__(
        self,
        model: Model,
        pairs: Sequence[PromptPair],
        spec: MetricLike,
        cuts: Sequence[Cut],
        direction: str,
        layers: tuple[int, ...],
        kept: Checkpoint,
        progress: Step,
    ) -> None:
        self._model, self._pairs, self._spec, self._cuts = model, pairs, spec, cuts
        self._direction, self._layers, self._kept, self._progress = direction, layers, kept, progress
        self._clean, self._corrupted = torch.full((2, len(pairs)), torch.nan)
        self._patched: dict[str, Tensor] = {}
        self._metric: Metric | None = None

    def done(self) -> dict[str, Any]:
        """The metric's name and unit, and its values by the fields of the result. Groups that do not fit in memory are halved."""
        waiting = list(groups_of(self._pairs, custom=callable(self._spec)))
        total = sum(1 for group in waiting for cut in self._cuts for _ in cut.cells(group))
        finished = 0
        while waiting:
            group = waiting.pop(0)
            try:
                self._measure(group, lambda what, now, _, before=finished: self._progress(what, before + now, total))
            except (MemoryError, RuntimeError) as error:
                if len(group.pairs) == 1 or not is_out_of_memory(error):
                    raise
                self._model.notify(
                    f"{len(group.pairs)} pairs do not fit in memory; going on with {len(group.pairs) // 2} at once"
                )
                waiting = [*group.halves(), *waiting]
                continue
            finished += sum(1 for cut in self._cuts for _ in cut.cells(group))
        assert self._metric is not None, "there is at least one pair"
        return {
            "metric": self._metric.name,
            "metric_unit": self._metric.unit,
            "clean_metric": self._clean,
            "corrupted_metric": self._corrupted,
            "patched": self._patched,
        }

    def _measure(self, group: Group, step: Step) -> None:
        clean, corrupted, metric = self._runs(group)
        self._metric = metric
        here = list(group.pairs)
        self._clean[here] = read_metrics(clean, [metric])[:, 0]
        self._corrupted[here] = read_metrics(corrupted, [metric])[:, 0]
        source, base = (clean, corrupted) if self._direction == "denoising" else (corrupted, clean)
        exchange = Exchange(group=group, source=source, base=base)
        found = patched_metric(exchange, self._cuts, metric, self._layers, self._kept, step)
        for site, values in found.items():
            if site not in self._patched:
                self._patched[site] = torch.full((len(self._pairs), *values.shape[1:]), torch.nan)
            self._patched[site][here] = values

    def _runs(self, group: Group) -> tuple[Run, Run, Metric]:
        """The clean and the corrupted run of a group, and the metric of its pairs."""
        clean = [self._pairs[index].clean for index in group.pairs]
        corrupted = [self._pairs[index].corrupted for index in group.pairs]
        of_source, of_base = captures_of(self._cuts)
        denoising = self._direction == "denoising"
        positions = range(-1, 0) if callable(self._spec) else range(-clean[0].n_answer, 0)
        runs = [
            self._model.run(
                [question.asked for question in questions],
                of_source if is_source else of_base,
                logits=positions,
                resumable=not is_source,
                cache_device=self._model.together,
            )
            for questions, is_source in ((clean, denoising), (corrupted, not denoising))
        ]
        return runs[0], runs[1], metric_of(self._spec, clean, reference=runs[0].logits)


def groups_of(pairs: Sequence[PromptPair], *, custom: bool) -> list[Group]:
    """The pairs by the length of their prompts and answers."""
    by_size: dict[tuple[int, int], list[int]] = {}
    for index, pair in enumerate(pairs):
        by_size.setdefault((pair.n_prompt, pair.clean.n_answer), []).append(index)
    return [
        Group(
            pairs=tuple(indices),
            differs=tuple(pairs[index].differs for index in indices),
            n_prompt=n_prompt,
            first_read=n_prompt + n_answer - 2 if custom else n_prompt - 1,
        )
        for (n_prompt, n_answer), indices in by_size.items()
    ]


def checked_sites(model: Model, sites: str | Sequence[str], by: str) -> tuple[str, ...]:
    """The sites by their own names. Raises UsageError for those that the model lacks or that cannot be cut this way."""
    given = (sites,) if isinstance(sites, str) else tuple(sites)
    chosen = tuple(dict.fromkeys(ALIASES.get(site, site) for site in given))
    if not chosen:
        raise UsageError(f"no sites given; valid: {', '.join(SITES)}")
    if by not in AXES_BY:
        raise unknown("way of cutting a site", by, AXES_BY)
    for site in chosen:
        if site not in SITES:
            raise unknown("site to patch", site, SITES)
        if "head" in AXES_BY[by] and site in STREAM_SITES:
            raise UsageError(
                f"{site!r} has no heads, so it cannot be patched by {by!r}; valid for it: by='position' or 'layer'; "
                f"by={by!r} is for {', '.join(HEAD_SITES)}"
            )
        # The runner says so itself where the model lacks a site or cannot change it; asked before anything runs.
        for found in model.sites.sites(site):
            Plan(model.sites).intervene(Patch(found.name, torch.zeros(())), (1,))
    return chosen


def checked_layers(model: Model, layers: int | Sequence[int] | None, sites: Sequence[str]) -> tuple[int, ...]:
    n_layers = model.atlas.n_layers
    if layers is None:
        return tuple(sorted({site.layer or 0 for site in model.sites.sites(list(sites))}))
    chosen = (layers,) if isinstance(layers, int) else tuple(layers)
    if not chosen:
        raise UsageError(f"no layers given; valid: 0 to {n_layers - 1}, or leave layers out for all of them")
    wanted = tuple(sorted({read_layer(layer, n_layers) for layer in chosen}))
    model.sites.sites([Site(site, layer) for site in sites for layer in wanted])
    return wanted


def check_one_length(pairs: Sequence[PromptPair], by: str) -> None:
    lengths = sorted({pair.n_prompt for pair in pairs})
    if len(lengths) > 1:
        counts = ", ".join(f"pair {index} {pair.n_prompt}" for index, pair in enumerate(pairs[:8]))
        raise UsageError(
            f"by={by!r} needs pairs of one length, so that a position means one place in all of them; they have "
            f"{lengths[0]} to {lengths[-1]} tokens ({counts}{', ...' if len(pairs) > 8 else ''}); patch by='layer' or 'head', or "
            "give pairs of one length at a time"
        )


def _key(
    model: Model,
    pairs: Sequence[PromptPair],
    spec: str | Callable[[Tensor], Tensor],
    sites: Sequence[str],
    by: str,
    direction: str,
    layers: Sequence[int],
) -> Any:
    def ids(questions: Sequence[Question]) -> list[Any]:
        return [[q.prompt.ids, q.answer.ids, q.against.ids if q.against else None] for q in questions]

    return request_key(
        model,
        analysis="activation_patching",
        clean=ids([pair.clean for pair in pairs]),
        corrupted=ids([pair.corrupted for pair in pairs]),
        metric=spec
        if isinstance(spec, str)
        else f"{spec.__module__}.{getattr(spec, '__qualname__', type(spec).__name__)}",
        sites=sites,
        by=by,
        direction=direction,
        layers=layers,
    )


def _tell(model: Model, result: ActivationPatchingResult) -> None:
    """Says to the model's listener when there is nothing to be a share of."""
    if abs(result.total_effect().value) < SMALLEST_DIFFERENCE:
        model.notify(
            f"the {result.metric} of the clean and of the corrupted prompts do not differ on average; effects are NaN, the metric "
            "of every patch is in the result"
        )
