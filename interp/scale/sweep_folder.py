"""The folder of a sweep, on a disk or in a bucket (anything that fsspec knows).

``sweep.json`` says what the sweep is, ``items.jsonl`` holds its items. Each finished task is one small file of ``parts/``, named by the
task's number and the digest of what it is; at the end all are put together into ``rows.parquet``, in the order of the tasks, and
removed. A file is there whole or not at all: on a disk it is renamed into place, in a bucket it is one object put at once.
"""

import io
import json
import re
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from interp.errors import ModelError, UsageError, brief
from interp.files import replacing, write_bytes
from interp.foreign_json import parse_json

if TYPE_CHECKING:
    from pyarrow import Schema, Table

MANIFEST, ITEMS, ROWS, PARTS = "sweep.json", "items.jsonl", "rows.parquet", "parts"
_PART = re.compile(r"(\d{8})-([0-9a-f]{16})\.parquet")
_ROWS_AT_ONCE = 1 << 16
_COMPRESSION = "zstd"


class SweepFolder:
    """A folder at ``url``: a path, or an address such as ``s3://bucket/folder``."""

    def __init__(self, url: str) -> None:
        import fsspec
        from fsspec.implementations.local import LocalFileSystem

        self.url = url
        try:
            self._files, self.path = fsspec.core.url_to_fs(url)
        except (ImportError, ValueError) as error:
            raise UsageError(f"cannot write to {url}: {error}") from error
        self.is_local = isinstance(self._files, LocalFileSystem)

    def make(self) -> None:
        """Creates the folder. Raises UsageError where that cannot be done."""
        try:
            self._files.makedirs(f"{self.path}/{PARTS}", exist_ok=True)
        except OSError as error:
            raise UsageError(f"cannot create the folder {self.url}: {error.strerror or error}") from error

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Holds the folder, so that no second sweep writes into it. In a bucket nothing is held."""
        if not self.is_local:
            yield
            return
        from filelock import FileLock, Timeout

        try:
            with FileLock(Path(self.path) / ".lock", timeout=0):
                yield
        except Timeout as error:
            raise UsageError(f"another process is at work on the sweep in {self.url}; choose another folder") from error

    def has(self, name: str) -> bool:
        """Whether a file is there."""
        self._files.invalidate_cache()
        return bool(self._files.exists(f"{self.path}/{name}"))

    def is_empty(self) -> bool:
        """Whether nothing is there, or not even the folder."""
        self._files.invalidate_cache()
        return not self._files.exists(self.path) or not self._files.ls(self.path)

    def read(self, name: str) -> bytes:
        """A file's bytes."""
        return self._files.cat_file(f"{self.path}/{name}")

    def read_json(self, name: str) -> Any:
        """The value of a JSON file. Raises ModelError where it holds something else."""
        return self._parsed(name, [self.read(name)])[0]

    def read_json_lines(self, name: str) -> list[Any]:
        """The values of a JSON Lines file. Raises ModelError where it holds something else."""
        return self._parsed(name, self.read(name).splitlines())

    def _parsed(self, name: str, texts: Sequence[bytes]) -> list[Any]:
        try:
            return [parse_json(text) for text in texts]
        except ValueError as error:
            raise ModelError(
                f"{self.url}/{name} is damaged ({error}); put it back, or choose another folder"
            ) from error

    def write(self, name: str, data: bytes) -> None:
        """Writes a file, all of it or nothing. Raises UsageError where that cannot be done."""
        if self.is_local:
            write_bytes(Path(self.path) / name, data)
            return
        try:
            self._files.pipe_file(f"{self.path}/{name}", data)
        except OSError as error:
            raise UsageError(f"cannot write {name} to {self.url}: {error}") from error

    def save(self, name: str, save: Callable[[Path], None]) -> None:
        """Writes a file by a function that writes to a path."""
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / name
            save(path)
            self.write(name, path.read_bytes())

    def remove(self, name: str) -> None:
        """Removes a file, if it is there."""
        if self.has(name):
            self._files.rm_file(f"{self.path}/{name}")

    def write_part(self, index: int, digest: str, table: "Table") -> None:
        """Writes the rows of one task."""
        import pyarrow.parquet as pq

        buffer = io.BytesIO()
        pq.write_table(table, buffer, compression=_COMPRESSION)
        self.write(part_name(index, digest), buffer.getvalue())

    def parts(self) -> dict[int, str]:
        """The digests of the tasks whose rows are there, by the task's number."""
        self._files.invalidate_cache()
        try:
            names = self._files.ls(f"{self.path}/{PARTS}", detail=False)
        except FileNotFoundError:
            return {}
        found = (_PART.fullmatch(str(name).rstrip("/").rpartition("/")[2]) for name in names)
        return {int(match[1]): match[2] for match in found if match}

    def remove_parts(self) -> None:
        """Removes the rows of single tasks."""
        for index, digest in self.parts().items():
            self.remove(part_name(index, digest))

    def compact(self, digests: Sequence[str]) -> None:
        """Puts the rows of all tasks into one table. Two passes over the parts: the columns first, then the rows.

        Raises ModelError for a part that is damaged; it is removed, so that resuming computes it anew.
        """
        import pyarrow as pa
        import pyarrow.parquet as pq

        names = [part_name(index, digest) for index, digest in enumerate(digests)]
        schema = pa.schema([])
        for name in names:
            schema = pa.unify_schemas([schema, self._open(name, pq.read_schema)], promote_options="permissive")
        with self._whole(ROWS) as path, pq.ParquetWriter(path, schema, compression=_COMPRESSION) as writer:
            for group in self._groups(names, schema):
                writer.write_table(group, row_group_size=len(group))

    def row_groups(self) -> "Iterator[Table]":
        """The finished table in pieces of whole tasks, in order."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        try:
            with self._files.open(f"{self.path}/{ROWS}", "rb") as file:
                table = pq.ParquetFile(file)
                for index in range(table.num_row_groups):
                    group = table.read_row_group(index)
                    group.validate(full=True)  # text that is no UTF-8 would be found only where it is used
                    yield group
        except (OSError, pa.ArrowException) as error:
            raise ModelError(
                f"{self.url}/{ROWS} is not a readable table ({brief(error)}); run the sweep again"
            ) from error

    def _groups(self, names: Sequence[str], schema: "Schema") -> "Iterator[Table]":
        """The parts' rows as tables of some size, each of whole tasks."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        held: list[Table] = []
        for name in names:
            table = self._open(name, pq.read_table)
            held.append(
                pa.concat_tables([schema.empty_table(), table], promote_options="permissive").select(schema.names)
            )
            if sum(map(len, held)) >= _ROWS_AT_ONCE or name == names[-1]:
                yield pa.concat_tables(held).combine_chunks()
                held = []

    def _open(self, name: str, read: Any) -> Any:
        import pyarrow as pa

        try:
            return read(io.BytesIO(self.read(name)))
        except (OSError, pa.ArrowException) as error:
            self.remove(name)
            raise ModelError(
                f"{self.url}/{name} was damaged ({brief(error)}) and is removed; resume, and its task is computed again"
            ) from error

    @contextmanager
    def _whole(self, name: str) -> Iterator[Path]:
        """A path to write to that becomes the file ``name`` when the block ends well."""
        if self.is_local:
            with replacing(Path(self.path) / name) as path:
                yield path
            return
        with tempfile.TemporaryDirectory() as folder:
            yield Path(folder) / name
            self._files.put_file(str(Path(folder) / name), f"{self.path}/{name}")


def part_name(index: int, digest: str) -> str:
    """The file of one task's rows."""
    return f"{PARTS}/{index:08d}-{digest}.parquet"


def as_lines(records: Sequence[Any]) -> bytes:
    """Records as JSON Lines."""
    return "".join(json.dumps(record, ensure_ascii=False, sort_keys=True) + "\n" for record in records).encode()
