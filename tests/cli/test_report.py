"""``interp report`` on the default model, and from saved results alone."""

import json
from pathlib import Path

import pytest

PROMPT = "The Eiffel Tower is located in the city of"
ON_CPU = ("--device", "cpu", "--dtype", "float32")


@pytest.mark.model
def test_one_page_and_a_summary(interp, tmp_path: Path) -> None:
    path = tmp_path / "report.html"
    ended = interp("report", PROMPT, "-o", str(path), *ON_CPU)
    assert ended.code == 0, ended.stderr
    assert ended.stdout.startswith(str(path))
    for word in ("␣Paris 0.70", "blocks.", "smollm2-135m", "10 tokens"):
        assert word in ended.stdout
    assert path.read_text(encoding="utf-8").startswith("<!doctype html>")
    assert path.stat().st_size < 1_000_000


@pytest.mark.model
def test_from_saved_results_alone(interp, model, tmp_path: Path) -> None:
    import interp as package

    lens, story = tmp_path / "lens.safetensors", tmp_path / "story.safetensors"
    package.logit_lens(model, PROMPT).save(lens)
    package.residual_story(model, PROMPT).save(story)
    path = tmp_path / "again.html"
    ended = interp("report", "--from", str(lens), "--from", str(story), "-o", str(path), "--json")
    assert (ended.code, ended.stderr) == (0, "")
    found = json.loads(ended.stdout)
    assert found["kinds"] == ["logit_lens", "residual_story"]
    assert found["bytes"] == path.stat().st_size
    assert found["next_tokens"][0]["piece"] == " Paris"


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        ((), 2, "a prompt is needed"),
        (("Hi", "--from", "x.safetensors"), 2, "a prompt and --from were both given"),
        (("Hi", "-o", "report.pdf"), 2, "valid: .html"),
        (("--from", "/nowhere.safetensors"), 3, "/nowhere.safetensors"),
    ],
)
def test_mistakes_are_one_line(interp, arguments: tuple[str, ...], code: int, said: str) -> None:
    ended = interp("report", *arguments)
    assert (ended.code, ended.stdout) == (code, "")
    assert said in ended.stderr
    assert ended.stderr.count("\n") == 1
