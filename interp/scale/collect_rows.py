"""The rows of a shard: its windows through the model in batches that are planned from the shard alone.

Numbers depend in their last bits on the shape of a batch, so a batch is never planned from the memory or the time of the moment. Rows
go from where the forward made them to where they stand in the shard, without a copy in between on a CPU.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import accumulate

import torch
from jaxtyping import Int
from torch import Tensor

from interp.runner.batch import by_length
from interp.runner.model import Model
from interp.runner.plan import Capture
from interp.scale.collect_shards import Part, Shard
from interp.scale.positions import PositionFilter
from interp.sites import Site
from interp.tokens import Tokens


@dataclass(frozen=True, kw_only=True)
class Span:
    """Rows of one window: which ones of the shard they are, which row of the batch it is in, and its positions that are kept."""

    start: int
    place: int
    positions: range | list[int]

    @property
    def stop(self) -> int:
        """The row of the shard behind them."""
        return self.start + len(self.positions)

    @property
    def whole(self) -> bool:
        """Whether its positions are consecutive."""
        return isinstance(self.positions, range) and self.positions.step == 1


class RowBuffers:
    """A tensor for each site with a row for each kept token. The memory is used again for the next shard."""

    def __init__(self, dtype: torch.dtype) -> None:
        self._dtype, self._room = dtype, dict[str, Tensor]()
        self.n_rows = 0

    def begin(self, n_rows: int) -> None:
        """Makes room for a shard of so many rows."""
        self.n_rows = n_rows
        if any(len(tensor) < n_rows for tensor in self._room.values()):
            self._room.clear()

    def of(self, name: str, shape: Sequence[int]) -> Tensor:
        """The rows of a site, each of this shape."""
        if name not in self._room:
            # The next shard can be a window longer. Memory is taken where it is written to.
            self._room[name] = torch.empty(self.n_rows + self.n_rows // 8, *shape, dtype=self._dtype)
        return self._room[name][: self.n_rows]

    @property
    def tensors(self) -> dict[str, Tensor]:
        """The rows of every site, by its name."""
        return {name: tensor[: self.n_rows] for name, tensor in sorted(self._room.items())}


class ShardRows:
    """Runs the windows of one shard through a model, into ``buffers``."""

    def __init__(
        self, model: Model, sites: Sequence[Site], kept: PositionFilter, shard: Shard, buffers: RowBuffers
    ) -> None:
        self._model, self._sites, self._shard, self._buffers = model, tuple(sites), shard, buffers
        self._positions = [kept.of(part.ids) for part in shard.parts]
        self._starts = [0, *accumulate(map(len, self._positions))]
        buffers.begin(self._starts[-1])

    @property
    def columns(self) -> dict[str, Int[Tensor, " row"]]:
        """Whose the rows are: document, window, position and token."""
        found = [
            (part.document, part.index, position, part.ids[position])
            for part, positions in zip(self._shard.parts, self._positions, strict=True)
            for position in positions
        ]
        columns = torch.tensor(found, dtype=torch.int64).T.contiguous()
        return dict(zip(("document", "window", "position", "token"), columns, strict=True))

    def run(self, batch_tokens: int, done: Callable[[Sequence[Span], int], None]) -> None:
        """Runs everything; ``done`` is called after each batch with the rows that are there and the tokens of its windows.

        Windows of like length run together, each up to the last position that is kept. Raises what a forward raises.
        """
        lengths = [positions[-1] + 1 for positions in self._positions]
        for places in by_length(lengths, batch_tokens):
            spans = [
                Span(start=self._starts[place], place=row, positions=self._positions[place])
                for row, place in enumerate(places)
            ]
            self._batch([self._shard.parts[place] for place in places], spans)
            done(spans, sum(len(self._shard.parts[place].ids) for place in places))

    def _batch(self, parts: Sequence[Part], spans: Sequence[Span]) -> None:
        cut = [part.ids[: span.positions[-1] + 1] for part, span in zip(parts, spans, strict=True)]
        width = max(map(len, cut))

        def keep(value: Tensor, site: Site) -> Tensor:
            rows = value.flatten(0, 1)
            self._scatter(rows, self._buffers.of(site.name, rows.shape[1:]), spans, width)
            return value.new_zeros(1)

        tokens = [Tokens(text="", ids=ids, pieces=("",) * len(ids), spans=(None,) * len(ids)) for ids in cut]
        self._model.run(tokens, [Capture(site, reduce=keep) for site in self._sites], logits=False)

    def _scatter(self, rows: Tensor, target: Tensor, spans: Sequence[Span], width: int) -> None:
        """Puts the kept rows of a batch where they stand in the shard; from another device they come in one piece."""
        if rows.device.type == "cpu" and all(span.whole for span in spans):
            sources = [span.place * width + span.positions[0] for span in spans]
        else:
            flat = [span.place * width + position for span in spans for position in span.positions]
            rows = rows.index_select(0, torch.tensor(flat, device=rows.device)).to(target.dtype).cpu()
            sources = [0, *accumulate(len(span.positions) for span in spans)]
        for span, source in zip(spans, sources, strict=False):
            target[span.start : span.stop].copy_(rows[source : source + len(span.positions)])
