"""The streamed second moment against loops (tests/oracles/second_moment.py), and theorems about it and its shrinkage."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from interp.errors import NumericsError
from interp.maths.second_moment import (
    Moments,
    SecondMomentFitter,
    condition_number,
    eigenvalues,
    has_inverse,
    ledoit_wolf,
    shrink,
)
from oracles.second_moment import ledoit_wolf_amount, moment_of_rows


def rows_of(n: int, width: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(n, width, generator=generator) * torch.logspace(-3, 1, width) + 0.1


def fitted(rows: torch.Tensor, *cuts: int) -> Moments:
    fitter = SecondMomentFitter(rows.shape[1])
    for part in rows.tensor_split(cuts):
        fitter.update(part)
    return fitter.result()


def test_the_mean_of_outer_products_is_that_of_the_loop() -> None:
    rows = rows_of(30, 9)
    found = fitted(rows)
    torch.testing.assert_close(found.matrix, moment_of_rows(rows), rtol=1e-14, atol=0)
    assert found.n_rows == 30
    assert found.fourth == pytest.approx(sum(float(row.double().square().sum()) ** 2 for row in rows) / 30, rel=1e-6)


@pytest.mark.parametrize("width", [1, 191, 192, 193, 500])
def test_panels_cover_the_matrix_whatever_its_width(width: int) -> None:
    rows = rows_of(40, width)
    expected = rows.double().T @ rows.double() / 40
    found = fitted(rows, 7).matrix
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-14)
    assert torch.equal(found, found.T)


@given(st.lists(st.integers(0, 24), max_size=4))
def test_how_rows_are_cut_matters_to_the_last_digits_only(cuts: list[int]) -> None:
    rows = rows_of(24, 6)
    found = fitted(rows, *sorted(cuts))
    torch.testing.assert_close(found.matrix, fitted(rows).matrix, rtol=1e-13, atol=0)
    assert found.n_rows == 24


def test_sums_are_in_float64() -> None:
    """One large row and many small ones: in float32 the small ones would vanish beside it."""
    small = torch.full((4096, 2), 1e-3)
    found = fitted(torch.cat([torch.full((1, 2), 1e2), small]), *range(1, 4096, 64))
    assert float(found.matrix[0, 1]) * 4097 - 1e4 == pytest.approx(4096e-6, rel=1e-6)


def test_a_restored_fitter_goes_on_to_the_same_last_digit() -> None:
    rows = rows_of(50, 20)
    whole, first, second = (SecondMomentFitter(20) for _ in range(3))
    for part in rows.split(10):
        whole.update(part)
    for part in rows[:20].split(10):
        first.update(part)
    state = first.state()
    assert len(state) == first.state_size
    first.update(rows[:10])  # what comes after the copy does not change it
    second.restore(state)
    for part in rows[20:].split(10):
        second.update(part)
    assert torch.equal(second.result().matrix, whole.result().matrix)
    assert (second.n_rows, second.result().fourth) == (whole.n_rows, whole.result().fourth)


def test_low_precision_rows_are_summed_exactly() -> None:
    rows = rows_of(64, 5).bfloat16()
    torch.testing.assert_close(fitted(rows).matrix, moment_of_rows(rows), rtol=1e-14, atol=0)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_bad_rows_are_refused_and_not_counted(bad: float) -> None:
    fitter = SecondMomentFitter(4)
    fitter.update(torch.ones(3, 4))
    rows = torch.ones(2, 4)
    rows[1, 2] = bad
    with pytest.raises(NumericsError, match="the keys hold NaN or infinity"):
        fitter.update(rows)
    assert torch.equal(fitter.result().matrix, torch.ones(4, 4, dtype=torch.float64))
    with pytest.raises(NumericsError, match="no key was counted"):
        SecondMomentFitter(4).result()


@pytest.mark.parametrize(("n", "width"), [(12, 5), (5, 12), (200, 8)])
def test_the_amount_is_that_of_ledoit_and_wolf(n: int, width: int) -> None:
    rows = rows_of(n, width)
    assert ledoit_wolf(fitted(rows)) == pytest.approx(ledoit_wolf_amount(rows), rel=1e-6)


def test_the_amount_falls_with_the_rows_and_brings_c_nearer_to_the_truth() -> None:
    scales = torch.linspace(0.5, 2, 40)
    truth = scales.double().square().diag()
    amounts = []
    for n in (20, 80, 320, 1280):
        rows = torch.randn(n, 40, generator=torch.Generator().manual_seed(n)) * scales
        found = fitted(rows)
        amounts.append(ledoit_wolf(found))
        assert (shrink(found.matrix, amounts[-1]) - truth).norm() < (found.matrix - truth).norm()
    assert amounts == sorted(amounts, reverse=True)
    assert 0 < amounts[-1] < 0.3 < amounts[0] <= 1


def test_nothing_is_shrunk_where_all_rows_agree_and_all_where_c_is_the_target() -> None:
    assert ledoit_wolf(fitted(torch.ones(10, 3))) == 0
    assert ledoit_wolf(Moments(matrix=torch.eye(3, dtype=torch.float64), fourth=9.0, n_rows=5)) == 1


@given(st.floats(0, 1), st.integers(0, 20))
def test_shrinking_keeps_the_trace_and_lifts_the_least_eigenvalue(amount: float, seed: int) -> None:
    matrix = fitted(rows_of(3, 5, seed)).matrix  # three rows: no inverse
    shrunk = shrink(matrix, amount)
    assert float(shrunk.trace()) == pytest.approx(float(matrix.trace()), rel=1e-12)
    mean = float(matrix.trace()) / 5
    assert float(torch.linalg.eigvalsh(shrunk)[0]) == pytest.approx(amount * mean, abs=1e-9 * mean)


def test_condition_numbers_are_those_of_the_matrix() -> None:
    matrix = fitted(rows_of(60, 6)).matrix
    spectrum = eigenvalues(matrix)
    assert torch.equal(spectrum, spectrum.sort(descending=True).values)
    for amount in (0.0, 1e-3, 0.5, 1.0):
        expected = float(torch.linalg.cond(shrink(matrix, amount)))
        assert condition_number(spectrum, amount) == pytest.approx(expected, rel=1e-8)
    assert condition_number(spectrum, 1.0) == pytest.approx(1.0)


def test_a_matrix_of_too_few_rows_has_no_finite_condition_number_until_it_is_shrunk() -> None:
    spectrum = eigenvalues(fitted(rows_of(3, 6)).matrix)
    assert int((spectrum > 0).sum()) == 3
    assert condition_number(spectrum) == math.inf
    assert not has_inverse(fitted(rows_of(3, 6)).matrix)
    assert not has_inverse(fitted(torch.cat([rows_of(60, 6), torch.zeros(60, 1)], 1)).matrix)
    assert not has_inverse(fitted(rows_of(5, 6).repeat(50, 1)).matrix)
    assert has_inverse(fitted(rows_of(60, 6)).matrix)
    assert not has_inverse(torch.tensor([1.0, 1e-18], dtype=torch.float64).diag())
    assert condition_number(spectrum, 1e-3) < 1e5


@pytest.mark.gpu
def test_on_a_gpu_blocks_of_float32_come_close() -> None:
    rows = rows_of(3000, 300)
    fitter = SecondMomentFitter(300, device="cuda")
    fitter.update(rows.cuda())
    found, expected = fitter.result(), fitted(rows)
    scale = expected.matrix.diagonal().sqrt()
    torch.testing.assert_close(
        found.matrix / torch.outer(scale, scale),
        expected.matrix / torch.outer(scale, scale),
        rtol=0,
        atol=2e-6,
    )
    assert found.n_rows == 3000
