"""Sweeps: the rows are those of the analyzer called by itself, whatever runs them, and nothing finished is lost or done twice."""

import json
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import fsspec
import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from scipy import stats

import interp
from interp.errors import ModelError, UsageError
from interp.scale.engine import ThisProcess
from interp.scale.sweep import sweep
from interp.scale.sweep_config import read_config
from interp.scale.sweep_folder import SweepFolder
from interp.scale.sweep_manifest import check_source
from interp.scale.sweep_parts import Part, content_of
from interp.scale.sweep_run import SweepRun
from interp.scale.sweep_work import reason_of
from sweep_cases import FACTS, TRACE, save_model, trace_of


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> str:
    return save_model(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture(scope="module")
def traced(folder, tmp_path_factory):
    """A sweep in this process over a grid, with a fact whose subject is not in its prompt."""
    bad = {"prompt": "The bridge is in", "subject": "tower", "target": " city"}
    config = trace_of(folder, items=[*FACTS[:3], bad], grid={"noise": [1.0, 3.0]})
    return sweep(config, tmp_path_factory.mktemp("sweep") / "out"), config


@pytest.mark.long
def test_rows_are_the_analyzers_own(traced) -> None:
    """Against a plain loop that calls the analyzer with each task's seed: the same numbers, bit for bit, in the order of the tasks."""
    result, config = traced
    rows, model = result.rows(), interp.load(config["model"], device="cpu")
    assert rows["task"].is_monotonic_increasing
    tasks = list(read_config(config).tasks())
    for task in tasks:
        own = rows[rows["task"] == task.index]
        assert set(own["setting_noise"]) == {[1.0, 3.0][task.index // 4]}
        assert set(own["item_subject"]) == {task.item["subject"]}
        if task.item_index == 3:
            continue
        expected = interp.causal_trace(model, **task.item, **TRACE, **task.point, seed=task.seed).to_frame()
        pd.testing.assert_frame_equal(
            own[expected.columns].reset_index(drop=True), expected, check_exact=True, check_dtype=False
        )
    assert len(rows[rows["error"].isna()]) == result.summary.n_rows


def test_a_failure_is_a_row_with_its_reason(traced) -> None:
    result, _ = traced
    rows = result.rows()
    failed = rows[rows["error"].notna()]
    assert failed["task"].tolist() == [3, 7]
    assert failed["item_subject"].tolist() == ["tower", "tower"]
    assert failed["error"].str.contains("'tower' is not in the prompt").all()
    assert failed["probability"].isna().all()
    assert (result.n_done, result.summary.n_failed) == (6, 2)
    assert [one.item for one in result.summary.failures] == [3, 3]
    assert result.summary.failures[0].what == "The bridge is in"
    assert result.summary.failures[0].where.endswith("1.0")


def test_means_are_those_of_plain_loops(traced) -> None:
    result, _ = traced
    rows, table = result.rows(), result.to_frame()
    rows = rows[rows["error"].isna()]
    checked = 0
    for line in table[table["measure"] == "probability_effect"].to_dict("records"):
        own = rows[(rows["setting_noise"] == line["noise"]) & (rows["layer"] == line["layer"])]
        own = own[own["place"] == line["place"]]
        items = [float(np.mean(own[own["task"] == task]["probability_effect"])) for task in sorted(set(own["task"]))]
        assert line["n_items"] == len(items)
        np.testing.assert_allclose(line["mean"], np.mean(items), rtol=1e-12)
        if len(items) > 1:
            half = stats.t.ppf(0.975, len(items) - 1) * np.std(items, ddof=1) / np.sqrt(len(items))
            np.testing.assert_allclose([line["lower"], line["upper"]], [np.mean(items) - half, np.mean(items) + half])
            checked += 1
    assert checked > 10


def test_a_sum_over_pieces_is_that_over_all() -> None:
    from interp.scale.sweep_summary import _Moments

    generator = np.random.default_rng(0)
    samples = generator.normal(100, 1, (50, 2))
    moments = _Moments(*(np.zeros(2) for _ in range(3)))
    for piece in np.split(samples, [1, 7, 8, 40]):
        mean = piece.mean(0)
        moments.add(np.full(2, float(len(piece))), mean, ((piece - mean) ** 2).sum(0))
    np.testing.assert_allclose(moments.mean, samples.mean(0))
    np.testing.assert_allclose(moments.squares, samples.var(0) * 50)


@pytest.mark.long
def test_two_workers_give_the_same_bytes(traced, tmp_path) -> None:
    result, config = traced
    again = sweep(config, tmp_path / "two", workers=2)
    assert Path(again.table_path).read_bytes() == Path(result.table_path).read_bytes()
    assert again.to_frame().equals(result.to_frame())


def test_the_order_and_the_other_items_do_not_matter(traced, folder, tmp_path) -> None:
    result, config = traced
    turned = sweep(trace_of(folder, items=config["items"][2::-1]), tmp_path / "turned")
    rows = result.rows()
    own = ["kind", "layer", "position", "probability", "probability_effect", "seed"]
    for item in range(3):
        expected = rows[(rows["item"] == item) & (rows["setting_noise"] == 3.0)][own].reset_index(drop=True)
        found = turned.rows()
        pd.testing.assert_frame_equal(
            found[found["item"] == 2 - item][own].reset_index(drop=True), expected, check_dtype=False
        )


def test_the_result_is_saved_loaded_and_drawn(traced, tmp_path) -> None:
    result, _ = traced
    result.save(tmp_path / "summary.safetensors")
    again = interp.load_result(tmp_path / "summary.safetensors")
    assert again.to_frame().equals(result.to_frame())
    assert again.rows().equals(result.rows())
    assert list(again.pictures("probability_effect")) == ["noise 1.0", "noise 3.0"]
    assert again.figure("probability_effect").data[0].z.shape[1] == 3
    with pytest.raises(UsageError, match="unknown measure 'entropy'; valid: probability_effect"):
        again.figure("entropy")


LENS = {
    "analyzer": "logit_lens",
    "device": "cpu",
    "items": [fact["prompt"] for fact in FACTS],
    "batch_tokens": 1,  # every prompt alone; side by side they are in test_sweep_batches.py
}


@pytest.mark.long
def test_ctrl_c_keeps_what_is_done_and_resuming_does_none_of_it_again(folder, tmp_path) -> None:
    """A real interrupt of a real process; then a finished part is marked, and the mark is in the table of the resumed sweep."""
    config = LENS | {"model": folder, "items": [f"{fact['prompt']} {word}" for fact in FACTS for word in _words()]}
    path, out = tmp_path / "many.yaml", tmp_path / "out folder"
    path.write_text(json.dumps(config))  # JSON is YAML
    process = subprocess.Popen(
        [sys.executable, "-m", "interp_cli.main", "sweep", str(path), "-o", str(out)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    end = time.monotonic() + 100
    while len(list(out.glob("parts/*.parquet"))) < 3 and process.poll() is None and time.monotonic() < end:
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    stdout, stderr = process.communicate(timeout=60)
    kept = sorted(out.glob("parts/*.parquet"))
    assert (process.returncode, stdout) == (130, ""), stderr
    assert 3 <= len(kept) < len(config["items"])
    assert stderr == (
        f"error: interrupted; {len(kept)} of {len(config['items'])} tasks are kept in {out}; go on with: "
        f"interp sweep {path} -o '{out}' --resume\n"
    )
    table = pq.read_table(kept[1])
    marked = table.set_column(table.column_names.index("token"), "token", [["marked"] * len(table)])
    rewrite(kept[1], marked)
    with pytest.raises(UsageError, match=rf"holds a sweep with {len(kept)} finished tasks; go on with --resume"):
        sweep(path, out)
    told, steps = [], []
    result = sweep(path, out, resume=True, notify=told.append, progress=lambda *step: steps.append(step))
    assert told == [f"going on: {len(kept)} of {len(config['items'])} tasks are finished already"]
    assert [step[1:] for step in steps[-2:]] == [
        (n, len(config["items"]) - len(kept)) for n in (steps[-1][1] - 1, steps[-1][1])
    ]
    rows = result.rows()
    assert set(rows[rows["token"] == "marked"]["task"]) == {1}
    assert sorted(set(rows["task"])) == list(range(len(config["items"])))
    assert not list(out.glob("parts/*")), "the parts are put together"


def rewrite(path: Path, table) -> None:
    """Puts other rows in a part's place, with the name that fits their bytes."""
    part = Part.named(path.name)
    pq.write_table(table, path)
    path.rename(path.parent.parent / replace(part, content=content_of(path.read_bytes())).name)


def _words() -> list[str]:
    import word_model

    return [word for word in word_model.WORDS if not word.startswith("<")][:30]


def test_resuming_a_finished_sweep_only_reads_it(traced) -> None:
    result, config = traced
    before = Path(result.table_path).stat().st_mtime_ns
    again = sweep(config, result.folder, resume=True)
    assert Path(again.table_path).stat().st_mtime_ns == before
    assert again.to_frame().equals(result.to_frame())
    with pytest.raises(UsageError, match="holds a finished sweep; go on with --resume"):
        sweep(config, result.folder)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"settings": TRACE | {"samples": 3}}, r"a sweep with settings.samples = 2, and now it is 3"),
        ({"seed": 1}, r"a sweep with seed = 0, and now it is 1"),
        ({"grid": {"noise": [1.0]}}, r"a sweep with grid.noise = \[1.0, 3.0\], and now it is \[1.0\]"),
        ({"grid": {}}, r"a sweep with grid.noise = \[1.0, 3.0\], and now it is nothing"),
        ({"dtype": "bfloat16"}, r'dtype = "auto", and now it is "bfloat16"'),
        ({"items": FACTS[:3]}, r"a sweep of 4 items, and now there are 3"),
        (
            {"items": FACTS[:4]},
            r'whose item 3 is \{"prompt": "The bridge is in", .*, and now it is \{"prompt": "The capital',
        ),
    ],
)
def test_another_configuration_is_refused_and_the_difference_named(traced, change, said) -> None:
    result, config = traced
    with pytest.raises(UsageError, match=said):
        sweep(config | change, result.folder, resume=True)


def test_other_weights_under_the_same_name_are_refused(tmp_path) -> None:
    config = LENS | {"model": save_model(tmp_path / "model"), "items": LENS["items"][:3]}
    out = tmp_path / "out"
    _stop_after(config, out, 1)
    save_model(tmp_path / "model", seed=1)
    with pytest.raises(ModelError, match=r"the sweep began with weights_sha256 = .*, and the worker on .* has"):
        sweep(config, out, resume=True)
    assert len(SweepFolder(str(out)).parts()) == 1


def _stop_after(config, out, count: int) -> None:
    """Runs a sweep and stops it like Ctrl-C when ``count`` tasks are done."""

    def progress(what: str, done: int, total: int | None) -> None:
        if done == count:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        sweep(config, out, progress=progress)


def test_a_damaged_part_is_found_and_made_again(folder, tmp_path) -> None:
    config, out = LENS | {"model": folder}, tmp_path / "out"
    _stop_after(config, out, 2)
    part = sorted((out / "parts").iterdir())[0]
    part.write_bytes(part.read_bytes()[:-30])
    told: list[str] = []
    result = sweep(config, out, resume=True, notify=told.append)
    assert "the rows of 1 finished tasks were damaged and are computed again" in told
    assert sorted(set(result.rows()["task"])) == list(range(len(FACTS)))


@pytest.mark.parametrize(
    ("settings", "kind", "said"),
    [
        (
            {"sites": "resid_pots"},
            UsageError,
            r"the sweep stopped, for each of the first 3 items failed alike .*unknown",
        ),
        ({"top_k": "many"}, UsageError, r"failed alike .*top_k"),
    ],
)
def test_settings_that_fail_every_item_stop_the_sweep_and_leave_the_folder_free(
    folder, tmp_path, settings, kind, said
) -> None:
    config, out = LENS | {"model": folder, "settings": settings}, tmp_path / "out"
    with pytest.raises(kind, match=said):
        sweep(config, out)
    assert not SweepFolder(str(out)).parts()
    assert sweep(config | {"settings": {}}, out).summary.n_failed == 0


def test_a_model_that_is_not_there_stops_the_sweep_before_anything(tmp_path) -> None:
    with pytest.raises(ModelError, match="unknown model 'smollm3-135m'"):
        sweep(LENS | {"model": "smollm3-135m"}, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_folder_with_other_things_in_it_is_left_alone(folder, tmp_path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(UsageError, match="is not empty and holds no sweep; choose another folder"):
        sweep(LENS | {"model": folder}, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_two_sweeps_do_not_share_a_folder(folder, tmp_path) -> None:
    place = SweepFolder(str(tmp_path / "out"))
    place.make()
    config = LENS | {"model": folder}
    _stop_after(config, tmp_path / "other", 1)
    other = SweepFolder(str(tmp_path / "other"))
    with other.locked(), pytest.raises(UsageError, match="another process is at work on the sweep"):
        sweep(config, tmp_path / "other", resume=True)


def test_a_bucket_takes_the_rows(folder) -> None:
    """Through fsspec, here into memory."""
    result = sweep(LENS | {"model": folder}, "memory://bucket/lens")
    files = fsspec.filesystem("memory")
    assert sorted(path.rpartition("/")[2] for path in files.ls("/bucket/lens", detail=False)) == [
        "items.jsonl",
        "parts",
        "rows.parquet",
        "sweep.json",
    ]
    assert set(result.rows()["item_prompt"]) == {fact["prompt"] for fact in FACTS}
    assert result.figure().data


def test_several_models_are_told_apart(folder, tmp_path) -> None:
    other = save_model(tmp_path / "other", seed=1)
    result = sweep({"analyzer": "logit_lens", "models": [folder, other], "items": ["The lake is in"]}, tmp_path / "out")
    assert list(result.sources) == [folder, other]
    hashes = [source.weights_sha256 for source in result.sources.values()]
    assert len(set(hashes)) == 2
    assert list(dict.fromkeys(result.rows()["model"])) == [folder, other]
    assert len(result.figure().data) >= 2


@pytest.mark.parametrize(
    ("analyzer", "items", "settings"),
    [
        ("residual_story", ["The lake is in"], {}),
        ("attention_patterns", ["The lake is in"], {}),
        (
            "head_profiles",
            ["The lake is in The lake is in", {"prompts": ["Ann and Bob", "Then Carl went"]}],
            {"n_shuffles": 1},
        ),
        ("induction_heads", None, {"scan_only": True, "seeds": 2, "periods": [8]}),
        ("direct_logit_attribution", [{"prompt": "The lake is in", "target": " city"}], {}),
        ("ablation", [{"prompt": "The lake is in", "target": " city"}], {"units": "mlps", "method": "zero"}),
        ("activation_patching", [{"clean": "The lake is in", "corrupted": "The shop is in"}], {}),
        ("attribution_patching", [{"clean": "The lake is in", "corrupted": "The shop is in"}], {"check": 0}),
        ("path_patching", [{"clean": "The lake is in", "corrupted": "The shop is in"}], {"sender": "L1H1"}),
    ],
)
def test_every_analyzer_runs_and_is_summarised(folder, tmp_path, analyzer, items, settings) -> None:
    config = {"analyzer": analyzer, "model": folder, "settings": settings}
    result = sweep(config | ({} if items is None else {"items": items}), tmp_path / "out")
    assert result.summary.n_failed == 0, result.summary.failures
    assert result.summary.cells
    assert set(result.summary.measures) <= set(result.words)
    assert result.figure().data
    assert list(result.peaks())


@pytest.mark.model
@pytest.mark.slow
def test_edits_of_the_default_model_are_made_and_measured(tmp_path, shared_data) -> None:
    config = {
        "analyzer": "edit",
        "items": {"file": str(shared_data / "counterfact_dev.json"), "limit": 2},
        "settings": {"steps": 4, "allow_known": True},
    }
    result = sweep(config, tmp_path / "out")
    assert result.summary.n_failed == 0, result.summary.failures
    means = result.to_frame().set_index(["score", "when"])["mean"]
    assert means["efficacy_magnitude", "after"] > means["efficacy_magnitude", "before"]
    assert means["efficacy_score", "after"] >= means["efficacy_score", "before"]


def test_a_reason_is_one_line_with_the_class_of_a_foreign_error() -> None:
    assert reason_of(UsageError("no such\n layer")) == "no such layer"
    assert reason_of(KeyError("x")) == "KeyError: 'x'"


SOURCE = {"weights_sha256": "ab", "threads": 1, "versions": {"torch": "2.13"}, "hardware": "x86_64 AVX512"}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"threads": 2}, r"began with threads = 1 for tiny, and the worker on node7 has 2"),
        (
            {"versions": {"torch": "2.12"}},
            r'began with versions.torch = "2.13" for tiny, and the worker on node7 has "2.12"',
        ),
        ({"weights_sha256": "cd"}, r'began with weights_sha256 = "ab"'),
    ],
)
def test_a_worker_with_something_else_is_refused(change, said) -> None:
    with pytest.raises(ModelError, match=said):
        check_source(SOURCE, SOURCE | change, "tiny", "node7")


