"""Norms, cosines and pushed tokens against plain loops."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from interp.errors import NumericsError
from interp.maths.lens import Tiling
from interp.maths.residual import cosine, pushed_tokens, stream_geometry
from interp.maths.unembedding import Unembedding
from oracles import residual_story as oracle


@pytest.mark.parametrize("parallel", [False, True])
def test_geometry_equals_the_plain_loops(parallel):
    pre, attn, mlp = torch.randn(3, 2, 3, 8, generator=torch.Generator().manual_seed(0))
    post = pre + attn + mlp
    got = stream_geometry(pre, attn, mlp, post, parallel=parallel)
    for layer in range(2):
        for pos in range(3):
            p, a, m, q = (tensor[layer, pos].tolist() for tensor in (pre, attn, mlp, post))
            mid = p if parallel else [x + y for x, y in zip(p, a, strict=True)]
            end = post[-1, pos].tolist()
            want = {
                "stream_norm": oracle.norm(q),
                "attn_norm": oracle.norm(a),
                "mlp_norm": oracle.norm(m),
                "attn_cos_stream": oracle.cosine(a, p),
                "mlp_cos_stream": oracle.cosine(m, mid),
                "attn_cos_final": oracle.cosine(a, end),
                "mlp_cos_final": oracle.cosine(m, end),
                "stream_cos_final": oracle.cosine(q, end),
            }
            for name, value in want.items():
                assert float(getattr(got, name)[layer, pos]) == pytest.approx(value, abs=1e-5), name


def test_cosine_of_zero_is_zero():
    assert float(cosine(torch.zeros(4), torch.ones(4))) == 0.0


@given(seed=st.integers(0, 500), k=st.integers(1, 30), blocks=st.integers(1, 5), rows=st.integers(1, 7))
def test_pushed_tokens_equal_the_plain_loops_at_any_tiling(seed, k, blocks, rows):
    generator = torch.Generator().manual_seed(seed)
    # Small integers: many ties, and products that are exact in any order.
    updates = torch.randint(-2, 3, (5, 3), generator=generator).float()
    weight = torch.randint(-2, 3, (30, 3), generator=generator).float()
    tiling = Tiling(rows=rows, columns=4 * blocks, block=4)
    got = pushed_tokens(updates, Unembedding(weight=weight, scale=0.5), k, tiling=tiling)
    for row, update in enumerate(updates.tolist()):
        up, down = oracle.pushed(update, weight.tolist(), k, 0.5)
        assert got.promoted_ids[row].tolist() == up
        assert got.suppressed_ids[row].tolist() == down
        logits = 0.5 * updates[row] @ weight.T
        torch.testing.assert_close(got.promoted[row], logits[up])
        torch.testing.assert_close(got.suppressed[row], logits[down])


def test_nan_is_never_ranked():
    updates = torch.full((1, 3), float("nan"))
    with pytest.raises(NumericsError, match="NaN or infinite"):
        pushed_tokens(updates, Unembedding(weight=torch.randn(30, 3)), 2)
