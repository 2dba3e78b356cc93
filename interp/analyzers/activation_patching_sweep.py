"""The sweep of activation patching: which cells a patch can reach, the patch for each, and the metric with it in place."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from jaxtyping import Float
from torch import Tensor

from interp.analyzers.entries import LOCAL, streams_after
from interp.analyzers.metrics import Metric
from interp.analyzers.sweep import Part, read_metrics, sweep
from interp.checkpoint import Checkpoint
from interp.interventions import Patch
from interp.models.cache import Step
from interp.runner.model import Model
from interp.runner.run import Run
from interp.sites import KINDS, Site

_OF_THE_TOKEN = ("resid_pre", "attn.q", "attn.k", "attn.v")
"""Sites that depend, in the first block, on nothing but the token at their own position."""
_READ_LATER = ("resid_pre", "attn.k", "attn.v")
"""Sites that even in the last block reach later positions."""
_ROWS_A_PART = 512
_STREAM_BYTES = 256 << 20
"""Streams that are held at once where heads are patched at single positions."""


@dataclass(frozen=True)
class Cell:
    """One patch to one pair of a group; None stands for all heads, or all positions from ``start`` on."""

    pair: int
    layer: int
    head: int | None
    position: int | None
    start: int


@dataclass(frozen=True, kw_only=True, eq=False)
class Group:
    """Pairs of one length, which run side by side: ``pairs`` are their numbers.

    ``differs`` says for each pair and position whether something differs there between the two runs' tokens. ``n_prompt`` positions
    are the prompt's, the answer's own tokens follow; the logits are read from ``first_read`` on.
    """

    pairs: tuple[int, ...]
    differs: tuple[tuple[bool, ...], ...]
    n_prompt: int
    first_read: int

    def halves(self) -> "tuple[Group, Group]":
        """The group as two smaller ones."""
        middle = len(self.pairs) // 2
        cuts = slice(0, middle), slice(middle, None)
        first, second = (replace(self, pairs=self.pairs[cut], differs=self.differs[cut]) for cut in cuts)
        return first, second


@dataclass(frozen=True, kw_only=True)
class Cut:
    """How one site is cut into cells: in which layers, by which heads and whether by position."""

    site: str
    by: str
    layers: tuple[int, ...]
    n_heads: int
    n_layers: int

    @classmethod
    def of(cls, model: Model, site: str, by: str, layers: Sequence[int]) -> "Cut":
        """For a site of a model; layers that lack the site are left out."""
        owned = model.sites.available[site]
        n_heads = model.atlas.n_kv_heads if "kv_head" in KINDS[site].axes else model.atlas.n_heads
        chosen = tuple(layer for layer in layers if layer in owned)
        return cls(site=site, by=by, layers=chosen, n_heads=n_heads, n_layers=model.atlas.n_layers)

    @property
    def heads(self) -> tuple[int | None, ...]:
        """The heads of a layer; None alone for all of them at once."""
        return tuple(range(self.n_heads)) if self.by in ("head", "head_position") else (None,)

    @property
    def placed(self) -> bool:
        """Whether a cell is one position."""
        return self.by in ("position", "head_position")

    def shape(self, group: Group) -> tuple[int, ...]:
        """The axes of one layer's cells."""
        return (*([self.n_heads] if self.heads != (None,) else []), *([group.n_prompt] if self.placed else []))

    def cells(self, group: Group, heads: Sequence[int | None] | None = None) -> Iterator[Cell]:
        """The cells that a patch can change, by where their change starts, layer by layer. What it cannot is left out.

        A patch changes nothing before the first token that differs; nothing in the first block where it is a function of a token
        that does not; and nothing in the last block at a position whose logits are not read, unless attention still carries it on.
        """
        firsts = [row.index(True) for row in group.differs]
        starts = range(min(firsts), group.n_prompt) if self.placed else sorted(set(firsts))
        for start in starts:
            for layer in self.layers:
                pairs = [pair for pair, first in enumerate(firsts) if self._starts(group, pair, first, layer, start)]
                for pair in pairs:
                    for head in self.heads if heads is None else heads:
                        yield Cell(pair, layer, head, start if self.placed else None, start)

    def _starts(self, group: Group, pair: int, first: int, layer: int, start: int) -> bool:
        """Whether a pair, different from ``first`` on, has cells that start here."""
        return first <= start and self._reaches(group, pair, layer, start) if self.placed else first == start

    def _reaches(self, group: Group, pair: int, layer: int, position: int) -> bool:
        if layer == 0 and self.site in _OF_THE_TOKEN and not group.differs[pair][position]:
            return False
        return layer < self.n_layers - 1 or position >= group.first_read or self.site in _READ_LATER


