"""The folder of a sweep, on a disk or in a bucket (anything that fsspec knows).

``sweep.json`` says what the sweep is, ``items.jsonl`` holds its items. Each finished task is one small file of ``parts/`` (see
``sweep_parts``); at the end all are put together into ``rows.parquet``, in the order of the tasks, and removed. A file is there whole or
not at all: on a disk it is renamed into place, in a bucket it is one object put at once.
"""

import io
import json
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from interp.editing.new_folder import sync_folder
from interp.errors import ModelError, UsageError, brief
from interp.files import replacing, write_bytes
from interp.foreign_json import parse_json
from interp.scale.sweep_config import Task
from interp.scale.sweep_parts import PARTS, Part, content_of, part_bytes, source_of

if TYPE_CHECKING:
    from pyarrow import Schema, Table

MANIFEST, ITEMS, ROWS = "sweep.json", "items.jsonl", "rows.parquet"
_LOCK = ".lock"
_ROWS_AT_ONCE = 1 << 16
_COMPRESSION = "zstd"


class SweepFolder:
    """A folder at ``url``: a path, or an address such as ``s3://bucket/folder``."""

    def __init__(self, url: str) -> None:
        import fsspec
        from fsspec.implementations.local import LocalFileSystem

        self.url = url if "://" in url else str(Path(url).expanduser().absolute())
        try:
            self._files, self.path = fsspec.core.url_to_fs(self.url)
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
        """Holds the folder, so that no second sweep writes into it, and removes what a killed one left half-written.

        In a bucket nothing is held.
        """
        if not self.is_local:
            yield
            return
        from filelock import FileLock, Timeout

        try:
            with FileLock(Path(self.path) / _LOCK, timeout=0):
                for part in Path(self.path).rglob(".interp-*.part"):
                    part.unlink(missing_ok=True)
                yield
        except Timeout as error:
            raise UsageError(f"another process is at work on the sweep in {self.url}; choose another folder") from error

    def has(self, name: str) -> bool:
        """Whether a file is there."""
        self._files.invalidate_cache()
        return bool(self._files.exists(f"{self.path}/{name}"))

    def is_empty(self) -> bool:
        """Whether nothing is there but what a sweep leaves that was stopped before it began."""
        self._files.invalidate_cache()
        if not self._files.exists(self.path):
            return True
        names = {path.rpartition("/")[2] for path in self._listed("")}
        return names <= {_LOCK, PARTS} and not self._listed(PARTS)

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
            path = Path(self.path) / name
            write_bytes(path, data)
            sync_folder(path.parent)
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

    def write_part(self, task: Task, table: "Table", identity: Mapping[str, Any], kind: str | None) -> Part:
        """Writes the rows of one task, computed with ``identity``; ``kind`` is the class of the error where the analyzer failed."""
        data = part_bytes(table, identity, kind)
        part = Part(
            index=task.index,
            task=task.digest,
            source=source_of(identity),
            content=content_of(data),
            failed=kind is not None,
        )
        self.write(part.name, data)
        return part

    def parts(self) -> list[Part]:
        """The tasks whose rows are there, in order."""
        found = (Part.named(path.rpartition("/")[2]) for path in self._listed(PARTS))
        return sorted((part for part in found if part is not None), key=lambda part: part.name)

    def remove_parts(self) -> None:
        """Removes the rows of single tasks."""
        paths = [path for path in self._listed(PARTS) if Part.named(path.rpartition("/")[2])]
        if paths:
            self._files.rm(paths)

    def read_part(self, part: Part) -> "Table | None":
        """The rows of one task; None where they are not those that were written, and then the file is removed."""
        import pyarrow.parquet as pq

        try:
            data = self.read(part.name)
        except FileNotFoundError:
            return None
        if part.holds(data):
            return pq.read_table(io.BytesIO(data))
        self.remove(part.name)
        return None

    def compact(self, pieces: "Sequence[Part | Table]") -> list[int]:
        """Puts the rows of all tasks, which lie in files or are given, into one table. Two passes: the columns first, then the rows.

        Returns the places of files that are damaged; they are removed, and no table is made, so that their tasks can be done again.
        """
        import pyarrow as pa
        import pyarrow.parquet as pq

        schema, damaged = pa.schema([]), []
        for place, piece in enumerate(pieces):
            table = self.read_part(piece) if isinstance(piece, Part) else piece
            if table is None:
                damaged.append(place)
            else:
                found = table.schema.remove_metadata()
                schema = pa.unify_schemas([schema, found], promote_options="permissive")
        if damaged:
            return damaged
        with (
            self._whole(ROWS) as path,
            pq.ParquetWriter(path, schema, compression=_COMPRESSION, write_page_checksum=True) as writer,
        ):
            for group in self._groups(pieces, schema):
                writer.write_table(group, row_group_size=len(group))
        return []

    def row_groups(self) -> "Iterator[Table]":
        """The finished table in pieces of whole tasks, in order."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        try:
            with self._files.open(f"{self.path}/{ROWS}", "rb") as file:
                table = pq.ParquetFile(file, page_checksum_verification=True)
                for index in range(table.num_row_groups):
                    group = table.read_row_group(index)
                    group.validate(full=True)  # text that is no UTF-8 would be found only where it is used
                    yield group
        except (OSError, pa.ArrowException, ValueError) as error:
            raise ModelError(
                f"{self.url}/{ROWS} is not a readable table ({brief(error)}); run the sweep again"
            ) from error

    def _groups(self, pieces: "Sequence[Part | Table]", schema: "Schema") -> "Iterator[Table]":
        """The rows as tables of some size, each of whole tasks."""
        import pyarrow as pa

        held: list[Table] = []
        n_held = 0
        for place, piece in enumerate(pieces, 1):
            table = self.read_part(piece) if isinstance(piece, Part) else piece
            if table is None:
                raise ModelError(
                    f"rows in {self.url} changed while they were put together; resume, and they are computed again"
                )
            whole = pa.concat_tables([schema.empty_table(), table], promote_options="permissive")
            held.append(whole.select(schema.names).replace_schema_metadata())
            n_held += len(table)
            if n_held >= _ROWS_AT_ONCE or place == len(pieces):
                yield pa.concat_tables(held).combine_chunks()
                held, n_held = [], 0

    def _listed(self, below: str) -> list[str]:
        """The paths of what lies in a folder, without what a killed process left half-written."""
        self._files.invalidate_cache()
        try:
            paths = [str(path).rstrip("/") for path in self._files.ls(f"{self.path}/{below}", detail=False)]
        except FileNotFoundError:
            return []
        return [
            path for path in paths if not (path.rpartition("/")[2].startswith(".interp-") and path.endswith(".part"))
        ]

    @contextmanager
    def _whole(self, name: str) -> Iterator[Path]:
        """A path to write to that becomes the file ``name`` when the block ends well."""
        if self.is_local:
            with replacing(Path(self.path) / name) as path:
                yield path
            sync_folder(Path(self.path))
            return
        with tempfile.TemporaryDirectory() as folder:
            yield Path(folder) / name
            self._files.put_file(str(Path(folder) / name), f"{self.path}/{name}")


def as_lines(records: Sequence[Any]) -> bytes:
    """Records as JSON Lines."""
    return "".join(json.dumps(record, ensure_ascii=False, sort_keys=True) + "\n" for record in records).encode()
