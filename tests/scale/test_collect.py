"""What a store holds: the numbers of plain forwards, under the token that they are of, however the work was cut."""

import hashlib
import json
import sys
from collections.abc import Iterator
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from safetensors import safe_open

import interp
import tiny_models
import word_model
from interp.editing.stack import applied
from interp.errors import MemoryLimitError, ModelError, NumericsError, UsageError
from interp.runner.memory import forward_bytes
from interp.runner.model import Model
from interp.scale import collect_plan
from interp.scale.collect import collect
from interp.scale.store import open_store
from interp.scale.store_files import Folder
from interp.scale.store_manifest import read_manifest
from random_edit import random_edit
from scale import small_corpus

TEXTS = small_corpus.texts()
N_TOKENS = sum(map(len, TEXTS))


def packed(windows: list[int], room: int) -> Iterator[int]:
    """The rows of each shard, where each takes as many whole windows as fit."""
    held = 0
    for rows in windows:
        if held and held + rows > room:
            yield held
            held = 0
        held += rows
    yield held


def test_every_row_is_the_plain_forward_of_its_window(small, tmp_path) -> None:
    store = collect(small, TEXTS, ["resid_post@1", "attn.z@0,2"], tmp_path / "s", shard_rows=256, batch_tokens=200)
    assert store.sites == ("blocks.0.attn.hook_z", "blocks.1.hook_resid_post", "blocks.2.attn.hook_z")
    assert store.n_rows == N_TOKENS
    index = store.index()
    expected = [
        (document, window, position, token)
        for document, window, ids in small_corpus.cut(TEXTS, 64)
        for position, token in enumerate(ids)
    ]
    assert list(index[["document", "window", "position", "token"]].itertuples(index=False, name=None)) == expected
    shards = list(packed([len(ids) for _, _, ids in small_corpus.cut(TEXTS, 64)], 256))
    assert [record.rows for record in store._records] == shards
    assert index["shard"].tolist() == [shard for shard, rows in enumerate(shards) for _ in range(rows)]
    assert index["row"].tolist() == [row for rows in shards for row in range(rows)]
    plain = torch.cat([small_corpus.streams(small.hf, ids, 1) for _, _, ids in small_corpus.cut(TEXTS, 64)])
    torch.testing.assert_close(store.rows()["resid_post@1"], plain, atol=1e-4, rtol=1e-4)
    assert store.rows(0, 5)["attn.z@2"].shape == (5, 4, 8)


