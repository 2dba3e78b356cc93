"""Suffixes of prompts against full forwards of plain Hugging Face with a hook, on every family."""

from collections.abc import Sequence

import pytest
import torch
from torch import Tensor

import tiny_models
from interp.errors import UsageError
from interp.models.atlas import module_at
from interp.runner.aligned import Place, Suffixes
from interp.runner.model import Model

PROMPTS = [[5, 9, 33, 71, 12, 44, 8], [3, 7, 11, 5, 9, 33, 71, 12, 44, 8], [7, 5, 9, 33, 71, 12, 44, 8]]
POSITIONS = [2, 5, 3]
COLUMNS = [[5, 6], [9], [4, 6, 7]]
EXPERTS = {"mixtral", "qwen2_moe", "qwen3_moe", "olmoe", "gpt_oss"}
FAST = ("gpt2", "llama", "gemma2", "gpt_neox", "bloom", "mpt", "opt")
DENSE = [
    pytest.param(name, marks=() if name in FAST else pytest.mark.slow)
    for name in tiny_models.FAMILIES
    if name not in EXPERTS
]


def suffixes_of(model: Model, layer: int, place: Place, positions: Sequence[int] = POSITIONS) -> Suffixes:
    run = model.run(PROMPTS, capture=f"mlp.post@{layer}", resumable=True, logits=False)
    return Suffixes(run, layer, positions, COLUMNS, place)


def plain_logits(model: Model, path: str, delta: Tensor) -> Tensor:
    """Full forwards, one prompt at a time, with ``delta`` added to the module's output at the position."""
    rows = []
    for ids, position, columns in zip(PROMPTS, POSITIONS, COLUMNS, strict=True):

        def add(module, args, output, position=position):
            first = output[0] if isinstance(output, tuple) else output
            changed = first.clone().reshape(-1, first.shape[-1])
            changed[position] += delta
            changed = changed.reshape(first.shape)
            return (changed, *output[1:]) if isinstance(output, tuple) else changed

        handle = module_at(model.hf, path).register_forward_hook(add)
        try:
            rows.append(model.hf(input_ids=torch.tensor([ids]), use_cache=False).logits[0, columns])
        finally:
            handle.remove()
    return torch.cat(rows)


@pytest.mark.parametrize("place", ["mlp", "block"])
@pytest.mark.parametrize("name", DENSE)
def test_logits_and_gradients_equal_those_of_full_forwards(name: str, place: Place) -> None:
    model = Model(tiny_models.build(name))
    for layer in (0, model.atlas.n_layers - 1):
        block = model.atlas.blocks[layer]
        generator = torch.Generator().manual_seed(layer)
        delta = torch.randn(model.atlas.d_model, generator=generator, requires_grad=True)
        ours = suffixes_of(model, layer, place).logits(delta)
        theirs = plain_logits(model, block.down if place == "mlp" else block.block, delta)
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)
        grads = [torch.autograd.grad(logits.log_softmax(-1)[..., 3].sum(), delta)[0] for logits in (ours, theirs)]
        torch.testing.assert_close(*grads, rtol=1e-4, atol=1e-5)


def test_nothing_added_gives_the_logits_of_the_run() -> None:
    model = Model(tiny_models.build("llama"))
    run = model.run(PROMPTS, capture="mlp.post@1", resumable=True)
    found = Suffixes(run, 1, POSITIONS, COLUMNS).logits(torch.zeros(model.atlas.d_model))
    assert run.logits is not None
    expected = torch.cat([run.logits[row, columns] for row, columns in enumerate(COLUMNS)])
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


def test_the_parameters_get_no_gradient_and_nothing_is_left_behind() -> None:
    model = Model(tiny_models.build("gpt2"))
    before = {name: parameter.clone() for name, parameter in model.hf.named_parameters()}
    delta = torch.zeros(model.atlas.d_model, requires_grad=True)
    (gradient,) = torch.autograd.grad(suffixes_of(model, 0, "mlp").logits(delta).sum(), delta)
    assert float(gradient.norm()) > 0
    assert torch.is_grad_enabled()
    for name, parameter in model.hf.named_parameters():
        assert parameter.grad is None
        assert torch.equal(parameter, before[name])
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.hf.modules())
    assert not any("forward" in module.__dict__ for module in model.hf.modules())


def test_what_cannot_be_resumed_is_said_so() -> None:
    model = Model(tiny_models.build("llama"))
    run = model.run(PROMPTS, capture="mlp.post@0")
    with pytest.raises(UsageError, match="resumable=True"):
        Suffixes(run, 0, POSITIONS, COLUMNS)
    with pytest.raises(UsageError, match="do not fit prompts of"):
        suffixes_of(model, 0, "mlp", [2, 5, 8])
    with pytest.raises(UsageError, match="logits before a suffix"):
        suffixes_of(model, 0, "mlp", [6, 9, 7])
