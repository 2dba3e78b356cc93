"""Means by place, sources that are long enough, and losses read a few positions at a time."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from interp.maths import ablation
from interp.maths.ablation import PlaceMeans, drawn_sources, mean_losses, place_sums


def test_means_are_over_texts_at_the_first_position_and_over_tokens_elsewhere() -> None:
    generator = torch.Generator().manual_seed(0)
    texts = [torch.randn(1, n_pos, 3, 2, generator=generator) for n_pos in (1, 4, 7)]
    means = PlaceMeans()
    for text in texts:
        means.update(place_sums(text), text.shape[1])
    found = means.result(5)
    assert found.shape == (5, 3, 2)
    first = torch.cat([text[:, 0] for text in texts]).double().mean(0)
    later = torch.cat([text[0, 1:] for text in texts]).double().mean(0)
    torch.testing.assert_close(found[0], first, atol=1e-6, rtol=0)
    for row in found[1:]:
        torch.testing.assert_close(row, later, atol=1e-6, rtol=0)
    torch.testing.assert_close(means.result(1)[0], first, atol=1e-6, rtol=0)


@given(
    lengths=st.lists(st.integers(1, 9), min_size=1, max_size=6),
    pool=st.lists(st.integers(1, 9), min_size=1, max_size=6),
    samples=st.integers(1, 5),
)
def test_sources_are_as_long_and_never_the_text_itself(lengths, pool, samples) -> None:
    generator = torch.Generator().manual_seed(0)
    for index, drawn in enumerate(drawn_sources(lengths, pool, samples, generator, same=False)):
        able = {place for place, size in enumerate(pool) if size >= lengths[index]}
        assert set(drawn) <= able
        assert len(drawn) == (samples if able else 0)
    for index, drawn in enumerate(drawn_sources(lengths, lengths, samples, generator, same=True)):
        assert index not in drawn
        assert all(lengths[place] >= lengths[index] for place in drawn)


def test_every_able_source_is_drawn_as_often() -> None:
    (drawn,) = drawn_sources([3], [5, 2, 3, 9], 3000, torch.Generator().manual_seed(0), same=False)
    counts = [drawn.count(place) for place in range(4)]
    assert counts[1] == 0
    assert all(abs(counts[place] - 1000) < 120 for place in (0, 2, 3))


@pytest.mark.parametrize("at_once", [1, 3, 256])
@pytest.mark.parametrize("scored_from", [1, 2, 5])
def test_losses_are_those_of_cross_entropy(monkeypatch, at_once: int, scored_from: int) -> None:
    monkeypatch.setattr(ablation, "_POSITIONS_AT_ONCE", at_once)
    generator = torch.Generator().manual_seed(1)
    logits, ids = torch.randn(3, 8, 11, generator=generator) * 4, torch.randint(11, (8,), generator=generator)
    found = mean_losses(logits, ids, scored_from)
    for row, loss in zip(logits, found, strict=True):
        want = torch.nn.functional.cross_entropy(row[scored_from - 1 : -1], ids[scored_from:])
        torch.testing.assert_close(loss, want, atol=1e-5, rtol=1e-5)
