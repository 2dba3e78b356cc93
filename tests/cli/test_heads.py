"""``interp heads`` on the default model."""

import csv
import json
from pathlib import Path

import pytest

from interp.results import load_result

ON_CPU = ("--device", "cpu", "--dtype", "float32")
LINES = """The cat sat on the mat, and the cat sat on the rug.

One fish, two fish, red fish, blue fish, one fish.
If you want to go fast, go alone; if you want to go far, go together.
A rose is a rose is a rose, and a thorn is a thorn.
"""

pytestmark = pytest.mark.model


@pytest.fixture
def lines(tmp_path: Path) -> str:
    path = tmp_path / "prompts.txt"
    path.write_text(LINES)
    return str(path)


@pytest.mark.long
def test_the_table_names_heads_with_their_evidence(interp, lines: str, tmp_path: Path) -> None:
    path = tmp_path / "heads.safetensors"
    ended = interp("heads", "--prompts", lines, "--layer", "16-18", "--shuffles", "1", "-o", str(path), *ON_CPU)
    assert ended.code == 0, ended.stderr
    assert "class" in ended.stdout
    assert "95% interval" in ended.stdout
    assert "previous-token head" in ended.stdout
    assert "first-token (sink) head" in ended.stdout
    assert "4 prompts of" in ended.stdout
    result = load_result(path)
    assert result.layers == (16, 17, 18)
    assert len(result.lengths) == 4


@pytest.mark.long
def test_json_and_one_head(interp, tmp_path: Path) -> None:
    path = tmp_path / "prompts.jsonl"
    texts = [json.dumps({"prompt": line}) for line in LINES.splitlines() if line]
    path.write_text("\n".join([*texts, '{"ids": [1, 500, 600, 500, 600, 700]}']) + "\n")
    ended = interp("heads", "--prompts", str(path), "--layer", "16-17", "--margin", "0", "--json", "-q", *ON_CPU)
    assert (ended.code, ended.stderr) == (0, "")
    found = json.loads(ended.stdout)
    assert found["command"] == "heads"
    assert found["result"]["kind"] == "head_profiles"
    assert found["result"]["layers"] == [16, 17]
    assert len(found["result"]["lengths"]) == 5
    assert {"head", "head_class", "value", "lower", "upper", "null", "p"} <= set(found["named"][0])
    table = tmp_path / "heads.csv"
    ended = interp("heads", "--prompts", str(path), "--head", "17.3", "--shuffles", "1", "-o", str(table), *ON_CPU)
    assert ended.code == 0, ended.stderr
    assert "L17H3" in ended.stdout
    assert "induction_targets" in ended.stdout
    rows = list(csv.DictReader(table.read_text().splitlines()))
    assert {row["layer"] for row in rows} == {"17"}


def test_text_without_repeats_is_said(interp, tmp_path: Path) -> None:
    path = tmp_path / "prompts.txt"
    path.write_text("one two three four\nalpha beta gamma delta\n")
    ended = interp("heads", "--prompts", str(path), "--layer", "17", "--shuffles", "1", *ON_CPU)
    assert ended.code == 0
    assert "text without repeats" in ended.stderr


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--prompts", "no-such-file.txt"), "cannot read no-such-file.txt"),
        (("--layer", "99"), "layer 99 is out of range; valid: 0 to 29"),
        (("--head", "L5H9"), "head L5H9 is out of range; valid: L0H0 to L29H8"),
        (("--head", "five"), "write L5H3 or 5.3"),
        (("--margin", "2"), "margin is 2.0; valid: 0 up to"),
        (("-o", "heads.png"), "ends in '.png'; valid: .safetensors"),
    ],
)
def test_mistakes_name_the_valid_values(interp, arguments: tuple[str, ...], said: str) -> None:
    ended = interp("heads", *arguments, *ON_CPU)
    assert (ended.code, ended.stdout) == (2, "")
    assert said in ended.stderr
    assert ended.stderr.startswith("error: ")
    assert ended.stderr.count("\n") == 1


def test_a_prompt_of_one_token_and_an_empty_file(interp, tmp_path: Path) -> None:
    path = tmp_path / "prompts.txt"
    path.write_text("the\n")
    ended = interp("heads", "--prompts", str(path), *ON_CPU)
    assert ended.code == 2
    assert "prompt 0 has one token" in ended.stderr
    path.write_text("\n\n")
    ended = interp("heads", "--prompts", str(path), *ON_CPU)
    assert ended.code == 2
    assert "holds no prompt" in ended.stderr
