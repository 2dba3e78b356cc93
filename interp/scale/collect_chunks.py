"""A corpus in chunks, and a chunk through the model: where each chunk begins and which windows run side by side is fixed by the manifest.

So the same rows come out however often the work was stopped. Numbers depend in their last bits on the shape of a batch, which is why
batches are planned from the settings alone, never from the memory or the time of the moment.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate

import torch
from torch import Tensor

from interp.corpora import Document, Documents, Window, first_tokens, windows_of
from interp.errors import UsageError
from interp.runner.batch import by_length
from interp.runner.model import Model
from interp.runner.plan import Capture
from interp.scale.positions import PositionFilter
from interp.scale.store_manifest import Cursor, Settings
from interp.scale.store_rows import Rows
from interp.sites import Site
from interp.tokens import Tokens


@dataclass(frozen=True, kw_only=True, eq=False)
class Chunk:
    """Consecutive windows of a corpus and the place where they begin."""

    start: Cursor
    windows: tuple[Window, ...]

    @property
    def n_tokens(self) -> int:
        """Tokens of its windows."""
        return sum(len(window.ids) for window in self.windows)

    @property
    def n_texts(self) -> int:
        """Texts that begin in it."""
        return sum(window.index == 0 for window in self.windows)

    def at(self, row: int) -> Cursor:
        """The place of one of its rows."""
        last = self.windows[-1].document
        return replace(self.start, row=row, read=last.number, through=last.through)


def chunks(model: Model, documents: Documents, settings: Settings, start: Cursor) -> Iterator[Chunk]:
    """The chunks from ``start`` on, each of at least ``chunk_tokens`` tokens but the last.

    Raises UsageError where the texts before ``start`` are not those that were read before.
    """
    waiting = windows_of(model, _from(documents, start), settings.window)
    rest = (window for window in waiting if (window.document.number, window.index) >= (start.document, start.window))
    left = None if settings.max_tokens is None else settings.max_tokens - start.tokens
    held: list[Window] = []
    place, n_tokens = replace(start, row=0), 0
    for window in first_tokens(rest, left):
        if n_tokens >= settings.chunk_tokens:
            done = Chunk(start=place, windows=tuple(held))
            yield done
            place, held, n_tokens = _behind(done, window), [], 0
        held.append(window)
        n_tokens += len(window.ids)
    if held:
        yield Chunk(start=place, windows=tuple(held))


def _behind(chunk: Chunk, window: Window) -> Cursor:
    return Cursor(
        chunk=chunk.start.chunk + 1,
        document=window.document.number,
        window=window.index,
        texts=chunk.start.texts + chunk.n_texts,
        tokens=chunk.start.tokens + chunk.n_tokens,
        before=window.document.before,
    )


def _from(documents: Documents, start: Cursor) -> Iterator[Document]:
    todo = "give the same corpus, or choose another folder"
    number = -1
    for document in documents:
        number = document.number
        if number < start.document:
            continue
        if number == start.document and start.before is not None and document.before != start.before:
            raise UsageError(
                f"the texts of {documents.name} before number {number} are not those that the store was begun with; {todo}"
            )
        if number == start.read and start.through is not None and document.through != start.through:
            raise UsageError(
                f"the texts of {documents.name} up to number {number} are not those that the store was begun with; {todo}"
            )
        yield document
    if start != Cursor() and number < max(start.document, start.read):
        raise UsageError(
            f"{documents.name} ends before text number {max(start.document, start.read)}, which was read before; {todo}"
        )


class ChunkRun:
    """Runs chunks through a model and gives their rows."""

    def __init__(self, model: Model, sites: Sequence[Site], settings: Settings, kept: PositionFilter) -> None:
        self._model, self._sites, self._kept = model, tuple(sites), kept
        self._dtype: torch.dtype = getattr(torch, settings.dtype)

    def n_rows(self, chunk: Chunk) -> int:
        """Rows that a chunk gives."""
        return sum(len(self._kept.of(window.ids)) for window in chunk.windows)

    def rows(self, chunk: Chunk, skip: int, batch_tokens: int, progress: Callable[[int], None]) -> Rows:
        """The chunk's rows behind the first ``skip``, in the order of the corpus.

        Windows of like length run together, each up to the last position that is kept. Batches that hold no row asked for are left
        out; the others are the same for every ``skip``. ``progress`` is told first the tokens that are not run, then those of each batch.
        Raises what a forward raises.
        """
        kept = [list(self._kept.of(window.ids)) for window in chunk.windows]
        starts = [0, *accumulate(map(len, kept))]
        wanted = [place for place, positions in enumerate(kept) if positions]
        lengths = [kept[place][-1] + 1 for place in wanted]
        total = starts[-1] - skip
        buffers: dict[str, Tensor] = {}
        batches = [[wanted[index] for index in batch] for batch in by_length(lengths, batch_tokens)]
        batches = [places for places in batches if max(starts[place + 1] for place in places) > skip]
        sizes = [sum(len(chunk.windows[place].ids) for place in places) for places in batches]
        progress(chunk.n_tokens - sum(sizes))
        for places, size in zip(batches, sizes, strict=True):
            found = self._batch([chunk.windows[place].ids for place in places], [kept[place] for place in places])
            at = torch.cat([torch.arange(starts[place], starts[place + 1]) for place in places]) - skip
            _scatter(buffers, found, at, total)
            progress(size)
        return _rows(chunk, kept, skip, buffers, self._model.atlas.n_layers)

    def _batch(self, ids: Sequence[tuple[int, ...]], kept: Sequence[list[int]]) -> dict[str, Tensor]:
        """The kept rows of some windows, one window behind the other, on the CPU."""
        cut = [window[: positions[-1] + 1] for window, positions in zip(ids, kept, strict=True)]
        width = max(map(len, cut))
        flat = torch.tensor(
            [place * width + position for place, positions in enumerate(kept) for position in positions],
            device=self._model.device,
        )

        def reduce(value: Tensor, site: Site) -> Tensor:
            return value.flatten(0, 1).index_select(0, flat).to(self._dtype)

        tokens = [
            Tokens(text="", ids=window, pieces=("",) * len(window), spans=(None,) * len(window)) for window in cut
        ]
        captures = [Capture(site, reduce=reduce) for site in self._sites]
        run = self._model.run(tokens, captures, logits=False, cache_device="cpu")
        return {site.name: run.cache[site] for site in self._sites}


def _scatter(buffers: dict[str, Tensor], found: dict[str, Tensor], at: Tensor, total: int) -> None:
    """Puts rows where they belong; those before the first that is asked for fall away."""
    real = at >= 0
    for name, rows in found.items():
        if name not in buffers:
            buffers[name] = torch.empty(total, *rows.shape[1:], dtype=rows.dtype)
        buffers[name][at[real]] = rows[real]


def _rows(chunk: Chunk, kept: Sequence[list[int]], skip: int, buffers: dict[str, Tensor], n_layers: int) -> Rows:
    found = [
        (window.document.number, window.index, position, window.ids[position])
        for window, positions in zip(chunk.windows, kept, strict=True)
        for position in positions
    ]
    columns = torch.tensor(found, dtype=torch.int64).reshape(-1, 4)[skip:]
    documents, windows, positions, tokens = columns.T.contiguous()
    return Rows(
        activations=buffers,
        documents=documents,
        windows=windows,
        positions=positions,
        tokens=tokens,
        n_layers=n_layers,
    )
