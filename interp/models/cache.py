"""Where models are kept on this machine and what is there: our own folder and Hugging Face's.

Our folder holds ``gguf/`` (files fetched, one folder a SHA-256), ``converted/`` (safetensors made from GGUF files), ``digests/``
(SHA-256 of large files, so that each is hashed once) and ``locks/``. Everything in it can be removed; it is made again when needed.
"""

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock
from platformdirs import user_cache_dir

from interp.errors import ModelError
from interp.files import write_bytes
from interp.foreign_json import parse_json

_CHUNK = 1 << 22
CONVERTED_RECORD = "interp.json"

Step = Callable[[str, int, int | None], None]
"""Progress of long work: what is being done, how many bytes are done, how many there are (None: not known)."""


@dataclass(frozen=True, kw_only=True)
class CachedModel:
    """A model that lies on this machine.

    Attributes:
        name: what to pass to load it.
        store: ``interp`` (our folder) or ``huggingface``.
        path: its folder.
        bytes: space on disk.

    """

    name: str
    store: str
    path: Path
    bytes: int


def cache_folder() -> Path:
    """The folder for fetched and converted models: INTERP_CACHE if set, else the user's cache folder. Not created here."""
    return Path(os.environ.get("INTERP_CACHE") or user_cache_dir("interp")).expanduser().absolute()


def hub_folder() -> Path:
    """Hugging Face's cache of repositories, as its own settings say."""
    from huggingface_hub import constants

    return Path(constants.HF_HUB_CACHE)


def make_folder(name: str) -> Path:
    """A sub-folder of the cache, created if needed."""
    folder = cache_folder() / name
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ModelError(
            f"cannot create the cache folder {folder} ({error.strerror}); set INTERP_CACHE to a folder you can write"
        ) from error
    return folder


@contextmanager
def locked(key: str) -> Iterator[None]:
    """Holds a lock that all processes on this machine share, so that work under one key is done once."""
    with FileLock(make_folder("locks") / f"{key}.lock"):
        yield


def require_space(folder: Path, needed: int, what: str) -> None:
    """Refuses work for which the disk has too little room. ``needed`` is in bytes."""
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise ModelError(
            f"{what} needs {in_megabytes(needed)} in {folder} and {in_megabytes(free)} are free; "
            "free some space or set INTERP_CACHE to a folder on another disk"
        )


def in_megabytes(size: int) -> str:
    """A size in bytes as text in MB."""
    return f"{size / 1e6:,.0f} MB"


def file_sha256(path: Path, step: Step | None = None) -> str:
    """SHA-256 of a file, as hexadecimal digits. Remembered by path, size and modification time."""
    path = path.resolve()
    status = path.stat()
    seen = {"path": str(path), "size": status.st_size, "mtime_ns": status.st_mtime_ns}
    record = cache_folder() / "digests" / f"{hashlib.sha256(str(path).encode()).hexdigest()[:32]}.json"
    known = _read_record(record)
    if seen.items() <= known.items() and isinstance(known.get("sha256"), str):
        return str(known["sha256"])
    digest = hash_file(path, step)
    make_folder("digests")
    write_bytes(record, json.dumps({**seen, "sha256": digest}).encode())
    return digest


def hash_file(path: Path, step: Step | None = None) -> str:
    """SHA-256 of a file, read now."""
    total, done, digest = path.stat().st_size, 0, hashlib.sha256()
    with open(path, "rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
            done += len(chunk)
            if step:
                step(f"checking {path.name}", done, total)
    return digest.hexdigest()


def cached_models() -> list[CachedModel]:
    """Every model on this machine: converted GGUF files first, then Hugging Face's cache."""
    return [*_converted_models(), *_hub_models()]


def describe_cached() -> str:
    """The cached models as part of a sentence."""
    names = [model.name for model in cached_models()]
    return f"cached here: {', '.join(names)}" if names else "nothing is cached here yet"


def converted_record(folder: Path) -> dict[str, object]:
    """What was written beside a converted model when it was made; empty if the folder is none."""
    return _read_record(folder / CONVERTED_RECORD)


def _read_record(path: Path) -> dict[str, object]:
    try:
        found = parse_json(path.read_bytes())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _converted_models() -> Iterator[CachedModel]:
    for folder in sorted(_folders(cache_folder() / "converted")):
        record = converted_record(folder)
        if record:
            yield CachedModel(
                name=str(record.get("alias") or folder), store="interp", path=folder, bytes=folder_size(folder)
            )


def _hub_models() -> Iterator[CachedModel]:
    for folder in sorted(_folders(hub_folder())):
        kind, _, name = folder.name.partition("--")
        weights = any(folder.glob("snapshots/*/*.safetensors"))
        if kind == "models" and weights:
            yield CachedModel(name=name.replace("--", "/"), store="huggingface", path=folder, bytes=folder_size(folder))


def _folders(parent: Path) -> list[Path]:
    """Sub-folders, without unfinished work, whose names begin with a dot."""
    if not parent.is_dir():
        return []
    return [path for path in parent.iterdir() if path.is_dir() and not path.name.startswith(".")]


def folder_size(folder: Path) -> int:
    """Bytes of all files in a folder; links are not followed, so that a blob counts once."""
    return sum(path.lstat().st_size for path in folder.rglob("*") if path.is_file() and not path.is_symlink())
