"""The formulas of an edit's scores: ties fail, means are within the case first, S is 0 with any part, KL and perplexity by hand."""

import math
import statistics

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from interp.maths import edit_scores as maths

NAN = float("nan")


def test_a_tie_is_a_failure_either_way_and_nan_is_not_measured() -> None:
    first, other = torch.tensor([1.0, 2.0, 1.5, NAN, 1.0]), torch.tensor([2.0, 1.0, 1.5, 1.0, NAN])
    wanted = torch.tensor([1.0, 0.0, 0.0, NAN, NAN], dtype=torch.float64)
    torch.testing.assert_close(maths.preferred(first, other), wanted, equal_nan=True)
    reversed_ = torch.tensor([0.0, 1.0, 0.0, NAN, NAN], dtype=torch.float64)
    torch.testing.assert_close(maths.preferred(other, first), reversed_, equal_nan=True)


def test_magnitude_is_a_difference_of_probabilities() -> None:
    found = maths.magnitude(torch.tensor([math.log(2.0), 0.0]), torch.tensor([math.log(4.0), math.log(10.0)]))
    torch.testing.assert_close(found, torch.tensor([0.25, 0.9], dtype=torch.float64), atol=1e-7, rtol=0)


def test_means_are_within_the_case() -> None:
    values = torch.tensor([1.0, 0.0, 0.0, 5.0, NAN, NAN])
    found = maths.mean_within(values, torch.tensor([0, 0, 0, 2, 2, 3]), 5)
    wanted = torch.tensor([1 / 3, NAN, 5.0, NAN, NAN], dtype=torch.float64)
    torch.testing.assert_close(found, wanted, equal_nan=True)


@given(st.lists(st.floats(0.01, 100), min_size=3, max_size=3))
def test_harmonic_mean_is_that_of_the_standard_library(parts: list[float]) -> None:
    found = float(maths.harmonic_mean(torch.tensor([parts], dtype=torch.float64))[0])
    assert found == pytest.approx(statistics.harmonic_mean(parts))
    parts[1] = 0.0
    assert float(maths.harmonic_mean(torch.tensor(parts, dtype=torch.float64))) == 0
    parts[0] = NAN
    assert math.isnan(float(maths.harmonic_mean(torch.tensor(parts, dtype=torch.float64))))


def test_the_papers_interval() -> None:
    samples = torch.tensor([0.0, 100.0, 100.0, NAN, 100.0])
    spread = statistics.pstdev([0.0, 100.0, 100.0, 100.0])
    assert maths.papers_half_width(samples) == pytest.approx(1.96 * spread / 2)
    assert math.isnan(maths.papers_half_width(torch.tensor([NAN])))


def test_divergence_is_that_of_scipy_and_nothing_from_itself() -> None:
    from scipy.special import rel_entr

    generator = torch.Generator().manual_seed(0)
    before = torch.randn(4, 50, generator=generator).double().log_softmax(-1)
    after = torch.randn(4, 50, generator=generator).double().log_softmax(-1)
    wanted = torch.tensor(rel_entr(before.exp().numpy(), after.exp().numpy()).sum(-1))
    torch.testing.assert_close(maths.divergence(before, after), wanted)
    assert float(maths.divergence(before, before).max()) == 0


def test_perplexity_counts_texts_by_their_tokens() -> None:
    nats, counts = torch.tensor([[2.0, 9.0], [0.0, 0.0]]), torch.tensor([1, 9])
    found = maths.perplexity(nats, counts)
    torch.testing.assert_close(found, torch.tensor([math.exp(1.1), 1.0], dtype=torch.float64))
