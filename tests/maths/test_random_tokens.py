"""Random text: distinct tokens, the frequencies asked for, repeats where wanted and none elsewhere, the same for the same seed."""

import pytest
import torch

from interp.errors import UsageError
from interp.maths.random_tokens import distinct_tokens, repeated_tokens, unrepeated_tokens

ORDINARY = torch.arange(10, 40)


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def test_tokens_of_a_block_differ_and_are_ordinary():
    block = distinct_tokens(ORDINARY, None, 50, 12, seeded())
    assert block.shape == (50, 12)
    assert all(len(set(row)) == 12 for row in block.tolist())
    assert set(block.flatten().tolist()) <= set(ORDINARY.tolist())
    assert torch.equal(block, distinct_tokens(ORDINARY, None, 50, 12, seeded()))
    assert not torch.equal(block, distinct_tokens(ORDINARY, None, 50, 12, seeded(1)))


def test_frequencies_are_those_asked_for():
    weights = torch.zeros(30)
    weights[:3] = torch.tensor([6.0, 3.0, 1.0])
    drawn = distinct_tokens(ORDINARY, weights, 20_000, 1, seeded()).flatten()
    share = [(drawn == token).double().mean().item() for token in (10, 11, 12)]
    assert share == pytest.approx([0.6, 0.3, 0.1], abs=0.015)
    with pytest.raises(UsageError, match="4 different tokens are needed and 3 can occur; valid lengths: 1 to 3"):
        distinct_tokens(ORDINARY, weights, 1, 4, seeded())


def test_copies_and_the_first_token():
    block = torch.tensor([[11, 12, 13]])
    assert repeated_tokens(block, 3, 7).tolist() == [[7, 11, 12, 13, 11, 12, 13, 11, 12, 13]]
    assert repeated_tokens(block, 2).tolist() == [[11, 12, 13, 11, 12, 13]]


def test_the_reference_repeats_nothing_where_there_are_enough_tokens():
    text = unrepeated_tokens(ORDINARY, None, 4, 10, 3, seeded(), 7)
    assert text.shape == (4, 31)
    assert all(len(set(row)) == 31 for row in text.tolist())
    short = unrepeated_tokens(ORDINARY, None, 4, 20, 2, seeded())
    assert all(len(set(row[:20])) == len(set(row[20:])) == 20 for row in short.tolist())
    assert not torch.equal(short[:, :20], short[:, 20:])
