"""Row statistics against loops and closed forms, triangles and packing, and that blocks of rows add up to the whole."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from interp.maths.attention import (
    PACKED_ERROR,
    PatternFitter,
    lower_triangle,
    n_pairs,
    pack,
    row_statistics,
    square,
    top,
    unpack,
    value_norms,
)
from oracles import attention as oracle

NAMES = ("mass", "entropy", "distance", "first", "previous", "own", "top_keys", "top_weights")


def patterns(heads: int, n_pos: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    """Random causal patterns."""
    scores = 2 * torch.randn(heads, n_pos, n_pos, generator=torch.Generator().manual_seed(seed))
    return scores.masked_fill(~torch.ones(n_pos, n_pos, dtype=torch.bool).tril(), -math.inf).softmax(-1).to(dtype)


def rows_of(pattern: torch.Tensor) -> list[list[float]]:
    return [row[: index + 1].tolist() for index, row in enumerate(pattern.double())]


@pytest.mark.parametrize("share", [1.0, 0.3])
def test_statistics_equal_the_loops(share):
    """With less than all of the weight too, as beside a learned sink."""
    p = patterns(3, 7) * share
    found = row_statistics(p, 0, 4)
    for head in range(3):
        expected = oracle.statistics(rows_of(p[head]), 4)
        for name in NAMES:
            want = torch.tensor(expected[name], dtype=getattr(found, name).dtype)
            torch.testing.assert_close(getattr(found, name)[head], want, rtol=1e-5, atol=1e-6, equal_nan=True)


def test_even_weights_have_their_closed_forms():
    n = 9
    p = torch.ones(n, n).tril()
    found = row_statistics((p / p.sum(-1, keepdim=True))[None], 0, 2)
    counts = torch.arange(1.0, n + 1)
    torch.testing.assert_close(found.entropy[0], counts.log(), atol=1e-6, rtol=1e-6)
    torch.testing.assert_close(found.distance[0], (counts - 1) / 2)
    torch.testing.assert_close(found.first[0], 1 / counts)


def test_a_head_that_reads_the_previous_token():
    found = row_statistics(torch.diag(torch.ones(4), -1)[None, 1:], 1, 1)
    assert found.entropy.tolist() == [[0.0] * 4]
    assert found.distance.tolist() == found.previous.tolist() == [[1.0] * 4]
    assert found.own.tolist() == [[0.0] * 4]
    assert found.top_keys[..., 0].tolist() == [[0, 1, 2, 3]]


def test_a_key_without_weight_is_never_named():
    keys, weights = top(torch.tensor([[[0.0, 1.0, 0.0]]]), 3)
    assert keys.tolist() == [[[1, -1, -1]]]
    assert weights.tolist() == [[[1.0, 0.0, 0.0]]]


@given(st.integers(1, 12), st.integers(0, 5))
def test_a_triangle_is_the_pattern(n_pos, seed):
    p = patterns(2, n_pos, seed)
    triangle = lower_triangle(p, 0)
    assert triangle.shape == (2, n_pairs(n_pos))
    torch.testing.assert_close(square(triangle[1], 0.0), p[1], rtol=0, atol=0)


@given(st.floats(0, 1, width=32))
def test_packing_is_as_near_as_it_says(value):
    p = torch.tensor([value])
    assert abs(float(unpack(pack(p))) - value) <= PACKED_ERROR + 1e-7


def test_nothing_and_everything_are_packed_exactly():
    ends = torch.tensor([0.0, 1.0])
    torch.testing.assert_close(unpack(pack(ends)), ends, rtol=0, atol=0)


@pytest.mark.parametrize("exact", [True, False])
@pytest.mark.parametrize("block", [1, 3, 8])
def test_rows_a_few_at_a_time_give_the_whole(exact, block):
    p = patterns(2, 8, dtype=torch.bfloat16 if block == 3 else torch.float32)
    norms = torch.rand(2, 8, generator=torch.Generator().manual_seed(1))
    fitter = PatternFitter(n_layers=1, n_heads=2, n_pos=8, k=3, exact=exact)
    for first in range(0, 8, block):
        fitter.update(0, p[:, first : first + block], first, norms)
    whole = row_statistics(p, 0, 3)
    for name in NAMES:
        torch.testing.assert_close(fitter.statistics(name)[0], getattr(whole, name), equal_nan=True)
    kept = lower_triangle(p.float(), 0)
    torch.testing.assert_close(fitter.triangles[0], kept if exact else pack(kept), rtol=0, atol=0)
    written = fitter.top_written()
    assert written is not None
    keys, weights = top(p.float() * norms[:, None], 3)
    torch.testing.assert_close(written[0][0], keys)
    torch.testing.assert_close(written[1][0], weights)


def test_norms_of_values_equal_the_loops():
    draw = torch.Generator().manual_seed(3)
    v, W_O = torch.randn(5, 2, 3, generator=draw), torch.randn(4, 3, 6, generator=draw)
    plain, written = value_norms(v, W_O[[1, 3]], torch.tensor([0, 1]))
    for place, (head, kv_head) in enumerate(((1, 0), (3, 1))):
        for key in range(5):
            vector = v[key, kv_head].tolist()
            assert float(plain[place, key]) == pytest.approx(oracle.norm(vector), rel=1e-5)
            out = oracle.written(vector, W_O[head].tolist())
            assert float(written[place, key]) == pytest.approx(oracle.norm(out), rel=1e-5)
