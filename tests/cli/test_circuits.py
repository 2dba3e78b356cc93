"""``interp circuits`` on the default model."""

import json
from pathlib import Path

import pytest

from interp.results import load_result

ON_CPU = ("--device", "cpu", "--dtype", "float32")

pytestmark = pytest.mark.model


@pytest.mark.long
def test_the_tables_show_the_previous_token_head_and_what_is_left_out(interp, tmp_path: Path) -> None:
    path = tmp_path / "head.safetensors"
    ended = interp("circuits", "18.6", "-o", str(path), "--directions", "2", *ON_CPU)
    assert ended.code == 0, ended.stderr
    words = " ".join(ended.stdout.split())
    assert ended.stdout.startswith("L18H6 of smollm2-135m; keys and values shared with L18H7, L18H8")
    (keys,) = [line for line in ended.stdout.splitlines() if "reads through its keys" in line]
    assert "L16H0 0.161" in keys
    for part in ("W_QK: queries on the left", "W_OV: tokens on the left", "+0.282", "chance 50 %", "W_QK by distance"):
        assert part in words
    assert "Left out:" in ended.stdout
    assert "rotation" in ended.stdout.split("Left out:")[1]
    assert load_result(path).ov.read_ids.shape == (2, 2, 6)


@pytest.mark.slow
def test_json_and_html(interp, tmp_path: Path) -> None:
    page = tmp_path / "head.html"
    ended = interp("circuits", "L0H3", "--json", "-q", "-k", "3", "-o", str(page), *ON_CPU)
    assert (ended.code, ended.stderr) == (0, "")
    found = json.loads(ended.stdout)
    assert (found["command"], found["result"]["kind"]) == ("circuits", "head_circuits")
    assert found["result"]["head"] == {"layer": 0, "head": 3}
    assert found["result"]["partners"][0]["composition"][0][0] is None
    assert "Circuits of L0H3" in page.read_text()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("30.0",), "head L30H0 is out of range; valid: L0H0 to L29H8"),
        (("five",), "'five' names no head; write L5H3 or 5.3"),
        (("5.3", "--directions", "65"), "directions is 65; valid: 1 to 64"),
        (("5.3", "-o", "head.png"), "valid: .safetensors, .json, .csv, .html"),
    ],
)
def test_mistakes_name_the_valid_values(interp, arguments: tuple[str, ...], said: str) -> None:
    ended = interp("circuits", *arguments, *ON_CPU)
    assert (ended.code, ended.stdout) == (2, "")
    assert said in ended.stderr
    assert ended.stderr.startswith("error: ")
    assert ended.stderr.count("\n") == 1
