"""The streamed lens kernel against plain loops, and its promises: any tiling, ties, extreme logits, NaN."""

import math

import pytest
import torch
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from interp.errors import NumericsError, UsageError
from interp.maths.lens import LensRows, Tiling, lens_statistics
from interp.maths.unembedding import Unembedding
from oracles import lens as oracle

NAMES = ("top_log_probs", "entropy", "kl", "target_log_prob", "target_rank", "top_ids")


def case(n_layers=3, n_pos=4, d_model=8, d_vocab=97, seed=0, scale=0.5):
    generator = torch.Generator().manual_seed(seed)
    streams = torch.randn(n_layers, n_pos, d_model, generator=generator)
    weight = torch.randn(d_vocab, d_model, generator=generator) * scale
    bias = torch.randn(d_vocab, generator=generator)
    targets = torch.randint(d_vocab, (n_pos,), generator=generator)
    return streams, weight, bias, targets


def assert_same(got: LensRows, want: LensRows, atol=1e-5):
    for name in NAMES:
        torch.testing.assert_close(
            getattr(got, name), getattr(want, name), atol=atol, rtol=1e-5, msg=lambda m, n=name: f"{n}: {m}"
        )


def expect(want: dict) -> LensRows:
    return LensRows(
        **{
            n: torch.tensor(v, dtype=torch.int64 if n in ("top_ids", "target_rank") else torch.float32)
            for n, v in want.items()
        }
    )


@pytest.mark.parametrize(
    ("use_bias", "scale", "softcap"),
    [
        (False, 1.0, None),
        (True, 1.0, None),
        (False, 0.0625, None),
        (True, 4.0, None),
        (False, 1.0, 3.0),
        (True, 2.0, 5.0),
    ],
)
def test_equals_the_plain_loops(use_bias, scale, softcap):
    streams, weight, bias, targets = case()
    bias = bias if use_bias else None
    unembedding = Unembedding(weight=weight, bias=bias, scale=scale, softcap=softcap)
    got = lens_statistics(streams, unembedding, targets, k=5, tiling=Tiling(rows=6, columns=32, block=8, part=3))
    want = oracle.lens(
        streams.tolist(), weight.tolist(), targets.tolist(), 5, None if bias is None else bias.tolist(), scale, softcap
    )
    assert_same(got, expect(want))


def test_final_given_apart():
    streams, weight, _, targets = case()
    final = torch.randn(4, 8, generator=torch.Generator().manual_seed(9))
    got = lens_statistics(streams, Unembedding(weight=weight), targets, k=3, final=final)
    want = oracle.lens(streams.tolist(), weight.tolist(), targets.tolist(), 3, final=final.tolist())
    assert_same(got, expect(want))


@settings(max_examples=30, phases=[Phase.explicit, Phase.generate])  # shrinking these costs minutes
@given(
    rows=st.integers(1, 40),
    blocks=st.integers(1, 12),
    block=st.sampled_from([1, 2, 8, 64]),
    part=st.integers(1, 40),
    k=st.integers(1, 97),
    offset=st.sampled_from([0.0, -150.0, 90.0]),
)
def test_any_tiling_gives_the_same(rows, blocks, block, part, k, offset):
    streams, weight, bias, targets = case(n_pos=5)
    unembedding = Unembedding(weight=weight, bias=bias + offset)
    tiling = Tiling(rows=rows, columns=block * blocks, block=block, part=part)
    whole = lens_statistics(
        streams, unembedding, targets, k=k, tiling=Tiling(rows=100, columns=128, block=128, part=100)
    )
    assert_same(
        lens_statistics(streams, unembedding, targets, k=k, tiling=tiling), whole, atol=2e-4 if offset else 1e-5
    )


@given(seed=st.integers(0, 1000), k=st.integers(1, 20), blocks=st.integers(1, 8))
def test_ties_go_to_the_lower_id_and_share_a_rank(seed, k, blocks):
    generator = torch.Generator().manual_seed(seed)
    streams = torch.randint(-1, 2, (2, 3, 2), generator=generator).float()
    weight = torch.randint(-1, 2, (40, 2), generator=generator).float()
    targets = torch.randint(40, (3,), generator=generator)
    got = lens_statistics(
        streams, Unembedding(weight=weight), targets, k=k, tiling=Tiling(rows=4, columns=4 * blocks, block=4)
    )
    want = expect(oracle.lens(streams.tolist(), weight.tolist(), targets.tolist(), k))
    assert torch.equal(got.top_ids, want.top_ids)
    assert torch.equal(got.target_rank, want.target_rank)


