"""What a sweep's folder goes through: kills at any step, other weights, changed bytes, failures that are tried again."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import interp
from engine_work import Threads
from interp.errors import ModelError, UsageError
from interp.scale.engine import Engine, Lost
from interp.scale.engine_processes import Processes
from interp.scale.sweep import sweep
from interp.scale.sweep_analyzers import SweepAnalyzer, analyzer_named
from interp.scale.sweep_columns import kinds_of
from interp.scale.sweep_config import read_config
from interp.scale.sweep_folder import SweepFolder
from interp.scale.sweep_parts import source_of
from sweep_cases import FACTS, save_model

ITEMS = [fact["prompt"] for fact in FACTS]


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> str:
    return save_model(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture
def lens(folder) -> dict:
    """Every prompt alone; side by side they are in test_sweep_batches.py."""
    return {"analyzer": "logit_lens", "device": "cpu", "model": folder, "items": ITEMS, "batch_tokens": 1}


def stop_after(config, out, count: int, **options) -> None:
    """Runs a sweep and stops it like Ctrl-C when ``count`` tasks are done."""

    def progress(what: str, done: int, total: int | None) -> None:
        if done == count:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        sweep(config, out, progress=progress, **options)


@pytest.mark.parametrize(
    ("analyzer", "change", "column", "values"),
    [
        (
            "logit_lens",
            {"items": [{"prompt": "The lake is in", "target": " city"}, {"prompt": "The shop is in", "target": 7}]},
            "item_target",
            {" city", "7"},
        ),
        (
            "logit_lens",
            {"grid": {"positions": [-1, [-1, -2]]}, "items": ITEMS[:1]},
            "setting_positions",
            {"-1", "-1, -2"},
        ),
        (
            "causal_trace",
            {"grid": {"noise": ["auto", 1.0]}, "items": FACTS[:1], "settings": {"kinds": ["resid"], "samples": 2}},
            "setting_noise",
            {"auto", "1.0"},
        ),
        ("logit_lens", {"grid": {"top_k": [1, 2]}, "items": ITEMS[:1]}, "setting_top_k", {1, 2}),
    ],
)
def test_columns_that_say_what_a_task_is_have_one_type(folder, tmp_path, analyzer, change, column, values) -> None:
    result = sweep({"analyzer": analyzer, "model": folder, "device": "cpu"} | change, tmp_path / "out")
    assert set(result.rows()[column]) == values


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        ([1, 2], "int64"),
        ([1, 2.5], "float64"),
        ([True, False], "bool"),
        ([True, 1], "string"),
        ([None, 3], "int64"),
        ([None], "string"),
        ([1 << 70], "string"),
    ],
)
def test_the_type_of_a_column(values, kind) -> None:
    config = read_config({"analyzer": "logit_lens", "model": "x", "items": ["a"], "grid": {"top_k": values}})
    assert kinds_of(config)["setting_top_k"] == kind


def test_rows_of_refused_weights_do_not_stay(lens, tmp_path) -> None:
    """A worker that computes with other weights writes before it is refused, and others beside it, too."""
    model, out = save_model(tmp_path / "model"), tmp_path / "out"
    config = lens | {"model": model}
    whole = sweep(config, tmp_path / "whole")
    stop_after(config, out, 1)
    [good] = SweepFolder(str(out)).parts()
    save_model(tmp_path / "model", seed=1)
    with pytest.raises(ModelError, match="began with weights_sha256"):
        sweep(config, out, resume=True)
    other = tmp_path / "other"
    stop_after(config, other, 3)  # what further workers wrote before the first was refused
    for part in SweepFolder(str(other)).parts():
        if part.index:
            assert part.source != good.source
            (out / part.name).write_bytes((other / part.name).read_bytes())
    save_model(tmp_path / "model")
    told: list[str] = []
    again = sweep(config, out, resume=True, notify=told.append)
    assert told[0] == "the rows of 2 tasks are of other weights or versions and are removed"
    assert Path(again.table_path).read_bytes() == Path(whole.table_path).read_bytes()


def test_a_part_says_what_it_was_computed_with(lens, tmp_path) -> None:
    import pyarrow.parquet as pq

    stop_after(lens, tmp_path / "out", 1)
    [part] = SweepFolder(str(tmp_path / "out")).parts()
    told = json.loads(pq.read_schema(tmp_path / "out" / part.name).metadata[b"interp"])
    assert told["source"]["weights_sha256"] == interp.load(lens["model"], device="cpu").provenance().weights_sha256
    assert "torch" in told["source"]["versions"]
    assert source_of(told["source"]) == part.source
    assert source_of(told["source"] | {"hardware": "another"}) == part.source
    assert source_of(told["source"] | {"threads": 9}) != part.source


def test_every_changed_byte_of_a_part_is_noticed(lens, tmp_path) -> None:
    stop_after(lens, tmp_path / "out", 1)
    place = SweepFolder(str(tmp_path / "out"))
    [part] = place.parts()
    data = (tmp_path / "out" / part.name).read_bytes()
    assert place.read_part(part) is not None
    assert not any(part.holds(data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]) for at in range(0, len(data), 97))
    (tmp_path / "out" / part.name).write_bytes(data[:-9] + b"x" + data[-8:])
    assert place.read_part(part) is None
    assert place.parts() == []


@pytest.mark.long
def test_workers_compute_on_the_threads_of_the_configuration(tmp_path) -> None:
    """Also where torch is there before the worker's environment is set."""
    assert {reply for _, reply in Processes(threads=3).run(Threads(), range(2))} == {3}


