"""Writing a folder so that it is there whole or not at all."""

import glob
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from safetensors import SafetensorError

from interp.errors import UsageError
from interp.files import STALE_SECONDS


def check_new_folder(folder: str | os.PathLike[str]) -> Path:
    """The folder's path, where something can be made there. Raises UsageError where it holds something or its parent is missing."""
    try:
        target = Path(folder).absolute()
        taken = target.is_symlink() or (target.exists() and not (target.is_dir() and not any(target.iterdir())))
        has_parent = target.parent.is_dir()
    except OSError as error:  # a name that is too long, a folder that may not be read
        raise UsageError(f"cannot write {folder}: {error.strerror}; choose another folder") from error
    if taken:
        raise UsageError(f"{folder} exists already; remove it or choose another folder")
    if not has_parent:
        raise UsageError(f"the folder {target.parent} does not exist; create it or choose another folder")
    return target


@contextmanager
def new_folder(folder: str | os.PathLike[str]) -> Iterator[Path]:
    """A temporary folder beside ``folder`` that becomes it when the block ends well; every file is on the disk by then.

    An empty ``folder`` may be there. Raises UsageError where it holds something, or where it cannot be written.
    """
    target = check_new_folder(folder)
    prefix, suffix = f".{target.name[:16]}.", ".part"
    _remove_stale(target.parent, prefix, suffix)
    try:
        building = Path(tempfile.mkdtemp(prefix=prefix, suffix=suffix, dir=target.parent))
    except OSError as error:
        raise UsageError(f"cannot write in {target.parent}: {error.strerror}; choose another folder") from error
    try:
        yield building
        _publish(building, target)
    except (OSError, SafetensorError) as error:  # the second is what safetensors raises where the disk is full
        cause = getattr(error, "strerror", None) or error
        raise UsageError(f"cannot write {folder}: {cause}; nothing was left there") from error
    finally:
        shutil.rmtree(building, ignore_errors=True)


def _remove_stale(parent: Path, prefix: str, suffix: str) -> None:
    """Removes what killed processes left half-written: folders in which nothing was touched for a time that no writer takes."""
    for left in parent.glob(f"{glob.escape(prefix)}*{suffix}"):
        with suppress(OSError):
            touched = max(path.stat().st_mtime for path in (left, *left.rglob("*")))
            if time.time() - touched > STALE_SECONDS:
                shutil.rmtree(left, ignore_errors=True)


def sync_folder(folder: Path) -> None:
    """Waits until the names in a folder are on the disk; where the system cannot do this (Windows) nothing happens."""
    try:
        handle = os.open(folder, os.O_RDONLY)
    except OSError:
        return
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _publish(building: Path, target: Path) -> None:
    """Syncs every file, gives it the permissions that the umask asks for, and renames the folder into place."""
    mask = os.umask(0o077)
    os.umask(mask)
    for path in [*building.rglob("*"), building]:
        if path.is_dir():
            path.chmod(0o777 & ~mask)
            sync_folder(path)
        else:
            path.chmod(0o666 & ~mask)
            with open(path, "rb+") as file:
                os.fsync(file.fileno())
    os.replace(building, target)
    sync_folder(target.parent)
