"""Sampled contexts: none first, then texts of the asked lengths that end a sentence; the same seed gives the same texts."""

from dataclasses import replace
from pathlib import Path

import pytest

from interp.editing import contexts
from interp.editing.contexts import OPENERS, sample_contexts
from interp.editing.settings import settings_of
from interp.errors import UsageError
from interp.runner.model import Model

FEW = replace(settings_of("rome"), contexts=6, context_lengths=(2, 4))


def test_contexts_begin_with_none_and_end_like_sentences(model: Model) -> None:
    found = sample_contexts(model, FEW, seed=3)
    assert len(found) == 1 + 2 * 6
    assert found[0] == ""
    for index, text in enumerate(found[1:]):
        assert text.startswith(OPENERS[index % 6 % len(OPENERS)])
        assert text.endswith(". ")


def test_lengths_are_counted_in_tokens(model: Model) -> None:
    found = sample_contexts(model, FEW, seed=3)
    short, long = (sum(len(model.tokens(text)) for text in part) for part in (found[1:7], found[7:]))
    assert long > short + 6


@pytest.mark.slow
def test_the_seed_decides(model: Model, empty_cache: Path) -> None:
    first = sample_contexts(model, FEW, seed=3)
    for path in empty_cache.glob("contexts/*"):
        path.unlink()
    assert sample_contexts(model, FEW, seed=3) == first
    assert sample_contexts(model, FEW, seed=4) != first


def test_a_model_without_a_tokenizer_has_only_the_empty_context(family) -> None:
    assert sample_contexts(family("llama"), FEW) == ("",)


@pytest.mark.usefixtures("empty_cache")
def test_contexts_are_drawn_once_and_read_from_then_on(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    first = sample_contexts(model, FEW, seed=5)
    monkeypatch.setattr(contexts, "sample_ids", _refuse)
    assert sample_contexts(model, FEW, seed=5) == first
    for other in (replace(FEW, contexts=7), replace(FEW, context_lengths=(2, 5))):
        with pytest.raises(AssertionError, match="drew"):
            sample_contexts(model, other, seed=5)


@pytest.mark.parametrize("content", [b"", b"\xff", b"{}", b'["too few. "]', b"[1,2,3,4,5,6,7,8,9,10,11,12]"])
def test_a_broken_file_of_contexts_is_drawn_anew(model: Model, empty_cache: Path, content: bytes) -> None:
    first = sample_contexts(model, FEW, seed=5)
    (path,) = empty_cache.glob("contexts/*")
    kept = path.read_bytes()
    path.write_bytes(content)
    assert sample_contexts(model, FEW, seed=5) == first
    assert path.read_bytes() == kept


@pytest.mark.usefixtures("empty_cache")
def test_an_edited_model_draws_its_own_contexts(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    sample_contexts(model, FEW, seed=5)
    monkeypatch.setattr(contexts, "applied_edits", lambda model: ("an edit",))
    monkeypatch.setattr(contexts, "sample_ids", _refuse)
    with pytest.raises(AssertionError, match="drew"):
        sample_contexts(model, FEW, seed=5)


@pytest.mark.usefixtures("empty_cache")
def test_contexts_that_cannot_be_kept_are_given_all_the_same(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(path: Path, data: bytes) -> None:
        raise UsageError("no space left")

    told: list[str] = []
    monkeypatch.setattr(model, "notify", told.append)
    kept = sample_contexts(model, FEW, seed=5)
    monkeypatch.setattr(contexts, "write_bytes", full)
    assert len(sample_contexts(model, FEW, seed=6)) == len(kept)
    assert told == ["the contexts are not kept: no space left"]


def _refuse(*given: object, **named: object) -> None:
    raise AssertionError("drew")
