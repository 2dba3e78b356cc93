"""Sampled contexts: none first, then texts of the asked lengths that end a sentence; the same seed gives the same texts."""

from dataclasses import replace

import pytest

from interp.editing.contexts import OPENERS, sample_contexts
from interp.editing.settings import settings_of
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
def test_the_seed_decides(model: Model) -> None:
    first = sample_contexts(model, FEW, seed=3)
    assert sample_contexts(model, FEW, seed=3) == first
    assert sample_contexts(model, FEW, seed=4) != first


def test_a_model_without_a_tokenizer_has_only_the_empty_context(family) -> None:
    assert sample_contexts(family("llama"), FEW) == ("",)
