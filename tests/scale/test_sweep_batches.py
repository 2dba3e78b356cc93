"""Prompts of a sweep side by side: cut from the configuration alone, the same bytes whoever runs them, halved where memory runs out."""

import random
from itertools import pairwise
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import interp.models.device as devices
import interp.runner.memory as memory
import word_model
from interp.errors import ModelError, UsageError
from interp.scale.engine import Engine, Lost
from interp.scale.sweep import sweep
from interp.scale.sweep_analyzers import SweepAnalyzer
from interp.scale.sweep_batches import MOST_TASKS, batch_tokens_of, batches_of
from interp.scale.sweep_config import read_config
from interp.scale.sweep_folder import SweepFolder
from sweep_cases import FACTS, save_model

WORDS = [word for word in word_model.WORDS if not word.startswith("<")]
PROMPTS = [" ".join(random.Random(seed).choices(WORDS, k=2 + seed % 7)) for seed in range(20)]
NUMBERS = ["entropy_nats", "kl_nats", "top_log_prob_nats", "target_log_prob_nats"]


@pytest.fixture(scope="module")
def config(tmp_path_factory) -> dict:
    folder = save_model(tmp_path_factory.mktemp("models") / "tiny")
    return {"analyzer": "logit_lens", "model": folder, "device": "cpu", "items": PROMPTS, "batch_tokens": 40}


@pytest.fixture(scope="module")
def whole(config, tmp_path_factory):
    return sweep(config, tmp_path_factory.mktemp("whole") / "out")


def rows_of(result) -> bytes:
    return Path(result.table_path).read_bytes()


def close(found: pd.DataFrame, expected: pd.DataFrame) -> None:
    assert found["task"].tolist() == expected["task"].tolist()
    np.testing.assert_allclose(found[NUMBERS], expected[NUMBERS], atol=1e-4, rtol=1e-4)


class Counted(Engine):
    """This process, which keeps what it was given, the last batch first where ``backwards``; what holds ``deadly`` is lost."""

    def __init__(self, *, backwards: bool = False, deadly: int | None = None) -> None:
        super().__init__()
        self.backwards, self.deadly, self.seen = backwards, deadly, []

    def run(self, make, units):
        work = make(0)
        for unit in reversed(list(units)) if self.backwards else units:
            self.seen.append(unit)
            dies = self.deadly in {task.index for task in unit.tasks}
            yield unit, Lost("its worker died") if dies else work(unit)


@pytest.mark.long
def test_rows_are_those_of_each_alone(config, whole, tmp_path) -> None:
    alone = sweep(config | {"batch_tokens": 1}, tmp_path / "alone", engine=(engine := Counted()))
    assert len(engine.seen) == len(PROMPTS)
    assert whole.summary.n_failed == 0
    close(whole.rows(), alone.rows())


@pytest.mark.long
def test_any_engine_and_order_of_work_give_the_same_bytes(config, whole, tmp_path) -> None:
    engine = Counted(backwards=True)
    turned = sweep(config, tmp_path / "turned", engine=engine)
    assert 2 < len(engine.seen) < len(PROMPTS) / 2
    assert rows_of(turned) == rows_of(whole)
    assert rows_of(sweep(config, tmp_path / "two", workers=2)) == rows_of(whole)


def test_the_order_of_the_items_changes_no_number(config, whole, tmp_path) -> None:
    order = random.Random(1).sample(range(len(PROMPTS)), len(PROMPTS))
    shuffled = sweep(config | {"items": [PROMPTS[place] for place in order]}, tmp_path / "shuffled").rows()
    expected = whole.rows()
    for now, before in enumerate(order):
        pd.testing.assert_frame_equal(
            shuffled[shuffled["item"] == now][NUMBERS].reset_index(drop=True),
            expected[expected["item"] == before][NUMBERS].reset_index(drop=True),
            check_exact=True,
        )


def test_batches_are_of_like_length_and_of_one_point(config) -> None:
    asked = read_config(config | {"grid": {"top_k": [1, 2]}, "batch_tokens": 1000, "items": PROMPTS * 4})
    tasks = list(asked.tasks())
    batches = batches_of(asked, tasks, range(len(tasks)))
    assert sorted(task.index for batch in batches for task in batch.tasks) == list(range(len(tasks)))
    for batch in batches:
        assert len({task.settings["top_k"] for task in batch.tasks}) == 1
        assert len(batch.tasks) <= MOST_TASKS
    firsts = [min(task.index for task in batch.tasks) for batch in batches]
    assert firsts == sorted(firsts)
    lengths = [sorted(len(task.item["prompt"]) for task in batch.tasks) for batch in batches[:3]]
    ordered = sorted(lengths)
    assert all(before[-1] <= after[0] for before, after in pairwise(ordered))


