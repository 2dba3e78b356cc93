"""``interp induction`` on the default model."""

import json
from pathlib import Path

import pytest

from interp.results import load_result

ON_CPU = ("--device", "cpu", "--dtype", "float32")
SCAN = ("--scan-only", "--seeds", "4", "--periods", "20")

pytestmark = pytest.mark.model


@pytest.mark.long
def test_a_scan_lists_the_heads(interp, tmp_path: Path) -> None:
    path = tmp_path / "induction.safetensors"
    ended = interp("induction", *SCAN, "-o", str(path), *ON_CPU)
    assert ended.code == 0, ended.stderr
    heads = [line.split()[0] for line in ended.stdout.splitlines() if line.strip().startswith("L")]
    assert {"L18H6", "L17H3", "L17H4"} <= set(heads)
    assert "2 copies of 20 random tokens, 4 seeds" in ended.stdout
    assert "not measured: losses, ablations and circuits" in ended.stdout
    assert load_result(path).periods == (20,)


@pytest.mark.long
def test_json_and_one_head_with_its_ablation(interp, tmp_path: Path) -> None:
    page = tmp_path / "induction.html"
    small = ("--heads", "18.6", "--seeds", "2", "--periods", "15", "--draws", "1")
    ended = interp("induction", *small, "--json", "-q", "-o", str(page), *ON_CPU)
    assert (ended.code, ended.stderr) == (0, "")
    found = json.loads(ended.stdout)
    assert (found["command"], found["schema_version"]) == ("induction", 1)
    (verdict,) = found["result"]["verdicts"]
    assert verdict["head"] == {"layer": 18, "head": 6}
    assert verdict["cause"]["second"]["value"] > 0.5
    assert verdict["mechanism"]["partner"]["place"] == 1
    text = page.read_text(encoding="utf-8")
    assert "Induction heads" in text
    assert "L18H6" in text


@pytest.mark.slow
def test_given_texts(interp, tmp_path: Path) -> None:
    path = tmp_path / "texts.txt"
    path.write_text(
        "One blue cat saw one red dog. One blue cat saw one\n\nTo be or not to be, to be or not\n", encoding="utf-8"
    )
    ended = interp("induction", "--prompts", str(path), "--scan-only", "--heads", "18.6", *ON_CPU)
    assert ended.code == 0, ended.stderr
    assert "2 given prompts" in ended.stdout
    path.write_text("The sun shines\n", encoding="utf-8")
    ended = interp("induction", "--prompts", str(path), *ON_CPU)
    assert (ended.code, ended.stdout) == (2, "")
    assert "no token of prompt 0 comes again" in ended.stderr


def test_an_interrupt_ends_with_its_code(interp, monkeypatch) -> None:
    def stop(*arguments, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr("interp.analyzers.induction_heads.induction_heads", stop)
    ended = interp("induction", *SCAN, *ON_CPU)
    assert (ended.code, ended.stdout, ended.stderr) == (130, "", "error: interrupted\n")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (
            ("--periods", "1"),
            "the period 1 is out of range; valid: 2 to 4095, so that 2 copies fit the context of 8192",
        ),
        (("--periods", "9000"), "the period 9000 is out of range"),
        (("--periods", "ten"), "write numbers with commas, such as 20,40,60"),
        (("--heads", "L30H0"), "head L30H0 is out of range; valid: L0H0 to L29H8"),
        (("--heads", "18-6"), "names no head; write L5H3 or 5.3"),
        (("--threshold", "0"), "the threshold is 0.0; valid: above 0, up to 1"),
        (("--prompts", "/nowhere/file.txt"), "cannot read /nowhere/file.txt"),
        (("--corpus", "/nowhere/file.txt"), "cannot read /nowhere/file.txt"),
        (("-o", "page.txt"), "valid: .safetensors, .json, .csv, .html"),
    ],
)
def test_mistakes_name_the_valid_values(interp, arguments: tuple[str, ...], said: str) -> None:
    ended = interp("induction", *arguments, *ON_CPU)
    assert (ended.code, ended.stdout) == (2, "")
    assert said in ended.stderr
    assert ended.stderr.startswith("error: ")
    assert ended.stderr.count("\n") == 1
