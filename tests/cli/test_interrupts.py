"""Commands that are stopped anywhere in our code: one line, all of the output or none, nothing left behind, the same result afterwards.

The work is done by tests/interrupted_commands.py. What each long command keeps and says has its test beside the command's others.
"""

from pathlib import Path

import pytest

from bad_arguments import WORKS
from interrupted_commands import LONG, SHORT
from own_process import counted

FEW = ("lens", "heads", "compare", "edit", "edit eval", "generate", "edit undo", "store")


def stopped(folder: Path, points: int, seed: int, *only: str) -> int:
    """How many commands were stopped; fails where one ended otherwise than promised."""
    (folder / "work").mkdir()
    return counted("interrupted_commands.py", folder / "work", points, seed, *only, cache=folder / "cache")["stopped"]


def test_every_command_is_long_or_short() -> None:
    assert LONG.keys() | SHORT == WORKS.keys()
    assert not LONG.keys() & SHORT


@pytest.mark.long
def test_some_commands_stopped_once(tmp_path: Path) -> None:
    assert stopped(tmp_path, 1, 0, *FEW) >= 6


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, 2])
def test_every_long_command_stopped_at_random_points(tmp_path: Path, seed: int) -> None:
    assert stopped(tmp_path, 6, seed) > 60
