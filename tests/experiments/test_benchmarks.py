"""The benchmarks' harness on a tiny model: every side agrees, rows and page come out. Nothing here looks at a time."""

import json

import pytest
import torch

from experiments.benchmarks import starting
from experiments.benchmarks.config import Config, Shape, read_goals
from experiments.benchmarks.harness import Disagreement, Side, Spread, check_equal, distance, measure
from experiments.benchmarks.least import kept_bytes, least
from experiments.benchmarks.lens import extra_memory, least_sides, lens_sides
from experiments.benchmarks.rows import Row, page, shown
from experiments.benchmarks.run import FORWARD_ROWS, Bench, about, again
from experiments.benchmarks.sides import PEERS, Work, ours, plain, random_ids, reference
from interp.maths.unembedding import Unembedding
from interp.runner.model import Model

TINY = Config(stop_layer=0, start_layer=1, peers=("Hugging Face",), memory_tokens=5)


@pytest.fixture
def small(tiny):
    return Model(tiny("llama"))


@pytest.fixture
def work(small):
    return Work(model=small, ids=random_ids(small, 2, 9, seed=0), stop=0, start=1)


def side(name, value, calls=None):
    def call():
        if calls is not None:
            calls.append(name)
        return value

    return Side(row="row", name=name, call=call, read=lambda out: {"x": out})


def test_all_sides_of_every_row_agree_with_hugging_face(work):
    truth = reference(work)
    expected = Side(row="plain", name="truth", call=lambda: truth, read=lambda numbers: numbers)
    sides = [plain(work), *ours(work), *PEERS["Hugging Face"](work), *least(work)]
    assert {one.row for one in sides} == {"plain", *FORWARD_ROWS}
    for one in sides:
        assert check_equal(one, expected) < 1e-5


def test_rows_for_a_shape_and_the_page(small):
    bench = Bench(small, TINY, say=lambda line: None)
    with torch.no_grad():
        rows = list(bench.forward_rows(Shape(rows=1, tokens=6, rounds=2))) + list(bench.memory_rows())
    assert [row.key for row in rows] == [*FORWARD_ROWS, "residual_memory", "everything_memory"]
    assert not bench.failures
    text = page(rows, about(small, "make bench"), ["a tool: a reason"])
    assert "residual stream after layer 0 of 3 only, 1x6" in text
    assert "- a tool: a reason" in text
    json.dumps([row.to_json() for row in rows], allow_nan=False)


def test_rows_measured_again_take_the_place_of_the_old_ones(small, tmp_path):
    mine = Spread.of([1.0, 2.0])
    rows = [
        Row(
            key="residual",
            title="stays",
            unit="ratio",
            ours=mine,
            goal=1.5,
            others={"a": mine, "b": "x"},
            baseline=mine,
        ),
        *(Row(key=key, title=f"{title}, 1x5", unit="MB", ours="old") for key, title in _memory_titles(small)),
    ]
    old = {"about": about(small, "make bench"), "rows": [row.to_json() for row in rows], "failures": []}
    (tmp_path / "results.json").write_text(json.dumps(old))
    text, data = again(small, TINY, tmp_path, "memory", say=lambda line: None)
    assert data["rows"][0] == json.loads(json.dumps(old["rows"][0]))
    assert [isinstance(row["ours"], dict) for row in data["rows"]] == [True, True, True]
    assert "old" not in text
    assert "measured again" in text


def _memory_titles(model):
    return [
        (row.key, row.title.removesuffix(", 1x5")) for row in Bench(model, TINY, say=lambda line: None).memory_rows()
    ]


def test_a_peer_that_cannot_run_is_named_with_its_reason(small, monkeypatch):
    def absent(work):
        raise ImportError("no module named peer")

    monkeypatch.setitem(PEERS, "Hugging Face", absent)
    bench = Bench(small, TINY, say=lambda line: None)
    with torch.no_grad():
        rows = list(bench.forward_rows(Shape(rows=1, tokens=4, rounds=2)))
    assert bench.failures == ["Hugging Face, 1x4: ImportError: no module named peer"]
    assert rows[0].others == {"Hugging Face": "did not run"}