@pytest.mark.parametrize("family", ["gpt2", "gemma2", "opt"])
def test_other_families_and_sites(family: str, tmp_path) -> None:
    """Each site against a run of one text alone; gpt2's position embeddings are computed once for a whole batch."""
    model, corpus = Model(tiny_models.build(family)), small_corpus.texts(9, longest=40)
    sites = ["embed", "pos_embed", "ln1.scale@1", "mlp.post@1", "attn_out@2", "attn.v@0"]
    sites = [site for site in sites if site.split("@")[0] in model.sites.available]
    store = collect(model, corpus, sites, tmp_path / "s", batch_tokens=100)
    for document, text in enumerate(corpus):
        run, rows = model.run(text, capture=sites, logits=False), store.document(document)
        for name in store.sites:
            torch.testing.assert_close(rows[name], run.cache[name][0], atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(
    ("positions", "chosen"), [("last", slice(-1, None)), ("::3", slice(None, None, 3)), ("2:5", slice(2, 5))]
)
def test_only_the_kept_positions_are_there(small, tmp_path, positions: str, chosen: slice) -> None:
    store = collect(small, TEXTS, "resid_post@2", tmp_path / "s", positions=positions, batch_tokens=200)
    expected = [
        (document, window, position)
        for document, window, ids in small_corpus.cut(TEXTS, 64)
        for position in range(len(ids))[chosen]
    ]
    index = store.index()
    assert list(index[["document", "window", "position"]].itertuples(index=False, name=None)) == expected
    plain = [small_corpus.streams(small.hf, ids, 2)[chosen] for _, _, ids in small_corpus.cut(TEXTS, 64)]
    torch.testing.assert_close(store.rows()["resid_post@2"], torch.cat(plain), atol=1e-4, rtol=1e-4)


def test_what_comes_behind_the_last_kept_position_is_not_run(small, tmp_path, monkeypatch) -> None:
    widths, run = [], Model.run

    def watched(self, prompts, *arguments, **options):
        widths.append(max(len(tokens) for tokens in prompts))
        return run(self, prompts, *arguments, **options)

    monkeypatch.setattr(Model, "run", watched)
    collect(small, TEXTS, "resid_post@0", tmp_path / "s", positions=":4")
    assert max(widths) == 4


def test_the_forward_ends_at_the_last_site(small, tmp_path) -> None:
    called = []
    for index, layer in enumerate(small.hf.model.layers):
        layer.register_forward_pre_hook(lambda *_, index=index: called.append(index))
    collect(small, TEXTS[:3], "resid_post@0", tmp_path / "s")
    assert set(called) == {0}


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32"])
def test_rows_are_rounded_to_the_dtype(small, tmp_path, dtype: str) -> None:
    exact = collect(small, TEXTS, "resid_post@1", tmp_path / "exact").rows()["resid_post@1"]
    found = collect(small, TEXTS, "resid_post@1", tmp_path / "s", dtype=dtype).rows()["resid_post@1"]
    assert torch.equal(found, exact.to(getattr(torch, dtype)))


def test_a_number_too_large_for_the_dtype_is_named(small, tmp_path) -> None:
    small.hf.model.embed_tokens.weight.data[5] = 1e6
    corpus = [[6, 7], [8, 5, 9]]
    with pytest.raises(
        NumericsError, match="hook_embed at position 1 of document 1 is NaN or infinite in float16; too large"
    ):
        collect(small, corpus, "embed", tmp_path / "s", dtype="float16")
    assert collect(small, corpus, "embed", tmp_path / "t", dtype="bfloat16").n_rows == 5


def test_the_last_text_is_cut_at_max_tokens(small, tmp_path) -> None:
    whole = collect(small, TEXTS, "resid_post@1", tmp_path / "whole").index()
    store = collect(small, TEXTS, "resid_post@1", tmp_path / "s", max_tokens=333)
    columns = ["document", "window", "position", "token"]
    assert store.index()[columns].equals(whole[columns][:333])
    done = store.manifest.complete
    assert done is not None
    assert (done.tokens, done.rows) == (333, 333)
    assert done.texts == 1 + store.index()["document"].max()


def test_a_shard_is_a_plain_safetensors_file_and_the_same_call_gives_the_same_bytes(small, tmp_path) -> None:
    for name in ("a", "b"):
        collect(small, TEXTS, ["resid_post@1", "mlp.post@0", "ln1.scale@2"], tmp_path / name, shard_rows=500)
    assert small_corpus.files(tmp_path / "a") == small_corpus.files(tmp_path / "b")
    rows = open_store(tmp_path / "a")._records[1].rows
    with safe_open(tmp_path / "a" / "shard-000001.safetensors", "pt") as file:
        assert file.get_slice("blocks.1.hook_resid_post").get_shape() == [rows, 32]
        assert json.loads(file.metadata()["interp_store"])["shard"] == 1


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_the_bytes_are_those_that_the_library_writes(dtype: torch.dtype) -> None:
    from safetensors.torch import save

    from interp.scale.store_layout import layout_of, pieces_of, sha256_of, whole_file

    tensors = {"blocks.10.b": torch.randn(5, 3), "blocks.2.a": torch.randn(5, 1), "äußerst": torch.randn(5, 2, 2)}
    tensors = {name: tensor.to(dtype) for name, tensor in tensors.items()}
    layout = layout_of(tensors, {"interp_store": '{"shard": 1}'})
    expected = save(tensors, {"interp_store": '{"shard": 1}'})
    assert whole_file(tensors, layout) == expected
    assert sha256_of(tensors, layout) == hashlib.sha256(expected).hexdigest()
    found = bytearray(len(expected))
    found[: len(layout.header)] = layout.header
    for start, stop in ((2, 5), (0, 1), (1, 2)):
        for offset, data in pieces_of(tensors, layout, [(start, stop)]):
            found[offset : offset + len(data)] = data
    assert bytes(found) == expected


def test_a_finished_store_is_given_back_without_any_run(small, told, tmp_path, monkeypatch) -> None:
    collect(small, TEXTS, "resid_post@1", tmp_path / "s")
    monkeypatch.setattr(Model, "run", None)
    assert collect(small, TEXTS, "resid_post@1", tmp_path / "s").n_rows == N_TOKENS
    assert told == [f"{tmp_path / 's'} is finished; there was nothing to do"]
    assert len(open_store(tmp_path / "s").provenance) == 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"sites": "resid_post@0"}, "sites blocks.1.hook_resid_post, now blocks.0.hook_resid_post"),
        ({"positions": "last"}, "positions all, now last"),
        ({"dtype": "bfloat16"}, "dtype float32, now bfloat16"),
        ({"max_tokens": 9}, "max_tokens unset, now 9"),
        ({"shard_rows": 7}, "shard_rows 2000, now 7"),
        ({"batch_tokens": 8, "window": 8}, "window 64, now 8; batch_tokens 256, now 8"),
        ({"corpus": TEXTS[:-1]}, "corpus_sha256 .*, now "),
        ({"model": "other"}, "weights_sha256 .*, now "),
        ({"model": "edited"}, "edits none, now "),
    ],
)
def test_another_request_is_refused_with_what_differs(small, tmp_path, change: dict, message: str) -> None:
    first = {"model": small, "corpus": TEXTS, "sites": "resid_post@1", "shard_rows": 2000, "batch_tokens": 256}
    collect(**first, folder=tmp_path / "s")
    before = small_corpus.files(tmp_path / "s")
    asked = {**first, **change}
    if asked["model"] == "other":
        asked["model"] = Model(tiny_models.build("llama", seed=1))
    edits = (random_edit(small, [1]),) if asked["model"] == "edited" else ()
    asked["model"] = small if edits else asked["model"]
    with (
        applied(small, *edits),
        pytest.raises(UsageError, match=rf"was begun otherwise: .*{message}.*Ask for the same to go on"),
    ):
        collect(**asked, folder=tmp_path / "s")
    assert small_corpus.files(tmp_path / "s") == before


