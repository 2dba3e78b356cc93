"""The sides of the benchmark of second moments on a tiny model: the same numbers. Nothing here looks at a time."""

import json
from dataclasses import replace

import pytest
import torch

import tiny_models
from experiments.benchmarks import moments
from experiments.benchmarks.config import Config, Measured, read_goals
from experiments.benchmarks.harness import Disagreement, check_equal
from experiments.benchmarks.moments import MomentWork
from experiments.benchmarks.run import Bench
from interp.runner.model import Model

TINY = Config(measured=Measured(layer=1, texts=7, lengths=(3, 40), rounds=2, batch_tokens=64))


@pytest.fixture(autouse=True)
def no_grad():
    with torch.no_grad():
        yield


@pytest.mark.parametrize("name", ["llama", "gpt2", "opt"])
def test_stored_keys_and_our_sums_agree(name):
    work = MomentWork.of(Model(tiny_models.build(name)), TINY.measured)
    assert [len(text) for text in work.texts][::6] == [3, 40]
    assert sum(int(real.sum()) for _, real in work.padded) == work.n_tokens
    assert check_equal(moments.ours(work), moments.stored(work), moments.TOLERANCE) < 1e-6
    with pytest.raises(Disagreement):
        check_equal(moments.ours(work), moments.stored(replace(work, texts=work.texts[1:])), moments.TOLERANCE)


def test_the_plain_forward_runs_the_layer_and_nothing_behind_it(monkeypatch):
    model, called = Model(tiny_models.build("llama")), []
    for index, layer in enumerate(model.hf.model.layers):
        layer.register_forward_pre_hook(lambda *_, index=index: called.append(index))
    work = MomentWork.of(model, TINY.measured)
    moments.plain(work).call()
    assert called == [0, 1] * len(work.padded)
    moments.plain(work).call()
    assert model.run([5, 6]).logits is not None  # no hook is left behind


def test_the_row():
    bench = Bench(Model(tiny_models.build("llama")), TINY, say=lambda line: None)
    (row,) = bench.moment_rows()
    assert (row.key, row.goal) == ("moments", read_goals()["moments"]["goal"])
    assert row.title.endswith("layer 1 of 3")
    assert set(row.others) == {moments.STORED}
    json.dumps(row.to_json(), allow_nan=False)