def test_the_memory_of_everything_is_more_than_that_of_the_stream(small):
    stream, everything = Bench(small, TINY, say=lambda line: None).memory_rows()
    d_model, layers = small.atlas.d_model, small.atlas.n_layers
    assert stream.ours.median == pytest.approx(layers * TINY.memory_tokens * d_model * 4 / 1e6)
    assert everything.ours.median > stream.ours.median


def test_the_lens_agrees_with_the_formulas():
    generator = torch.Generator().manual_seed(0)
    normed = torch.randn(3, 20, 16, generator=generator)
    unembedding = Unembedding(weight=torch.randn(300, 16, generator=generator))
    targets = torch.randint(300, (20,), generator=generator)
    mine, products, formulas = lens_sides(normed, unembedding, targets, "ours")
    assert check_equal(mine, formulas) < 1e-4
    assert products.call() is None
    assert [side.call() for side in least_sides(normed, unembedding)] == [None, None]
    assert extra_memory(normed, unembedding, targets) >= 0


def test_as_many_bytes_are_kept_as_a_cache_of_everything_holds(work):
    side = kept_bytes(work)
    _, kept, written = side.call()
    tensors = [t for given, out in kept for t in (*given, out) if isinstance(t, torch.Tensor)] + written
    held = {t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in tensors}
    cache = work.model.run(work.prompts, capture="all").cache
    assert sum(held.values()) == pytest.approx(cache.bytes, rel=0.05)
    assert work.model.hf.lm_head._forward_hooks == {}


def test_different_numbers_are_refused():
    right = torch.ones(3, 4)
    assert check_equal(side("a", right), side("b", right)) == 0
    with pytest.raises(Disagreement, match=r"row: x of a is .* from b's"):
        check_equal(side("a", right * 1.001), side("b", right))
    with pytest.raises(Disagreement):
        check_equal(side("a", right * float("nan")), side("b", right))
    with pytest.raises(Disagreement, match="nothing in common"):
        check_equal(Side(row="row", name="a", call=lambda: None, read=lambda out: {}), side("b", right))
    assert distance(torch.ones(2, 4), right) == float("inf")


def test_rounds_interleave_all_sides_in_a_shuffled_order_that_repeats():
    def order():
        calls = []
        base, other = side("base", right, calls), side("other", right, calls)
        rare = Side(row="row", name="rare", call=lambda: calls.append("rare"), read=lambda out: {}, every=3)
        timings = measure([other, rare], base, 6, seed=4)
        return calls, timings

    right = torch.ones(1)
    calls, timings = order()
    assert calls == order()[0]
    assert timings["row", "base"].ratio == Spread(median=1.0, lower=1.0, upper=1.0, n=6)
    assert timings["row", "rare"].seconds.n == 2
    rounds = calls[3:]  # after the warm-up
    assert sorted(rounds) == ["base"] * 6 + ["other"] * 6 + ["rare"] * 2
    common = [name for name in rounds if name != "rare"]
    assert len({tuple(common[at : at + 2]) for at in range(0, 12, 2)}) == 2  # both orders occur


def test_spreads_and_whether_a_goal_is_met():
    spread = Spread.of([3.0, 1.0, 2.0, 5.0, 4.0])
    assert (spread.median, spread.lower, spread.upper, spread.n) == (3.0, 2.0, 4.0, 5)
    assert shown(spread, "s") == "3.00 (2.00 to 4.00)"
    row = {"key": "k", "title": "t", "unit": "s"}
    assert Row(**row, ours=spread, goal=3.0).met
    assert not Row(**row, ours=spread, goal=2.9).met
    assert Row(**row, ours=spread).met is None
    assert Row(**row, ours="did not run", goal=9.0).met is False


def test_a_process_that_fails_says_why():
    with pytest.raises(starting.FailedStart, match="No module named"):
        starting.printed_number("no_such_module_at_all", [1])


def test_every_row_has_a_goal_of_a_known_unit():
    assert {goal["unit"] for goal in read_goals().values()} == {"ratio", "s", "MB"}
    assert set(FORWARD_ROWS) <= set(read_goals())
