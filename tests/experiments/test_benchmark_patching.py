"""The sides of the benchmarks of causal traces and patching sweeps on a tiny model: the same numbers. Nothing here looks at a time."""

import json
from dataclasses import replace

import pytest
import torch

from experiments.benchmarks import patching, run, tracing
from experiments.benchmarks.config import Config, Pair, Traced, read_goals
from experiments.benchmarks.harness import (
    Disagreement,
    Side,
    Spread,
    check_equal,
    difference,
    measure,
    threads,
    timed_check,
)
from experiments.benchmarks.patching import PatchWork
from experiments.benchmarks.rows import Row, page
from experiments.benchmarks.run import Bench, about, again
from experiments.benchmarks.tracing import TraceWork, spread
from interp.runner.model import Model

TRACED = Traced(
    name="7 tokens",
    prompt=(5, 17, 60, 3, 41, 8, 22),
    subject=(1, 2),
    kinds=("resid", "mlp", "attn"),
    every=(2, 3),
    rounds=1,
)
PAIR = Pair(name="a pair", clean=(5, 17, 60, 3, 41, 8), corrupted=(5, 17, 61, 3, 41, 8), answer=12, against=30)
TINY = Config(
    traces=(replace(TRACED, whole=True), replace(TRACED, name="7 again", kinds=("resid",))),
    pairs=(replace(PAIR, name="another", corrupted=(9, 17, 60, 3, 41, 8)), PAIR),
    patch_rounds=1,
    patch_every=(2, 2),
)


@pytest.fixture
def small(tiny):
    return Model(tiny("llama"))


@pytest.fixture(autouse=True)
def no_grad():
    with torch.no_grad():
        yield


@pytest.mark.parametrize("kind", TRACED.kinds)
def test_one_forward_a_cell_and_our_trace_agree(small, kind):
    work = TraceWork.of("row", small, TRACED, kind)
    side = tracing.naive(work)
    assert (work.layers, work.positions, work.n_cells) == ((0, 2), (0, 3, 6), 21)
    assert side.scale == pytest.approx(21 / 6)
    assert check_equal(tracing.ours(work), side, tracing.TOLERANCE, difference) < 1e-6
    whole = tracing.naive(work.whole)
    assert (whole.scale, whole.call().shape) == (1, (3, 7, 10))
    assert check_equal(tracing.ours(work.whole), whole, tracing.TOLERANCE, difference) < 1e-6
    other = replace(work, subject=(2, 3))
    with pytest.raises(Disagreement):
        check_equal(tracing.ours(other), side, tracing.TOLERANCE, difference)


def test_the_naive_trace_leaves_no_hook_and_no_noise_behind(small):
    before = small.run(TRACED.prompt).logits
    tracing.naive(TraceWork.of("row", small, TRACED, "mlp")).call()
    torch.testing.assert_close(small.run(TRACED.prompt).logits, before, rtol=0, atol=0)
    assert not any(module._forward_hooks for module in small.hf.modules())


def test_restoring_only_nothing_in_a_forward_gives_the_corrupted_probability(small):
    """A cell before the subject restores nothing, one at the last layer's last position everything."""
    work = TraceWork.of("row", small, TRACED, "resid").whole
    found, trace = tracing.naive(work).call(), tracing.ours(work).call()
    torch.testing.assert_close(found[0, 0], trace.corrupted_probability)
    torch.testing.assert_close(found[-1, -1], torch.full((10,), trace.clean_probability))


@pytest.mark.tl
@pytest.mark.parametrize(("by", "cells"), [("position", 18), ("head", 12)])
def test_transformer_lens_agrees(small, by, cells):
    work = PatchWork.of("row", small, PAIR, by, (2, 2))
    assert work.n_cells == cells
    side, whole = patching.transformer_lens(work), patching.transformer_lens(work.whole)
    assert side.scale == work.n_cells / work.n_timed > 1
    assert whole.scale == 1
    assert check_equal(patching.ours(work), side, patching.TOLERANCE, difference) < 1e-5
    assert check_equal(patching.ours(work.whole), whole, patching.TOLERANCE, difference) < 1e-5
    other = replace(work, against=31)
    with pytest.raises(Disagreement):
        check_equal(patching.ours(other), side, patching.TOLERANCE, difference)


@pytest.mark.tl
@pytest.mark.long
def test_the_rows_and_the_page(small):
    bench = Bench(small, TINY, say=lambda line: None)
    n_threads = torch.get_num_threads()
    rows = [*bench.trace_rows(), *bench.patching_rows()]
    assert torch.get_num_threads() == n_threads
    assert bench.failures == []
    keys = ["trace_resid", "trace_mlp", "trace_attn", "trace_long", "patch_resid", "patch_resid", "patch_heads"]
    assert [row.key for row in rows] == [*keys, "attribution", "attribution"]
    assert len({row.title for row in rows}) == len(rows)
    assert all(isinstance(row.ours, Spread) for row in rows)
    assert [row.goal for row in rows] == [read_goals()[row.key]["goal"] for row in rows]
    assert all(row.agreement < 1e-4 for row in rows[:-2])
    text = page(rows, about(small, "make bench"), [])
    assert f"- {rows[0].title}: one thread. Ours is the whole trace." in text
    assert "of its 21 cells 6 are timed (layers 0, 2; positions 0, 3, 6)" in text
    assert "Once every cell was run in full" in rows[0].note
    assert "Once every cell" not in rows[1].note
    assert "`get_act_patch_resid_pre` 8 are timed" in rows[4].note
    json.dumps([row.to_json() for row in rows], allow_nan=False)
    assert [Row.of(row.to_json()).note for row in rows] == [row.note for row in rows]


