"""Perplexity is exp of the mean loss per token of plain forwards, over windows of the context, texts counting by their tokens."""

import math
from dataclasses import replace

import pytest
import torch

import tiny_models
import word_model
from interp.editing import perplexity as module
from interp.editing.perplexity import perplexity, text_losses, windows_of
from interp.errors import NumericsError, UsageError
from interp.runner.model import Model
from oracles import edit_scores as oracle

TEXTS = [[5, 9, 33, 71, 12], list(range(3, 96)) + list(range(40, 90)), [7, 8], list(range(20, 60))]


def cut(ids, context):
    """Windows that share one token, each token but the first scored once."""
    return [(ids[start : start + context], 1) for start in range(0, len(ids) - 1, context - 1)]


@pytest.mark.parametrize("name", ["gpt2", "llama", "gemma2", "gpt_neox", "phi3"])
@pytest.mark.parametrize("context", [None, 7])
def test_it_is_that_of_plain_loops(family, name: str, context) -> None:
    model = family(name)
    wanted = oracle.perplexity(model.hf, [cut(ids, context or 64) for ids in TEXTS])
    assert perplexity(model, TEXTS, context) == pytest.approx(wanted, rel=1e-5)


def test_texts_count_by_their_tokens(family) -> None:
    model = family("llama")
    losses = text_losses(model, windows_of(model, TEXTS))
    assert losses.n_tokens.tolist() == [len(ids) - 1 for ids in TEXTS]
    for index, ids in enumerate(TEXTS):
        total, count = oracle.loss_of_windows(model.hf, cut(ids, 64))
        assert float(losses.nats[index]) == pytest.approx(total, rel=1e-5)
        assert int(losses.n_tokens[index]) == count
    assert losses.perplexity == pytest.approx(math.exp(float(losses.nats.sum()) / sum(len(ids) - 1 for ids in TEXTS)))
    assert perplexity(model, TEXTS * 3) == pytest.approx(losses.perplexity, rel=1e-6)


def test_a_token_that_stands_before_the_text_stands_before_every_window(family) -> None:
    model = family("llama")
    tokens = model.tokens(TEXTS[3])
    marked = replace(tokens, spans=(None, *tokens.spans[1:]))  # as a tokenizer that adds begin-of-text reports it
    lead, ids = TEXTS[3][:1], TEXTS[3][1:]
    windows = [(lead + ids[start : start + 9], 1 if start == 0 else 2) for start in range(0, len(ids) - 1, 8)]
    total, count = oracle.loss_of_windows(model.hf, windows)
    losses = text_losses(model, windows_of(model, [marked], 10))
    assert (float(losses.nats[0]), int(losses.n_tokens[0])) == (pytest.approx(total, rel=1e-5), count)
    assert count == len(ids)


def test_memory_bounds_the_logits_of_a_forward(family, monkeypatch) -> None:
    model = family("llama")
    whole, rows, run = perplexity(model, TEXTS), [], Model.run

    def counted(self, prompts, *arguments, **options):
        rows.append(max(len(tokens) for tokens in prompts) * len(prompts))
        return run(self, prompts, *arguments, **options)

    monkeypatch.setattr(Model, "run", counted)
    monkeypatch.setattr(module, "_LOGITS_AT_ONCE", 70 * model.atlas.d_vocab)
    assert perplexity(model, TEXTS) == pytest.approx(whole, rel=1e-5)
    assert max(rows) <= 70
    assert len(rows) > 3


def test_mistakes(family) -> None:
    model = family("llama")
    with pytest.raises(UsageError, match="there is no text; give at least one"):
        perplexity(model, [])
    with pytest.raises(UsageError, match="prompt 1 has one token"):
        perplexity(model, [[3, 4], [5]])
    with pytest.raises(UsageError, match="context is 65; valid: 3 to 64"):
        perplexity(model, TEXTS, 65)
    with pytest.raises(UsageError, match="texts is one text; give a list of them"):
        perplexity(word_model.build(), "one two")
    broken = Model(tiny_models.build("llama"))
    with torch.no_grad():
        broken.hf.model.norm.weight.fill_(float("nan"))
    with pytest.raises(NumericsError, match="the loss of .* on the texts is NaN or infinite"):
        perplexity(broken, TEXTS)
