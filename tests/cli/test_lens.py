"""``interp lens`` on the default model."""

import json
from pathlib import Path

import pytest

from interp.results import load_result

PROMPT = "The Eiffel Tower is located in the city of"
ON_CPU = ("--device", "cpu", "--dtype", "float32")

pytestmark = pytest.mark.model


def test_the_table_ends_in_the_models_answer(interp, tmp_path: Path) -> None:
    path = tmp_path / "lens.safetensors"
    ended = interp("lens", PROMPT, "--target", " Paris", "-o", str(path), *ON_CPU)
    assert ended.code == 0, ended.stderr
    rows = [line.split() for line in ended.stdout.splitlines() if line.strip()[:1].isdigit()]
    assert [int(row[0]) for row in rows] == list(range(30))
    assert (rows[-1][1], rows[-1][-1]) == ("␣Paris", "0")
    assert float(rows[-1][-2]) == pytest.approx(0.70, abs=0.01)
    assert "target ␣Paris" in ended.stdout
    assert load_result(path).top_ids.shape[:2] == (30, 10)


def test_json(interp) -> None:
    ended = interp(
        "lens", PROMPT, "--position", "0", "--top-k", "2", "--site", "resid_pre@0-3", "--json", "-q", *ON_CPU
    )
    assert (ended.code, ended.stderr) == (0, "")
    found = json.loads(ended.stdout)
    assert (found["command"], found["schema_version"], found["position"]) == ("lens", 1, 0)
    assert found["result"]["kind"] == "logit_lens"
    assert found["result"]["sites"] == [f"blocks.{layer}.hook_resid_pre" for layer in range(4)]
    assert len(found["result"]["top_ids"][0][0]) == 2


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--position", "99"), "position 99 is out of range; valid: 0 to 9"),
        (("--target", " Paris is"), "2 tokens"),
        (("--target", ""), "the target is empty"),
        (("--site", "resid_past"), "resid_post"),
        (("--site", "resid_post@99"), "99"),
        (("--top-k", "99999999"), "top_k"),
    ],
)
def test_mistakes_name_the_valid_values(interp, arguments: tuple[str, ...], said: str) -> None:
    ended = interp("lens", PROMPT, *arguments, *ON_CPU)
    assert (ended.code, ended.stdout) == (2, "")
    assert said in ended.stderr
    assert ended.stderr.startswith("error: ")
    assert ended.stderr.count("\n") == 1