def test_a_machine_with_an_accelerator_has_larger_batches(config, monkeypatch) -> None:
    """Nothing is run on it here; what it has no room for its worker cuts."""
    asked = {name: value for name, value in config.items() if name not in ("device", "batch_tokens")}

    def budget(**more) -> int:
        return batch_tokens_of(read_config(asked | more))

    assert budget(device="cpu") == 1024
    monkeypatch.setattr(devices, "available_devices", lambda: ("cpu",))
    assert budget() == 1024
    assert budget(gpus=1) == 32_768, "workers on a cluster have what the machine that begins has not"
    monkeypatch.setattr(devices, "available_devices", lambda: ("cuda:0", "cpu"))
    assert budget() == budget(device="cuda") == 32_768
    assert budget(device="cpu") == 1024
    assert budget(model=[{"name": "a"}, {"name": "b", "device": "cpu"}]) == 1024
    assert budget(batch_tokens=7) == 7
    for batch_tokens, most in ((1024, MOST_TASKS), (32_768, 80)):
        large = read_config(asked | {"items": PROMPTS * 4, "batch_tokens": batch_tokens})
        tasks = list(large.tasks())
        assert max(len(batch.tasks) for batch in batches_of(large, tasks, range(len(tasks)))) == most


@pytest.mark.long
def test_a_sweep_goes_on_with_the_batches_it_was_begun_with(config, whole, tmp_path, monkeypatch) -> None:
    asked = {name: value for name, value in config.items() if name != "batch_tokens"}
    out, write, left = tmp_path / "out", SweepFolder.write_part, [9]

    def stopped(self, task, *arguments):
        left[0] -= 1
        if not left[0]:
            raise KeyboardInterrupt
        return write(self, task, *arguments)

    with monkeypatch.context() as patched:
        patched.setattr("interp.scale.sweep_batches.BATCH_TOKENS", config["batch_tokens"])
        patched.setattr(SweepFolder, "write_part", stopped)
        with pytest.raises(KeyboardInterrupt):
            sweep(asked, out)
    assert SweepFolder(str(out)).read_json("sweep.json")["sweep"]["batch_tokens"] == config["batch_tokens"]
    assert rows_of(sweep(asked, out, resume=True)) == rows_of(whole)
    assert rows_of(sweep(config, out, resume=True)) == rows_of(whole), "asked for or chosen is the same"
    with pytest.raises(UsageError, match="batch_tokens = 40, and now it is 41"):
        sweep(asked | {"batch_tokens": 41}, out, resume=True)
    manifest = out / "sweep.json"
    manifest.write_text(manifest.read_text().replace('"batch_tokens": 40', '"batch_tokens": "x"'))
    with pytest.raises(ModelError, match=r"sweep.json in .* is damaged \(batch_tokens is 'x'\)"):
        sweep(asked, out, resume=True)


def test_what_is_finished_does_not_change_a_batch(config) -> None:
    asked = read_config(config)
    tasks = list(asked.tasks())
    every = {_indices(batch) for batch in batches_of(asked, tasks, range(len(tasks)))}
    left = batches_of(asked, tasks, [3, 11])
    assert {_indices(batch) for batch in left} <= every
    assert {task.index for batch in left for task in batch.todo} == {3, 11}


def _indices(batch) -> tuple[int, ...]:
    return tuple(task.index for task in batch.tasks)


def test_an_analyzer_that_takes_one_prompt_has_batches_of_one() -> None:
    asked = read_config({"analyzer": "causal_trace", "model": "x", "items": FACTS})
    tasks = list(asked.tasks())
    assert [len(batch.tasks) for batch in batches_of(asked, tasks, range(len(tasks)))] == [1] * len(FACTS)


