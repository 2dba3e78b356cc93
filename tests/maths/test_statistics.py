"""Figures from samples against plain loops and printed tables; cells without samples stay empty."""

import math

import pytest
import torch

from interp.errors import UsageError
from interp.maths.estimates import Estimate
from interp.maths.statistics import (
    benjamini_hochberg,
    bootstrap_estimates,
    estimates_of_moments,
    mean_estimates,
    p_values,
    paired_difference,
    sign_flip_p_values,
)
from oracles import statistics as oracle

TABLE = {(0.975, 1): 12.7062, (0.975, 2): 4.30265, (0.975, 9): 2.26216, (0.95, 4): 2.13185, (0.995, 30): 2.75000}
"""Quantiles as printed in tables of Student's t."""
T_95 = {4: 2.1318467863, 6: 1.9431802805}
"""Its 95 % quantiles by degrees of freedom."""


def samples(n: int = 7, *shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(n, *(shape or (3, 4)), generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize(("probability", "df"), TABLE)
def test_intervals_are_as_wide_as_the_tables_say(probability, df):
    values = samples(df + 1, 1)
    mean, error, _ = oracle.mean_and_error(values[:, 0].tolist())
    got = mean_estimates(values, 2 * probability - 1).at(0)
    assert (got.upper - mean) / error == pytest.approx(TABLE[probability, df], abs=5e-5)
    assert got.upper - mean == pytest.approx(mean - got.lower)


@pytest.mark.parametrize("df", [1, 2, 5, 29])
@pytest.mark.parametrize("t", [0.0, 0.3, 1.0, 2.5, 6.0, 40.0])
def test_p_values_are_the_integral_of_the_tail(t, df):
    values = samples(df + 1, 1)
    mean, error, _ = oracle.mean_and_error(values[:, 0].tolist())
    above, below = p_values(values, mean - t * error), p_values(values, mean + t * error)
    want = oracle.t_upper_tail(t, df)
    torch.testing.assert_close(above, torch.tensor([want], dtype=torch.float64), rtol=1e-5, atol=1e-12)
    torch.testing.assert_close(below, torch.tensor([1 - want], dtype=torch.float64), rtol=1e-6, atol=1e-12)


def test_mean_estimates_are_the_plain_ones_and_leave_nan_out():
    values = samples()
    values[2, 0, 0] = values[4, 0, 0] = math.nan
    values[:, 1, 1] = math.nan
    values[1:, 2, 2] = math.nan
    got = mean_estimates(values, 0.9)
    for i in range(3):
        for j in range(4):
            mean, error, n = oracle.mean_and_error(values[:, i, j].tolist())
            half = math.nan if n < 2 else error * T_95[n - 1]
            cell = got.at(i, j)
            assert isinstance(cell, Estimate)
            assert cell.n == n
            assert (cell.value, cell.lower, cell.upper) == pytest.approx((mean, mean - half, mean + half), nan_ok=True)
    assert got.at(1, 1).n == 0
    assert math.isnan(got.at(1, 1).value)
    assert math.isnan(got.at(2, 2).lower)
    assert not math.isnan(got.at(2, 2).value)


def test_intervals_cover_the_mean_as_often_as_they_say():
    got = mean_estimates(samples(6, 20000, seed=1), 0.9)
    covered = float(((got.lower <= 0) & (got.upper >= 0)).double().mean())
    assert covered == pytest.approx(0.9, abs=0.01)


def test_paired_difference_is_the_mean_of_differences():
    a, b = samples(seed=1), samples(seed=2)
    got, want = paired_difference(a, b), mean_estimates(a - b)
    assert torch.equal(got.value, want.value)
    assert torch.equal(got.upper, want.upper)


def test_p_values():
    values = samples(8, 5) + 0.5
    got = p_values(values, 0.2)
    for cell in range(5):
        mean, error, n = oracle.mean_and_error(values[:, cell].tolist())
        t = (mean - 0.2) / error
        tail = oracle.t_upper_tail(abs(t), n - 1)
        assert float(got[cell]) == pytest.approx(tail if t > 0 else 1 - tail, rel=1e-6)
    assert p_values(torch.full((3, 1), 0.5)).tolist() == [0.0]
    assert p_values(torch.full((3, 1), 0.5), 0.5).tolist() == [1.0]
    assert p_values(torch.full((1, 1), 0.5)).isnan().all()


def test_p_values_are_uniform_under_the_null():
    got = p_values(samples(5, 20000, seed=3))
    assert float((got < 0.05).double().mean()) == pytest.approx(0.05, abs=0.006)


def test_sign_flips_are_exact_for_few_samples():
    values = samples(6, 4, seed=5) + 0.4
    values[2, 1] = math.nan
    values[:, 3] = math.nan
    got = sign_flip_p_values(values, torch.Generator().manual_seed(0))
    assert got[:3].tolist() == pytest.approx([oracle.sign_flip(values[:, cell].tolist()) for cell in range(3)])
    assert math.isnan(got[3])
    drawn = sign_flip_p_values(values[:, :3], torch.Generator().manual_seed(0), draws=63)
    torch.testing.assert_close(drawn, got[:3], atol=0.15, rtol=0)
    with pytest.raises(UsageError, match="draws is 0"):
        sign_flip_p_values(values, torch.Generator(), draws=0)


def test_sign_flips_of_many_samples():
    values = samples(40, 3, seed=6)
    values[:, 0] += 2
    again = [sign_flip_p_values(values, torch.Generator().manual_seed(1), draws=999) for _ in range(2)]
    assert torch.equal(*again)
    assert float(again[0][0]) == pytest.approx(1 / 1000)
    torch.testing.assert_close(again[0][1:], p_values(values)[1:], atol=0.06, rtol=0)


def test_benjamini_hochberg():
    p = torch.tensor([[0.01, 0.04, math.nan], [0.03, 0.005, 0.9]])
    assert benjamini_hochberg(p, 0.05).tolist() == [[True, True, False], [True, True, False]]
    p = samples(1, 200, seed=7)[0].abs() / 3
    p[::7] = math.nan
    assert benjamini_hochberg(p, 0.2).tolist() == oracle.benjamini_hochberg(p.tolist(), 0.2)
    assert not benjamini_hochberg(torch.full((4,), math.nan)).any()
    with pytest.raises(UsageError, match="rate is 1.5; valid: between 0 and 1"):
        benjamini_hochberg(p, 1.5)


def test_bootstrap():
    values = samples(200, 3)
    got = bootstrap_estimates(values, lambda x: x.mean(0), torch.Generator().manual_seed(0), draws=400)
    want = mean_estimates(values)
    torch.testing.assert_close(got.value, want.value)
    torch.testing.assert_close(got.lower, want.lower, atol=0.03, rtol=0)
    torch.testing.assert_close(got.upper, want.upper, atol=0.03, rtol=0)
    alone = bootstrap_estimates(values[:1], lambda x: x.mean(0), torch.Generator())
    assert alone.lower.isnan().all()
    assert not alone.value.isnan().any()
    with pytest.raises(UsageError, match="confidence is 0.0"):
        mean_estimates(values, 0.0)


def test_estimates_of_moments_are_those_of_the_samples() -> None:
    samples = torch.randn(7, 2, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    mean = samples.mean(0)
    squares = (samples - mean).square().sum(0)
    found = estimates_of_moments(mean, squares, torch.full((2, 3), 7), 0.9)
    expected = mean_estimates(samples, 0.9)
    for name in ("value", "lower", "upper", "n"):
        torch.testing.assert_close(getattr(found, name), getattr(expected, name))


def test_estimates_of_moments_without_samples_or_spread_say_so() -> None:
    found = estimates_of_moments(torch.zeros(2).double(), torch.zeros(2).double(), torch.tensor([0, 1]))
    assert found.value.isnan().tolist() == [True, False]
    assert found.lower.isnan().all()
    assert found.upper.isnan().all()
