"""First-order estimates and rank correlation against plain loops; the midpoint rule against integrals known by hand."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from interp.maths.attribution_patching import first_order, places_between, rank_correlation
from oracles import attribution_patching as oracle


def test_cells_are_sums_over_the_other_axes():
    source, base, gradient = (torch.randn(2, 3, 4, 5, generator=torch.Generator().manual_seed(i)) for i in range(3))
    by_head_and_position = first_order(source, base, gradient, (0, 2, 1))
    assert by_head_and_position.shape == (2, 4, 3)
    for pair in range(2):
        for position in range(3):
            for head in range(4):
                want = sum(
                    float((source - base)[pair, position, head, i]) * float(gradient[pair, position, head, i])
                    for i in range(5)
                )
                assert float(by_head_and_position[pair, head, position]) == pytest.approx(want, abs=1e-5)
    torch.testing.assert_close(first_order(source, base, gradient, (0, 2)), by_head_and_position.sum(2))
    torch.testing.assert_close(first_order(source, base, gradient, (0,)), by_head_and_position.sum((1, 2)))
    every = first_order(source, base, gradient, (0, 1, 2, 3))
    torch.testing.assert_close(every, (source - base) * gradient)
    assert not first_order(base, base, gradient, (0, 1)).any()


def test_half_precision_is_multiplied_in_single():
    source = torch.full((1, 2, 64), 1.0, dtype=torch.bfloat16)
    found = first_order(source, torch.zeros_like(source), torch.full_like(source, 1 + 2**-7), (0, 1))
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, torch.full((1, 2), 64 * (1 + 2**-7)))


@pytest.mark.parametrize("steps", [2, 3, 8])
def test_midpoints_integrate_a_straight_slope_exactly_and_a_curve_ever_better(steps):
    places = places_between(steps)
    assert len(places) == steps
    assert 2 * sum(places) / steps == pytest.approx(1.0)  # of 2x
    errors = [abs(3 * sum(x * x for x in places_between(n)) / n - 1.0) for n in (steps, 2 * steps)]  # of 3x^2
    assert errors[0] / errors[1] == pytest.approx(4.0, rel=1e-6)


def test_one_step_is_the_base():
    assert places_between(1) == (0.0,)


@given(st.lists(st.tuples(st.integers(-3, 3), st.integers(-3, 3)), min_size=2, max_size=12))
def test_rank_correlation_is_the_plain_counting(pairs):
    first, second = [float(a) for a, _ in pairs], [float(b) for _, b in pairs]
    got = float(rank_correlation(torch.tensor(list(zip(first, second, strict=True)))))
    if len(set(first)) == 1 or len(set(second)) == 1:
        assert math.isnan(got)
    else:
        assert got == pytest.approx(oracle.rank_correlation(first, second), abs=1e-9)


def test_rank_correlation_sees_order_alone():
    x = torch.randn(50, generator=torch.Generator().manual_seed(0))
    assert float(rank_correlation(torch.stack([x, x.exp()], -1))) == pytest.approx(1.0)
    assert float(rank_correlation(torch.stack([x, -(x**3)], -1))) == pytest.approx(-1.0)
    assert math.isnan(float(rank_correlation(torch.zeros(1, 2))))
    assert math.isnan(float(rank_correlation(torch.zeros(0, 2))))