@pytest.mark.long
def test_a_stop_inside_a_batch_loses_nothing_and_changes_no_byte(config, whole, tmp_path, monkeypatch) -> None:
    write, written = SweepFolder.write_part, []

    def stopped(self, task, *arguments):
        if len(written) == 9:
            raise KeyboardInterrupt
        written.append(task.index)
        return write(self, task, *arguments)

    monkeypatch.setattr(SweepFolder, "write_part", stopped)
    out = tmp_path / "out"
    with pytest.raises(KeyboardInterrupt):
        sweep(config, out)
    first = list(written)
    assert sorted(part.index for part in SweepFolder(str(out)).parts()) == sorted(first)
    written[:] = [-1] * 10  # never stops again
    result = sweep(config, out, resume=True)
    assert sorted(written[10:]) == sorted(set(range(len(PROMPTS))) - set(first)), (
        "what is finished is not written again"
    )
    assert rows_of(result) == rows_of(whole)


@pytest.mark.long
def test_memory_that_runs_out_halves_the_batch_and_is_said(config, whole, tmp_path, monkeypatch) -> None:
    run, sizes, told = SweepAnalyzer.run_together, [], []

    def short(self, model, items, settings):
        sizes.append(len(items))
        if len(items) > 3:
            raise RuntimeError("[enforce fail] can't allocate memory: you tried to allocate 9 bytes")
        return run(self, model, items, settings)

    monkeypatch.setattr(SweepAnalyzer, "run_together", short)
    result = sweep(config, tmp_path / "out", notify=told.append)
    assert result.summary.n_failed == 0
    close(result.rows(), whole.rows())
    assert told
    assert all(line.startswith("out of memory with ") and "tokens a batch; going on with " in line for line in told)
    assert sum(size > 3 for size in sizes) == len(told) <= 3, "later batches are smaller from the start"
    for line in told:
        tried, left = (int(word.replace(",", "")) for word in line.split() if word[0].isdigit())
        assert left == tried // 2
    assert any(1 < size <= 3 for size in sizes), "the halves share a forward"


@pytest.mark.long
def test_memory_that_is_short_for_one_prompt_is_its_row(config, tmp_path, monkeypatch) -> None:
    run = SweepAnalyzer.run

    def short(self, model, item, settings, seed):
        if item["prompt"] == PROMPTS[4]:
            raise MemoryError("no more")
        return run(self, model, item, settings, seed)

    monkeypatch.setattr(SweepAnalyzer, "run", short)
    monkeypatch.setattr(SweepAnalyzer, "run_together", _no_memory)
    result = sweep(config, tmp_path / "out")
    assert [(one.item, one.reason) for one in result.summary.failures] == [(4, "MemoryError: no more")]


def _no_memory(self, model, items, settings):
    raise MemoryError


@pytest.mark.long
def test_the_budget_is_chosen_from_free_memory(config, whole, tmp_path, monkeypatch) -> None:
    told: list[str] = []
    monkeypatch.setattr(memory, "least_free", lambda model: 400_000)
    result = sweep(config, tmp_path / "out", notify=told.append)
    close(result.rows(), whole.rows())
    assert len(told) == 1
    assert told[0].startswith("free memory is enough for ")
    assert int(told[0].split()[5]) < 40


def test_a_prompt_that_fails_fails_alone(config, whole, tmp_path) -> None:
    items = [{"prompt": text} for text in PROMPTS]
    items[7] = {"prompt": PROMPTS[7], "target": "no such token"}
    items[12] = {"prompt": " ".join(WORDS[:70] * 2)}  # longer than the context
    result = sweep(config | {"items": items}, tmp_path / "out")
    assert sorted(one.item for one in result.summary.failures) == [7, 12]
    assert "the model's context is" in {one.item: one.reason for one in result.summary.failures}[12]
    rows, expected = result.rows(), whole.rows()
    kept = ~rows["task"].isin([7, 12])
    close(rows[kept].reset_index(drop=True), expected[~expected["task"].isin([7, 12])].reset_index(drop=True))


@pytest.mark.long
def test_only_the_prompt_that_kills_workers_is_lost(config, whole, tmp_path) -> None:
    engine = Counted(deadly=5)
    result = sweep(config, tmp_path / "out", engine=engine)
    assert [(one.item, one.reason) for one in result.summary.failures] == [(5, "its worker died")]
    rows = result.rows()
    close(rows[rows["task"] != 5], whole.rows()[whole.rows()["task"] != 5])
    assert sweep(config, tmp_path / "out", retry_failed=True).summary.n_failed == 0
