"""Induction scores: the plain loops', exactly 1 for a perfect head, their closed form for uniform attention."""

import pytest
import torch

from interp.maths.induction import (
    LEAST_OFF_FIRST,
    OFFSETS,
    Masses,
    losses,
    mass_sums,
    masses,
    places,
    prefix_matching,
    token_losses,
)
from oracles import induction as oracle


def patterns(rows, heads, n_pos, seed=0):
    """Random causal patterns [batch head query_pos key_pos]."""
    scores = torch.randn(rows, heads, n_pos, n_pos, generator=torch.Generator().manual_seed(seed)) * 3
    hidden = torch.ones(n_pos, n_pos, dtype=torch.bool).triu(1)
    return scores.masked_fill(hidden, float("-inf")).softmax(-1)


def repeated(period, copies, first, rows=2, seed=0):
    generator = torch.Generator().manual_seed(seed)
    blocks = torch.stack([torch.randperm(50, generator=generator)[:period] + 1 for _ in range(rows)])
    ids = blocks.repeat(1, copies)
    return torch.cat([torch.zeros(rows, 1, dtype=torch.long), ids], 1) if first else ids


def measured(pattern, ids, period, first, block=None) -> Masses:
    where = places(ids, period, first)
    size = block or pattern.shape[2]
    parts = [mass_sums(pattern[:, :, at : at + size], where, at) for at in range(0, pattern.shape[2], size)]
    return masses(torch.stack(parts).sum(0), where)


@pytest.mark.parametrize(("period", "copies", "first"), [(2, 2, 0), (5, 2, 1), (7, 3, 1), (4, 4, 0)])
@pytest.mark.parametrize("block", [None, 1, 3])
def test_every_score_is_the_plain_loops(period, copies, first, block):
    ids = repeated(period, copies, first)
    pattern = patterns(2, 3, ids.shape[1])
    got = measured(pattern, ids, period, first, block)
    for row in range(2):
        text = ids[row].tolist()
        for head in range(3):
            rows = pattern[row, head].tolist()
            at = (row, head)
            assert float(got.stripe[at]) == pytest.approx(oracle.stripe(rows, period, first), rel=1e-5)
            assert float(got.diagonal[at]) == pytest.approx(oracle.diagonal(rows, period), rel=1e-5)
            assert float(got.previous[at]) == pytest.approx(oracle.previous(rows), rel=1e-5)
            assert float(got.on_targets[at]) == pytest.approx(oracle.on_targets(rows, text), rel=1e-5)
            assert float(got.off_first[at]) == pytest.approx(oracle.off_first(rows, text), rel=1e-5)
            score = prefix_matching(got.on_targets, got.off_first)[at]
            assert float(score) == pytest.approx(oracle.prefix_matching(rows, text), rel=1e-5)
            for place, offset in enumerate(OFFSETS):
                if offset < period and ids.shape[1] > first + period - offset:
                    want = oracle.stripe(rows, period, first, offset)
                    assert float(got.around[(*at, place)]) == pytest.approx(want, rel=1e-5), offset


def test_text_that_is_no_exact_repeat_has_targets_and_no_stripe():
    ids = torch.tensor([[3, 4, 3, 5, 4, 3, 3]])
    pattern = patterns(1, 2, 7)
    got = measured(pattern, ids, None, 0)
    assert got.around.isnan().all()
    assert got.diagonal.isnan().all()
    for head in range(2):
        want = oracle.on_targets(pattern[0, head].tolist(), ids[0].tolist())
        assert float(got.on_targets[0, head]) == pytest.approx(want, rel=1e-5)


def perfect(ids, rest=0.0):
    """A head that puts 1 - rest evenly on the targets, and the rest, or all where there are none, on the first token."""
    n_pos = ids.shape[1]
    pattern = torch.zeros(len(ids), 1, n_pos, n_pos)
    for row, text in enumerate(ids.tolist()):
        for i in range(n_pos):
            found = oracle.targets(text, i)
            pattern[row, 0, i, 0] += rest if found else 1.0
            for j in found:
                pattern[row, 0, i, j] += (1 - rest) / len(found)
    return pattern


