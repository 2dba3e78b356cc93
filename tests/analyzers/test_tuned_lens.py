"""Fitting a tuned lens and reading through it."""

import dataclasses

import pytest
import torch

from interp.analyzers.logit_lens import logit_lens
from interp.analyzers.tuned_lens import TunedLens, fit_tuned_lens
from interp.errors import UsageError


@pytest.fixture(scope="module")
def texts():
    generator = torch.Generator().manual_seed(0)
    return [torch.randint(3, 97, (length,), generator=generator).tolist() for length in (20, 33, 9, 40) * 12]


@pytest.mark.parametrize("name", ["llama", "gemma2", "gpt2"])
def test_it_lowers_kl_and_leaves_the_last_row(family, texts, ids, name):
    model = family(name)
    tuned = fit_tuned_lens(model, texts)
    plain, through = logit_lens(model, ids), logit_lens(model, ids, lens=tuned)
    assert through.tuned
    assert float(through.kl_nats[:-1].mean()) < float(plain.kl_nats[:-1].mean())
    assert torch.equal(through.top_log_probs_nats[-1], plain.top_log_probs_nats[-1])
    assert float(tuned.explained_variance[-1]) == pytest.approx(1.0, abs=1e-5)


def test_the_last_layer_is_left_bit_for_bit(family, texts):
    tuned = dataclasses.replace(fit_tuned_lens(family("llama"), texts), weight=torch.randn(3, 32, 32))
    normed = torch.randn(2, 5, 32)
    out = tuned.apply(normed, [1, 2])
    assert torch.equal(out[1], normed[1])
    assert not torch.allclose(out[0], normed[0])


def test_prompts_of_a_batch_are_fitted_as_if_alone(family, texts):
    model = family("llama")
    one = fit_tuned_lens(model, texts[:8])
    parts = fit_tuned_lens(model, [text[::1] for text in reversed(texts[:8])])
    torch.testing.assert_close(one.weight, parts.weight, atol=1e-4, rtol=1e-3)
    assert one.n_tokens == sum(map(len, texts[:8]))


def test_budgets(family, texts):
    tuned = fit_tuned_lens(family("llama"), texts, max_tokens=100, max_length=10)
    lengths = [min(len(text), 10) for text in texts[:16]]
    assert tuned.n_tokens == sum(lengths)  # two batches of eight texts: one is less than 100 tokens


def test_layers_are_matched_by_number(family, texts, ids):
    model = family("llama")
    tuned = fit_tuned_lens(model, texts)
    whole, one = logit_lens(model, ids, lens=tuned), logit_lens(model, ids, lens=tuned, sites="resid_post@1")
    torch.testing.assert_close(one.kl_nats[0], whole.kl_nats[1], atol=1e-5, rtol=1e-4)


def test_round_trip(family, texts, ids, tmp_path):
    tuned = fit_tuned_lens(family("llama"), texts)
    tuned.save(tmp_path / "tuned.safetensors")
    again = TunedLens.load(tmp_path / "tuned.safetensors")
    assert torch.equal(
        logit_lens(family("llama"), ids, lens=again).kl_nats, logit_lens(family("llama"), ids, lens=tuned).kl_nats
    )
    assert len(tuned.to_frame()) == 3
    assert tuned.figure().data


def test_bad_arguments(family, texts, ids):
    model = family("llama")
    tuned = fit_tuned_lens(model, texts)
    with pytest.raises(UsageError, match="reads resid_post only, not resid_pre"):
        logit_lens(model, ids, sites="resid_pre", lens=tuned)
    with pytest.raises(UsageError, match="for 3 layers of width 32, the model has 2"):
        logit_lens(family("gpt_neo"), ids, lens=tuned)
    with pytest.raises(UsageError, match="at least two tokens"):
        fit_tuned_lens(model, [])
    with pytest.raises(UsageError, match="prompt is empty"):
        fit_tuned_lens(model, [[]])
