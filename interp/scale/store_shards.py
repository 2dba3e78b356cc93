"""A shard on its way into a store and back: rows become a safetensors file, a Parquet index and a record."""

import hashlib
import io
import json
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Any

import torch
from torch import Tensor

from interp.errors import NumericsError, UsageError, brief
from interp.scale.store_files import Place
from interp.scale.store_manifest import Cursor, Record, damaged, read_manifest, write_record
from interp.scale.store_rows import Rows

HEADER = "interp_store"


class ShardWriter:
    """Writes shards in a thread of its own, one at a time, while the next rows are computed. Used as a context manager.

    ``written`` is called with each record, in that thread. When the block ends, also by an exception, the shard at work is finished first.
    """

    def __init__(self, place: Place, key: str, written: Callable[[Record], None]) -> None:
        self._place, self._key, self._written = place, key, written
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="shard")
        self._last: Future[None] | None = None

    def put(self, shard: int, rows: Rows, behind: Cursor) -> None:
        """Hands over a shard; waits for the one before. Raises what that one raised."""
        self.wait()
        self._last = self._pool.submit(self._write, shard, rows, behind)

    def wait(self) -> None:
        """Waits for the shard at work and raises what it raised."""
        last, self._last = self._last, None
        if last is not None:
            last.result()

    def __enter__(self) -> "ShardWriter":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is None:
                self.wait()
        finally:
            self._pool.shutdown(wait=True)

    def _write(self, shard: int, rows: Rows, behind: Cursor) -> None:
        from safetensors.torch import save

        _check_finite(rows)
        header = {HEADER: json.dumps({"shard": shard, "store": self._key}, sort_keys=True)}
        tensors = save({site: tensor.contiguous() for site, tensor in rows.activations.items()}, header)
        index = _index_bytes(shard, rows)
        record = Record(
            shard=shard,
            rows=len(rows),
            first_document=int(rows.documents[0]),
            last_document=int(rows.documents[-1]),
            bytes=len(tensors) + len(index),
            tensors_sha256=hashlib.sha256(tensors).hexdigest(),
            index_sha256=hashlib.sha256(index).hexdigest(),
            next=behind,
            store=self._key,
            tag=hashlib.sha256(tensors).hexdigest()[:12] if self._place.shared else "",
        )
        self._place.write(record.tensors, tensors)
        self._place.write(record.index, index)
        if self._place.shared:
            self._check_ours()
        write_record(self._place, record)
        self._written(record)

    def _check_ours(self) -> None:
        """Raises UsageError where another collection has begun in the same bucket."""
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


def _index_bytes(shard: int, rows: Rows) -> bytes:
    """Whose token each row is, as Parquet: the columns of ``Rows``, the shard and the row in it."""
    import pyarrow
    from pyarrow import parquet

    columns: dict[str, Any] = {
        "document": pyarrow.array(rows.documents.numpy(), pyarrow.int64()),
        "window": pyarrow.array(rows.windows.numpy(), pyarrow.int64()).cast(pyarrow.int32()),
        "position": pyarrow.array(rows.positions.numpy(), pyarrow.int64()).cast(pyarrow.int32()),
        "token": pyarrow.array(rows.tokens.numpy(), pyarrow.int64()).cast(pyarrow.int32()),
        "shard": pyarrow.array([shard] * len(rows), pyarrow.int32()),
        "row": pyarrow.array(range(len(rows)), pyarrow.int32()),
    }
    file = io.BytesIO()
    parquet.write_table(pyarrow.table(columns), file, compression="zstd")
    return file.getvalue()


def _check_finite(rows: Rows) -> None:
    """Raises NumericsError that names the first token whose activation is NaN or infinite."""
    for site, tensor in rows.activations.items():
        if bool(torch.isfinite(tensor).all()):
            continue
        bad = int((~torch.isfinite(tensor)).flatten(1).any(dim=1).nonzero()[0, 0])
        kind = str(tensor.dtype).removeprefix("torch.")
        todo = "too large for it? store bfloat16 or float32" if kind == "float16" else "check the weights"
        raise NumericsError(
            f"{site} at position {int(rows.positions[bad])} of document {int(rows.documents[bad])} is NaN or infinite in {kind}; {todo}"
        )
