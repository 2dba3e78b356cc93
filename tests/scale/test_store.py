"""Reading a store back: every way gives the rows that the index says, and a changed byte is found and named."""

import shutil
from pathlib import Path

import pytest
import torch

from interp.errors import ModelError, UsageError
from interp.scale.collect import collect
from interp.scale.store import ActivationStore, open_store
from interp.scale.store_rows import Rows
from scale import small_corpus

TEXTS = small_corpus.texts(20)
SITES = ("blocks.0.mlp.hook_post", "blocks.1.hook_resid_post")


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    import tiny_models
    from interp.runner.model import Model

    path = tmp_path_factory.mktemp("store") / "s"
    collect(Model(tiny_models.build("llama")), TEXTS, ["resid_post@1", "mlp.post@0"], path, shard_rows=300)
    return path


@pytest.fixture
def store(folder: Path) -> ActivationStore:
    return open_store(folder)


def all_rows(store: ActivationStore) -> Rows:
    return store.rows()


def keys(rows: Rows) -> list[tuple[int, int, int, int]]:
    return list(rows.to_frame().itertuples(index=False, name=None))


def same(found: Rows, expected: Rows) -> bool:
    return keys(found) == keys(expected) and all(
        torch.equal(found.activations[site], expected.activations[site]) for site in found.activations
    )


def test_rows_of_any_range(store) -> None:
    whole = all_rows(store)
    assert store.n_shards > 3
    for start, stop in ((0, 1), (290, 310), (5, 905), (store.n_rows - 1, store.n_rows)):
        assert same(store.rows(start, stop), whole.part(slice(start, stop)))
    assert tuple(store.rows(0, 3, "resid_post@1").activations) == (SITES[1],)
    with pytest.raises(UsageError, match=rf"rows 5 to 5 are not in the store; it has rows 0 to {store.n_rows - 1}"):
        store.rows(5, 5)


def test_batches_in_order_are_the_rows_in_order(store) -> None:
    batches = list(store.batches(batch_rows=170))
    assert {len(batch) for batch in batches[:-1]} == {170}
    assert same(Rows.joined(batches), all_rows(store))
    cut = list(store.batches(batch_rows=170, drop_last=True))
    assert len(cut) == store.n_rows // 170
    assert {len(batch) for batch in cut} == {170}


def test_shuffled_batches_hold_every_row_once_with_its_own_activation(store, monkeypatch) -> None:
    whole = all_rows(store)
    place = {key: row for row, key in enumerate(keys(whole))}
    for mapped in (128, 2):  # all shards are mixed, or two at a time
        monkeypatch.setattr("interp.scale.store._OPEN", mapped)
        shuffled = Rows.joined(list(open_store(store.name).batches(batch_rows=111, seed=3)))
        order = [place[key] for key in keys(shuffled)]
        assert sorted(order) == list(range(store.n_rows))
        assert order != sorted(order)
        assert same(shuffled, whole.part(torch.tensor(order)))
    again = Rows.joined(list(store.batches(batch_rows=50, seed=3)))
    assert keys(again) == keys(Rows.joined(list(store.batches(batch_rows=64, seed=3))))
    assert keys(again) != keys(Rows.joined(list(store.batches(batch_rows=64, seed=4))))


def test_a_shuffle_moves_rows_anywhere(store) -> None:
    """The mean place of the rows of the first shard, over seeds, is the middle of the store."""
    means = []
    for seed in range(10):
        order = torch.cat(list(store._order(seed)))
        means.append(float((order < 300).nonzero().double().mean()) / store.n_rows)
    assert abs(sum(means) / len(means) - 0.5) < 0.05


def test_a_document_and_a_token(store) -> None:
    whole, index = all_rows(store), store.index()
    for document in (0, 7, 19):
        chosen = torch.tensor(index.index[index["document"] == document])
        assert same(store.document(document), whole.part(chosen))
        assert store.document(document).tokens.tolist() == TEXTS[document]
    token = TEXTS[3][0]
    chosen = torch.tensor(index.index[index["token"] == token])
    assert same(store.token(token), whole.part(chosen))
    assert same(store.token(token, "resid_post@1", limit=2), whole.part(chosen[:2]))
    with pytest.raises(UsageError, match="no row of document 20 is in the store; its documents go up to 19"):
        store.document(20)
    with pytest.raises(UsageError, match="no row of token 1 is in the store"):
        store.token(1)


