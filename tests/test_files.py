"""A file is the old one or the new one, never a part, and nothing but a regular file is ever replaced."""

import os
import socket
import stat
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from interp.errors import UsageError
from interp.files import replacing, save_tensors, write_bytes


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.fixture(params=[0o022, 0o077, 0o002])
def umask(request: pytest.FixtureRequest) -> Iterator[int]:
    before = os.umask(request.param)
    yield request.param
    os.umask(before)


def test_the_mode_of_a_new_file_follows_the_umask(tmp_path: Path, umask: int) -> None:
    for name, write in (
        ("bytes", lambda path: write_bytes(path, b"x")),
        ("tensors.safetensors", lambda path: save_tensors(path, {"a": torch.ones(2)}, {})),
    ):
        write(tmp_path / name)
        assert stat.S_IMODE((tmp_path / name).stat().st_mode) == 0o666 & ~umask
    assert os.umask(umask) == umask


def test_the_mode_of_a_replaced_file_stays(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"old")
    path.chmod(0o640)
    write_bytes(path, b"new")
    assert path.read_bytes() == b"new"
    assert stat.S_IMODE(path.stat().st_mode) == 0o640


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, MemoryError])
def test_an_exception_leaves_the_old_file_and_no_other(tmp_path: Path, error: type[BaseException]) -> None:
    path = tmp_path / "file"
    write_bytes(path, b"old")

    def stop_half_way() -> None:
        with replacing(path) as temporary:
            temporary.write_bytes(b"half of the ne")
            assert path.read_bytes() == b"old"
            raise error

    with pytest.raises(error):
        stop_half_way()
    assert path.read_bytes() == b"old"
    assert names(tmp_path) == ["file"]
    new = tmp_path / "never"
    with pytest.raises(error), replacing(new):
        raise error
    assert not new.exists()


def test_a_reader_keeps_the_file_it_opened(tmp_path: Path) -> None:
    path = tmp_path / "file"
    write_bytes(path, b"old")
    with path.open("rb") as reader:
        write_bytes(path, b"new and longer")
        assert reader.read() == b"old"
    assert path.read_bytes() == b"new and longer"


def test_a_full_disk_is_told_in_words(tmp_path: Path) -> None:
    path = tmp_path / "file"
    write_bytes(path, b"old")
    with (
        pytest.raises(UsageError, match="cannot write .*file: No space left on device; the file is as it was before"),
        replacing(path),
    ):
        raise OSError(28, os.strerror(28))
    assert path.read_bytes() == b"old"
    assert names(tmp_path) == ["file"]


def test_a_symbolic_link_stays_and_its_target_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    target = tmp_path / "real" / "file"
    target.write_bytes(b"old")
    link = tmp_path / "link"
    link.symlink_to(target)
    write_bytes(link, b"new")
    assert link.is_symlink()
    assert target.read_bytes() == b"new"
    dangling = tmp_path / "dangling"
    dangling.symlink_to(tmp_path / "real" / "made")
    write_bytes(dangling, b"new")
    assert dangling.is_symlink()
    assert (tmp_path / "real" / "made").read_bytes() == b"new"


def test_what_is_no_regular_file_is_refused(tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    server = socket.socket(socket.AF_UNIX)
    server.bind(os.path.relpath(tmp_path / "socket"))
    server.close()
    to_null = tmp_path / "null"
    to_null.symlink_to("/dev/null")
    null = Path("/dev/null").stat()
    for path in (tmp_path, fifo, tmp_path / "socket", to_null, Path("/dev/null")):
        with pytest.raises(UsageError, match="is not a regular file; choose another output path"):
            write_bytes(path, b"x")
    after = Path("/dev/null").stat()
    assert (null.st_mode, null.st_rdev, null.st_ino) == (after.st_mode, after.st_rdev, after.st_ino)
    assert stat.S_ISFIFO(fifo.stat().st_mode)


def test_a_missing_or_closed_folder_is_told_in_words(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"the folder .*missing does not exist; create it"):
        write_bytes(tmp_path / "missing" / "file", b"x")
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(UsageError):
        write_bytes(tmp_path / "file" / "below", b"x")
    if sys.platform == "linux":  # closed to the superuser as well
        with pytest.raises(UsageError, match="cannot write in /proc"):
            write_bytes("/proc/interp-test", b"x")
    loop = tmp_path / "loop"
    loop.symlink_to(loop)
    with pytest.raises(UsageError, match="loop"):
        write_bytes(loop, b"x")


@pytest.mark.skipif(hasattr(os, "geteuid") and os.geteuid() == 0, reason="the superuser may write anywhere")
def test_a_read_only_folder_is_told_in_words(tmp_path: Path) -> None:
    closed = tmp_path / "closed"
    closed.mkdir()
    closed.chmod(0o500)
    try:
        with pytest.raises(UsageError, match="cannot write in .*closed: Permission denied"):
            write_bytes(closed / "file", b"x")
    finally:
        closed.chmod(0o700)


def test_long_names(tmp_path: Path) -> None:
    longest = tmp_path / ("é" * 127)  # 254 bytes, the most that file systems take
    write_bytes(longest, b"x")
    assert longest.read_bytes() == b"x"
    with pytest.raises(UsageError, match="cannot write"):
        write_bytes(tmp_path / ("n" * 300), b"x")


@given(st.binary(max_size=2000), st.binary(max_size=2000))
def test_bytes_come_back(tmp_path: Path, first: bytes, second: bytes) -> None:
    path = tmp_path / "file"
    for data in (first, second):
        write_bytes(path, data)
        assert path.read_bytes() == data
    assert names(tmp_path) == ["file"]


def test_tensors_come_back_whatever_their_layout(tmp_path: Path) -> None:
    from safetensors import safe_open
    from safetensors.torch import load_file

    base = torch.arange(12.0).reshape(3, 4)
    tensors = {
        "view": base.T,
        "slice": base[:, 1:3],
        "half": base.bfloat16(),
        "ids": torch.tensor([1, 2]),
        "empty": torch.zeros(0, 3),
        "leaf": torch.ones(2, requires_grad=True),
    }
    path = tmp_path / "file.safetensors"
    save_tensors(path, tensors, {"kind": "test", "text": "ü\n"})
    read = load_file(path)
    for name, tensor in tensors.items():
        assert torch.equal(read[name], tensor.detach()), name
        assert read[name].dtype == tensor.dtype
    with safe_open(path, "pt") as file:
        assert file.metadata() == {"kind": "test", "text": "ü\n"}


def test_two_tensors_that_share_memory_are_both_saved(tmp_path: Path) -> None:
    from safetensors.torch import load_file

    whole = torch.arange(6.0)
    save_tensors(tmp_path / "f", {"a": whole, "b": whole, "c": whole[:3]}, {})
    read = load_file(tmp_path / "f")
    assert torch.equal(read["a"], whole)
    assert torch.equal(read["b"], whole)
    assert torch.equal(read["c"], whole[:3])
