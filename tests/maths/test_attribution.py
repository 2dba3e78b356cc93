"""Direct logit attribution against plain loops, and the identity that makes it worth having: the parts sum to the logit."""

import pytest
import torch

from interp.maths.attribution import agrees, read_logit, through_norm
from interp.maths.norms import Norm
from interp.maths.unembedding import Unembedding
from oracles import attribution as oracle


def case(centred: bool):
    generator = torch.Generator().manual_seed(3)
    parts = torch.randn(5, 12, generator=generator, dtype=torch.float64)
    gamma, beta = torch.randn(12, generator=generator), torch.randn(12, generator=generator)
    weight, bias = torch.randn(20, 12, generator=generator), torch.randn(20, generator=generator)
    norm = Norm(centred=centred, eps=1e-5, weight=gamma.double(), bias=beta.double() if centred else None)
    return parts, norm, Unembedding(weight=weight.double(), bias=bias.double(), scale=0.3, softcap=7.0)


@pytest.mark.parametrize("centred", [True, False])
def test_each_part_equals_the_plain_loop(centred):
    parts, norm, unembedding = case(centred)
    stream = parts.sum(0)
    reader = read_logit(stream, norm, unembedding, 4)
    gamma, row = norm.weight.tolist(), unembedding.weight[4].tolist()
    want = [oracle.contribution(p, stream.tolist(), gamma, row, 1e-5, centred, 0.3) for p in parts.tolist()]
    torch.testing.assert_close(reader.contributions(parts), torch.tensor(want, dtype=torch.float64))


@pytest.mark.parametrize("centred", [True, False])
@pytest.mark.parametrize("normed", [True, False])
def test_parts_and_biases_sum_to_the_logit(centred, normed):
    parts, norm, unembedding = case(centred)
    norm = norm if normed else None
    stream = parts.sum(0)
    logits = unembedding.linear(stream if norm is None else norm(stream))
    readers = [read_logit(stream, norm, unembedding, token) for token in (4, 9)]
    for token, reader in zip((4, 9), readers, strict=True):
        total = reader.contributions(parts).sum() + reader.norm_bias + reader.unembed_bias
        torch.testing.assert_close(total, logits[token])
        torch.testing.assert_close(
            unembedding.cap(total), unembedding.logits(stream if norm is None else norm(stream))[token]
        )
    difference = readers[0].minus(readers[1])
    total = difference.contributions(parts).sum() + difference.norm_bias + difference.unembed_bias
    torch.testing.assert_close(total, logits[4] - logits[9])


@pytest.mark.parametrize("centred", [True, False])
def test_parts_through_a_norm_sum_to_the_norm(centred):
    parts, norm, _ = case(centred)
    whole = parts.sum(0)
    total = through_norm(parts, whole, norm).sum(0)
    torch.testing.assert_close(total if norm.bias is None else total + norm.bias, norm(whole))


def test_agreement_is_relative_to_the_size_of_the_parts():
    parts = torch.tensor([100.0, -99.0])
    assert agrees(1.0, 1.01, parts, torch.float32)
    assert not agrees(1.0, 1.03, parts, torch.float32)
    assert agrees(1.0, 10.0, parts, torch.bfloat16)
    assert not agrees(1.0, float("nan"), parts, torch.float32)