def test_sites_are_named_as_everywhere(store) -> None:
    rows = store.rows(0, 4)
    assert torch.equal(rows["resid_post@1"], rows["blocks.1.hook_resid_post"])
    assert torch.equal(rows["resid_post"], rows["resid_post@1"])
    with pytest.raises(
        UsageError, match=r"blocks.2.hook_resid_post is not in the store; it holds: blocks.0.mlp.hook_post"
    ):
        rows["resid_post@-1"]  # of the model's three layers, not of the stored ones
    with pytest.raises(UsageError, match="unknown site"):
        store.rows(0, 4, "resid")["nothing"]


def test_memory_holds_what_is_taken(store) -> None:
    taken = store.rows(0, 3)["resid_post@1"]
    assert taken.untyped_storage().nbytes() == 3 * 32 * 4
    taken.fill_(0)
    assert not torch.equal(store.rows(0, 3)["resid_post@1"], taken)


@pytest.mark.parametrize(
    "kind", ["shard-000001.safetensors", "index-000001.parquet", "shard-000001.json", "store.json"]
)
def test_a_flipped_bit_is_found_and_named(folder, tmp_path, kind: str) -> None:
    """At the first byte, in the middle and at the last; by ``verify`` and by reading."""
    copy = tmp_path / "s"
    shutil.copytree(folder, copy)
    whole = (copy / kind).read_bytes()
    for place in (0, len(whole) // 2, len(whole) - 3):
        (copy / kind).write_bytes(whole[:place] + bytes([whole[place] ^ 4]) + whole[place + 1 :])
        for read in (ActivationStore.verify, lambda store: store.rows(300, 310)):
            with pytest.raises(ModelError, match=rf"{kind} in .* is damaged"):
                read(open_store(copy))
    (copy / kind).write_bytes(whole)
    open_store(copy).verify()
    if kind.endswith("safetensors"):
        (copy / kind).write_bytes(whole[:-1] + bytes([whole[-1] ^ 4]))
        open_store(copy).rows(0, 10)  # another shard
        open_store(copy, check=False).rows(300, 310)  # who asks not to check is not told
        (copy / kind).unlink()
        with pytest.raises(ModelError, match=kind):
            open_store(copy).verify()


def test_what_the_message_says_mends_it(folder, small, tmp_path) -> None:
    copy = tmp_path / "s"
    shutil.copytree(folder, copy)
    (copy / "shard-000002.safetensors").write_bytes(b"oops")
    with pytest.raises(ModelError, match=r"remove shard-000002.json from it and collect again"):
        open_store(copy).verify()
    (copy / "shard-000002.json").unlink()
    assert not open_store(copy).complete
    assert open_store(copy).n_rows == sum(record.rows for record in open_store(folder)._records[:2])
    written = (copy / "shard-000003.safetensors").stat().st_mtime_ns
    collect(small, TEXTS, ["resid_post@1", "mlp.post@0"], copy, shard_rows=300)
    assert small_corpus.files(copy) == small_corpus.files(folder)
    assert (copy / "shard-000003.safetensors").stat().st_mtime_ns == written  # the others are left


def test_what_is_no_store_is_told(tmp_path, folder) -> None:
    with pytest.raises(UsageError, match=r"there is no activation store in .*; make one with: interp collect -o"):
        open_store(tmp_path / "nothing")
    with pytest.raises(UsageError, match="batch_rows is 0"):
        next(open_store(folder).batches(batch_rows=0))


def test_what_a_store_says_of_itself(store, folder) -> None:
    assert repr(store).startswith(
        f"ActivationStore('{folder}': {store.n_rows:,} rows of 2 sites in {store.n_shards} shards, "
    )
    assert store.sites == SITES
    assert len(store) == store.n_rows == sum(map(len, TEXTS))
    assert store.bytes == sum(
        len(data) for name, data in small_corpus.files(folder).items() if not name.endswith("json")
    )