@pytest.mark.parametrize("at", ["sweep.json", "items.jsonl"])
def test_a_stop_before_the_first_task_leaves_the_folder_free(lens, tmp_path, monkeypatch, at) -> None:
    write = SweepFolder.write

    def stopped(self, name, data) -> None:
        if name == at:
            raise KeyboardInterrupt
        write(self, name, data)

    monkeypatch.setattr(SweepFolder, "write", stopped)
    config, out = lens | {"items": ITEMS[:2]}, tmp_path / "out"
    with pytest.raises(KeyboardInterrupt):
        sweep(config, out)
    monkeypatch.setattr(SweepFolder, "write", write)
    assert (out / ".lock").exists()
    assert sweep(config, out).n_done == 2


KILLED = """
import json, os, signal, sys
from interp.scale.sweep import sweep

replace = os.replace

def renamed(source, target):
    if str(target).endswith("rows.parquet"):
        os.kill(os.getpid(), signal.SIGKILL)
    return replace(source, target)

os.replace = renamed
sweep(json.loads(sys.argv[1]), sys.argv[2])
"""


@pytest.mark.long
def test_what_a_kill_left_half_written_is_removed(lens, tmp_path) -> None:
    """The table is written beside and not yet renamed into place."""
    out, config = tmp_path / "out", lens | {"items": ITEMS[:2]}
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[2])}
    died = subprocess.run([sys.executable, "-c", KILLED, json.dumps(config), str(out)], env=environment)
    assert died.returncode == -9
    assert list(out.rglob("*.part"))
    assert sweep(config, out, resume=True).n_done == 2
    assert not list(out.rglob("*.part"))


def test_an_interrupt_before_the_manifest_leaves_the_folder_free(lens, tmp_path) -> None:
    (tmp_path / "out" / "parts").mkdir(parents=True)
    (tmp_path / "out" / ".lock").touch()
    (tmp_path / "out" / ".interp-x.part").write_bytes(b"half")
    assert SweepFolder(str(tmp_path / "out")).is_empty()
    (tmp_path / "out" / "parts" / "mine.txt").touch()
    with pytest.raises(UsageError, match="is not empty and holds no sweep"):
        sweep(lens, tmp_path / "out")


def test_edits_share_the_sweeps_seed_and_with_it_second_moments() -> None:
    case = {"subject": "lake", "template": "The {} is in the", "target": " red", "true": " city"}
    config = {"analyzer": "edit", "model": "x", "items": [case, case | {"subject": "shop"}], "seed": 5}
    assert [task.seed for task in read_config(config).tasks()] == [5, 5]
    valid = analyzer_named("edit").settings()
    assert {"steps", "keep_weight", "ridge", "layers", "method"} <= valid


def test_settings_that_fail_every_item_stop_a_sweep_that_goes_on(lens, tmp_path) -> None:
    """The first items' failures are known from their rows."""
    out, config = tmp_path / "out", lens | {"settings": {"top_k": "many"}}
    stop_after(config, out, 2)
    assert [part.failed for part in SweepFolder(str(out)).parts()] == [True, True]
    with pytest.raises(UsageError, match="each of the first 3 items failed alike"):
        sweep(config, out, resume=True)
    assert sweep(lens, out).summary.n_failed == 0


class Flaky(Engine):
    """This process, with some tasks lost and some out of memory."""

    def __init__(self, lost=(), **options) -> None:
        super().__init__(**options)
        self.lost = lost

    def run(self, make, units):
        work = make(0)
        for unit in units:
            yield unit, Lost("its worker died") if unit.tasks[0].index in self.lost else work(unit)


def test_failures_are_tried_again_when_asked(lens, tmp_path, monkeypatch) -> None:
    out, run, tried = tmp_path / "out", SweepAnalyzer.run, []
    whole = sweep(lens, tmp_path / "whole")

    def failing(self, model, item, settings, seed):
        tried.append(item["prompt"])
        if item["prompt"] == ITEMS[1]:
            raise MemoryError("no more")
        if item["prompt"] == ITEMS[4]:
            raise ValueError("cannot")
        return run(self, model, item, settings, seed)

    monkeypatch.setattr(SweepAnalyzer, "run", failing)
    stop_after(lens, out, 5, engine=Flaky(lost=(2,)))
    assert [(part.index, part.failed) for part in SweepFolder(str(out)).parts()] == [(0, False), (3, False), (4, True)]
    tried.clear()
    first = sweep(lens, out, resume=True, engine=Flaky(lost=(2,)))
    assert tried == [ITEMS[1], ITEMS[5]]  # memory may be there now; what failed by itself fails again
    assert {one.task: one.reason for one in first.summary.failures} == {
        1: "MemoryError: no more",
        2: "its worker died",
        4: "ValueError: cannot",
    }
    monkeypatch.setattr(SweepAnalyzer, "run", run)
    assert sweep(lens, out, resume=True).summary.n_failed == 3
    again = sweep(lens, out, retry_failed=True)
    assert again.summary.n_failed == 0
    assert Path(again.table_path).read_bytes() == Path(whole.table_path).read_bytes()
    told: list[str] = []
    sweep(lens, out, retry_failed=True, notify=told.append)
    assert told == ["no task failed; there is nothing to try again"]


def test_a_home_folder_is_the_same_for_all(lens, tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    result = sweep(lens | {"items": ITEMS[:1]}, "~/out")
    assert result.folder == str(tmp_path / "out") == SweepFolder("~/out").url
    assert not (tmp_path / "~").exists()
