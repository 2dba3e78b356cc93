"""The runs of attribution patching: gradients of a group of pairs, and patches of the cells that are checked."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from interp.analyzers.activation_patching_pairs import PromptPair
from interp.analyzers.activation_patching_sweep import Cell, Cut, Exchange, Group, patch_at
from interp.analyzers.answers import Question
from interp.analyzers.metrics import Metric, MetricLike, metric_of
from interp.analyzers.sweep import Part, read_metrics, sweep
from interp.cache import ActivationCache
from interp.checkpoint import Checkpoint
from interp.errors import NumericsError
from interp.interventions import Steer
from interp.maths.attribution_patching import first_order, places_between
from interp.models.progress import silent
from interp.runner.memory import least_free, most_tokens
from interp.runner.model import Model
from interp.runner.run import Run
from interp.sites import Site

ENTRY = Site("resid_pre", 0)
"""What integrated gradients interpolate: the stream entering the first block."""
_SHARE_OF_FREE = 0.4
_MOST_TOKENS = 1024
"""Tokens whose forward is held for one backward on a CPU, even where more would fit."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Estimates:
    """Of a group of pairs: the metric of both runs, and for each site the estimated change of each cell."""

    metric: Metric
    clean: Float[Tensor, " batch"]
    corrupted: Float[Tensor, " batch"]
    changes: dict[str, Float[Tensor, "batch layer ..."]]


@dataclass(frozen=True, kw_only=True, eq=False)
class Slopes:
    """What is asked of every group: which cells, of which metric, in which direction, from how many gradients."""

    model: Model
    pairs: Sequence[PromptPair]
    spec: MetricLike
    cuts: Sequence[Cut]
    layers: tuple[int, ...]
    direction: str
    steps: int

    @property
    def sites(self) -> tuple[Site, ...]:
        """Every site of the cuts, layer by layer."""
        return tuple(Site(cut.site, layer) for cut in self.cuts for layer in cut.layers)

    def estimates(self, group: Group) -> Estimates:
        """The estimates of a group: from two forwards and a backward, or for several steps as many backwards and two forwards more."""
        source = self._run(self._questions(group, source=True), self._captured)
        base = None if self.steps == 1 else self._run(self._questions(group, source=False), self._captured)
        metric = self._metric(group, source if self.direction == "denoising" else base)
        gradients, last = self._gradients(group, metric, source, base)
        here, logits = (last.cache, last.logits) if base is None else (base.cache, base.logits)
        assert source.logits is not None, "logits were asked for"
        assert logits is not None, "logits were asked for"
        ends = [self._score(metric, run_logits) for run_logits in (source.logits, logits)]
        clean, corrupted = ends if self.direction == "denoising" else reversed(ends)
        changes = {cut.site: self._cells(cut, group, source.cache, here, gradients) for cut in self.cuts}
        return Estimates(metric=metric, clean=clean, corrupted=corrupted, changes=changes)

    def exact_changes(self, group: Group, cells: Sequence[tuple[int, Cell]]) -> list[float]:
        """What patching each cell changes, patched - base, by exact resuming. Each comes with the place of its cut."""
        used = dict.fromkeys(Site(self.cuts[place].site, cell.layer) for place, cell in cells)
        source = self._run(self._questions(group, source=True), tuple(used))
        base = self._run(self._questions(group, source=False), (), resumable=True)
        metric = self._metric(group, source if self.direction == "denoising" else base)
        exchange = Exchange(group=group, source=source, base=base)
        part = Part(
            name="checked",
            rows=[(patch_at(exchange, self.cuts[place].site, cell),) for place, cell in cells],
            prompts=[cell.pair for _, cell in cells],
        )
        found = sweep(base, [part], [metric], what="exact check", progress=silent, kept=Checkpoint(None, {}))
        before = read_metrics(base, [metric])[:, 0].double()
        return (found[part.name][:, 0].double() - before[part.prompts]).tolist()

    def _gradients(
        self, group: Group, metric: Metric, source: Run, base: Run | None
    ) -> tuple[dict[Site, Tensor], "_Last"]:
        """The mean gradient of each site over the runs between base and source, and the last of these runs."""
        asked = [question.asked for question in self._questions(group, source=False)]
        rows = range(len(asked))
        total: dict[Site, Tensor] = {}
        found = None
        for place in places_between(self.steps):
            way = () if base is None else Steer(ENTRY.name, source.cache[ENTRY] - base.cache[ENTRY], scale=place)
            found = self.model.gradients(
                asked,
                lambda logits: metric.score(logits, rows).sum(),
                self.sites,
                interventions=way,
                logits=metric.positions,
            )
            for site in self.sites:
                gradient = found.gradients[site].float() / self.steps
                total[site] = gradient if site not in total else total[site] + gradient
        assert found is not None, "there is at least one step"
        return total, _Last(cache=found.cache, logits=found.logits)

    def _cells(
        self,
        cut: Cut,
        group: Group,
        source: ActivationCache,
        base: ActivationCache,
        gradients: dict[Site, Tensor],
    ) -> Float[Tensor, "batch layer ..."]:
        """The estimated change of every cell of a cut; NaN in layers that lack the site."""
        values = torch.full((len(group.pairs), len(self.layers), *cut.shape(group)), torch.nan, dtype=torch.float64)
        for layer in cut.layers:
            site = Site(cut.site, layer)
            found = first_order(source[site], base[site], gradients[site], _kept_axes(cut, site)).cpu().double()
            found = found[..., : group.n_prompt] if cut.placed else found
            if not found.isfinite().all():
                raise NumericsError(
                    f"the gradient of {site.name} is NaN or infinite; check the weights, or use dtype='float32'"
                )
            values[:, self.layers.index(layer)] = found
        return values

    @property
    def _captured(self) -> tuple[Site, ...]:
        return tuple(dict.fromkeys([*self.sites, *([ENTRY] if self.steps > 1 else [])]))

    def _questions(self, group: Group, *, source: bool) -> list[Question]:
        """The questions of the source run, or of the base run, of a group."""
        clean = source == (self.direction == "denoising")
        return [self.pairs[index].clean if clean else self.pairs[index].corrupted for index in group.pairs]

    def _run(self, questions: Sequence[Question], capture: tuple[Site, ...], *, resumable: bool = False) -> Run:
        positions = range(-1, 0) if callable(self.spec) else range(-questions[0].n_answer, 0)
        asked = [question.asked for question in questions]
        return self.model.run(asked, capture, logits=positions, resumable=resumable)

    def _metric(self, group: Group, clean: Run | None) -> Metric:
        """The metric of a group's pairs; ``clean`` is their clean run where it is there already."""
        questions = [self.pairs[index].clean for index in group.pairs]
        return metric_of(self.spec, questions, reference=None if clean is None else clean.logits)

    def _score(self, metric: Metric, logits: Tensor) -> Float[Tensor, " batch"]:
        values = metric.score(logits, range(len(logits))).detach().cpu().double()
        if not values.isfinite().all():
            raise NumericsError("the model's logits hold NaN or infinity; check the weights, or use dtype='float32'")
        return values


