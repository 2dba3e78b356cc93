"""The experiment of equal rows: its sweep is one, faults are seen, and what is published is what was measured."""

import json
from dataclasses import replace

import pytest

from experiments.causal_tracing.facts import KnownFact
from experiments.same_rows.config import FOLDER, Config
from experiments.same_rows.run import faults, lines
from experiments.same_rows.runs import Told
from interp.scale.sweep_config import read_config

TOLD = Told(name="this process", tasks=8, failed=0, rows=1240, seconds=30.4, rows_sha256="ab" * 32)


def test_the_sweep_is_one() -> None:
    facts = [KnownFact(number=3, prompt="The lake is in", subject="lake", attribute="Rome")]
    config = read_config(Config().sweep(facts))
    assert config.items == ({"prompt": "The lake is in", "subject": "lake", "target": " Rome"},)
    assert config.settings == {"kinds": ["resid"], "samples": 1, "noise": 3.0}
    assert (Config().facts, Config().quick().facts) == (200, 8)


def test_the_table_says_what_happened() -> None:
    runs = [
        TOLD,
        replace(TOLD, name="2 workers", kept=3, resumed=5),
        replace(TOLD, name="Ray", lost={"worker": 2, "node": 4}),
    ]
    assert [line.split(" | ")[4] for line in lines(runs)[2:]] == [
        "-",
        "interrupted with 3 kept; 5 done after that, 0 twice",
        "worker killed after 2 facts, node killed after 4 facts",
    ]
    assert not faults(runs)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"rows_sha256": "cd" * 32}, "the rows differ"),
        ({"failed": 2}, "other: 2 tasks failed"),
        ({"kept": 3, "resumed": 6}, "other: 3 tasks were kept and 6 done after that, of 8"),
        ({"kept": 3, "resumed": 5, "redone": 1}, "other: 1 finished tasks were done again"),
    ],
)
def test_what_is_not_as_it_should_be_is_said(change, said) -> None:
    assert faults([TOLD, replace(TOLD, name="other", **change)]) == [said]


def test_the_page_holds_the_kept_figures() -> None:
    if not (FOLDER / "results.json").is_file():
        pytest.skip("not measured yet")
    kept = json.loads((FOLDER / "results.json").read_text(encoding="utf-8"))
    runs = [Told(**run) for run in kept["runs"]]
    assert kept["same_rows"]
    assert not faults(runs)
    assert len(kept["subjects"]) == kept["config"]["facts"] == runs[0].tasks
    assert "\n".join(lines(runs)) in (FOLDER / "README.md").read_text(encoding="utf-8")