@pytest.mark.parametrize("copies", [2, 3, 4])
def test_a_perfect_head_scores_exactly_one(copies):
    ids = repeated(5, copies, 1)
    got = measured(perfect(ids), ids, 5, 1)
    assert (prefix_matching(got.on_targets, got.off_first) == 1.0).all()
    if copies == 2:
        assert (got.stripe == 1.0).all()
        assert (
            got.diagonal.tolist() == [[pytest.approx(5 / 7 + 1 / 7)]] * 2
        )  # two queries that repeat nothing; one has key 0


def test_a_sink_is_corrected_for_until_next_to_nothing_is_left():
    ids = repeated(6, 2, 1)
    for rest in (0.3, 0.8, 0.94):
        got = measured(perfect(ids, rest), ids, 6, 1)
        torch.testing.assert_close(got.stripe, torch.full((2, 1), 1 - rest))
        torch.testing.assert_close(prefix_matching(got.on_targets, got.off_first), torch.ones(2, 1))
    got = measured(perfect(ids, 1 - LEAST_OFF_FIRST / 2), ids, 6, 1)
    assert prefix_matching(got.on_targets, got.off_first).isnan().all()


def test_uniform_attention_has_its_closed_form():
    period = 8
    ids = repeated(period, 2, 1)
    n_pos = ids.shape[1]
    pattern = (torch.ones(n_pos, n_pos).tril() / torch.arange(1, n_pos + 1)[:, None]).expand(2, 1, -1, -1)
    got = measured(pattern, ids, period, 1)
    queries = range(period + 1, n_pos)
    want = sum(1 / (i + 1) for i in queries) / period
    torch.testing.assert_close(got.stripe, torch.full((2, 1), want))
    off = sum(i / (i + 1) for i in queries) / period
    torch.testing.assert_close(prefix_matching(got.on_targets, got.off_first), torch.full((2, 1), want / off))


def test_a_learned_sink_counts_as_the_first_token():
    ids = repeated(5, 2, 1)
    got = measured(perfect(ids) * 0.4, ids, 5, 1)
    torch.testing.assert_close(got.off_first, torch.full((2, 1), 0.4))
    torch.testing.assert_close(prefix_matching(got.on_targets, got.off_first), torch.ones(2, 1))


@pytest.mark.parametrize("first", [0, 1])
def test_losses_are_the_plain_loops(first):
    ids = repeated(5, 3, first)
    logits = torch.randn(*ids.shape, 60, generator=torch.Generator().manual_seed(3))
    by_token = token_losses(logits, ids)
    got = losses(ids, by_token, places(ids, 5, first))
    for row, text in enumerate(ids.tolist()):
        want = oracle.losses(logits[row].tolist(), text)
        torch.testing.assert_close(by_token[row], torch.tensor(want), rtol=1e-5, atol=1e-5)
        new, foretold = oracle.first_and_second(want, text)
        assert float(got.first[row]) == pytest.approx(new, rel=1e-5)
        assert float(got.second[row]) == pytest.approx(foretold, rel=1e-5)
        assert float(got.late_less_early[row]) == pytest.approx(oracle.late_less_early(want), abs=1e-5)


def test_a_model_that_copies_perfectly_loses_nothing_on_repeats():
    ids = repeated(6, 2, 1)
    logits = torch.zeros(*ids.shape, 60)
    for row, text in enumerate(ids.tolist()):
        for i in range(ids.shape[1]):
            for j in oracle.targets(text, i):
                logits[row, i, text[j]] = 100.0
    got = losses(ids, token_losses(logits, ids), places(ids, 6, 1))
    torch.testing.assert_close(got.second, torch.zeros(2))
    torch.testing.assert_close(got.first, torch.log(torch.full((2,), 60.0)))


def test_only_what_an_earlier_occurrence_foretells_counts_as_a_repeat():
    """After the second 3 comes 5 where 4 came before; after the third comes 4, which the first foretells."""
    ids = torch.tensor([[3, 4, 3, 5, 3, 4, 6]])
    logits = torch.randn(1, 7, 10, generator=torch.Generator().manual_seed(1))
    by_token = token_losses(logits, ids)
    got = losses(ids, by_token, places(ids, None, 0))
    new, foretold = oracle.first_and_second(by_token[0].tolist(), ids[0].tolist())
    assert float(got.second[0]) == pytest.approx(foretold, rel=1e-5)
    assert float(got.second[0]) == pytest.approx(float(by_token[0, 4]), rel=1e-5)
    assert float(got.first[0]) == pytest.approx(new, rel=1e-5)