def test_a_missing_peer_is_a_row_with_its_reason(small, monkeypatch):
    def absent(work):
        raise ImportError("no module named transformer_lens")

    monkeypatch.setattr(patching, "transformer_lens", absent)
    bench = Bench(small, TINY, say=lambda line: None)
    rows = list(bench.patching_rows())
    assert [row.met for row in rows] == [False, False, False, None, None]
    assert len(bench.failures) == 3
    assert "no module named transformer_lens" in bench.failures[0]


def test_rows_that_were_never_measured_are_added(small, tmp_path, monkeypatch):
    old = [Row(key=key, title=key, unit="MB", ours="old") for key in ("first", "trace_resid", "trace_long", "last")]
    data = {"about": about(small, "make bench"), "rows": [row.to_json() for row in old], "failures": []}
    (tmp_path / "results.json").write_text(json.dumps(data))
    new = [
        Row(key=key, title="new " + key, unit="MB", ours="new") for key in ("trace_resid", "trace_mlp", "trace_long")
    ]
    monkeypatch.setitem(run.GROUPS, "trace", lambda bench: iter(new))
    _, found = again(small, TINY, tmp_path, "trace", say=lambda line: None)
    assert [row["title"] for row in found["rows"]] == ["first", *(row.title for row in new), "last"]
    data["rows"] = [row.to_json() for row in (old[0], old[3])]
    (tmp_path / "results.json").write_text(json.dumps(data))
    _, found = again(small, TINY, tmp_path, "trace", say=lambda line: None)
    assert [row["title"] for row in found["rows"]] == ["first", "last", *(row.title for row in new)]


def test_a_part_of_the_work_counts_for_the_whole():
    clock = Side(row="row", name="part", call=lambda: torch.ones(1), read=lambda out: {"x": out}, scale=1000.0)
    base = replace(clock, name="base", scale=1.0)
    timings = measure([clock], base, 9, seed=0)
    assert timings["row", "part"].ratio.median > 10
    far, seconds = timed_check(clock, base, 0.0, difference)
    assert (far, seconds >= 0) == (0, True)
    assert difference(torch.tensor([1.0, 2.0]), torch.tensor([1.5, 2.0])) == 0.5
    assert difference(torch.ones(1), torch.ones(2)) == float("inf")


def test_threads_are_put_back():
    before = torch.get_num_threads()

    def fails():
        with threads(before + 1):
            raise KeyError(torch.get_num_threads())

    with pytest.raises(KeyError, match=str(before + 1)):
        fails()
    assert torch.get_num_threads() == before


def test_spread():
    assert spread(30, 7) == (0, 7, 14, 21, 28, 29)
    assert spread(9, 1) == tuple(range(9))
    assert spread(1, 3) == (0,)


@pytest.mark.model
def test_the_prompts_have_the_lengths_that_the_page_says(model):
    short, first, middle = (model.tokens(traced.prompt) for traced in Config().traces)
    assert (len(short), len(first), len(middle)) == (10, 40, 40)
    subjects = [
        tokens.positions_of(traced.subject)
        for tokens, traced in zip((short, first, middle), Config().traces, strict=True)
    ]
    assert subjects == [(0, 1, 2, 3), (0, 1, 2, 3), (18, 19, 20, 21)]
    different, landmarks = ((model.tokens(pair.clean), model.tokens(pair.corrupted)) for pair in Config().pairs)
    assert {len(tokens) for tokens in (*different, *landmarks)} == {10}
    assert different[0].ids[0] != different[1].ids[0]
    for pair in Config().pairs:
        assert all(len(model.tokenizer.encode(answer)) == 1 for answer in (pair.answer, pair.against))


def test_the_products_alone_are_those_of_the_sweep(small, monkeypatch):
    work = PatchWork.of("row", small, PAIR, "position", (1, 1))
    multiplied: list[int] = []
    linear = torch.nn.functional.linear

    def counted(x, weight, bias=None):
        multiplied.append(x.numel() // weight.shape[1] * weight.numel())
        return linear(x, weight, bias)

    monkeypatch.setattr(torch.nn.functional, "linear", counted)
    patching.exact(work)
    of_sweep = sum(multiplied)
    multiplied.clear()
    assert patching.products_alone(work, rounds=2) > 0
    assert sum(multiplied) == 3 * of_sweep  # recorded once, multiplied twice