def test_a_worker_with_another_processor_is_told() -> None:
    assert check_source(SOURCE, SOURCE, "tiny", "node7") is None
    note = check_source(SOURCE, SOURCE | {"hardware": "x86_64 AVX2"}, "tiny", "node7")
    assert note == "the worker on node7 has x86_64 AVX2 and the sweep began on x86_64 AVX512; rows agree up to rounding"


@pytest.mark.parametrize("placing", [{"device_map": "auto"}, {"device_map": {"": "cpu"}, "max_memory": {"cpu": "1GB"}}])
def test_a_device_map_gives_the_same_numbers(traced, folder, tmp_path, placing) -> None:
    result, config = traced
    spread = sweep(
        {
            "analyzer": "causal_trace",
            "model": folder,
            "settings": TRACE,
            "items": config["items"][:1],
            "grid": {"noise": [1.0]},
        }
        | placing,
        tmp_path / "out",
    )
    rows = result.rows()
    expected = rows[rows["task"] == 0]
    np.testing.assert_allclose(spread.rows()["probability"], expected["probability"], atol=1e-6)


def test_a_device_that_is_not_there_stops_the_sweep(folder, tmp_path) -> None:
    with pytest.raises(UsageError, match="which is not available here; available: cpu"):
        sweep(LENS | {"model": folder, "device": "auto", "device_map": {"": "cuda:7"}}, tmp_path / "out")


def test_what_analyzers_have_to_say_is_told_once(folder, tmp_path) -> None:
    told: list[str] = []
    config = trace_of(folder, items=FACTS[:2], settings={"kinds": ["resid"], "samples": 1})
    sweep(config, tmp_path / "out", notify=told.append)
    assert told.count("one sample gives no interval; give several") == 1


def test_what_analyzers_have_to_say_does_not_go_on_for_ever(tmp_path) -> None:
    told: list[str] = []
    run = SweepRun(read_config(LENS | {"model": "x"}), SweepFolder(str(tmp_path)), [], ThisProcess(), told.append)
    run._tell_once("a", "a", "b")
    run._tell_once("b", "c", "d", "e", "f")
    assert told == ["a", "b", "c", "d", "e (further notes of single tasks are not shown)"]
