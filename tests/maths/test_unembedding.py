"""Products of the same rows with parts of a weight: the same numbers whichever library multiplies, and the one that is meant does."""

import pytest
import torch

from interp.maths import unembedding as module
from interp.maths.unembedding import RowProducts


def case(dtype=torch.float32):
    generator = torch.Generator().manual_seed(0)
    sizes = ((7, 16), (50, 16), (50,))
    return [torch.randn(size, generator=generator, dtype=torch.float64).to(dtype) for size in sizes]


@pytest.mark.parametrize("onednn", [True, False])
def test_products_with_parts_of_the_weight_equal_the_whole(onednn, monkeypatch):
    if onednn and not torch.backends.mkldnn.is_available():
        pytest.skip("this torch has no oneDNN")
    monkeypatch.setattr(module, "suits_onednn", lambda x: onednn)
    x, weight, bias = case()
    multiply = RowProducts(x)
    assert multiply.x.is_mkldnn is onednn
    want = (x.double() @ weight.double().T).float()
    got = torch.cat([multiply(weight[:32]), multiply(weight[32:])], 1)
    torch.testing.assert_close(got, want, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(multiply(weight, bias), want + bias, atol=1e-5, rtol=1e-5)
    assert got.layout == torch.strided


@pytest.mark.parametrize(
    ("capability", "dtype", "chosen"),
    [
        ("AVX512", torch.float32, True),
        ("AVX2", torch.float32, False),
        ("AVX512", torch.bfloat16, False),
        ("AVX512", torch.float64, False),
    ],
)
def test_onednn_is_for_fp32_on_avx512(capability, dtype, chosen, monkeypatch):
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: True)
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: capability)
    x, weight, _ = case(dtype)
    assert module.suits_onednn(x) is chosen
    if not chosen:
        assert torch.equal(RowProducts(x)(weight), x @ weight.T)


def test_no_rows_are_no_products():
    assert RowProducts(torch.zeros(0, 16))(torch.zeros(50, 16)).shape == (0, 50)
