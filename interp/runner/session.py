"""What happens at each port during one forward: interventions are applied, captures are taken, and it is known when all is done."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from interp.errors import UsageError
from interp.runner.ports import Binding, Port, batched
from interp.runner.selection import Selection, take_positions
from interp.sites import Site

Reducer = Callable[[Tensor, Site], Tensor]
RowReducer = Callable[[Tensor, Site, int], Tensor]


@dataclass(frozen=True, eq=False)
class Change:
    """One intervention at one site: ``values`` gives the new numbers of the selected region from the old.

    ``middle`` marks a change of resid_mid that is made through what attention adds: the block adds to its own copy of the stream.
    """

    site: Site
    selection: Selection
    values: Callable[[Tensor], Tensor]
    middle: bool = False

    def apply(self, value: Tensor, offset: int, stream: Mapping[int, Tensor], owned: bool) -> tuple[Tensor, bool]:
        """The changed tensor, and whether it is a copy of our own. ``stream`` holds the stashed resid_pre by layer."""
        if not self.middle:
            return self.selection.change(value, self.site, offset, self.values, owned=owned)
        assert self.site.layer is not None, "resid_mid has a layer"
        before = stream[self.site.layer]
        return self.selection.change(before + value, self.site, offset, self.values, owned=True)[0] - before, True


class StopForward(Exception):
    """Ends a forward early: everything that was asked for is there. Never leaves the runner."""


@dataclass(eq=False)
class Visit:
    """What is to be done with one site: changes in order, then the capture, which sees the changed tensor."""

    binding: Binding
    changes: list[Change] = field(default_factory=list)
    capture: bool = False
    stash: bool = False
    reduce: Callable[..., Tensor] | None = None
    by_query: bool = False

    @property
    def in_rows(self) -> bool:
        """Whether some queries at a time are enough: a capture by query that nothing changes."""
        return self.by_query and not self.changes


@dataclass(kw_only=True, eq=False)
class Session:
    """The state of one forward. ``flow`` is called with every raw tensor that passes a port of interest."""

    visits: dict[Port, list[Visit]]
    n_rows: int
    n_pos: int
    offset: int = 0
    lengths: Sequence[int] | None = None  # of right-padded prompts; None when no row is padded
    columns: Sequence[Sequence[int]] | None = None  # positions to keep of each row; None keeps all
    device: torch.device | None = None
    needs_logits: bool = True
    gradients: bool = False
    captured: dict[Site, Tensor] = field(default_factory=dict)
    raw: dict[Port, Tensor] = field(default_factory=dict)
    stream: dict[int, Tensor] = field(default_factory=dict)
    _left: set[Port] = field(default_factory=set)

    def __post_init__(self) -> None:
        self._left = set(self.visits)

    def flow(self, port: Port, raw: Tensor, *, past: int = 0) -> Tensor:
        """Applies what is to be done at ``port`` and returns the raw tensor to go on with (the same object if unchanged).

        ``past`` columns at the front come from a KV cache: they can be changed and are not captured.
        """
        shaped = batched(raw, self.n_pos)
        changed = False
        for visit in self.visits[port]:
            value = visit.binding.read(shaped)
            if value.shape[0] < self.n_rows and visit.binding.site.kind == "pos_embed":
                value = shaped = value.expand(self.n_rows, *value.shape[1:])  # computed once for the whole batch
            if visit.changes:
                owned = False
                for change in visit.changes:
                    value, owned = change.apply(value, self.offset - past, self.stream, owned)
                shaped, changed = visit.binding.write(shaped, value), True
            if visit.stash and visit.binding.site.layer is not None:
                self.stream[visit.binding.site.layer] = value
            if visit.capture:
                self._collect(visit, value[:, past:] if past else value)
        out = (shaped.reshape(-1, raw.shape[-1]) if raw.dim() == 2 else shaped) if changed else raw
        if self.gradients:
            self.raw[port] = out
        return out

    def passed(self, port: Port) -> None:
        """Notes that a port is done; raises StopForward when it was the last and no logits are wanted."""
        if self.needs_logits:
            return
        self._left.discard(port)
        if not self._left:
            raise StopForward

    def takes_rows(self, port: Port) -> bool:
        """Whether all that is asked of ``port`` can be answered by ``flow_rows``."""
        return not self.gradients and all(visit.in_rows for visit in self.visits[port])

    def flow_rows(self, port: Port, blocks: Iterable[tuple[int, Tensor]]) -> None:
        """Captures from blocks of consecutive queries (first query, rows), none of which is kept."""
        (visit,) = self.visits[port]
        parts = [self._reduced_rows(visit, rows, first) for first, rows in blocks]
        self._keep(visit, torch.cat(parts, 2) if len(parts) > 1 else parts[0])

    def _collect(self, visit: Visit, value: Tensor) -> None:
        if visit.by_query:
            self._keep(visit, self._reduced_rows(visit, value, 0))
            return
        site = visit.binding.site
        if self.lengths is not None:
            value = blank_padding(value, site.info.position_axis, self.lengths, self.offset)
        if self.columns is not None:
            value = take_positions(value, site.info.position_axis, self.columns)
        if visit.reduce is not None:
            value = visit.reduce(value, site)
        self.captured[site] = value if self.device is None else _moved(value, self.device)

    def _reduced_rows(self, visit: Visit, rows: Tensor, first: int) -> Tensor:
        site, first = visit.binding.site, self.offset + first
        if self.lengths is not None:
            rows = blank_padding(rows, 2, self.lengths, first)
        assert visit.reduce is not None, "a capture by query has a reducer"
        reduced = visit.reduce(rows, site, first)
        if reduced.dim() < 3 or reduced.shape[2] != rows.shape[2]:
            raise UsageError(
                f"a reducer by query keeps the queries on axis 2: it got {list(rows.shape)} of {site.name} and returned "
                f"{list(reduced.shape)}"
            )
        return reduced

    def _keep(self, visit: Visit, reduced: Tensor) -> None:
        kept = reduced if self.columns is None else take_positions(reduced, 2, self.columns)
        self.captured[visit.binding.site] = kept if self.device is None else _moved(kept, self.device)


def blank_padding(value: Tensor, axis: int, lengths: Sequence[int], offset: int = 0) -> Tensor:
    """NaN at the positions that only fill up a shorter prompt, so that no number there is taken for a measurement."""
    if not value.is_floating_point():
        return value
    value = value.expand(len(lengths), *value.shape[1:])
    positions = torch.arange(offset, offset + value.shape[axis], device=value.device)
    padded = positions[None] >= torch.tensor(list(lengths), device=value.device)[:, None]
    shape = [1] * value.dim()
    shape[0], shape[axis] = padded.shape
    return value.masked_fill(padded.view(shape), float("nan"))


def _moved(value: Tensor, device: torch.device) -> Tensor:
    """``value`` on ``device``. From a GPU to the host the copy runs beside the forward; the run waits for it at its end."""
    if value.device == device:
        return value
    if value.device.type == "cuda" and device.type == "cpu":
        host = torch.empty(value.shape, dtype=value.dtype, pin_memory=True)
        return host.copy_(value.detach(), non_blocking=True)
    return value.to(device)
