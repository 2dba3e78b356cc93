"""Windows, places and effects of causal tracing, against the paper's code and scipy."""

import pytest
import torch
from scipy import stats

from interp.maths.tracing import (
    BEFORE,
    PLACES,
    gaussian_noise,
    indirect_effects,
    place_of,
    total_effect,
    window_layers,
)


@pytest.mark.parametrize("width", [1, 2, 3, 5, 10, 99])
@pytest.mark.parametrize("n_layers", [1, 2, 7, 30])
def test_windows_are_those_of_the_authors_code(width, n_layers):
    for layer in range(n_layers):
        expected = list(range(max(0, layer - width // 2), min(n_layers, layer - (-width // 2))))
        assert list(window_layers(layer, width, n_layers)) == expected
        assert layer in window_layers(layer, width, n_layers)
        assert len(window_layers(layer, width, n_layers)) <= width


def test_a_window_of_ten_begins_five_below_its_layer():
    assert window_layers(15, 10, 30) == range(10, 20)
    assert window_layers(2, 10, 30) == range(7)
    assert window_layers(29, 10, 30) == range(24, 30)


def test_places_of_a_prompt():
    first, middle, last, after, further, end = PLACES
    assert [place_of(p, (1, 2, 3, 4), 9) for p in range(9)] == [
        BEFORE,
        first,
        middle,
        middle,
        last,
        after,
        further,
        further,
        end,
    ]


@pytest.mark.parametrize(
    ("subject", "n_pos", "expected"),
    [
        ((0,), 3, ["last subject token", "first subsequent token", "last token"]),
        (
            (0,),
            2,
            ["last subject token", "last token"],
        ),  # the last position is the last token, though it is the first after
        ((1, 2), 3, ["before the subject", "first subject token", "last subject token"]),  # the subject ends the prompt
        ((0, 1), 2, ["first subject token", "last subject token"]),
    ],
)
def test_places_where_two_names_would_do(subject, n_pos, expected):
    assert [place_of(p, subject, n_pos) for p in range(n_pos)] == expected


def test_effects_are_paired_and_have_students_intervals():
    draw = torch.Generator().manual_seed(0)
    corrupted = torch.rand(7, generator=draw)
    restored = corrupted + 0.1 * torch.rand(3, 4, 7, generator=draw)
    effects = indirect_effects(restored, corrupted, 0.9)
    assert effects.value.shape == (3, 4)
    for cell in ((0, 0), (2, 3)):
        differences = (restored[cell].double() - corrupted.double()).numpy()
        low, high = stats.t.interval(0.9, 6, differences.mean(), stats.sem(differences))
        got = effects.at(*cell)
        assert (got.value, got.lower, got.upper, got.n) == pytest.approx((differences.mean(), low, high, 7))
    total = total_effect(0.9, corrupted, 0.9)
    costs = 0.9 - corrupted.double().numpy()
    low, high = stats.t.interval(0.9, 6, costs.mean(), stats.sem(costs))
    assert (total.value, total.lower, total.upper, total.n) == pytest.approx((costs.mean(), low, high, 7))


def test_one_sample_gives_a_value_without_an_interval():
    total = total_effect(0.9, torch.tensor([0.25]), 0.95)
    assert total.value == pytest.approx(0.65)
    assert total.n == 1
    assert total.lower != total.lower
    assert total.upper != total.upper


def test_noise_has_its_spread_and_its_first_draws_stay():
    drawn = gaussian_noise(40, 8, 64, 0.3, torch.Generator().manual_seed(1))
    assert drawn.shape == (40, 8, 64)
    assert float(drawn.std()) == pytest.approx(0.3, rel=0.02)
    assert abs(float(drawn.mean())) < 0.01
    fewer = gaussian_noise(3, 8, 64, 0.3, torch.Generator().manual_seed(1))
    torch.testing.assert_close(fewer, drawn[:3], rtol=0, atol=0)
