"""Collections on engines: the same bytes from this process, from others and in any order, whoever is lost on the way."""

import json
import os
import signal
from pathlib import Path

import psutil
import pytest
import torch

import word_model
from interp.editing.stack import applied
from interp.errors import InterpError, ModelError, UsageError
from interp.runner.model import Model, load
from interp.scale.collect import collect
from interp.scale.collect_work import ShardReply, workers_of
from interp.scale.engine import Engine, Lost
from interp.scale.positions import PositionFilter
from interp.scale.store import open_store
from interp.scale.store_files import Folder
from random_edit import random_edit
from scale import small_corpus

TEXTS = small_corpus.texts(40)
ASKED = {"sites": ["resid_post@1", "mlp.post@0"], "shard_rows": 250, "batch_tokens": 128}


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A tiny model on disk."""
    made, path = word_model.build(), tmp_path_factory.mktemp("model") / "tiny"
    made.hf.save_pretrained(path)
    made.tokenizer.save_pretrained(path)
    return path


@pytest.fixture
def model(folder: Path, told: list[str]) -> Model:
    return load(str(folder), device="cpu", notify=told.append)


@pytest.fixture
def whole(model: Model, tmp_path: Path) -> dict[str, bytes]:
    """The files of a store that this process made, unbroken."""
    collect(model, TEXTS, folder=tmp_path / "whole", threads=1, **ASKED)
    return small_corpus.files(tmp_path / "whole")


def workers() -> list[psutil.Process]:
    """The worker processes of this one, those that are at work."""
    children = psutil.Process().children()
    return [child for child in children if "spawn_main" in " ".join(child.cmdline())]


@pytest.mark.slow
def test_two_processes_write_the_same_bytes_though_one_is_killed(model, whole, tmp_path) -> None:
    killed, seen = [], []

    def progress(what: str, done: int, total: int | None) -> None:
        seen.append((done, total))
        if len(seen) == 3:
            killed.append(workers()[0].pid)
            os.kill(killed[0], signal.SIGKILL)

    store = collect(model, TEXTS, folder=tmp_path / "s", workers=2, progress=progress, **ASKED)
    assert killed
    assert store.n_shards > 8
    assert small_corpus.files(tmp_path / "s") == whole
    assert seen[-1] == (sum(map(len, TEXTS)), sum(map(len, TEXTS)))
    assert len(store.provenance) == 1  # the same machine is written down once
    assert not list((tmp_path / "s").glob(".interp-*"))


@pytest.mark.long
def test_an_interrupt_of_two_processes_keeps_shards_and_this_one_goes_on(model, told, tmp_path) -> None:
    """To the bytes of this process alone; with an edit in the model, which the workers' models have, too."""
    edit = random_edit(model, [1])
    with applied(model, edit):
        collect(model, TEXTS, folder=tmp_path / "whole", threads=1, **ASKED)

        def stop(what: str, done: int, total: int | None) -> None:
            if done > 700:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            collect(model, TEXTS, folder=tmp_path / "s", workers=2, progress=stop, **ASKED)
        assert not workers()
        kept = open_store(tmp_path / "s")
        assert 0 < kept.n_shards < open_store(tmp_path / "whole").n_shards
        assert not kept.complete
        times = {path: path.stat().st_mtime_ns for path in (tmp_path / "s").glob("shard-*.safetensors")}
        collect(model, TEXTS, folder=tmp_path / "s", **ASKED)
    assert told[0].startswith("going on behind ")
    assert small_corpus.files(tmp_path / "s") == small_corpus.files(tmp_path / "whole")
    assert {path: path.stat().st_mtime_ns for path in times} == times  # no finished shard was done again


class InPairs(Engine):
    """This process, which takes two units at a time and does the second first; ``spoil`` may put something in place of a reply."""

    def __init__(self, spoil=lambda unit, reply: reply, **options) -> None:
        super().__init__(**options)
        self.spoil = spoil

    def run(self, make, units):
        work = make(0)
        waiting = iter(units)
        while pair := [unit for unit in (next(waiting, None), next(waiting, None)) if unit is not None]:
            for unit in reversed(pair):
                yield unit, self.spoil(unit, work(unit))


def test_the_order_of_the_shards_changes_nothing(model, whole, tmp_path) -> None:
    store = collect(model, TEXTS, folder=tmp_path / "s", engine=InPairs(), **ASKED)
    assert small_corpus.files(tmp_path / "s") == whole
    assert store.complete


@pytest.mark.long
def test_memory_that_one_worker_lacks_changes_its_shard_and_those_that_are_not_begun(
    model, told, whole, tmp_path, monkeypatch
) -> None:
    run, n_runs = Model.run, []

    def tight(self, prompts, *arguments, **options):
        positions = len(prompts) * max(len(tokens) for tokens in prompts)
        n_runs.append(positions)
        if len(n_runs) == 12:
            raise torch.OutOfMemoryError("no more")
        return run(self, prompts, *arguments, **options)

    monkeypatch.setattr(Model, "run", tight)
    store = collect(model, TEXTS, folder=tmp_path / "s", engine=InPairs(), **ASKED)
    assert told == ["out of memory with 128 tokens a batch; going on with 64"]
    (shard, same, _), (later, none, _) = store.manifest.smaller
    assert (same, none) == (shard, None)
    assert later == shard + (1 if shard % 2 else 2)  # the other of its pair was given out already
    files = small_corpus.files(tmp_path / "s")
    for number in range(store.n_shards):
        name = f"index-{number:06d}.parquet"
        assert files[name] == whole[name]
    # Each is made again in the batches of that time, though memory is no longer short, in another order, too.
    monkeypatch.setattr(Model, "run", run)
    for number in range(store.n_shards):
        (tmp_path / "s" / f"shard-{number:06d}.json").unlink()
    collect(model, TEXTS, folder=tmp_path / "s", **ASKED)
    assert small_corpus.files(tmp_path / "s") == files


