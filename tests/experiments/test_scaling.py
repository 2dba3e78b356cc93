"""The scaling experiment: its work is what it says, its tables are its figures, and what is published is what was measured."""

import json

import pytest

from experiments.benchmarks.config import ROOT
from experiments.scaling import tables
from experiments.scaling.config import Collected, Config
from experiments.scaling.run import Stopwatch, alike, stored
from experiments.scaling.tables import RESULTS, Timed, collection_lines, scaling_section, sweep_lines
from interp.runner.model import Model
from interp.scale.sweep_config import read_config

SHARED = {"seconds": 30.04, "started": 8.4, "rows_sha256": "0" * 64}
SIX = Collected(length=128)
ONE = Collected(length=32, only=5)


def test_the_sweep_is_one() -> None:
    assert read_config(Config().sweep()).n_tasks == 12
    assert read_config(Config().quick().sweep()).n_tasks == 2


def test_collections_are_what_they_say() -> None:
    assert (SIX.sites, SIX.n_layers, SIX.through) == ("resid_post@0-5", 6, 6)
    assert (ONE.sites, ONE.n_layers, ONE.through) == ("resid_post@5", 1, 6)
    assert {one.length for one in Config().collected} == {32, 128, 512}
    assert {one.n_layers for one in Config().collected} == {1, 6, 30}


def test_the_tables_are_the_figures() -> None:
    runs = [
        Timed(engine="embedded", workers=1, rate=0.5, **SHARED),
        Timed(engine="embedded", workers=2, rate=0.9, **SHARED),
        Timed(engine="ray", workers=2, rate=0.8, **SHARED),
        Timed(engine="embedded", workers=1, rate=1500.2, collected=SIX, **SHARED),
        Timed(engine="embedded", workers=2, rate=2850.4, collected=SIX, **SHARED),
        Timed(engine="embedded", workers=1, rate=1600.0, collected=ONE, **SHARED),
    ]
    assert sweep_lines(runs)[2:] == [
        "| embedded | 1 | 0.50 | 1.00 | 8 s | 30 s |",
        "| embedded | 2 | 0.90 | 1.80 | 8 s | 30 s |",
        "| ray | 2 | 0.80 | - | 8 s | 30 s |",
    ]
    assert collection_lines(runs) == [
        "| streams kept | blocks run | tokens of a text | embedded, 1 worker | embedded, 2 workers |",
        "| --- | --- | --- | --- | --- |",
        "| 6 | 6 | 128 | 1,500 | 2,850 (1.90) |",
        "| 1 | 6 | 32 | 1,600 | - |",
    ]
    assert [Timed.of(json.loads(json.dumps(run.to_json()))) for run in runs] == runs


def test_runs_of_the_same_work_are_compared() -> None:
    one = Timed(engine="embedded", workers=1, rate=1.0, collected=SIX, **SHARED)
    assert alike([one, Timed(engine="ray", workers=1, rate=1.0, **(SHARED | {"rows_sha256": "1" * 64}))])
    assert not alike(
        [one, Timed(engine="ray", workers=1, rate=1.0, collected=SIX, **(SHARED | {"rows_sha256": "1" * 64}))]
    )


def test_the_rate_leaves_out_the_first_piece_of_each_worker(monkeypatch) -> None:
    clock = iter([0.0, 10.0, 11.0, 12.0, 14.0, 16.0])
    monkeypatch.setattr("experiments.scaling.run.time.perf_counter", lambda: next(clock))
    watch = Stopwatch()
    for done in (0, 100, 200, 300, 400, 500):
        watch.step("", done, None)
    assert watch.started == 10.0
    assert watch.rate(1) == 400 / 6
    assert watch.rate(2) == 300 / 5
    assert watch.rate(5) == 0.0


def test_a_run_on_a_tiny_model(tiny) -> None:
    run = stored(Model(tiny("llama")), Collected(length=16, layers=2, shards=3, shard_tokens=64), "embedded", 1)
    assert run.rate > 0
    assert len(run.rows_sha256) == 64


def test_without_results_the_page_has_no_section(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(tables, "RESULTS", tmp_path / "results.json")
    assert scaling_section() == []


def test_the_page_holds_the_kept_figures() -> None:
    if not RESULTS.is_file():
        pytest.skip("not measured yet")
    kept = json.loads(RESULTS.read_text())
    assert kept["same"]
    assert alike([Timed.of(run) for run in kept["runs"]])
    page = (ROOT / "docs" / "benchmarks.md").read_text(encoding="utf-8")
    assert page.endswith("\n".join(scaling_section()) + "\n")
