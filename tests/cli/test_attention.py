"""``interp attention`` on the default model."""

import json
from pathlib import Path

import pytest

from interp.results import load_result

PROMPT = "The Eiffel Tower is located in the city of"
ON_CPU = ("--device", "cpu", "--dtype", "float32")

pytestmark = pytest.mark.model


def test_a_row_a_head(interp, tmp_path: Path) -> None:
    path = tmp_path / "attention.safetensors"
    ended = interp("attention", PROMPT, "--sort", "previous", "-o", str(path), *ON_CPU)
    assert ended.code == 0, ended.stderr
    rows = [line.split() for line in ended.stdout.splitlines() if line.strip().startswith("L")]
    assert len(rows) == 270
    assert [rows[0][0], rows[0][2]] == ["L1H2", "␣city"]
    previous = [float(row[-5]) for row in rows]
    assert previous == sorted(previous, reverse=True)
    assert "share their keys and values (3 in all)" in " ".join(ended.stdout.split())
    result = load_result(path)
    assert result.patterns.shape == (30, 9, 55)
    assert previous[0] == pytest.approx(float(result.means()["previous"][1, 2]), abs=0.006)


def test_one_head_query_by_query(interp, tmp_path: Path) -> None:
    path = tmp_path / "attention.html"
    ended = interp("attention", PROMPT, "--head", "16.0", "-k", "1", "-o", str(path), *ON_CPU)
    assert ended.code == 0, ended.stderr
    rows = [line.split() for line in ended.stdout.splitlines() if line.strip()[:1].isdigit()]
    assert len(rows) == 10
    assert rows[-1][:5] == ["9", "␣of", "␣city", "(8)", "0.83"]
    assert rows[-1][5:7] == ["␣city", "(8)"]
    assert "L16H0: sees all before, key/value head 0 of 3" in ended.stdout
    assert 'type="application/gzip"' in path.read_text(encoding="utf-8"), "the page holds no patterns of heads"


def test_json(interp) -> None:
    ended = interp("attention", PROMPT, "--layer", "0-1", "--head", "3,-1", "--json", "-q", *ON_CPU)
    assert (ended.code, ended.stderr) == (0, "")
    found = json.loads(ended.stdout)
    assert (found["command"], found["schema_version"], found["n_kv_heads"]) == ("attention", 1, 3)
    assert [(head["layer"], head["head"], head["kv_head"]) for head in found["heads"]] == [
        (0, 3, 1),
        (0, 8, 2),
        (1, 3, 1),
        (1, 8, 2),
    ]
    assert {head["layer_kind"] for head in found["heads"]} == {"global"}


def test_one_token(interp) -> None:
    ended = interp("attention", "Hi", "--head", "L5H3", "--json", "-q", *ON_CPU)
    assert ended.code == 0, ended.stderr
    found = json.loads(ended.stdout)
    assert found["heads"][0]["entropy_nats"] is None
    assert found["queries"][0]["own_token_mass"] == 1.0
    assert "-" in interp("attention", "Hi", "--layer", "3", *ON_CPU).stdout


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--layer", "40"), "layer 40 is out of range; valid: 0 to 29"),
        (("--layer", "x"), "cannot read the layers 'x'"),
        (("--head", "12"), "head 12 is out of range; valid: 0 to 8"),
        (("--head", "L30H0"), "valid: L0H0 to L29H8"),
        (("--head", "first"), "'first' names no head; write L5H3 or 5.3"),
        (("--head", "L5H3", "--layer", "2"), "--head L5H3 is in layer 5, and --layer says 2; give one of them"),
        (("--sort", "size"), "unknown order 'size'; valid: layer, previous"),
        (("-o", "attention.txt"), "valid: .safetensors, .json, .csv, .html"),
    ],
)
def test_mistakes_name_the_valid_values(interp, arguments: tuple[str, ...], said: str) -> None:
    ended = interp("attention", PROMPT, *arguments, *ON_CPU)
    assert (ended.code, ended.stdout) == (2, "")
    assert said in ended.stderr
    assert ended.stderr.startswith("error: ")
    assert ended.stderr.count("\n") == 1