@dataclass(frozen=True, kw_only=True, eq=False)
class _Last:
    """Activations and logits of the run that the last gradient was taken in: the base run's own where there is one step."""

    cache: ActivationCache
    logits: Tensor


def fitting(slopes: Slopes, group: Group) -> Iterator[tuple[Group, int]]:
    """A group in parts, each with the place of its first pair, whose forwards fit in memory while they wait for their backward.

    All that every block computed is held until then.
    """
    atlas = slopes.model.atlas
    n_pos = len(group.differs[0])
    width = 12 * atlas.d_model + 5 * (atlas.d_mlp or 4 * atlas.d_model) + 8 * atlas.n_heads * atlas.d_head
    a_token = slopes.model.dtype.itemsize * atlas.n_layers * (width + 3 * atlas.n_heads * n_pos)
    free = least_free(slopes.model)
    most = most_tokens(slopes.model.device, _MOST_TOKENS)
    tokens = _MOST_TOKENS if free is None else min(most, int(_SHARE_OF_FREE * free / a_token))
    size = max(1, tokens // n_pos)
    for start in range(0, len(group.pairs), size):
        chosen = slice(start, start + size)
        yield replace(group, pairs=group.pairs[chosen], differs=group.differs[chosen]), start


def _kept_axes(cut: Cut, site: Site) -> tuple[int, ...]:
    """The axes of the site that tell its cells apart: pairs, then heads, then positions."""
    head = [] if cut.heads == (None,) else [site.info.head_axis]
    place = [site.info.position_axis] if cut.placed else []
    return (0, *(axis for axis in [*head, *place] if axis is not None))