@pytest.mark.long
def test_memory_that_runs_out_halves_the_batch_says_so_and_is_written_down(small, told, tmp_path, monkeypatch) -> None:
    """From the second shard on a forward of more than 100 positions fails; a second store with the same numbers is the same."""
    run, asked = Model.run, []

    def tight(self, prompts, *arguments, **options):
        positions = len(prompts) * max(len(tokens) for tokens in prompts)
        asked.append(positions)
        manifest = read_manifest(Folder(tmp_path / "s"))
        assert manifest is not None
        assert bool(manifest.smaller) == bool(told)  # it is on the disk before anything is run again
        if len(asked) > 17 and positions > 100:
            raise torch.OutOfMemoryError("no more")
        return run(self, prompts, *arguments, **options)

    monkeypatch.setattr(Model, "run", tight)
    store = collect(small, TEXTS, "resid_post@1", tmp_path / "s", shard_rows=900, batch_tokens=128, window=32)
    assert told == ["out of memory with 128 tokens a batch; going on with 64"]
    (shard, same, tokens), (later, none, less) = store.manifest.smaller
    assert (same, later, none, tokens, less) == (shard, shard + 1, None, 64, 64)
    assert shard > 0
    assert asked[-1] <= 64
    plain = torch.cat([small_corpus.streams(small.hf, ids, 1) for _, _, ids in small_corpus.cut(TEXTS, 32)])
    torch.testing.assert_close(store.rows()["resid_post@1"], plain, atol=1e-4, rtol=1e-4)
    # What is missing is made again in the batches of that time, though memory is no longer short.
    monkeypatch.setattr(Model, "run", run)
    before = small_corpus.files(tmp_path / "s")
    for shard in range(store.n_shards):
        (tmp_path / "s" / f"shard-{shard:06d}.json").unlink()
    collect(small, TEXTS, "resid_post@1", tmp_path / "s", shard_rows=900, batch_tokens=128, window=32)
    assert small_corpus.files(tmp_path / "s") == before


