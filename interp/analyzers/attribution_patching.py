"""Attribution patching: a patching sweep estimated from gradients, and checked on a sample of its cells (Nanda 2023)."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from interp.analyzers.activation_patching import check_one_length, checked_layers, checked_sites, groups_of
from interp.analyzers.activation_patching_pairs import Targets, checked_metric, read_pairs
from interp.analyzers.activation_patching_result import AXES_BY
from interp.analyzers.activation_patching_sweep import Cell, Cut, Group
from interp.analyzers.attribution_patching_result import AttributionPatchingResult, CheckedCells, agreement
from interp.analyzers.attribution_patching_work import Slopes, fitting
from interp.analyzers.metrics import Metric, MetricLike
from interp.errors import UsageError
from interp.models.cache import Step
from interp.models.progress import silent
from interp.runner.model import Model


def attribution_patching(
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
    steps: int = 1,
    check: int = 100,
    confidence: float = 0.95,
    seed: int = 0,
    progress: Step | None = None,
) -> AttributionPatchingResult:
    """Estimates ``activation_patching`` to first order, all cells at once, and says how well the estimates rank.

    The base run is the one that a patch is made to (denoising: the corrupted prompt's), the source run the other. For each cell

        patched - base  ~  sum over the cell of (source - base) * d metric / d activation (at the base)

    from two forwards and a backward (Nanda 2023; Syed et al. 2023, equation 3). The gradient is that of the whole computation behind the
    site. A patch is a large step, and where the metric bends on the way the estimate can be far off, also in sign: attention
    that is saturated in the base run hides what its queries and keys do, and early streams do worst (Kramar et al. 2024, AtP*;
    its corrections for queries and keys and for cancelling paths are not made here). So ``check`` cells of single pairs, drawn
    at random from all in which anything can change, are also patched, and the result holds Spearman's rank correlation of
    estimated and exact changes with a bootstrap interval over these cells.

    With ``steps`` above 1, integrated gradients (Sundararajan et al. 2017): the mean gradient over runs whose first block is entered by
    base + a (source - base), a = (i + 1/2) / steps (midpoint rule). Only the embeddings are interpolated and later activations
    follow from them, since the sites' own activations, moved layer by layer, would contradict each other (Hanna et al. 2024, "Have
    faith in faithfulness", EAP-IG, whose rule is a = i / steps). For resid_pre of layer 0 the estimates of all positions then sum to
    metric(source) - metric(base), the closer the more steps.

    Args:
        model: the model.
        clean: a prompt, or a list of prompts; as for ``activation_patching``, like all that is not listed here.
        corrupted: as many prompts, each with as many tokens as its clean one.
        target: the answer that is scored.
        against: the answer it is weighed against.
        metric: as there; a function must be differentiable. "kl" has no slope at the clean run, so noising needs ``steps`` of 2 or more.
        sites: as there; each must lie on the path to the logits.
        by: as there.
        direction: "denoising" or "noising".
        layers: the layers, all if None.
        steps: gradients along the way from base to source; 1 is the gradient at the base.
        check: how many cells are also patched exactly; 0 leaves that out, and nothing is known of the estimates' quality.
        confidence: of the bootstrap intervals.
        seed: of the bootstrap and of the draw of checked cells.
        progress: called with (what, done, total) as pairs and checked cells are done.

    Raises:
        UsageError: as ``activation_patching``; fewer than one step, a negative check, or "kl" with noising and one step.
        NumericsError: logits or gradients are not finite.

    """
    if steps < 1:
        raise UsageError(f"steps is {steps}; give 1 (the gradient at the base run) or more (integrated gradients)")
    if check < 0:
        raise UsageError(f"check is {check}; give 0 (no cell is checked) or more")
    chosen = checked_sites(model, sites, by)
    wanted = checked_layers(model, layers, chosen)
    spec = checked_metric(metric, against, direction=direction, confidence=confidence)
    if spec == "kl" and direction == "noising" and steps == 1:
        raise UsageError(
            "the gradient of 'kl' is zero at the clean run, where the divergence is least, so noising cannot be estimated from it; "
            "give steps=10, direction='denoising' or another metric"
        )
    pairs = read_pairs(model, clean, corrupted, target, against, spec)
    if "position" in AXES_BY[by]:
        check_one_length(pairs, by)
    cuts = [Cut.of(model, site, by, wanted) for site in chosen]
    slopes = Slopes(model=model, pairs=pairs, spec=spec, cuts=cuts, layers=wanted, direction=direction, steps=steps)
    work = _Work(slopes, check, torch.Generator().manual_seed(seed), progress or silent)
    checked = work.checked() if check else None
    return AttributionPatchingResult(
        provenance=model.provenance(seed=seed),
        clean=tuple(pair.clean.prompt for pair in pairs),
        corrupted=tuple(pair.corrupted.prompt for pair in pairs),
        answers=tuple(pair.clean.answer for pair in pairs),
        against=tuple(pair.clean.against for pair in pairs if pair.clean.against is not None),
        direction=direction,
        metric=work.metric.name,
        metric_unit=work.metric.unit,
        sites=chosen,
        by=by,
        layers=wanted,
        n_heads=model.atlas.n_heads,
        clean_metric=work.clean,
        corrupted_metric=work.corrupted,
        patched=work.patched,
        confidence=confidence,
        seed=seed,
        steps=steps,
        checked=checked,
        correlation=None if checked is None else agreement(checked.estimated, checked.exact, confidence, seed),
    )


class _Work:
    """One call's estimates and checks over all groups of pairs."""

    def __init__(self, slopes: Slopes, check: int, generator: torch.Generator, progress: Step) -> None:
        self._slopes, pairs = slopes, slopes.pairs
        self.clean, self.corrupted = torch.full((2, len(pairs)), torch.nan, dtype=torch.float64)
        self.patched: dict[str, Tensor] = {}
        self._changes: dict[str, Tensor] = {}
        self._found: list[tuple[_Drawn, int, float]] = []  # with the pair and the exact change
        groups = groups_of(pairs, custom=callable(slopes.spec))
        # Drawn before groups are cut to fit in memory, so that the cells do not depend on the machine.
        self._n_cells, drawn = _draw(groups, slopes.cuts, check, generator)
        n_drawn, done = sum(map(len, drawn)), 0
        for group, chosen in zip(groups, drawn, strict=True):
            for part, first in fitting(slopes, group):
                progress("gradients", done, len(pairs))
                self.metric = self._estimate(part)
                done += len(part.pairs)
                cells = [item.moved(first) for item in chosen if first <= item.cell.pair < first + len(part.pairs)]
                if cells:
                    progress("exact check", len(self._found), n_drawn)
                    exact = slopes.exact_changes(part, [(item.place, item.cell) for item in cells])
                    self._found += zip(cells, [part.pairs[item.cell.pair] for item in cells], exact, strict=True)
                    progress("exact check", len(self._found), n_drawn)
        progress("gradients", done, len(pairs))

    def _estimate(self, group: Group) -> Metric:
        estimates = self._slopes.estimates(group)
        here = list(group.pairs)
        self.clean[here], self.corrupted[here] = estimates.clean, estimates.corrupted
        base = estimates.corrupted if self._slopes.direction == "denoising" else estimates.clean
        for site, change in estimates.changes.items():
            if site not in self.patched:
                self.patched[site] = torch.full((len(self.clean), *change.shape[1:]), torch.nan, dtype=torch.float64)
                self._changes[site] = self.patched[site].clone()
            self._changes[site][here] = change
            self.patched[site][here] = base.reshape(-1, *[1] * (change.dim() - 1)) + change
        return estimates.metric

    def checked(self) -> CheckedCells:
        """The cells that were patched, with both changes."""
        slopes = self._slopes
        found = sorted(self._found, key=lambda item: item[0].number)
        cells = [item.cell for item, _, _ in found]
        places = [item.place for item, _, _ in found]
        pairs = [pair for _, pair, _ in found]
        estimated = [
            float(self._changes[slopes.cuts[place].site][(pair, slopes.layers.index(cell.layer), *_place(cell))])
            for place, pair, cell in zip(places, pairs, cells, strict=True)
        ]
        return CheckedCells(
            site=torch.tensor(places, dtype=torch.long),
            pair=torch.tensor(pairs, dtype=torch.long),
            layer=torch.tensor([cell.layer for cell in cells], dtype=torch.long),
            head=torch.tensor([-1 if cell.head is None else cell.head for cell in cells], dtype=torch.long),
            position=torch.tensor([-1 if cell.position is None else cell.position for cell in cells], dtype=torch.long),
            estimated=torch.tensor(estimated, dtype=torch.float64),
            exact=torch.tensor([change for _, _, change in found], dtype=torch.float64),
            n_cells=self._n_cells,
        )


def _place(cell: Cell) -> tuple[int, ...]:
    return tuple(index for index in (cell.head, cell.position) if index is not None)


@dataclass(frozen=True, kw_only=True)
class _Drawn:
    """A cell to check: its number among all cells, and the place of its cut."""

    number: int
    place: int
    cell: Cell

    def moved(self, first: int) -> "_Drawn":
        """The same in a part of its group that begins with pair ``first``."""
        return replace(self, cell=replace(self.cell, pair=self.cell.pair - first))


def _draw(
    groups: Sequence[Group], cuts: Sequence[Cut], check: int, generator: torch.Generator
) -> tuple[int, list[list[_Drawn]]]:
    """How many cells there are in which a patch can change anything, and those drawn of each group."""
    drawn: list[list[_Drawn]] = [[] for _ in groups]
    if not check:
        return 0, drawn
    total = sum(1 for group in groups for cut in cuts for _ in cut.cells(group))
    chosen = set(torch.randperm(total, generator=generator)[:check].tolist())
    number = 0
    for group, found in zip(groups, drawn, strict=True):
        for place, cut in enumerate(cuts):
            for cell in cut.cells(group):
                if number in chosen:
                    found.append(_Drawn(number=number, place=place, cell=cell))
                number += 1
    return total, drawn
