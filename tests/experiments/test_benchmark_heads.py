"""The sides of the scan's benchmark on a tiny model: they compute the same numbers. Nothing here looks at a time."""

import pytest
import torch

from experiments.benchmarks.harness import check_equal
from experiments.benchmarks.heads import ScanWork, extra_memory, ours, plain_side, stored_patterns, transformer_lens
from interp.runner.model import Model


@pytest.fixture
def work(tiny):
    return ScanWork.of(Model(tiny("llama")), rows=3, tokens=15)


def test_the_naive_scan_and_ours_agree(work):
    assert work.ids.shape == (3, 15)
    assert plain_side(work).call().logits.shape == (3, 15, 97)
    assert check_equal(ours(work), stored_patterns(work)) < 1e-5


@pytest.mark.tl
def test_transformer_lens_agrees(work):
    with torch.no_grad():
        sides = list(transformer_lens(work))
        assert [side.name for side in sides] == ["TransformerLens detect_head", "TransformerLens hooks"]
        for side in sides:
            assert check_equal(ours(work), side) < 1e-4


def test_the_memory_beside_the_forward_is_a_number(work):
    assert extra_memory(work) < 100
