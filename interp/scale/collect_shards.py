"""A corpus cut into shards: where each begins, and which windows it is of, follows from the manifest and the tokens alone.

So a shard is a piece of work by itself. Any worker computes it, in any order and as often as the work is stopped, to the same bytes.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace

from interp.corpora import Document, Documents, Window, first_tokens, windows_of
from interp.errors import UsageError
from interp.runner.model import Model
from interp.scale.positions import PositionFilter
from interp.scale.store_manifest import Cursor, Record, Settings


@dataclass(frozen=True, kw_only=True)
class Part:
    """A window that a shard keeps rows of: the number of its document, its own number there, its token ids."""

    document: int
    index: int
    ids: tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class Shard:
    """A shard to be computed: its number, its windows, where in the corpus it begins and where the next one does.

    ``share`` is how much of the corpus was read with it. One without windows comes last where the corpus ends in texts of which no
    row is kept; it is not written, and its ``next`` is the end.
    """

    number: int
    parts: tuple[Part, ...]
    start: Cursor
    next: Cursor
    share: float | None

    @property
    def n_tokens(self) -> int:
        """Tokens of the corpus that it goes over, also those of windows without rows."""
        return self.next.tokens - self.start.tokens


class ShardPlan:
    """The shards of a corpus that are missing, in order. ``n_shards`` and ``end`` are known once it was gone through.

    Texts of finished shards are read and not tokenised. Raises UsageError where they are not those that were read before.
    """

    def __init__(
        self,
        model: Model,
        documents: Documents,
        settings: Settings,
        kept: PositionFilter,
        finished: Mapping[int, Record],
    ) -> None:
        self._model, self._documents, self._settings, self._kept = model, documents, settings, kept
        self._finished = dict(finished)
        self.n_shards, self.end = 0, Cursor()

    def __iter__(self) -> Iterator[Shard]:
        number, place = 0, Cursor()
        while True:
            while number in self._finished:
                self._check_joins(number, place)
                number, place = number + 1, self._finished[number].next
            for shard in self._from(place, number):
                place = shard.next
                if shard.parts:
                    self._check_joins(number + 1, place)  # before it is computed
                    yield shard
                    number += 1
                if number in self._finished:
                    break
            else:
                self.n_shards, self.end = number, place
                return

    def _check_joins(self, number: int, place: Cursor) -> None:
        """Raises UsageError where a finished shard does not begin at a place, since other texts lead there."""
        record = self._finished.get(number)
        if record is not None and record.start != place:
            raise _other_texts(self._documents, record.start.document)

    def _from(self, start: Cursor, number: int) -> Iterator[Shard]:
        """The shards from a place on: as many whole windows as fit into its rows and tokens, one at least."""
        settings = self._settings
        waiting = windows_of(self._model, _documents_from(self._documents, start), settings.window)
        rest = (
            window for window in waiting if (window.document.number, window.index) >= (start.document, start.window)
        )
        left = None if settings.max_tokens is None else settings.max_tokens - start.tokens
        place, n_rows, parts, last = start, 0, list[Part](), None
        begun = start
        for window in first_tokens(rest, left):
            rows, tokens = len(self._kept.of(window.ids)), begun.tokens - place.tokens
            full = n_rows + rows > settings.shard_rows or tokens + len(window.ids) > settings.shard_tokens
            if n_rows and rows and full:
                behind = _at(begun, window)
                yield Shard(number=number, parts=tuple(parts), start=place, next=behind, share=_share(last))
                number, place, n_rows, parts = number + 1, behind, 0, []
            if rows:
                parts.append(Part(document=window.document.number, index=window.index, ids=window.ids))
            n_rows += rows
            begun = replace(begun, texts=begun.texts + (window.index == 0), tokens=begun.tokens + len(window.ids))
            last = window
        if last is not None:
            yield Shard(number=number, parts=tuple(parts), start=place, next=_behind(begun, last), share=_share(last))


def _at(counted: Cursor, window: Window) -> Cursor:
    """The place of a window, behind what is ``counted``."""
    document = window.document
    return replace(
        counted,
        document=document.number,
        window=window.index,
        read=document.number,
        through=document.through,
    )


def _behind(counted: Cursor, window: Window) -> Cursor:
    """The place behind the last window."""
    return replace(_at(counted, window), document=window.document.number + 1, window=0)


def _share(window: Window | None) -> float | None:
    return None if window is None else window.document.share


def _documents_from(documents: Documents, start: Cursor) -> Iterable[Document]:
    number = -1
    for document in documents:
        number = document.number
        if number == start.read and start.through is not None and document.through != start.through:
            raise _other_texts(documents, number)
        if number >= start.document:
            yield document
    if start != Cursor() and number < start.read:
        raise UsageError(f"{documents.name} ends before text number {start.read}, which was read before; {_ADVICE}")


_ADVICE = "give the same corpus, or choose another folder"


def _other_texts(documents: Documents, number: int) -> UsageError:
    return UsageError(
        f"the texts of {documents.name} up to number {number} are not those that the store was begun with; {_ADVICE}"
    )
