"""Damaged files of every kind load or are refused in one line that names them, quickly, in little memory, and write nothing.

The work is done by tests/fuzz_loaders.py in a process of its own, whose memory is limited and which runs without the shape checker.
"""

import json
import sys
import time
from pathlib import Path

import pytest

from interp.errors import UsageError
from interp.foreign_json import parse_json
from interp.scale.sweep_config import read_config
from own_process import counted

ENDS = {"loaded", "ModelError", "UsageError", "NumericsError"}


def fuzzed(folder: Path, rounds: int, seed: int) -> dict[str, dict[str, int]]:
    """How reading each kind of damaged file ended; fails where one ended otherwise than promised."""
    work = folder / "damaged-files"
    (work / "cache").mkdir(parents=True)
    return counted("fuzz_loaders.py", work, rounds, seed, cache=work / "cache")["counts"]


def check(counts: dict[str, dict[str, int]]) -> None:
    assert len(counts) > 30
    assert set().union(*counts.values()) <= ENDS
    refused = sum(number for how in counts.values() for end, number in how.items() if end != "loaded")
    assert refused > sum(sum(how.values()) for how in counts.values()) / 2


@pytest.mark.skipif(sys.platform != "linux", reason="the memory of a process is limited as on Linux")
@pytest.mark.long
def test_a_few_hundred_damaged_files(tmp_path: Path) -> None:
    check(fuzzed(tmp_path, 5, 0))


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="the memory of a process is limited as on Linux")
@pytest.mark.parametrize("seed", [1, 2])
def test_thousands_of_damaged_files(tmp_path: Path, seed: int) -> None:
    check(fuzzed(tmp_path, 200, seed))


HOSTILE_YAML = {
    "aliases that stand for billions": "a: &a [1,1,1,1,1,1,1,1,1]\n"
    + "".join(f"{new}: &{new} [{', '.join([f'*{old}'] * 9)}]\n" for old, new in zip("abcdefghi", "bcdefghij", strict=True)),
    "an alias of itself": "settings: &a [*a]\n",
    "a date that is none": "seed: 2020-13-45\n",
    "a tag of Python": "seed: !!python/object/apply:os.getcwd []\n",
    "a number that is none": "seed: !!int ''\n",
    "a time that is none": "seed: !!timestamp x\n",
    "a key that is a list": "[1, 2]: 3\n",
    "depth": "a: " + "[" * 5000 + "\n",
    "no text": "\x00\x01",
}  # fmt: skip


@pytest.mark.parametrize("case", HOSTILE_YAML)
def test_hostile_yaml_is_refused_soon(tmp_path: Path, case: str) -> None:
    path = tmp_path / "sweep.yaml"
    path.write_text(HOSTILE_YAML[case])
    begun = time.process_time()
    with pytest.raises(UsageError) as caught:
        read_config(path)
    assert time.process_time() - begun < 2  # the shape checker included
    assert str(path) in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize("text", ["a = " + "[" * 5000, "a = " + "9" * 5000, "a = 2020-13-45"])
def test_hostile_toml_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "sweep.toml"
    path.write_text(text)
    with pytest.raises(UsageError, match="is not TOML"):
        read_config(path)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[" * 100_000, "nests too deeply"),
        ("9" * 5000, "too many digits"),
        (b"\xff", "byte 0 is not UTF-8"),
        ("{", "Expecting"),
    ],
)
def test_json_of_others_has_one_kind_of_error(text: str | bytes, said: str) -> None:
    with pytest.raises(json.JSONDecodeError, match=said):
        parse_json(text)
    assert parse_json('{"a": [1, null]}') == {"a": [1, None]}