def test_the_last_shard_can_be_short_of_memory(model, tmp_path, monkeypatch) -> None:
    """It is given out again when the plan is through."""
    run, failed = Model.run, []

    def tight(self, prompts, *arguments, **options):
        if len(prompts) > 1 and len(failed) < 2:
            failed.append(1)
            raise torch.OutOfMemoryError("no more")
        return run(self, prompts, *arguments, **options)

    monkeypatch.setattr(Model, "run", tight)
    store = collect(model, TEXTS[:5], "resid_post@1", tmp_path / "s", engine=InPairs())
    assert store.complete
    assert len(failed) == 2


def test_a_shard_that_ends_every_worker_is_told_and_the_others_stay(model, tmp_path) -> None:
    def lost(unit, reply):
        return Lost("its worker died") if unit.shard.number == 4 else reply

    with pytest.raises(InterpError, match="shard 4 could not be computed: its worker died; what is finished is kept"):
        collect(model, TEXTS, folder=tmp_path / "s", engine=InPairs(lost), **ASKED)
    assert open_store(tmp_path / "s").n_shards >= 4


def test_what_a_worker_writes_elsewhere_is_told(model, tmp_path) -> None:
    def elsewhere(unit, reply: ShardReply) -> ShardReply:
        (tmp_path / "s" / f"shard-{unit.shard.number:06d}.json").unlink()
        return reply

    with pytest.raises(UsageError, match=r"what the worker on .* wrote is not in .*; give a folder that all machines"):
        collect(model, TEXTS, folder=tmp_path / "s", engine=InPairs(elsewhere), **ASKED)


def test_a_worker_with_other_weights_is_refused(model, folder, tmp_path) -> None:
    make = workers_of(
        model, Folder(tmp_path), "key", ("blocks.1.hook_resid_post",), "float32", PositionFilter(slice(None))
    )
    assert make.name == str(folder)
    make(0)
    other = word_model.build()
    torch.nn.init.normal_(other.hf.get_input_embeddings().weight)
    other.hf.save_pretrained(folder)
    try:
        with pytest.raises(ModelError, match=r"the model of the worker on .* has weights_sha256 .*, the one asked for"):
            make(0)
    finally:
        word_model.build().hf.save_pretrained(folder)


def test_a_shard_goes_over_few_tokens_and_its_reply_is_small(model, tmp_path) -> None:
    """What passes between processes is the token ids one way and a record the other; activations are in files alone."""
    import pickle

    sizes = []

    def measured(unit, reply):
        sizes.append((len(pickle.dumps(unit)), unit.shard.n_tokens, len(pickle.dumps(reply))))
        return reply

    collect(model, TEXTS, folder=tmp_path / "s", engine=InPairs(measured), **ASKED)
    assert max(unit / tokens for unit, tokens, _ in sizes) < 12
    assert max(reply for *_, reply in sizes) < 3000


def test_a_gap_is_filled_only_from_the_same_texts(tmp_path, told, monkeypatch) -> None:
    """A dataset that changed inside the gap is noticed where the next finished shard begins."""
    import sys
    from types import SimpleNamespace

    model, given = word_model.build(), [" ".join(word_model.WORDS[index] for index in text) for text in TEXTS]
    pretended = SimpleNamespace(load_dataset=lambda name, split, streaming: ({"text": line} for line in given))
    monkeypatch.setitem(sys.modules, "datasets", pretended)
    asked = {"sites": "resid_post@1", "shard_rows": 250, "folder": tmp_path / "s"}
    store = collect(model, "hf:some/set", **asked)
    middle = store._records[2]
    (tmp_path / "s" / "shard-000002.json").unlink()
    kept, place = list(given), middle.start.document + 1
    given[place] = " ".join(["Ann"] * len(given[place].split()))
    with pytest.raises(UsageError, match=r"the texts of hf:some/set up to number \d+ are not those"):
        collect(model, "hf:some/set", **asked)
    given[:] = kept
    assert collect(model, "hf:some/set", **asked).complete


@pytest.mark.slow
@pytest.mark.model
def test_the_default_model_on_two_processes(shared_data: Path, tmp_path: Path) -> None:
    model = load("smollm2-135m", device="cpu")
    lines = (shared_data / "wikipedia_paragraphs.txt").read_text(encoding="utf-8").splitlines()[:30]
    (tmp_path / "texts.jsonl").write_text("\n".join(json.dumps({"text": line}) for line in lines), encoding="utf-8")
    asked = {"sites": ["resid_post@3", "attn_out@2"], "shard_rows": 512, "batch_tokens": 512}
    for name, options in (("one", {"threads": 1}), ("two", {"workers": 2})):
        collect(model, tmp_path / "texts.jsonl", folder=tmp_path / name, **asked, **options)
    assert open_store(tmp_path / "one").n_shards > 3
    assert small_corpus.files(tmp_path / "one") == small_corpus.files(tmp_path / "two")
