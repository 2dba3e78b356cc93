"""Commands run twice at once on one store, sweep, cache or model folder, or where memory runs out: as promised, and nothing damaged.

The work is done by tests/at_once.py and tests/short_of_memory.py, in processes of their own.
"""

import sys
from pathlib import Path

import pytest

from own_process import counted

ASKING = {"MALLOC_ARENA_MAX": "1", "MALLOC_TOP_PAD_": "0", "MALLOC_MMAP_THRESHOLD_": "4096"}
"""Each tensor's memory is asked of the system, so that a limit is felt."""

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="processes and their memory as on Linux")


def counts(script: str, folder: Path, points: int, seed: int, *only: str) -> dict[str, int]:
    (folder / "work").mkdir()
    return counted(script, folder / "work", points, seed, *only, cache=folder / "cache", variables=ASKING)


@pytest.mark.long
def test_some_commands_twice_at_once(tmp_path: Path) -> None:
    assert counts("at_once.py", tmp_path, 1, 0, "collect", "trace")["done"] >= 3


@pytest.mark.slow
def test_commands_that_share_a_folder_twice_at_once(tmp_path: Path) -> None:
    assert counts("at_once.py", tmp_path, 6, 1)["done"] >= 42


@pytest.mark.long
def test_a_command_short_of_memory(tmp_path: Path) -> None:
    assert counts("short_of_memory.py", tmp_path, 2, 0, "heads").keys() & {"short", "halved"}


@pytest.mark.slow
def test_every_long_command_short_of_memory(tmp_path: Path) -> None:
    found = counts("short_of_memory.py", tmp_path, 6, 1)
    assert found["short"] > 20
    assert found["halved"] > 0
