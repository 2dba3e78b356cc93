"""The sides of the benchmark of the activation store on a tiny model: the same numbers. Nothing here looks at a time."""

import json
import tempfile
from pathlib import Path

import pytest
import torch

import tiny_models
from experiments.benchmarks import store
from experiments.benchmarks.config import Config, Measured, read_goals
from experiments.benchmarks.harness import Disagreement, check_equal
from experiments.benchmarks.moments import MomentWork
from experiments.benchmarks.run import Bench
from interp.runner.model import Model

TINY = Config(collected=Measured(layer=1, texts=7, lengths=(3, 40), rounds=2, batch_tokens=64))


@pytest.fixture(autouse=True)
def no_grad():
    with torch.no_grad():
        yield


@pytest.mark.parametrize("name", ["llama", "gpt2"])
def test_what_is_stored_and_what_is_kept_agree(name: str, tmp_path: Path) -> None:
    work = MomentWork.of(Model(tiny_models.build(name)), TINY.collected)
    mine = store.ours(work, "resid_post@0,1", tmp_path)
    for other in (store.kept(work, [0, 1]), store.written(work, [0, 1], tmp_path)):
        assert check_equal(mine, other) < 1e-5
    assert set(mine.read(mine.call())) == {"blocks.0.hook_resid_post", "blocks.1.hook_resid_post"}
    other = MomentWork(model=work.model, layer=1, texts=tuple(text[::-1] for text in work.texts), batch_tokens=64)
    with pytest.raises(Disagreement):
        check_equal(mine, store.kept(other, [0, 1]))


def test_the_rows_leave_no_folder_behind(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    bench = Bench(Model(tiny_models.build("llama")), TINY, say=lambda line: None)
    one, all_layers = bench.store_rows()
    assert (one.key, one.goal) == (all_layers.key, all_layers.goal) == ("store", read_goals()["store"]["goal"])
    assert one.title.endswith("layer 1 of 3")
    assert all_layers.title.endswith("layers 0 to 1 of 3")
    assert set(one.others) == {store.KEPT, store.WRITTEN}
    json.dumps([one.to_json(), all_layers.to_json()], allow_nan=False)
    assert not list(tmp_path.iterdir())
