"""Choosing a token against a loop over the vocabulary (tests/oracles/runner.py)."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from interp.maths.sampling import choose, filtered
from oracles.runner import filtered_probabilities

# Distinct logits: which of two equal ones stands at the edge of a filter is not defined.
LOGITS = st.lists(st.integers(-400, 400), min_size=1, max_size=12, unique=True).map(
    lambda values: [v / 40 for v in values]
)


@given(
    LOGITS,
    st.floats(0.05, 5.0),
    st.none() | st.integers(1, 14),
    st.none() | st.floats(0.01, 1.0),
)
def test_probabilities_are_those_of_the_loop(
    logits: list[float], temperature: float, top_k: int | None, top_p: float | None
) -> None:
    found = filtered(torch.tensor([logits]), temperature=temperature, top_k=top_k, top_p=top_p).softmax(-1)[0]
    expected = filtered_probabilities(logits, temperature, top_k, top_p)
    # A token whose mass lies on the nucleus' edge may fall either way by rounding.
    near = all(abs(a - b) < 1e-4 for a, b in zip(found.tolist(), expected, strict=True))
    nudged = [filtered_probabilities(logits, temperature, top_k, top_p and top_p + step) for step in (-1e-5, 1e-5)]
    assert near or any(all(abs(a - b) < 1e-4 for a, b in zip(found.tolist(), n, strict=True)) for n in nudged)


@given(
    LOGITS, st.floats(0.05, 5.0), st.none() | st.integers(1, 14), st.none() | st.floats(0.01, 1.0), st.integers(0, 99)
)
def test_only_kept_tokens_are_drawn(
    logits: list[float], temperature: float, top_k: int | None, top_p: float | None, seed: int
) -> None:
    rows = torch.tensor([logits] * 20)
    kept = filtered(rows, temperature=temperature, top_k=top_k, top_p=top_p).isfinite()
    drawn = choose(
        rows, temperature=temperature, top_k=top_k, top_p=top_p, generator=torch.Generator().manual_seed(seed)
    )
    assert kept[torch.arange(20), drawn].all()
    assert kept[0, rows[0].argmax()]
    assert top_k is None or int(kept[0].sum()) <= max(top_k, 1)
    assert choose(rows).tolist() == [int(rows[0].argmax())] * 20


def test_the_smallest_sufficient_set_is_kept() -> None:
    logits = torch.tensor([[0.5, 0.25, 0.15, 0.1]]).log()
    for top_p, kept in ((0.4, 1), (0.51, 2), (0.74, 2), (0.76, 3), (0.95, 4), (1.0, 4)):
        found = filtered(logits, temperature=1.0, top_k=None, top_p=top_p)
        assert int(found.isfinite().sum()) == kept, top_p
    both = filtered(logits, temperature=1.0, top_k=2, top_p=0.6).softmax(-1)  # within the two: 2/3, 1/3
    torch.testing.assert_close(both, torch.tensor([[1.0, 0.0, 0.0, 0.0]]))


def test_draws_follow_the_distribution() -> None:
    logits = torch.tensor([0.6, 0.3, 0.1]).log().expand(20_000, 3)
    for temperature in (1.0, 0.5):
        drawn = choose(logits, temperature=temperature, generator=torch.Generator().manual_seed(0))
        expected = torch.tensor(filtered_probabilities(logits[0].tolist(), temperature, None, None))
        torch.testing.assert_close(torch.bincount(drawn, minlength=3) / 20_000, expected, rtol=0, atol=0.015)


@pytest.mark.parametrize("temperature", [1e-3, 1e-20, 1e-40, 1e30])
def test_extreme_temperatures_stay_numbers(temperature: float) -> None:
    logits = torch.tensor([[3.0, -1.0, 9.0, 8.5]])
    probabilities = filtered(logits, temperature=temperature, top_k=None, top_p=0.9).softmax(-1)
    assert probabilities.isfinite().all()
    expected = [0.0, 0.0, 1.0, 0.0] if temperature < 1 else [0.25] * 4
    torch.testing.assert_close(probabilities, torch.tensor([expected]))
    choose(logits, temperature=temperature, generator=torch.Generator().manual_seed(0))


def test_low_precision_logits_are_chosen_from_as_well() -> None:
    logits = torch.randn(2, 50, generator=torch.Generator().manual_seed(0)).bfloat16()
    drawn = choose(logits, temperature=0.7, top_k=5, top_p=0.9, generator=torch.Generator().manual_seed(0))
    assert drawn.shape == (2,)
