"""Packed linear maps against the modules' own products, their gradients, and what is left behind."""

import pytest
import torch
from torch import nn
from transformers.pytorch_utils import Conv1D

from interp.maths.unembedding import suits_onednn
from interp.runner import packed
from interp.runner.aligned import OFTEN, Suffixes
from interp.runner.model import Model
from interp.runner.packed import LEAST, ROWS, PackedLinears, packed_bytes

pytestmark = pytest.mark.skipif(not suits_onednn(torch.ones(1)), reason="packing is for CPUs with AVX-512 and oneDNN")

KINDS = {
    "linear": lambda: nn.Linear(300, 400, bias=False),
    "linear with a bias": lambda: nn.Linear(300, 400),
    "convolution": lambda: Conv1D(400, 300),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shape", [(3, 300), (2, 5, 300)])
def test_products_and_gradients_are_the_modules_own(kind: str, shape: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    module = KINDS[kind]()
    if module.bias is not None:
        nn.init.normal_(module.bias)
    x = torch.randn(shape, requires_grad=True)
    weights = torch.randn(*shape[:-1], 400)
    expected = module(x)
    (slope,) = torch.autograd.grad((expected * weights).sum(), x)
    linears = PackedLinears([module], 10)
    assert len(linears) == 1
    with linears.applied():
        found = module(x)
        (gradient,) = torch.autograd.grad((found * weights).sum(), x)
    assert type(found.grad_fn).__name__ == "_ProductBackward"
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-4)
    torch.testing.assert_close(gradient, slope, rtol=1e-5, atol=1e-4)
    assert all(parameter.grad is None for parameter in module.parameters())


def test_the_modules_compute_by_themselves_again_after_any_error() -> None:
    module = nn.Linear(300, 400)
    with pytest.raises(RuntimeError), PackedLinears([module], 10).applied():  # noqa: PT012
        assert "forward" in module.__dict__
        module(torch.ones(2, 7))
    assert "forward" not in module.__dict__


@pytest.mark.parametrize("kind", KINDS)
def test_under_autocast_the_modules_compute_as_ever(kind: str) -> None:
    module = KINDS[kind]()
    x = torch.randn(3, 300)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        expected = module(x)
        with PackedLinears([module], 3).applied():
            found = module(x)
    assert found.dtype == torch.bfloat16
    assert torch.equal(found, expected)


class Doubled(nn.Linear):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return 2 * super().forward(x)


def test_only_what_suits_is_packed(monkeypatch: pytest.MonkeyPatch) -> None:
    own = nn.Linear(300, 400)
    own.forward = lambda x: x
    parametrised = nn.utils.parametrizations.weight_norm(nn.Linear(300, 400))
    small = nn.Linear(8, LEAST // 8 - 1)
    others = [
        nn.Linear(300, 400).bfloat16(),
        Doubled(300, 400),
        own,
        parametrised,
        small,
        nn.LayerNorm(LEAST),
        nn.ReLU(),
    ]
    assert len(PackedLinears(others, 10)) == 0
    assert len(PackedLinears([nn.Linear(300, 400)], ROWS)) == 1
    assert len(PackedLinears([nn.Linear(300, 400)], ROWS + 1)) == 0
    assert packed_bytes([nn.Linear(300, 400), nn.ReLU()]) == 2 * 4 * 300 * 400
    monkeypatch.setattr(packed, "suits_onednn", lambda weight: False)
    assert len(PackedLinears([nn.Linear(300, 400)], 10)) == 0


PROMPTS = ("The Eiffel Tower is in the city of", "Paris is the capital of")


def test_suffixes_that_are_asked_often_run_packed_to_the_same_logits(
    model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = model.run(list(PROMPTS), capture="mlp.post@25", resumable=True, logits=False)
    delta = torch.randn(model.atlas.d_model, generator=torch.Generator().manual_seed(0), requires_grad=True)
    results = []
    for calls, n_packed in ((OFTEN - 1, 0), (OFTEN, 4 * 7 + 1)):
        suffixes = Suffixes(run, 25, [4, 0], [[7], [3, 4]], calls=calls)
        assert len(suffixes._packed) == n_packed
        logits = suffixes.logits(delta)
        results.append((logits, *torch.autograd.grad(logits.log_softmax(-1)[:, 3].sum(), delta)))
    for plain, fast in zip(*results, strict=True):
        torch.testing.assert_close(fast, plain, rtol=1e-4, atol=1e-3)
    assert not torch.equal(results[0][0], results[1][0])
    assert not any("forward" in module.__dict__ for module in model.hf.modules())
    monkeypatch.setattr("interp.runner.aligned.least_free", lambda model: 4 * 2 * 4 * 10_000_000)
    assert len(Suffixes(run, 25, [4, 0], [[7], [3, 4]], calls=OFTEN)._packed) == 0
