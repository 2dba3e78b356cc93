"""What is published of each experiment is what was measured: results.json, its tolerances, and the tables of its page."""

import importlib
import json
from pathlib import Path

import pytest

from experiments.expected import Row, read_expected, table

ROOT = Path(__file__).resolve().parents[2]
PAGES = {
    "causal_tracing": "experiments/causal_tracing/README.md",
    "induction_emergence": "docs/how-to/induction-emergence.md",
    "ioi": "experiments/ioi/README.md",
    "lens_depth": "experiments/lens_depth/README.md",
    "nondeterminism": "experiments/nondeterminism/README.md",
    "rome": "experiments/rome/README.md",
    "second_moment_corpus": "experiments/second_moment_corpus/README.md",
}


def test_every_experiment_with_expected_figures_is_here() -> None:
    assert {path.parent.name for path in ROOT.glob("experiments/*/expected.json")} == set(PAGES)


@pytest.mark.parametrize("name", PAGES)
def test_the_page_shows_the_kept_results(name: str) -> None:
    folder = ROOT / "experiments" / name
    if not (folder / "results.json").is_file():
        page = (ROOT / PAGES[name]).read_text(encoding="utf-8")
        assert "Not measured whole yet" in page
        pytest.skip("not measured whole yet")
    found = json.loads((folder / "results.json").read_text())
    config = importlib.import_module(f"experiments.{name}.config").Config()
    assert found["config"] == config.to_json()
    figures = [Row(**{key: value for key, value in row.items() if key != "met"}) for row in found["figures"]]
    assert {row.name: (row.expected, row.tolerance, row.about, row.reason) for row in figures} == {
        key: (goal["value"], goal["tolerance"], goal["about"], goal.get("reason", ""))
        for key, goal in read_expected(folder / "expected.json").items()
    }
    assert [row.name for row in figures if not row.met] == []
    page = (ROOT / PAGES[name]).read_text(encoding="utf-8")
    assert [line for line in table(figures) if line not in page] == []


@pytest.mark.parametrize("name", PAGES)
def test_the_list_names_its_command(name: str) -> None:
    listed = (ROOT / "experiments" / "README.md").read_text(encoding="utf-8")
    assert f"`python -m experiments.{name}.run" in listed
    assert f"[{name}]({name})" in listed


def test_a_table_says_why_where_any_figure_has_a_reason() -> None:
    plain = Row(name="a", about="A", value=1.0, expected=1, tolerance=0)
    assert table([plain])[2] == "| A | 1 | 1 ± 0 | yes |"
    both = table([plain, Row(name="b", about="B", value=3.0, expected=1, tolerance=1, reason="theory")])
    assert both[2:] == ["| A | 1 | 1 ± 0 | yes | as an earlier run |", "| B | 3 | 1 ± 1 | **no** | theory |"]
