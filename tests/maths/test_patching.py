"""Normalised effects: shares of the difference between two runs, and their bootstrap over pairs."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from interp.errors import UsageError
from interp.maths import patching
from interp.maths.patching import changes, normalised_effects
from oracles import activation_patching as oracle

CLEAN = torch.tensor([3.0, 1.0, 2.5, 4.0])
CORRUPTED = torch.tensor([-1.0, 0.5, -2.0, 0.0])
PATCHED = torch.randn(4, 3, 5, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("direction", ["denoising", "noising"])
def test_effects_are_the_ratio_of_the_sums(direction):
    found = normalised_effects(PATCHED, CLEAN, CORRUPTED, direction)
    assert found.value.shape == (3, 5)
    for layer in range(3):
        for position in range(5):
            want = oracle.normalised(
                PATCHED[:, layer, position].tolist(), CLEAN.tolist(), CORRUPTED.tolist(), direction
            )
            assert found.at(layer, position).value == pytest.approx(want, rel=1e-9)
            assert found.at(layer, position).n == 4


@pytest.mark.parametrize(
    ("direction", "own", "other"), [("denoising", CORRUPTED, CLEAN), ("noising", CLEAN, CORRUPTED)]
)
def test_nothing_is_0_and_everything_is_1(direction, own, other):
    """In every resample too, since numerator and denominator are of the same pairs."""
    for run, share in ((own, 0.0), (other, 1.0)):
        found = normalised_effects(run[:, None], CLEAN, CORRUPTED, direction)
        for bound in (found.value, found.lower, found.upper):
            torch.testing.assert_close(bound, torch.tensor([share], dtype=torch.float64))


def test_directions_are_complements():
    there = normalised_effects(PATCHED, CLEAN, CORRUPTED, "denoising")
    back = normalised_effects(PATCHED, CLEAN, CORRUPTED, "noising")
    torch.testing.assert_close(there.value + back.value, torch.ones(3, 5, dtype=torch.float64))
    torch.testing.assert_close(there.lower + back.upper, torch.ones(3, 5, dtype=torch.float64))


@settings(max_examples=8)
@given(scale=st.floats(0.01, 100), shift=st.floats(-50, 50), negate=st.booleans())
def test_the_unit_of_the_metric_does_not_matter(scale, shift, negate):
    factor = -scale if negate else scale
    first = normalised_effects(PATCHED[:, :1, :2].double(), CLEAN.double(), CORRUPTED.double(), "denoising")
    parts = (part.double() * factor + shift for part in (PATCHED[:, :1, :2], CLEAN, CORRUPTED))
    second = normalised_effects(*parts, "denoising")
    for name in ("value", "lower", "upper"):
        torch.testing.assert_close(getattr(second, name), getattr(first, name), rtol=1e-6, atol=1e-6)


def test_the_bootstrap_is_the_plain_loops():
    found = normalised_effects(PATCHED, CLEAN, CORRUPTED, "noising", confidence=0.8, seed=7)
    generator = torch.Generator().manual_seed(7)
    drawn = []
    for _ in range(1000):
        chosen = torch.randint(0, 4, (4,), generator=generator).tolist()
        columns = [[float(x[i]) for i in chosen] for x in (PATCHED[:, 1, 2], CLEAN, CORRUPTED)]
        drawn.append(oracle.normalised(*columns, "noising"))
    want = torch.tensor(drawn, dtype=torch.float64).quantile(torch.tensor([0.1, 0.9], dtype=torch.float64))
    cell = found.at(1, 2)
    assert (cell.lower, cell.upper) == (pytest.approx(float(want[0])), pytest.approx(float(want[1])))


def test_the_seed_decides_and_cells_at_once_do_not(monkeypatch):
    draw = torch.Generator().manual_seed(3)
    patched, clean, corrupted = (
        torch.randn(9, 2, 5, generator=draw),
        torch.full((9,), 2.0),
        torch.randn(9, generator=draw),
    )
    first, again, other = (normalised_effects(patched, clean, corrupted, "denoising", seed=s) for s in (1, 1, 2))
    assert torch.equal(first.lower, again.lower)
    assert not torch.equal(first.lower, other.lower)
    monkeypatch.setattr(patching, "_CELLS_AT_ONCE", 4)
    torch.testing.assert_close(normalised_effects(patched, clean, corrupted, "denoising", seed=1).upper, first.upper)


def test_one_pair_has_a_value_without_an_interval():
    found = normalised_effects(PATCHED[:1], CLEAN[:1], CORRUPTED[:1], "denoising")
    assert not found.value.isnan().any()
    assert found.lower.isnan().all()
    assert found.upper.isnan().all()
    assert (found.n == 1).all()


def test_no_difference_on_average_is_nan():
    found = normalised_effects(PATCHED[:2], torch.tensor([1.0, -1.0]), torch.tensor([-1.0, 1.0]), "denoising")
    for part in (found.value, found.lower, found.upper):
        assert part.isnan().all()
    assert (found.n == 0).all()


def test_a_cell_that_was_not_measured_stays_nan():
    holed = PATCHED.clone()
    holed[:, 1] = torch.nan
    found = normalised_effects(holed, CLEAN, CORRUPTED, "denoising")
    assert found.value[1].isnan().all()
    assert found.lower[1].isnan().all()
    assert not found.value[[0, 2]].isnan().any()


def test_bad_arguments():
    with pytest.raises(
        UsageError, match="unknown direction 'denoise' .*did you mean 'denoising'.*valid: denoising, noising"
    ):
        changes(PATCHED, CLEAN, CORRUPTED, "denoise")
    with pytest.raises(UsageError, match="confidence is 95"):
        normalised_effects(PATCHED, CLEAN, CORRUPTED, "noising", confidence=95.0)
