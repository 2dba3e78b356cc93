"""Where writing fails the old file stays and nothing is left: no file may grow, a full file system, a read-only folder, a kill."""

import errno
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

from interp.editing.new_folder import new_folder
from interp.errors import UsageError
from interp.files import write_bytes
from own_process import ENVIRONMENT, counted

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="limits and mounts as on Linux")


def faulty(within: list[str], folder: Path, kind: str, cache: Path) -> None:
    assert counted("faulty_writes.py", folder, kind, cache=cache, within=within)["done"] > 10


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """The folder that is written to."""
    (tmp_path / "place").mkdir()
    return tmp_path / "place"


@pytest.mark.long
def test_no_file_may_grow(place: Path, tmp_path: Path) -> None:
    faulty([], place, "limit", tmp_path / "cache")


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["full", "readonly"])
def test_the_file_system_is_full_or_read_only(place: Path, tmp_path: Path, kind: str) -> None:
    """In a mount namespace of its own, which ends with the process."""
    mount = f"mount -t tmpfs -o size=6m tmpfs '{place}'"
    tried = shutil.which("unshare") and subprocess.run(["unshare", "-m", "sh", "-c", mount], capture_output=True)
    if not tried or tried.returncode:
        pytest.skip("no file system can be mounted here in a namespace of its own")
    faulty(["unshare", "-m", "sh", "-c", f'{mount} && exec "$@"', "sh"], place, kind, tmp_path / "cache")
    assert list(place.iterdir()) == []


@pytest.mark.parametrize("code", [errno.EROFS, errno.EACCES])
def test_a_read_only_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, code: int) -> None:
    """As the system would say it: the superuser, who may run the tests, may write anywhere."""

    def refuse(*_: object, **__: object) -> None:
        raise OSError(code, os.strerror(code))

    (tmp_path / "file").write_bytes(b"old")
    monkeypatch.setattr(tempfile, "mkstemp", refuse)
    with pytest.raises(UsageError, match=f"cannot write in .*: {os.strerror(code)}"):
        write_bytes(tmp_path / "file", b"new")
    assert (tmp_path / "file").read_bytes() == b"old"


KILLED = """
import os, signal, sys
from interp.files import write_bytes
from own_process import ENVIRONMENT, counted

def killed(*_):
    os.kill(os.getpid(), signal.SIGKILL)

setattr(os, sys.argv[2], killed)
write_bytes(sys.argv[1], b"new" * 1000)
"""


@pytest.mark.parametrize("at", ["fsync", "replace"])
def test_a_kill_between_write_and_rename_leaves_the_old_file_and_what_the_next_write_removes(
    tmp_path: Path, at: str
) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"old")
    done = subprocess.run([sys.executable, "-c", KILLED, str(path), at], env=ENVIRONMENT)
    assert done.returncode == -signal.SIGKILL
    assert path.read_bytes() == b"old"
    (part,) = tmp_path.glob(".interp-*.part")
    for age, stays in ((600, True), (7200, False)):
        old = time.time() - age
        os.utime(part, (old, old))
        code = f"from interp.files import write_bytes; write_bytes({str(path)!r}, b'newer')"
        subprocess.run([sys.executable, "-c", code], env=ENVIRONMENT, check=True)
        assert path.read_bytes() == b"newer"
        assert part.exists() is stays  # one that may be another process's at work is left alone


def test_a_folder_that_a_killed_process_left_is_removed_when_it_is_old(tmp_path: Path) -> None:
    left = {age: tmp_path / f".adapter.{age}.part" for age in (600, 7200)}
    for age, folder in left.items():
        folder.mkdir()
        (folder / "adapter_model.safetensors").write_bytes(b"half of it")
        for path in (folder / "adapter_model.safetensors", folder):
            os.utime(path, (time.time() - age, time.time() - age))
    with new_folder(tmp_path / "adapter") as building:
        (building / "file").write_bytes(b"whole")
    assert {path.name for path in tmp_path.iterdir()} == {"adapter", left[600].name}
