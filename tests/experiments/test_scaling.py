"""The scaling experiment: its sweep is one, its table is its figures, and what is published is what was measured."""

import json

import pytest

from experiments.scaling.config import FOLDER, Config
from experiments.scaling.run import Timed, lines
from interp.scale.sweep_config import read_config

SHARED = {"tasks": 24, "seconds": 30.04, "started": 8.4, "rows_sha256": "0" * 64}


def test_the_sweep_is_one() -> None:
    assert read_config(Config().sweep()).n_tasks == 24
    assert read_config(Config().quick().sweep()).n_tasks == 2


def test_the_table_is_the_figures() -> None:
    runs = [
        Timed(engine="embedded", workers=1, rate=0.5, **SHARED),
        Timed(engine="embedded", workers=2, rate=0.9, **SHARED),
        Timed(engine="ray", workers=2, rate=0.8, **SHARED),
    ]
    assert lines(runs)[2:] == [
        "| embedded | 1 | 0.50 | 1.00 | 8 s | 30 s |",
        "| embedded | 2 | 0.90 | 1.80 | 8 s | 30 s |",
        "| ray | 2 | 0.80 | - | 8 s | 30 s |",
    ]


def test_the_page_holds_the_kept_figures() -> None:
    if not (FOLDER / "results.json").is_file():
        pytest.skip("not measured yet")
    kept = json.loads((FOLDER / "results.json").read_text())
    page = (FOLDER / "README.md").read_text(encoding="utf-8")
    assert kept["same_rows"]
    assert len({run["rows_sha256"] for run in kept["runs"]}) == 1
    assert "\n".join(lines([Timed(**run) for run in kept["runs"]])) in page