@dataclass(frozen=True, kw_only=True, eq=False)
class Exchange:
    """Two runs of a group: activations of ``source`` go into ``base``, which is resumable."""

    group: Group
    source: Run
    base: Run


def captures_of(cuts: Sequence[Cut]) -> tuple[list[str], list[str]]:
    """What the source run and the base run have to capture."""
    source = [cut.site if cut.site in LOCAL else f"{cut.site}@{','.join(map(str, cut.layers))}" for cut in cuts]
    return source, [cut.site for cut in cuts if cut.site in LOCAL and cut.by == "head_position"]


def patched_metric(
    exchange: Exchange, cuts: Sequence[Cut], metric: Metric, layers: Sequence[int], kept: Checkpoint, step: Step
) -> dict[str, Float[Tensor, "batch layer ..."]]:
    """For each site the metric of each pair with each cell patched; cells that cannot change hold the base run's own.

    NaN in layers that lack the site. ``step`` is told how many cells of the group are done.
    """
    group, base = exchange.group, read_metrics(exchange.base, [metric])[:, 0]
    found: dict[str, Tensor] = {}
    total = sum(1 for cut in cuts for _ in cut.cells(group))
    done = 0
    for cut in cuts:
        shape = cut.shape(group)
        values = torch.full((len(base), len(layers), *shape), torch.nan)
        rows = [layers.index(layer) for layer in cut.layers]
        values[:, rows] = base.reshape(-1, 1, *[1] * len(shape)).expand(-1, len(rows), *shape)
        for heads in _head_blocks(exchange, cut):
            patches = _Patches(exchange, cut, heads)
            parts = _parts(group, cut, heads)
            sizes = {name: len(cells) for name, cells in parts.items()}
            numbers = sweep(
                exchange.base,
                [_part(name, cells, patches, kept) for name, cells in parts.items()],
                [metric],
                what="patching",
                progress=lambda what, now, _, before=done: step(what, before + now, total),
                kept=kept,
            )
            for name, cells in parts.items():
                for cell, value in zip(cells, numbers[name][:, 0].tolist(), strict=True):
                    place = [index for index in (cell.head, cell.position) if index is not None]
                    values[(cell.pair, layers.index(cell.layer), *place)] = value
            done += sum(sizes.values())
        found[cut.site] = values
    return found


