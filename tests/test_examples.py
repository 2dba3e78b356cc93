"""The scripts of docs/examples/ print what docs/examples.md says they print."""

import re
import runpy
from pathlib import Path

import pytest

import interp

DOCS = Path(__file__).resolve().parents[1] / "docs"
PAGE = (DOCS / "examples.md").read_text(encoding="utf-8")
SHOWN = dict(re.findall(r"^## (\w+\.py)$.*?\(examples/\1\).*?^```text\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL))
QUICK = {"lens_of_a_sentence.py", "head_that_finds_the_name.py", "patch_clean_into_corrupted.py"}
NUMBER = re.compile(r"[+-]?\d+(?:\.\d+)?")


def test_every_script_is_on_the_page() -> None:
    assert set(SHOWN) == {path.name for path in (DOCS / "examples").glob("*.py")}


@pytest.mark.model
@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=() if name in QUICK else pytest.mark.slow) for name in SHOWN]
)
def test_a_script_prints_what_the_page_shows(name: str, model, tmp_path: Path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(interp, "load", lambda name, **options: model)
    runpy.run_path(str(DOCS / "examples" / name), run_name="__main__")
    printed, shown = capsys.readouterr().out.rstrip(), SHOWN[name].rstrip()
    assert NUMBER.sub("0", printed) == NUMBER.sub("0", shown)
    assert [float(number) for number in NUMBER.findall(printed)] == pytest.approx(
        [float(number) for number in NUMBER.findall(shown)], abs=0.05
    )
