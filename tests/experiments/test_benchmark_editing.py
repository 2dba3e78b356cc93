"""The sides of the benchmark of edits on a tiny model: the same update. Nothing here looks at a time."""

import json
from dataclasses import replace

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

import word_model
from experiments.benchmarks import editing
from experiments.benchmarks.config import Config, Edited, read_goals
from experiments.benchmarks.editing import EditWork
from experiments.benchmarks.harness import Disagreement, check_equal
from experiments.benchmarks.run import Bench
from interp.prompts import Fact

FACT = Fact("tower of Pisa", "the {} is in the city of", " Ann Bob")
TINY = Config(edited=Edited(fact=FACT, layer=1, tokens=400, rounds=1))


@pytest.fixture(autouse=True)
def no_grad():
    with torch.no_grad():
        yield


@pytest.mark.parametrize("name", ["llama", "gpt2"])
@pytest.mark.long
def test_full_forwards_and_our_edit_agree(name):
    work = EditWork.of(word_model.build(name), TINY.edited)
    baseline = editing.naive(work)
    assert check_equal(editing.ours(work, "rome-original"), baseline, 1e-4) < 1e-4
    other = replace(work, edited=replace(TINY.edited, fact=replace(FACT, target=" Carl")))
    with pytest.raises(Disagreement):
        check_equal(editing.ours(other, "rome-original"), baseline, editing.TOLERANCE)


@pytest.mark.long
def test_rows_of_edits():
    bench = Bench(word_model.build(), TINY, say=lambda line: None)
    rows = list(bench.editing_rows())
    assert [row.key for row in rows] == ["edit_rome-original", "edit_rome"]
    assert rows[0].title.endswith("layer 1 of 3")
    assert "differ by" in rows[0].note
    assert {row.goal for row in rows} == {read_goals()[row.key]["goal"] for row in rows}
    json.dumps([row.to_json() for row in rows], allow_nan=False)


def test_the_least_share_is_that_of_counted_products():
    """Whole: the products of the padded forward. Left: those of a forward of one token, by blocks, at the places that a change reaches."""
    work = EditWork.of(word_model.build("llama"), TINY.edited)
    hf, rewrite = work.model.hf, work.rewrite
    rows = [*rewrite.prompts, rewrite.essence]
    places = [*rewrite.positions, rewrite.essence_position]
    whole = products(hf, torch.zeros(len(rows), max(len(row) for row in rows), dtype=torch.long))
    head = hf.lm_head.weight.numel()
    block = (products(hf, torch.zeros(1, 1, dtype=torch.long)) - head) / 3
    reached = 0.0
    for row, place in zip(rows, places, strict=True):
        reached += (len(row) - place) * block  # layer 2 alone follows layer 1
        reached += head if row is rewrite.essence else 2 * head  # the target has two tokens
    assert editing.least_share(work) == pytest.approx(reached / whole, rel=0.02)


def products(hf, ids):
    """The multiplications of a forward's matrix products, attention left out."""
    counter = FlopCounterMode(display=False)
    with counter:
        hf(input_ids=ids, use_cache=False)
    found = counter.get_flop_counts()["Global"]
    return sum(count for op, count in found.items() if str(op) in ("aten.mm", "aten.addmm")) / 2