def _head_blocks(exchange: Exchange, cut: Cut) -> list[tuple[int | None, ...]]:
    """The heads whose patches are prepared together."""
    if not _by_streams(exchange, cut) or cut.heads == (None,):
        return [cut.heads]
    assert exchange.base.snapshot is not None, "the base run is resumable"
    size = max(1, _STREAM_BYTES // sum(stream.nbytes for stream in exchange.base.snapshot.stream))
    return [cut.heads[start : start + size] for start in range(0, len(cut.heads), size)]


def _by_streams(exchange: Exchange, cut: Cut) -> bool:
    """Whether a patch is made in the stream behind its block, which then need not run.

    Not for whole heads: their streams would cost as many blocks as they save.
    """
    everywhere = len(exchange.base.model.sites.available[cut.site]) == cut.n_layers
    return cut.site in LOCAL and everywhere and cut.by != "head"


def _parts(group: Group, cut: Cut, heads: Sequence[int | None]) -> dict[str, list[Cell]]:
    """The cells of each part by its name: those whose change starts at one position, not too many at once."""
    by_start: dict[int, list[Cell]] = {}
    for cell in cut.cells(group, heads):
        by_start.setdefault(cell.start, []).append(cell)
    pairs = f"{group.pairs[0]}-{group.pairs[-1]}x{len(group.pairs)}"
    block = "all" if heads == (None,) else f"{heads[0]}-{heads[-1]}"
    return {
        f"pairs {pairs}/{cut.site}/heads {block}/from {start}/{at}": cells[at : at + _ROWS_A_PART]
        for start, cells in by_start.items()
        for at in range(0, len(cells), _ROWS_A_PART)
    }


def _part(name: str, cells: Sequence[Cell], patches: "_Patches", kept: Checkpoint) -> Part:
    known = kept.get(name) is not None
    rows = [() if known else (patches.of(cell),) for cell in cells]
    return Part(name=name, rows=rows, prompts=[cell.pair for cell in cells])


class _Patches:
    """The patch of each cell of a cut: one object for all pairs, whose value holds an entry for each of them."""

    def __init__(self, exchange: Exchange, cut: Cut, heads: Sequence[int | None]) -> None:
        self._exchange, self._cut, self._heads = exchange, cut, heads
        self._streams_wanted = _by_streams(exchange, cut)
        self._made: dict[tuple[int, int | None, int | None, int], Patch] = {}

    def of(self, cell: Cell) -> Patch:
        """The patch that makes a cell."""
        key = cell.layer, cell.head, cell.position, cell.start
        if key not in self._made:
            self._made[key] = (
                self._after_block(cell) if self._streams_wanted else patch_at(self._exchange, self._cut.site, cell)
            )
        return self._made[key]

    def _after_block(self, cell: Cell) -> Patch:
        last = cell.layer == self._cut.n_layers - 1
        site = Site("resid_post", cell.layer) if last else Site("resid_pre", cell.layer + 1)
        chosen = _positions(self._exchange, cell)
        value = self._streams[cell.head][cell.layer].narrow(1, chosen[0], len(chosen))
        return Patch(site.name, value, positions=chosen, by_prompt=True)

    @cached_property
    def _streams(self) -> dict[int | None, tuple[Tensor, ...]]:
        """By head the stream leaving each block with the site patched in it, at every position alone."""
        exchange, kind = self._exchange, self._cut.site
        model = exchange.base.model
        sites = [Site(kind, layer) for layer in range(self._cut.n_layers)]
        source = torch.stack([exchange.source.cache[site] for site in sites])
        if self._heads == (None,):
            return {None: streams_after(model, exchange.base, kind, source)}
        base = torch.stack([exchange.base.cache[site] for site in sites])
        found: dict[int | None, tuple[Tensor, ...]] = {}
        for head in self._heads:
            assert head is not None, "heads are given one by one"
            mixed = base.clone()
            mixed[:, :, :, head] = source[:, :, :, head]
            found[head] = streams_after(model, exchange.base, kind, mixed)
        return found


def patch_at(exchange: Exchange, kind: str, cell: Cell) -> Patch:
    """The patch of a cell at its own site: the source run's values there, for each pair its own."""
    site = Site(kind, cell.layer)
    value, chosen = exchange.source.cache[site], _positions(exchange, cell)
    value = value.narrow(site.info.position_axis, chosen[0], len(chosen))
    if cell.head is not None and site.info.head_axis is not None:
        value = value.narrow(site.info.head_axis, cell.head, 1)
    return Patch(site.name, value, positions=chosen, heads=cell.head, by_prompt=True)


def _positions(exchange: Exchange, cell: Cell) -> tuple[int, ...]:
    end = len(exchange.base.tokens[0])
    return (cell.position,) if cell.position is not None else tuple(range(cell.start, end))
