"""Corpora: the texts that a file, a dataset, a list or the model itself gives, cut to the window and to the number of tokens."""

import hashlib
import json
import sys
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import save_file
from tokenizers.processors import TemplateProcessing

import tiny_models
import word_model
from interp import corpora
from interp.editing.corpora import read_corpus
from interp.editing.sampled_text import LENGTH, ROWS
from interp.errors import UsageError
from interp.models.loading import Source
from interp.runner.model import Model


@pytest.fixture(scope="module")
def worded() -> Model:
    return word_model.build()


def ids_of(model: Model, text: str) -> tuple[int, ...]:
    return tuple(model.tokenizer(text)["input_ids"])


def test_each_line_of_a_text_file_that_is_not_empty_is_a_text(worded, tmp_path) -> None:
    path = tmp_path / "two.txt"
    path.write_text("Ann went to the shop\n\n   \n  Bob gave a plum  \n", encoding="utf-8")
    found = read_corpus(worded, path, max_tokens=100)
    assert found.pieces == (ids_of(worded, "Ann went to the shop"), ids_of(worded, "Bob gave a plum"))
    assert found.n_tokens == 9
    assert found.name == "two.txt"
    assert found.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert read_corpus(worded, str(path), max_tokens=100).pieces == found.pieces


def test_jsonl_gives_the_same_texts(worded, tmp_path) -> None:
    path = tmp_path / "two.jsonl"
    lines = [{"text": "Ann went to the shop", "id": 1}, {"text": " "}, {"text": "Bob gave a plum"}]
    path.write_text("\n".join(map(json.dumps, lines)), encoding="utf-8")
    found = read_corpus(worded, path, max_tokens=100)
    assert found.pieces == (ids_of(worded, "Ann went to the shop"), ids_of(worded, "Bob gave a plum"))


def test_lists_hold_texts_or_token_ids(worded) -> None:
    found = read_corpus(
        worded, ["Ann went", [5, 6, 7], torch.tensor([8, 9]), worded.tokens("Bob gave")], max_tokens=100
    )
    assert found.pieces == (ids_of(worded, "Ann went"), (5, 6, 7), (8, 9), ids_of(worded, "Bob gave"))
    assert found.name == "4 given texts"
    same = read_corpus(worded, ["Ann went", [5, 6, 7], [8, 9], list(ids_of(worded, "Bob gave"))], max_tokens=100)
    assert same.sha256 == found.sha256
    assert read_corpus(worded, ["Ann gave"], max_tokens=100).sha256 != found.sha256
    assert len(read_corpus(worded, [[1 + i % 90] for i in range(200)], max_tokens=500).pieces) == 200


@pytest.mark.parametrize("max_tokens", [1, 5, 6, 8, 9, 50])
def test_the_last_text_is_cut_at_the_number_of_tokens(worded, max_tokens: int) -> None:
    texts = [[1, 2, 3, 4, 5], [6, 7, 8, 9]]
    found = read_corpus(worded, texts, max_tokens=max_tokens)
    assert [index for piece in found.pieces for index in piece] == [*range(1, 10)][:max_tokens]
    assert all(found.pieces)


def test_long_texts_are_cut_to_the_context(family) -> None:
    ids = [3 + index % 90 for index in range(150)]
    found = read_corpus(family("gpt2"), [ids, [5]], max_tokens=1000)
    assert [len(piece) for piece in found.pieces] == [64, 64, 22, 1]
    assert [index for piece in found.pieces[:3] for index in piece] == ids


def test_a_token_in_front_of_every_text_stands_in_front_of_every_piece(monkeypatch) -> None:
    model = word_model.build()
    model.tokenizer.backend_tokenizer.post_processor = TemplateProcessing(single="Ann $A", special_tokens=[("Ann", 2)])
    assert ids_of(model, "Bob gave a plum")[0] == 2
    monkeypatch.setattr(corpora, "WINDOW", 4)
    found = read_corpus(model, ["Bob gave a plum in the shop", "Bob gave a", "Bob"], max_tokens=100)
    plain = ids_of(model, "Bob gave a plum in the shop")[1:]
    expected = [(2, *plain[:3]), (2, *plain[3:6]), (2, *plain[6:]), ids_of(model, "Bob gave a"), ids_of(model, "Bob")]
    assert found.pieces == tuple(expected)


def test_a_dataset_is_streamed_only_as_far_as_it_is_read(worded, monkeypatch) -> None:
    read, asked = [], []

    def rows():
        for index in range(1000):
            read.append(index)
            yield {"body": "Ann gave a plum" if index != 1 else "", "label": 3}

    def load_dataset(name, split, streaming):
        asked.append((name, split, streaming))
        return rows()

    monkeypatch.setitem(sys.modules, "datasets", SimpleNamespace(load_dataset=load_dataset))
    found = read_corpus(worded, "hf:some/set:test:body", max_tokens=10)
    assert found.pieces == (ids_of(worded, "Ann gave a plum"),) * 2 + (ids_of(worded, "Ann gave"),)
    assert asked == [("some/set", "test", True)]
    assert len(read) < 100
    assert found.name == "hf:some/set:test:body"
    with pytest.raises(UsageError, match="the dataset some/set has no field 'text'; it has: body, label"):
        read_corpus(worded, "hf:some/set", max_tokens=10)
    assert asked[-1] == ("some/set", "train", True)


