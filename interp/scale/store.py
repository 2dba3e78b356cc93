"""An activation store, read back: by row, by document, by token, or as batches in order or shuffled."""

import os
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from interp.errors import UsageError
from interp.models.cache import Step
from interp.models.progress import silent
from interp.results import Provenance
from interp.scale.store_files import Place, place_of
from interp.scale.store_manifest import Manifest, Record, damaged, read_manifest, read_records, record_name
from interp.scale.store_rows import COLUMNS, Rows, stored_sites
from interp.scale.store_shards import check_fit, check_tensors, read_index, read_tensors

if TYPE_CHECKING:
    from pandas import DataFrame

_OPEN = 128
"""Shards of a folder that are mapped at one time, and that one shuffle mixes."""
_HELD, _MIXED = 2, 8
"""Shards of a bucket that are held in memory when rows are read in order, and that one shuffle mixes."""

Sites = str | Sequence[str] | None


class ActivationStore:
    """Activations that ``interp.collect`` wrote, in the order of the corpus. Made by ``interp.open_store``.

    Only finished shards are seen, also while another process goes on writing. A shard's SHA-256 is checked when it is first read
    (unless the store was opened with ``check=False``), and its rows are mapped from the file, so that memory holds only what is taken.
    ``sites`` in its methods are as in ``interp.collect``; None means all that are stored.
    """

    def __init__(self, place: Place, manifest: Manifest, records: Sequence[Record], *, check: bool) -> None:
        self.manifest = manifest
        self._place, self._records, self._check = place, tuple(records), check
        self._starts = [0]
        for record in records:
            self._starts.append(self._starts[-1] + record.rows)
        self._open: OrderedDict[int, dict[str, Tensor]] = OrderedDict()
        self._sound: set[int] = set()
        self._room = _HELD if place.shared else _OPEN

    @property
    def name(self) -> str:
        """The folder, or the URL."""
        return self._place.name

    @property
    def complete(self) -> bool:
        """Whether the corpus was read to its end (or to ``max_tokens``), and no shard is missing."""
        done = self.manifest.complete
        return done is not None and done.shards == len(self._records)

    @property
    def sites(self) -> tuple[str, ...]:
        """The stored sites, as TransformerLens names them."""
        return self.manifest.settings.sites

    @property
    def n_shards(self) -> int:
        """Finished shards."""
        return len(self._records)

    @property
    def n_rows(self) -> int:
        """Rows of all finished shards."""
        return self._starts[-1]

    @property
    def bytes(self) -> int:
        """Bytes of activations and index."""
        return sum(record.bytes for record in self._records)

    @property
    def provenance(self) -> tuple[Provenance, ...]:
        """The runs that wrote to it."""
        return self.manifest.runs

    def __len__(self) -> int:
        return self.n_rows

    def rows(self, start: int = 0, stop: int | None = None, sites: Sites = None) -> Rows:
        """Rows ``start`` to ``stop`` (exclusive; None: the end). Raises UsageError out of range, ModelError for a damaged shard."""
        end = self.n_rows if stop is None else stop
        if not 0 <= start < end <= self.n_rows:
            raise UsageError(f"rows {start} to {end} are not in the store; it has rows 0 to {self.n_rows - 1}")
        return self._taken(torch.arange(start, end), self._names(sites))

    def batches(
        self, sites: Sites = None, *, batch_rows: int = 4096, seed: int | None = None, drop_last: bool = False
    ) -> Iterator[Rows]:
        """All rows once, ``batch_rows`` at a time: in order, or shuffled by ``seed``.

        The shuffle permutes the shards and then the rows of each 128 shards among themselves, so a store of up to 128 shards is
        permuted evenly; in a bucket, whose shards have to be held in memory, of each 8. The same seed gives the same batches.
        ``drop_last`` leaves out a last batch that is smaller.
        """
        if batch_rows < 1:
            raise UsageError(f"batch_rows is {batch_rows}; give 1 or more")
        names, local = self._names(sites), not self._place.shared
        self._room = _OPEN if local else _HELD if seed is None else _MIXED
        waiting = torch.empty(0, dtype=torch.int64)
        for group in self._order(seed):
            waiting = torch.cat([waiting, group])
            full = len(waiting) - len(waiting) % batch_rows
            for chosen in waiting[:full].split(batch_rows) if full else ():
                yield self._taken(chosen, names)
            waiting = waiting[full:]
        if len(waiting) and not drop_last:
            yield self._taken(waiting, names)

    def document(self, number: int, sites: Sites = None) -> Rows:
        """The rows of one document, by its number in the corpus. Raises UsageError where none is stored."""
        found = [
            start + (read_index(self._place, record, ("document",))["document"] == number).nonzero()[:, 0]
            for start, record in zip(self._starts, self._records, strict=False)
            if record.first_document <= number <= record.last_document
        ]
        chosen = torch.cat(found) if found else torch.empty(0, dtype=torch.int64)
        if not len(chosen):
            last = f"its documents go up to {self._records[-1].last_document}" if self._records else "it is empty"
            raise UsageError(f"no row of document {number} is in the store; {last}")
        return self._taken(chosen, self._names(sites))

    def token(self, token: int, sites: Sites = None, *, limit: int | None = None) -> Rows:
        """The rows at which the token is the one with this id, the first ``limit`` of them. Raises UsageError where there is none."""
        found: list[Tensor] = []
        for start, record in zip(self._starts, self._records, strict=False):
            found.append(start + (read_index(self._place, record, ("token",))["token"] == token).nonzero()[:, 0])
            if limit is not None and sum(map(len, found)) >= limit:
                break
        chosen = torch.cat(found)[:limit] if found else torch.empty(0, dtype=torch.int64)
        if not len(chosen):
            raise UsageError(f"no row of token {token} is in the store")
        return self._taken(chosen, self._names(sites))

    def index(self) -> "DataFrame":
        """Whose token each row is: document, window, position, token, shard and row in it. It holds a line for every row of the store."""
        from pandas import DataFrame

        columns = (*COLUMNS, "shard", "row")
        parts = [read_index(self._place, record, columns) for record in self._records]
        return DataFrame({name: torch.cat([part[name] for part in parts]).numpy() if parts else [] for name in columns})

    def verify(self, progress: Step | None = None) -> None:
        """Reads every file and compares its SHA-256. Raises ModelError that names the first damaged one."""
        told = progress or silent
        for done, record in enumerate(self._records):
            told("checking shards", done, len(self._records))
            check_tensors(self._place, record)
            read_index(self._place, record, ("row",))
            self._sound.add(record.shard)
        told("checking shards", len(self._records), len(self._records))

    def _names(self, sites: Sites) -> tuple[str, ...]:
        return stored_sites(sites, self.sites, self.manifest.n_layers)

    def _order(self, seed: int | None) -> Iterator[Tensor]:
        """Row numbers in the order of reading, some shards' at a time."""
        shards = list(zip(self._starts[:-1], self._starts[1:], strict=True))
        if seed is None:
            yield from (torch.arange(*shard) for shard in shards)
            return
        generator = torch.Generator().manual_seed(seed)
        order = torch.randperm(len(shards), generator=generator).tolist()
        at_once = _MIXED if self._place.shared else _OPEN
        for first in range(0, len(order), at_once):
            mixed = torch.cat([torch.arange(*shards[shard]) for shard in order[first : first + at_once]])
            yield mixed[torch.randperm(len(mixed), generator=generator)]

    def _taken(self, chosen: Tensor, names: tuple[str, ...]) -> Rows:
        """Rows by their numbers, in the order given."""
        shards = torch.bucketize(chosen, torch.tensor(self._starts), right=True) - 1
        parts, places = [], []
        for shard in shards.unique().tolist():
            where = (shards == shard).nonzero()[:, 0]
            parts.append(self._of_shard(shard, chosen[where] - self._starts[shard], names))
            places.append(where)
        joined, at = Rows.joined(parts), torch.cat(places)
        return joined if len(parts) == 1 else joined.part(at.argsort())

    def _of_shard(self, shard: int, rows: Tensor, names: tuple[str, ...]) -> Rows:
        tensors = self._shard(shard)
        taken = {name: tensors[name].index_select(0, rows) for name in (*COLUMNS, *names)}
        return Rows(
            activations={name: taken[name] for name in names},
            documents=taken["document"],
            windows=taken["window"],
            positions=taken["position"],
            tokens=taken["token"],
            n_layers=self.manifest.n_layers,
        )

    def _shard(self, shard: int) -> dict[str, Tensor]:
        """A shard's tensors, mapped, with the columns of its index."""
        if shard not in self._open:
            record = self._records[shard]
            while len(self._open) >= self._room:  # before the next is read
                self._open.popitem(last=False)
            check = self._check and shard not in self._sound
            tensors = read_tensors(self._place, record, check=check)
            check_fit(self._place, record, tensors, self.sites)
            self._open[shard] = {**tensors, **read_index(self._place, record, COLUMNS)}
            if check:
                self._sound.add(shard)
        self._open.move_to_end(shard)
        return self._open[shard]

    def __repr__(self) -> str:
        state = "" if self.complete else ", unfinished"
        return (
            f"ActivationStore({self.name!r}: {self.n_rows:,} rows of {len(self.sites)} sites in {self.n_shards:,} shards, "
            f"{self.bytes / 1e6:.1f} MB{state})"
        )


def open_store(folder: str | os.PathLike[str], *, check: bool = True) -> ActivationStore:
    """Opens a store that ``interp.collect`` wrote, also one that is unfinished.

    Args:
        folder: the folder, or a URL that fsspec knows, such as "s3://bucket/store".
        check: whether a shard's SHA-256 is compared when it is first read, which reads the file once more.

    Raises:
        UsageError: there is no store.
        ModelError: its manifest or a record is damaged, or is of another version.

    """
    place = place_of(folder if isinstance(folder, str) else Path(folder))
    manifest = read_manifest(place)
    if manifest is None:
        raise UsageError(f"there is no activation store in {folder}; make one with: interp collect -o {folder}")
    records, found = read_records(place, manifest), []
    while len(found) in records:
        record = records[len(found)]
        if record.rows > max(manifest.settings.shard_rows, manifest.settings.window):
            raise damaged(place, record_name(record.shard), f"it says {record.rows:,} rows, more than a shard has")
        found.append(record)
    return ActivationStore(place, manifest, found, check=check)