def test_batches_are_chosen_from_the_free_memory(small, tmp_path, monkeypatch) -> None:
    """A quarter of it, in powers of two, a window at least; a CPU is busy with fewer tokens than an accelerator."""

    def chosen(free: int | None) -> int:
        monkeypatch.setattr(collect_plan, "least_free", lambda model: free)
        settings = {"sites": ("resid_post@1",), "dtype": "float32", "window": 64, "positions": "all", "skip_bos": False}
        more = {"max_tokens": None, "shard_rows": None, "batch_tokens": None, "threads": None}
        planned = collect_plan._planned(small, small.sites.sites("resid_post@1"), settings | more, 1)
        assert planned.shard_rows == 65_536
        return planned.batch_tokens

    a_token = forward_bytes(small, 64) + 4 * small.atlas.d_model
    assert chosen(None) == chosen(1 << 40) == 2048
    assert chosen(4 * 300 * a_token) == 256
    assert chosen(1) == 64
    monkeypatch.setattr(Model, "device", property(lambda self: torch.device("cuda:0")))
    assert chosen(1 << 40) == 32_768
    assert chosen(4 * 300 * a_token) == 256


def test_a_window_that_does_not_fit_alone_is_a_memory_error(small, tmp_path, monkeypatch) -> None:
    def never(self, *arguments, **options):
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 5 bytes")

    monkeypatch.setattr(Model, "run", never)
    with pytest.raises(
        MemoryLimitError,
        match="one text of up to 64 tokens does not fit in memory .RuntimeError.; use a shorter window",
    ):
        collect(small, TEXTS, "resid_post@1", tmp_path / "s")

    def broken(self, *arguments, **options):
        raise RuntimeError("something else")

    monkeypatch.setattr(Model, "run", broken)
    with pytest.raises(RuntimeError, match="something else"):
        collect(small, TEXTS, "resid_post@1", tmp_path / "s")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"sites": "attn.pattern@1"}, r"blocks.1.attn.hook_pattern has no row of one size a token"),
        ({"sites": "resid_pots"}, "unknown site 'resid_pots'"),
        ({"dtype": "int8"}, "unknown dtype 'int8'; valid: auto, float32, float16, bfloat16"),
        ({"window": 65}, "window is 65, the model's context is 64"),
        ({"shard_rows": 0}, "shard_rows is 0; give 1 or more"),
        ({"corpus": []}, "there is no text in 0 given texts"),
        ({"corpus": [[5], [6]], "positions": "4:"}, "positions '4:' keep no token of 2 given texts"),
        ({"corpus": "nowhere.txt"}, "there is no corpus file nowhere.txt"),
        ({"corpus": b"Ann"}, "a corpus is a path, 'hf:NAME' or a list of texts, got bytes"),
        ({"corpus": ["Ann"]}, "this model has no tokenizer"),
        ({"threads": 0}, "threads is 0; give 1 or more"),
        ({"workers": 0}, "workers is 0; give 1 or more"),
        ({"workers": 2}, "this model was made in memory, so other processes cannot load it; save it with"),
        ({"engine": "dask"}, "unknown engine 'dask'; valid: embedded, ray"),
        ({"address": "auto"}, "the address auto is of a Ray cluster; add --engine ray"),
    ],
)
def test_what_is_wrong_is_told_and_nothing_stays(small, tmp_path, change: dict, message: str) -> None:
    asked = {"corpus": TEXTS, "sites": "resid_post@1", "folder": tmp_path / "s", **change}
    with pytest.raises(UsageError, match=message):
        collect(small, **asked)
    assert not (tmp_path / "s").exists() or not small_corpus.files(tmp_path / "s")


