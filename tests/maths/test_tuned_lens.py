"""The tuned lens: its closed form against gradient descent, and theorems of ridge regression."""

import pytest
import torch

from interp.errors import NumericsError, UsageError
from interp.maths.tuned_lens import TranslatorFitter, translate
from oracles import tuned_lens as oracle


def case(n_layers=2, n_tokens=60, d_model=4):
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(n_layers, n_tokens, d_model, generator=generator) + 1.0
    maps = torch.randn(n_layers, d_model, d_model, generator=generator)
    y = x[0] @ maps[0] + 0.5 * torch.randn(n_tokens, d_model, generator=generator) - 2.0
    return x, y


def fitted(x, y, ridge, step=None):
    fitter = TranslatorFitter(x.shape[0], x.shape[2])
    for start in range(0, x.shape[1], step or x.shape[1]):
        stop = start + (step or x.shape[1])
        fitter.update(x[:, start:stop], y[start:stop])
    return fitter.result(ridge=ridge)


def test_equals_gradient_descent():
    x, y = case()
    got = fitted(x, y, 0.1)
    for layer in range(2):
        weight, bias = oracle.fit(x[layer], y, 0.1)
        torch.testing.assert_close(got.weight[layer], weight.T.float(), atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(got.bias[layer], bias.float(), atol=1e-4, rtol=1e-4)


def test_batches_do_not_matter():
    x, y = case()
    whole, parts = fitted(x, y, 0.1), fitted(x, y, 0.1, step=7)
    torch.testing.assert_close(whole.weight, parts.weight)
    torch.testing.assert_close(whole.bias, parts.bias)
    torch.testing.assert_close(whole.explained, parts.explained)
    assert parts.n_tokens == 60


def test_a_state_that_is_already_final_is_left_alone():
    x, _ = case()
    got = fitted(x, x[1], 0.3)
    torch.testing.assert_close(got.weight[1], torch.eye(4), atol=1e-5, rtol=0)
    torch.testing.assert_close(got.bias[1], torch.zeros(4), atol=1e-5, rtol=0)
    assert float(got.explained[1]) == pytest.approx(1.0, abs=1e-5)


def test_a_strong_pull_gives_the_plain_lens_and_a_weak_one_the_least_error():
    x, y = case()
    strong, weak = fitted(x, y, 1e9), fitted(x, y, 1e-9)
    torch.testing.assert_close(strong.weight, torch.eye(4).expand(2, 4, 4), atol=1e-4, rtol=0)
    errors = [(translate(x, t.weight, t.bias) - y).square().sum((1, 2)) for t in (strong, fitted(x, y, 0.1), weak)]
    assert (errors[0] > errors[1]).all()
    assert (errors[1] > errors[2]).all()
    variance = (y - y.mean(0)).square().sum()
    torch.testing.assert_close(weak.explained, 1 - errors[2] / variance, atol=1e-4, rtol=1e-4)


def test_bad_input():
    fitter = TranslatorFitter(1, 4)
    with pytest.raises(UsageError, match="at least two tokens"):
        fitter.result()
    with pytest.raises(NumericsError, match="NaN or infinite"):
        fitter.update(torch.full((1, 3, 4), float("nan")), torch.zeros(3, 4))
    fitter.update(torch.randn(1, 8, 4), torch.randn(8, 4))
    with pytest.raises(UsageError, match="ridge is 0"):
        fitter.result(ridge=0.0)
