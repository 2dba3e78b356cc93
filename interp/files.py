"""Writing files so that a reader sees the old one or the new one, never a part.

``replacing(path)`` gives a temporary path in the same folder; when the block ends well the file is synced and renamed over ``path``,
with the permissions the umask gives. Targets that are not regular files (devices, folders, sockets) are refused; a symbolic link is
followed and its target replaced. A process that is killed leaves its temporary file; the first write into the folder an hour later, or
after that, removes it.
"""

import errno
import os
import stat
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from interp.errors import UsageError, brief

if TYPE_CHECKING:
    from torch import Tensor


_PREFIX, _SUFFIX = ".interp-", ".part"
STALE_SECONDS = 3600.0
"""No writer leaves its temporary file untouched for so long."""
_looked_at: set[Path] = set()


@contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[Path]:
    """A temporary path beside ``path`` that becomes ``path`` when the block ends without an exception."""
    try:
        target = Path(path).resolve()
        irregular = target.exists() and not stat.S_ISREG(target.stat().st_mode)
    except (OSError, RuntimeError) as error:  # a name that is too long; a link that leads to itself
        raise UsageError(f"cannot write {path}: {error}; choose another output path") from error
    if irregular:
        raise UsageError(f"{path} is not a regular file; choose another output path")
    if not target.parent.is_dir():
        raise UsageError(f"the folder {target.parent} does not exist; create it or choose another output path")
    _remove_stale(target.parent)
    try:
        handle, name = tempfile.mkstemp(prefix=_PREFIX, suffix=_SUFFIX, dir=target.parent)
    except OSError as error:
        raise UsageError(f"cannot write in {target.parent}: {error.strerror}") from error
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        with open(temporary, "rb+") as written:
            os.fsync(written.fileno())
        temporary.chmod(target.stat().st_mode & 0o777 if target.exists() else 0o666 & ~_umask())
        os.replace(temporary, target)
    except OSError as error:
        raise UsageError(f"cannot write {path}: {error.strerror}; the file is as it was before") from error
    finally:
        temporary.unlink(missing_ok=True)


def write_bytes(path: str | os.PathLike[str], data: bytes) -> None:
    """Writes ``data`` to ``path``, all of it or nothing."""
    with replacing(path) as temporary:
        temporary.write_bytes(data)


def save_tensors(path: str | os.PathLike[str], tensors: "Mapping[str, Tensor]", metadata: Mapping[str, str]) -> None:
    """Writes a safetensors file, all of it or nothing. Tensors are made contiguous and copied to the CPU first.

    Tensors that share memory are written one by one, as the format asks.
    """
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    separate: dict[str, Tensor] = {}
    storages: set[int] = set()
    for name, tensor in tensors.items():
        tensor = tensor.detach().cpu().contiguous()
        storage = tensor.untyped_storage().data_ptr()
        separate[name] = tensor.clone() if storage in storages else tensor
        storages.add(storage)
    with replacing(path) as temporary:
        try:
            save_file(separate, temporary, dict(metadata))
        except SafetensorError as error:  # what the file system said, as text
            raise OSError(errno.EIO, brief(error)) from error


def _remove_stale(folder: Path) -> None:
    """Removes what killed processes left half-written in a folder; a process looks once, so that many writes stay quick."""
    if folder in _looked_at:
        return
    _looked_at.add(folder)
    for part in folder.glob(f"{_PREFIX}*{_SUFFIX}"):
        with suppress(OSError):
            if time.time() - part.stat().st_mtime > STALE_SECONDS:
                part.unlink()


def _umask() -> int:
    mask = os.umask(0o077)
    os.umask(mask)
    return mask