def test_what_is_wrong_with_a_dataset_is_told(worded, monkeypatch) -> None:
    def unreachable(name, split, streaming):
        raise ConnectionError("no\nnetwork")

    monkeypatch.setitem(sys.modules, "datasets", SimpleNamespace(load_dataset=unreachable))
    with pytest.raises(UsageError, match=r"cannot read the dataset x/y, split train \(no network\); check its name"):
        read_corpus(worded, "hf:x/y", max_tokens=10)
    monkeypatch.setitem(sys.modules, "datasets", None)  # as if it were not installed
    with pytest.raises(UsageError, match=r"reading hf:x/y needs the package datasets \(pip install datasets\)"):
        read_corpus(worded, "hf:x/y", max_tokens=10)
    for name in ("hf:", "hf:a:b:c:d"):
        with pytest.raises(UsageError, match="names no dataset; write 'hf:NAME'"):
            read_corpus(worded, name, max_tokens=10)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("missing.txt", None, "there is no corpus file .*missing.txt; give a text file"),
        ("empty.txt", b"\n \n", "there is no text in empty.txt"),
        ("latin.txt", b"caf\xe9\n", "latin.txt is not UTF-8 text"),
        ("bad.jsonl", b'{"text": "a"}\n{oops\n', "line 2 of .*bad.jsonl is not JSON"),
        ("none.jsonl", b'{"text": "a"}\n\n{"body": "b"}\n', "line 3 of .*none.jsonl has no text"),
        ("list.jsonl", b"[1]\n", "line 1 of .*list.jsonl has no text"),
    ],
)
def test_what_is_wrong_with_a_file_is_told(worded, tmp_path, name: str, content, message: str) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(UsageError, match=message):
        read_corpus(worded, tmp_path / name, max_tokens=10)


@pytest.mark.parametrize(
    ("corpus", "message"),
    [
        ([], "there is no text in 0 given texts"),
        ([3, 4], "a text of a corpus is a string or a sequence of token ids, got int"),
        ([{"text": "a"}], "got dict"),
        ([["a"]], "got list"),
        ([[97]], "token id 97 is outside the vocabulary; valid: 0 to 96"),
    ],
)
def test_what_is_wrong_with_a_list_is_told(worded, corpus, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        read_corpus(worded, corpus, max_tokens=10)


def test_texts_need_a_tokenizer_and_a_number_of_tokens(family) -> None:
    with pytest.raises(UsageError, match="this model has no tokenizer; give the corpus as lists of token ids"):
        read_corpus(family("gpt2"), ["Ann"], max_tokens=10)
    with pytest.raises(UsageError, match="max_tokens is 0"):
        read_corpus(family("gpt2"), [[3]], max_tokens=0)


def test_sampled_text_is_the_models_own_and_follows_the_seed(family) -> None:
    model = family("llama")
    found = read_corpus(model, "sampled", max_tokens=500)
    assert found.n_tokens == 500
    assert found.pieces == read_corpus(model, "sampled", max_tokens=500).pieces
    assert found.pieces[:4] == read_corpus(model, "sampled", max_tokens=260).pieces[:4]
    other = read_corpus(model, "sampled", max_tokens=500, seed=1)
    assert other.pieces != found.pieces
    assert other.sha256 != found.sha256
    assert found.name == "text sampled from the model (seed 0)"
    assert {len(piece) for piece in found.pieces[:-1]} == {63}  # the context less the token it is drawn behind
    # Drawn from the model: far more probable to it than to a model with other weights.
    other_model = Model(tiny_models.build("llama", seed=9))
    assert _loss(model, found.pieces[0]) < _loss(other_model, found.pieces[0]) - 0.1


def _loss(model: Model, ids) -> float:
    logits = model.run(list(ids)).logits[0, :-1].log_softmax(-1)
    return float(-logits[range(len(ids) - 1), list(ids[1:])].mean())


@pytest.mark.slow
def test_groups_of_sampled_text_are_drawn_once(empty_cache, monkeypatch) -> None:
    hf = tiny_models.build("llama", max_position_embeddings=256)
    source = Source(name="tiny", path=empty_cache, revision=None, architecture="x", format="safetensors", licence=None,
                    known_sha256="ab" * 32)  # fmt: skip
    model, told = Model(hf, source=source), []
    first = read_corpus(model, "sampled", max_tokens=300, progress=lambda *told_now: told.append(told_now))
    assert told[0] == ("sampling text", ROWS, 3 * LENGTH)
    assert told[-1] == ("sampling text", 3 * LENGTH, 3 * LENGTH)
    files = list((empty_cache / "sampled_text").iterdir())
    assert [path.name for path in files] == [f"{'ab' * 16}-float32-seed0-{ROWS}x{LENGTH}-0.safetensors"]
    monkeypatch.setattr("interp.editing.sampled_text.sample_ids", None)  # nothing may be drawn again
    assert read_corpus(model, "sampled", max_tokens=300).pieces == first.pieces
    assert read_corpus(model, "sampled", max_tokens=500).pieces[:2] == first.pieces[:2]
    monkeypatch.undo()
    monkeypatch.setenv("INTERP_CACHE", str(empty_cache))
    for damage in (lambda: files[0].write_bytes(b"no"), lambda: save_file({"ids": torch.zeros(2, 3)}, files[0])):
        damage()
        assert read_corpus(model, "sampled", max_tokens=300).pieces == first.pieces


def test_sampled_text_keeps_its_first_token_where_the_tokenizer_puts_it() -> None:
    model = word_model.build()
    model.tokenizer.bos_token = "Ann"
    bare = read_corpus(model, "sampled", max_tokens=130)
    model.tokenizer.backend_tokenizer.post_processor = TemplateProcessing(single="Ann $A", special_tokens=[("Ann", 2)])
    led = read_corpus(model, "sampled", max_tokens=130)
    ann = model.tokenizer.bos_token_id
    assert led.pieces[0] == (ann, *bare.pieces[0])