def test_a_folder_with_other_things_is_left_alone(small, tmp_path) -> None:
    (tmp_path / "mine.txt").write_text("x")
    with pytest.raises(UsageError, match=r"holds other files \(mine.txt\); choose an empty folder"):
        collect(small, TEXTS, "resid_post@1", tmp_path)
    (tmp_path / ".interp-x.part").write_text("another command is writing this")
    with pytest.raises(UsageError, match="holds other files"):
        collect(small, TEXTS, "resid_post@1", tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == [".interp-x.part", "mine.txt"]
    with pytest.raises(UsageError, match="mine.txt is not a folder"):
        collect(small, TEXTS, "resid_post@1", tmp_path / "mine.txt")


def test_a_dataset_is_known_by_what_was_read_of_it(small, tmp_path, monkeypatch) -> None:
    """It goes on where it was, and is refused where other texts come first."""
    model, changed = word_model.build(), []
    lines = [" ".join(word_model.WORDS[index] for index in text) for text in TEXTS]

    def load_dataset(name, split, streaming):
        return ({"text": line if number not in changed else "Ann"} for number, line in enumerate(lines))

    monkeypatch.setitem(sys.modules, "datasets", SimpleNamespace(load_dataset=load_dataset))
    settings = {"sites": "resid_post@1", "shard_rows": 800, "batch_tokens": 64}
    store = collect(model, "hf:some/set", folder=tmp_path / "s", **settings)
    assert store.manifest.origin.corpus_sha256 is None
    before = small_corpus.files(tmp_path / "s")
    (tmp_path / "s" / "shard-000002.json").unlink()
    changed.append(0)
    with pytest.raises(
        UsageError, match=r"the texts of hf:some/set up to number \d+ are not those that the store was begun"
    ):
        collect(model, "hf:some/set", folder=tmp_path / "s", **settings)
    changed.clear()
    collect(model, "hf:some/set", folder=tmp_path / "s", **settings)
    assert small_corpus.files(tmp_path / "s") == before


@pytest.mark.long
def test_a_dataset_that_changed_inside_a_shard_or_ends_early_is_refused(tmp_path, monkeypatch) -> None:
    """The text at which the work goes on is the same; texts before it that were read are not, or are gone."""
    model = word_model.build()
    lines = [" ".join(word_model.WORDS[index] for index in text) for text in TEXTS]
    given = list(lines)
    monkeypatch.setitem(
        sys.modules,
        "datasets",
        SimpleNamespace(load_dataset=lambda name, split, streaming: ({"text": line} for line in given)),
    )
    settings = {"sites": "resid_post@1", "shard_rows": 100, "batch_tokens": 256, "folder": tmp_path / "s"}
    store = collect(model, "hf:some/set", **settings)
    before = small_corpus.files(tmp_path / "s")
    for shard in range(2, store.n_shards):
        (tmp_path / "s" / f"shard-{shard:06d}.json").unlink()
    given[1] = "Ann " * len(lines[1].split())
    with pytest.raises(UsageError, match=r"the texts of hf:some/set up to number \d+ are not those"):
        collect(model, "hf:some/set", **settings)
    given[:] = lines[:3]
    with pytest.raises(UsageError, match=r"hf:some/set ends before text number \d+, which was read before"):
        collect(model, "hf:some/set", **settings)
    given[:] = lines
    collect(model, "hf:some/set", **settings)
    assert small_corpus.files(tmp_path / "s") == before


def test_another_machine_is_said_and_written_down(small, told, tmp_path, monkeypatch) -> None:
    folder = tmp_path / "s"
    rows = collect(small, TEXTS, "resid_post@1", folder, shard_rows=500)._records[1].rows
    (folder / "shard-000001.json").unlink()
    provenance = Model.provenance
    monkeypatch.setattr(Model, "provenance", lambda self: replace(provenance(self), versions={"torch": "9"}))
    monkeypatch.setattr("interp.scale.collect_run.hardware_of", lambda model: "a slower one")
    monkeypatch.setattr("interp.scale.collect_work.hardware_of", lambda model: "a slower one")
    store = collect(small, TEXTS, "resid_post@1", folder)
    assert told[0] == f"going on behind {store.n_shards - 1} finished shards of {folder} ({N_TOKENS - rows:,} rows)"
    assert told[1].startswith("going on with torch 9 (before: 2")
    assert "processor a slower one (before: " in told[1]
    assert told[1].endswith("numbers may differ in the last bits from an unbroken run")
    assert [run.versions["torch"] for run in store.provenance] == [torch.__version__, "9"]
    assert store.manifest.hardware[-1] == "a slower one"


def test_a_store_keeps_its_number_of_threads(small, tmp_path, monkeypatch) -> None:
    """Whatever this process computes with; on another number that is asked for it is refused."""
    used, run = [], Model.run

    def watched(self, *arguments, **options):
        used.append(torch.get_num_threads())
        return run(self, *arguments, **options)

    monkeypatch.setattr(Model, "run", watched)
    before = torch.get_num_threads()
    store = collect(small, TEXTS, "resid_post@1", tmp_path / "s", shard_rows=500, threads=before + 1)
    assert (store.manifest.settings.threads, store.provenance[0].threads) == (before + 1, before + 1)
    (tmp_path / "s" / "shard-000001.json").unlink()
    collect(small, TEXTS, "resid_post@1", tmp_path / "s", workers=1)
    assert set(used) == {before + 1}
    assert torch.get_num_threads() == before
    with pytest.raises(UsageError, match=f"threads {before + 1}, now {before + 2}"):
        collect(small, TEXTS, "resid_post@1", tmp_path / "s", threads=before + 2)
    assert collect(small, TEXTS, "resid_post@1", tmp_path / "t").manifest.settings.threads == before
    assert collect(small, TEXTS, "resid_post@1", tmp_path / "u", workers=1).manifest.settings.threads == 1


def test_progress_counts_tokens_and_ends_at_the_total(small, tmp_path) -> None:
    seen = []
    collect(small, TEXTS, "resid_post@1", tmp_path / "s", batch_tokens=64, progress=lambda *step: seen.append(step))
    assert {what for what, _, _ in seen} == {"collecting tokens"}
    done = [step[1] for step in seen]
    assert done == sorted(done)
    assert seen[-1][1:] == (N_TOKENS, N_TOKENS)
    seen.clear()
    collect(small, TEXTS, "resid_post@1", tmp_path / "t", positions="5:", progress=lambda *step: seen.append(step))
    assert seen[-1][1:] == (N_TOKENS, N_TOKENS)
    assert all(total is None or done <= total for _, done, total in seen)


def test_the_public_names(small, tmp_path) -> None:
    store = interp.collect(small, TEXTS, "resid_post@1", tmp_path / "s")
    assert isinstance(store, interp.ActivationStore)
    assert interp.open_store(tmp_path / "s").n_rows == store.n_rows
    (tmp_path / "s" / "store.json").write_text("{}")
    with pytest.raises(ModelError, match=r"store.json in .* is damaged"):
        interp.open_store(tmp_path / "s")


@pytest.mark.long
def test_what_is_not_run_again_is_counted_before_anything_is_run(small, tmp_path, monkeypatch) -> None:
    """So that a speed taken from the first step to the last is that of the work."""
    store = collect(small, TEXTS, "resid_post@1", tmp_path / "s", shard_rows=100, batch_tokens=64)
    (tmp_path / "s" / f"shard-{store.n_shards - 1:06d}.json").unlink()
    seen, ran, run = [], [], Model.run

    def counted(self, prompts, *arguments, **options):
        ran.append(sum(map(len, prompts)))
        return run(self, prompts, *arguments, **options)

    monkeypatch.setattr(Model, "run", counted)
    collect(small, TEXTS, "resid_post@1", tmp_path / "s", progress=lambda *step: seen.append(step))
    assert seen[-1][1] - seen[0][1] == sum(ran)
    assert seen[-1][1] == N_TOKENS


def test_another_spelling_of_the_positions_is_the_same_request(small, tmp_path) -> None:
    collect(small, TEXTS, "resid_post@1", tmp_path / "s")
    assert collect(small, TEXTS, "resid_post@1", tmp_path / "s", positions="0:").complete


def test_records_without_a_text_are_told(told, tmp_path) -> None:
    model = word_model.build()
    model.notify = told.append
    (tmp_path / "a.jsonl").write_text('{"text": "Ann and Bob"}\n{"text": null}\n')
    assert collect(model, tmp_path / "a.jsonl", "resid_post@1", tmp_path / "s").n_rows == 3
    assert told == ["1 records of a.jsonl hold no text and were left out"]