@given(seed=st.integers(0, 1000))
def test_bounds_and_consistency(seed):
    streams, weight, _, _ = case(seed=seed)
    best = lens_statistics(streams, Unembedding(weight=weight), torch.zeros(4, dtype=torch.long), k=97)
    assert (best.kl >= 0).all()
    assert (best.kl[-1] == 0).all()
    assert (best.entropy >= 0).all()
    assert (best.entropy <= math.log(97) + 1e-6).all()
    torch.testing.assert_close(best.top_log_probs.exp().sum(-1), torch.ones(3, 4))
    assert torch.equal(best.top_ids.sort(-1).values, torch.arange(97).expand(3, 4, 97))
    place = (best.top_ids == 0).int().argmax(-1)
    assert torch.equal(best.target_rank, place)
    torch.testing.assert_close(best.target_log_prob, best.top_log_probs.gather(-1, place[..., None])[..., 0])


def test_a_large_vocabulary_to_1e_5():
    streams, weight, _, targets = case(n_layers=4, n_pos=6, d_model=64, d_vocab=49_152, scale=0.3)
    got = lens_statistics(streams, Unembedding(weight=weight), targets)
    log_probs = (streams.double() @ weight.double().T).log_softmax(-1)
    entropy = -(log_probs.exp() * log_probs).sum(-1)
    kl = (log_probs[-1].exp() * (log_probs[-1] - log_probs)).sum(-1)
    torch.testing.assert_close(got.entropy.double(), entropy, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(got.kl.double(), kl, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(got.top_log_probs.double(), log_probs.topk(5).values, atol=1e-5, rtol=1e-5)
    target = log_probs[:, torch.arange(6), targets]
    torch.testing.assert_close(got.target_log_prob.double(), target, atol=1e-5, rtol=1e-5)
    # Neighbours in rank lie 1e-5 apart here, about what fp32 can tell.
    assert ((got.target_rank - (log_probs > target[..., None]).sum(-1)).abs() <= 3).all()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_rounds_the_product_only(dtype):
    streams, weight, _, targets = case(d_vocab=300)
    streams, weight = streams.to(dtype), weight.to(dtype)
    got = lens_statistics(streams, Unembedding(weight=weight), targets, tiling=Tiling(columns=128, block=64))
    logits = (streams @ weight.T).double()
    log_probs = logits.log_softmax(-1)
    torch.testing.assert_close(got.entropy.double(), -(log_probs.exp() * log_probs).sum(-1), atol=1e-5, rtol=1e-5)
    target = logits[:, torch.arange(4), targets]
    assert torch.equal(got.target_rank, (logits > target[..., None]).sum(-1))
    order = logits.sort(dim=-1, descending=True, stable=True)
    assert torch.equal(got.top_ids, order.indices[..., :5])


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("where", ["stream", "weight"])
def test_nan_and_inf_are_never_ranked(value, where):
    streams, weight, _, targets = case()
    if where == "stream":
        streams[1, 2, 0] = value
        message = "row 1, position 2"
    else:
        weight[50, 3] = value
        message = "row 0, position 0"
    with pytest.raises(NumericsError, match=message):
        lens_statistics(streams, Unembedding(weight=weight), targets, tiling=Tiling(rows=3, columns=32, block=8))


def test_bad_arguments_name_the_valid_values():
    streams, weight, _, targets = case()
    unembedding = Unembedding(weight=weight)
    with pytest.raises(UsageError, match="top_k is 98; valid: 1 to 97"):
        lens_statistics(streams, unembedding, targets, k=98)
    with pytest.raises(UsageError, match="target id 97 is out of range; valid: 0 to 96"):
        lens_statistics(streams, unembedding, targets * 0 + 97)
    with pytest.raises(UsageError, match="whole blocks"):
        Tiling(columns=100, block=64)


@pytest.mark.long
def test_memory_stays_small():
    """4 layers x 64 positions x 20,000 tokens are 20 MB of logits; a chunk's share of them is what is held."""
    tiling = Tiling(rows=16, columns=1024, block=64)
    streams, weight, _, targets = case(n_layers=4, n_pos=64, d_model=4, d_vocab=20_000)
    with torch.profiler.profile(profile_memory=True) as profile:
        lens_statistics(streams, Unembedding(weight=weight), targets, tiling=tiling)
    largest = max(event.cpu_memory_usage for event in profile.events())
    assert largest < 2_000_000
