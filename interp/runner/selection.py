"""Which part of a tensor an intervention or a capture means: rows of the batch, token positions, heads."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from interp.errors import UsageError, out_of_range
from interp.interventions import Indices, Region
from interp.sites import Site


@dataclass(frozen=True, eq=False)
class Selection:
    """A region with every index resolved: from 0, and positions per row (prompts of a batch may differ in length)."""

    rows: tuple[int, ...] | None = None
    positions: tuple[tuple[int, ...], ...] | None = None
    heads: tuple[int, ...] | None = None

    @property
    def first_position(self) -> int:
        """The earliest position of the region."""
        return 0 if self.positions is None else min((min(row) for row in self.positions if row), default=0)

    def change(
        self, x: Tensor, site: Site, offset: int, function: Callable[[Tensor], Tensor], *, owned: bool = False
    ) -> tuple[Tensor, bool]:
        """``x`` with ``function`` applied to the region, and whether the result is a copy of our own.

        ``offset`` is the position of the first column of ``x``. A tensor of the model's is never written to; one that is ``owned``
        (the copy made for an earlier change) is.
        """
        if self.rows is None and self.positions is None and self.heads is None:
            return function(x), False
        rows = tuple(range(x.shape[0])) if self.rows is None else self.rows
        columns = self._columns(rows, x.shape[site.info.position_axis], offset)
        if not rows or not columns[0]:
            return x, owned
        index = self._index(x, site, rows, columns)
        out = x if owned else x.clone()
        out[index] = function(x[index])
        return out, True

    def _columns(self, rows: Sequence[int], n_pos: int, offset: int) -> list[list[int]]:
        if self.positions is None:
            return [list(range(n_pos)) for _ in rows]
        columns = [[p - offset for p in self.positions[i] if 0 <= p - offset < n_pos] for i in range(len(rows))]
        if len({len(row) for row in columns}) > 1:
            raise UsageError("an intervention must reach the same number of positions in every prompt of the batch")
        return columns

    def _index(self, x: Tensor, site: Site, rows: Sequence[int], columns: list[list[int]]) -> tuple[Tensor, ...]:
        row = torch.tensor(rows, dtype=torch.long, device=x.device)
        column = torch.tensor(columns, dtype=torch.long, device=x.device)
        head_axis = site.info.head_axis
        if head_axis is None:
            return row[:, None], column
        heads = range(x.shape[head_axis]) if self.heads is None else self.heads
        head = torch.tensor(list(heads), dtype=torch.long, device=x.device)
        if head_axis < site.info.position_axis:
            return row[:, None, None], head[None, :, None], column[:, None, :]
        return row[:, None, None], column[:, :, None], head[None, None, :]


def resolve(region: Region, site: Site, lengths: Sequence[int], n_heads: int) -> Selection:
    """The region's indices for a batch of prompts with these lengths. Raises UsageError for one out of range."""
    rows = None if region.prompts is None else _resolve("prompt", region.prompts, len(lengths))
    positions = None
    if region.positions is not None:
        chosen = range(len(lengths)) if rows is None else rows
        positions = tuple(_resolve("position", region.positions, lengths[row]) for row in chosen)
    heads = None
    if region.heads is not None:
        if site.info.head_axis is None:
            raise UsageError(f"the site {site.kind!r} has no heads; leave heads out or use attn.z")
        heads = _resolve("head", region.heads, n_heads)
    return Selection(rows, positions, heads)


def resolve_positions(positions: Indices, lengths: Sequence[int]) -> tuple[tuple[int, ...], ...]:
    """Positions from 0 for each prompt; negative ones count from the prompt's own end."""
    return tuple(_resolve("position", positions, length) for length in lengths)


def take_positions(x: Tensor, axis: int, columns: Sequence[Sequence[int]]) -> Tensor:
    """The chosen columns of ``x`` along ``axis`` (1 or 2), a list for each row, as a tensor of its own."""
    index = torch.tensor([list(row) for row in columns], dtype=torch.long, device=x.device)
    if axis == 1:
        return x[torch.arange(x.shape[0], device=x.device)[:, None], index]
    return x.transpose(1, axis)[torch.arange(x.shape[0], device=x.device)[:, None], index].transpose(1, axis)


def _resolve(what: str, indices: Indices, size: int) -> tuple[int, ...]:
    values = (indices,) if isinstance(indices, int) else tuple(int(index) for index in indices)
    for index in values:
        if not -size <= index < size:
            raise out_of_range(what, index, size)
    return tuple(index % size for index in values)
