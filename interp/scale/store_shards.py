"""A shard on its way into a store and back: rows become a safetensors file, a Parquet index and a record."""

import hashlib
import io
import json
from collections.abc import Iterable, Mapping, Sequence
from types import TracebackType

import torch
from torch import Tensor

from interp.errors import NumericsError, UsageError, brief
from interp.scale.store_files import Bucket, Dropped, Place
from interp.scale.store_layout import Layout, layout_of, pieces_of, sha256_of, whole_file
from interp.scale.store_manifest import Cursor, Record, damaged, read_manifest, tensors_name, write_record

HEADER = "interp_store"


class ShardFiles:
    """The files of one shard on their way into a store: the activations as they come, then the index, and the record last.

    Used as a context manager around the work; where that ends without ``finish`` nothing is put in place. In a bucket, where a file is
    one object, all is written at the end.
    """

    def __init__(self, place: Place, key: str, number: int) -> None:
        self._place, self._key, self._number = place, key, number
        self._header = {HEADER: json.dumps({"shard": number, "store": key}, sort_keys=True)}
        self._layout: Layout | None = None
        self._arriving = None if isinstance(place, Bucket) else place.arriving(tensors_name(number))
        self._ended = False

    def __enter__(self) -> "ShardFiles":
        if self._arriving is not None:
            self._arriving.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._arriving is not None and not self._ended:
            fault = error or Dropped()
            self._arriving.__exit__(type(fault), fault, trace)

    def put(self, tensors: Mapping[str, Tensor], rows: Iterable[tuple[int, int]]) -> None:
        """Rows (start, stop) that are there; ``tensors`` hold all rows of the shard and are not changed there any more."""
        if self._arriving is None:
            return
        first = [] if self._layout is not None else [(0, memoryview(self._laid(tensors).header))]
        self._arriving.put([*first, *pieces_of(tensors, self._laid(tensors), rows)])

    def finish(
        self, tensors: Mapping[str, Tensor], columns: Mapping[str, Tensor], start: Cursor, behind: Cursor
    ) -> Record:
        """Puts the shard in place, once every row is there. Raises NumericsError for a row that is NaN or infinite."""
        layout, shared = self._laid(tensors), self._place.shared
        _check_finite(tensors, columns)
        digest, index = sha256_of(tensors, layout), _index_bytes(self._number, columns)
        record = Record(
            shard=self._number,
            rows=len(columns["token"]),
            first_document=int(columns["document"][0]),
            last_document=int(columns["document"][-1]),
            bytes=len(layout.header) + sum(tensor.nbytes for tensor in tensors.values()) + len(index),
            tensors_sha256=digest,
            index_sha256=hashlib.sha256(index).hexdigest(),
            start=start,
            next=behind,
            store=self._key,
            tag=digest[:12] if shared else "",
        )
        self._place.write(record.index, index)
        self._ended = True
        if self._arriving is None:
            self._place.write(record.tensors, whole_file(tensors, layout))
        else:
            self._arriving.__exit__(None, None, None)
        self._check_ours()
        write_record(self._place, record)
        return record

    def _laid(self, tensors: Mapping[str, Tensor]) -> Layout:
        if self._layout is None:
            self._layout = layout_of(tensors, self._header)
        return self._layout

    def _check_ours(self) -> None:
        """Raises UsageError where another collection has begun in the same place."""
        manifest = read_manifest(self._place)
        if manifest is None or manifest.key != self._key:
            raise UsageError(
                f"another collection was begun in {self._place.name} at the same time; choose another folder for one of them"
            )


def read_tensors(place: Place, record: Record, *, check: bool) -> dict[str, Tensor]:
    """The tensors of a shard, mapped where the place allows it.

    Raises ModelError where, with ``check``, its bytes are not those that were written; an object of a bucket is fetched once for both.
    """
    from safetensors import SafetensorError, safe_open
    from safetensors.torch import load

    path = place.local(record.tensors)
    if check and path is not None:
        check_tensors(place, record)
    try:
        if path is None:
            data = place.read(record.tensors)
            if check and hashlib.sha256(data).hexdigest() != record.tensors_sha256:
                raise damaged(place, record.tensors)
            return load(data)
        with safe_open(path, framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError, ValueError) as error:
        raise damaged(place, record.tensors) from error


def check_fit(place: Place, record: Record, tensors: Mapping[str, Tensor], sites: Sequence[str]) -> None:
    """Raises ModelError unless a shard holds every site of its store, with a row for each that its record counts."""
    for site in sites:
        rows = len(tensors[site]) if site in tensors and tensors[site].ndim else None
        if rows != record.rows:
            has = "nothing" if rows is None else f"{rows:,} rows"
            raise damaged(place, record.tensors, f"it has {has} of {site}, its record says {record.rows:,} rows")


def read_index(place: Place, record: Record, columns: "tuple[str, ...]") -> dict[str, Tensor]:
    """Columns of a shard's index. Raises ModelError where its bytes are not those that were written."""
    import pyarrow
    from pyarrow import parquet

    data = place.read(record.index)
    if hashlib.sha256(data).hexdigest() != record.index_sha256:
        raise damaged(place, record.index)
    try:
        table = parquet.read_table(io.BytesIO(data), columns=list(columns))
        found = {name: torch.from_numpy(table.column(name).to_numpy().astype("int64")) for name in columns}
    except (pyarrow.ArrowException, OSError, ValueError, LookupError) as error:
        raise damaged(place, record.index, brief(error)) from error
    if table.num_rows != record.rows:
        raise damaged(place, record.index, f"it has {table.num_rows} rows, its record says {record.rows}")
    return found


def check_tensors(place: Place, record: Record) -> None:
    """Raises ModelError where the bytes of a shard's activations are not those that were written."""
    path = place.local(record.tensors)
    if path is None:
        digest = hashlib.sha256(place.read(record.tensors)).hexdigest()
    else:
        try:
            with open(path, "rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
        except OSError as error:
            raise damaged(place, record.tensors) from error
    if digest != record.tensors_sha256:
        raise damaged(place, record.tensors)


def _index_bytes(shard: int, columns: Mapping[str, Tensor]) -> bytes:
    """Whose token each row is, as Parquet: the columns, the shard and the row in it."""
    import pyarrow
    from pyarrow import parquet

    n_rows = len(columns["token"])
    whole = {**columns, "shard": torch.full((n_rows,), shard), "row": torch.arange(n_rows)}
    table = pyarrow.table(
        {
            name: pyarrow.array(column.numpy()).cast(pyarrow.int64() if name == "document" else pyarrow.int32())
            for name, column in whole.items()
        }
    )
    file = io.BytesIO()
    parquet.write_table(table, file, compression="zstd")
    return file.getvalue()


def _check_finite(tensors: Mapping[str, Tensor], columns: Mapping[str, Tensor]) -> None:
    """Raises NumericsError that names the first token whose activation is NaN or infinite."""
    for site, tensor in tensors.items():
        least, most = tensor.aminmax()  # NaN where one is
        if bool(torch.isfinite(least)) and bool(torch.isfinite(most)):
            continue
        bad = int((~torch.isfinite(tensor)).flatten(1).any(dim=1).nonzero()[0, 0])
        position, document = int(columns["position"][bad]), int(columns["document"][bad])
        kind = str(tensor.dtype).removeprefix("torch.")
        todo = "too large for it? store bfloat16 or float32" if kind == "float16" else "check the weights"
        raise NumericsError(
            f"{site} at position {position} of document {document} is NaN or infinite in {kind}; {todo}"
        )
