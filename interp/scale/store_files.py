"""Where a store's files lie: a folder, or a bucket through fsspec. A file is there whole or not at all."""

import os
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import TypeAlias

from filelock import FileLock, Timeout

from interp.editing.new_folder import sync_folder
from interp.errors import ModelError, UsageError
from interp.files import replacing, write_bytes

_LOCK = ".lock"


class Dropped(Exception):
    """A file is not to be put in place."""


class Arriving:
    """A file that is written piece by piece, in a thread of its own, while more of it is computed. Used as a context manager.

    It is synced as it comes, so that at the end little is left to wait for. When the block ends it is put in place; by an exception it is
    dropped. What is wrong with the disk is raised then, as UsageError.
    """

    def __init__(self, path: Path) -> None:
        self._path, self._replacing = path, replacing(path)
        self._waiting: list[Future[None]] = []

    def put(self, pieces: "Sequence[tuple[int, memoryview]]") -> None:
        """Hands over bytes with their offsets; they must stay as they are until the block ends."""
        self._waiting.append(self._pool.submit(self._write, pieces))

    def __enter__(self) -> "Arriving":
        self._file = open(self._replacing.__enter__(), "wb", buffering=0)
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="shard")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        fault = error
        self._pool.shutdown(wait=True, cancel_futures=fault is not None)
        self._file.close()
        if fault is not None:
            # Not the error itself: one of the system that the caller met is none of this file.
            with suppress(Dropped):
                self._replacing.__exit__(Dropped, Dropped(), None)
            return
        faults = [found for future in self._waiting if (found := future.exception()) is not None]
        if not faults:
            self._replacing.__exit__(None, None, None)
            sync_folder(self._path.parent)
        elif not self._replacing.__exit__(type(faults[0]), faults[0], faults[0].__traceback__):
            raise faults[0]

    def _write(self, pieces: "Sequence[tuple[int, memoryview]]") -> None:
        file = self._file.fileno()
        for offset, data in pieces:
            done = 0
            while done < len(data):
                done += os.pwrite(file, data[done:], offset + done)
        getattr(os, "fdatasync", os.fsync)(file)


class Folder:
    """A folder on this machine. Files are synced before they are renamed into place."""

    shared = False

    def __init__(self, path: Path) -> None:
        self.name, self._path = str(path), path

    def names(self) -> set[str]:
        """The files that are there."""
        return {path.name for path in self._path.iterdir()} if self._path.is_dir() else set()

    def read(self, name: str) -> bytes:
        """A file's bytes."""
        try:
            return (self._path / name).read_bytes()
        except OSError as error:
            raise ModelError(f"cannot read {self._path / name}: {error.strerror}") from error

    def write(self, name: str, data: bytes) -> None:
        """Writes beside, syncs, renames, and syncs the folder."""
        write_bytes(self._path / name, data)
        sync_folder(self._path)

    def arriving(self, name: str) -> Arriving:
        """A file to be written piece by piece."""
        return Arriving(self._path / name)

    def remove(self, name: str) -> None:
        """Takes a file away."""
        (self._path / name).unlink(missing_ok=True)

    def local(self, name: str) -> Path | None:
        """The file's own path."""
        return self._path / name

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Holds the folder's lock, which the system lets go of when a process dies; what such a process left half-written is removed."""
        if self._path.exists() and not self._path.is_dir():
            raise UsageError(f"{self._path} is not a folder; name a folder for the store")
        try:
            self._path.mkdir(parents=True, exist_ok=True)
            lock = FileLock(self._path / _LOCK, timeout=0)
            lock.acquire()
        except Timeout as error:
            raise UsageError(
                f"another process is writing to {self._path}; wait for it to end, or choose another folder"
            ) from error
        except OSError as error:
            raise UsageError(f"cannot write in {self._path}: {error.strerror}; choose another folder") from error
        try:
            self._remove_unfinished()
            yield
        finally:
            self._remove_unfinished()  # of workers that died
            lock.release()

    def _remove_unfinished(self) -> None:
        for part in self._path.glob(".interp-*.part"):
            part.unlink(missing_ok=True)


class Bucket:
    """A place that fsspec reaches by a URL, such as ``s3://bucket/store``. A file is put there as one object.

    There is no lock. Of two writers of one request each names its shards by their bytes, so that a record goes with the files of its own
    writer; a writer of another request stops before its next record once the first one's manifest is there.
    """

    shared = True

    def __init__(self, url: str) -> None:
        from fsspec.core import url_to_fs

        self.name = url
        try:
            self.system, self.root = url_to_fs(url)
        except (ImportError, ValueError) as error:
            raise UsageError(f"cannot reach {url} ({' '.join(str(error).split())})") from error

    def names(self) -> set[str]:
        """The objects that are there."""
        with self._told(UsageError):
            self.system.invalidate_cache()
            if not self.system.exists(self.root):
                return set()
            return {str(path).rstrip("/").rsplit("/", 1)[-1] for path in self.system.ls(self.root, detail=False)}

    def read(self, name: str) -> bytes:
        """An object's bytes."""
        with self._told(ModelError):
            return bytes(self.system.cat_file(f"{self.root}/{name}"))

    def write(self, name: str, data: bytes) -> None:
        """Puts an object."""
        with self._told(UsageError):
            self.system.pipe_file(f"{self.root}/{name}", data)

    def remove(self, name: str) -> None:
        """Deletes an object."""
        with self._told(UsageError):
            self.system.rm_file(f"{self.root}/{name}")

    def local(self, name: str) -> Path | None:
        """None: an object is read whole."""
        return None

    @contextmanager
    def writing(self) -> Iterator[None]:
        """No lock."""
        with self._told(UsageError):
            self.system.makedirs(self.root, exist_ok=True)
        yield

    @contextmanager
    def _told(self, kind: type[UsageError] | type[ModelError]) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise kind(f"cannot use {self.name} ({' '.join(str(error).split())})") from error


Place: TypeAlias = Folder | Bucket
"""A flat set of files by name."""


def place_of(folder: str | Path) -> Place:
    """The folder, or the bucket where ``folder`` is a URL; ``file://`` and the like are folders."""
    from fsspec.implementations.local import LocalFileSystem

    if "://" not in str(folder):
        return Folder(Path(folder).expanduser())
    bucket = Bucket(str(folder))
    return Folder(Path(bucket.root)) if isinstance(bucket.system, LocalFileSystem) else bucket
