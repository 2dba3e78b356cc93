"""Every analyzer on a model over two (pretended) devices gives the numbers of one device, and leaves them on the CPU."""

from collections.abc import Callable
from dataclasses import is_dataclass
from typing import Any

import pytest
import torch
from torch import Tensor

import interp
import tiny_models
import word_model
from interp.editing.settings import EditSettings
from interp.prompts import Fact
from interp.runner.model import Model
from pretend_devices import device_of, pretend_devices, spread

CLEAN = tuple(range(5, 15))
CORRUPTED = (*CLEAN[:3], 40, *CLEAN[4:])
ASKED: dict[str, Any] = {"target": 7, "against": 8}
ANALYSES: dict[str, Callable[[Model], Any]] = {
    "logit_lens": lambda m: interp.logit_lens(m, CLEAN),
    "logit_lens_of_components": lambda m: interp.logit_lens(m, CLEAN, sites="components"),
    "direct_logit_attribution": lambda m: interp.direct_logit_attribution(m, CLEAN),
    "attention_patterns": lambda m: interp.attention_patterns(m, CLEAN),
    "attention_summary": lambda m: interp.attention_summary(m, CLEAN),
    "head_profiles": lambda m: interp.head_profiles(m, [CLEAN, CORRUPTED], n_shuffles=1),
    "induction_heads": lambda m: interp.induction_heads(m, periods=[10], seeds=2, first_token=False),
    "causal_trace": lambda m: interp.causal_trace(m, CLEAN, [2, 3], 7, samples=2),
    "activation_patching": lambda m: interp.activation_patching(m, CLEAN, CORRUPTED, sites=("resid_pre", "z"), **ASKED),
    "attribution_patching": lambda m: interp.attribution_patching(m, CLEAN, CORRUPTED, check=0, **ASKED),
    "path_patching": lambda m: interp.path_patching(m, CLEAN, CORRUPTED, **ASKED),
    "ablation": lambda m: interp.ablation(m, CLEAN, units="heads", target=7, method="mean"),
    "residual_story": lambda m: interp.residual_story(m, CLEAN),
    "next_token_logits": lambda m: interp.next_token_logits(m, CLEAN),
    "token_losses": lambda m: interp.token_losses(m, CLEAN),
    "decoding_choices": lambda m: interp.decoding_choices(m, CLEAN),
    "head_circuits": lambda m: interp.head_circuits(m, (1, 0), draws=2),
    "head_composition": lambda m: interp.head_composition(m),
    "fit_tuned_lens": lambda m: interp.fit_tuned_lens(m, [CLEAN, CORRUPTED]),
    "second_moments": lambda m: interp.second_moments(m, [0, 1], [list(CLEAN)] * 3),
}
SLOW = (
    "attention_summary", "head_profiles", "induction_heads", "causal_trace", "activation_patching", "path_patching", "token_losses",
    "ablation", "head_composition", "decoding_choices", "attribution_patching", "fit_tuned_lens", "head_circuits",
)  # fmt: skip


def numbers(result: Any) -> dict[str, Tensor]:
    if isinstance(result, list | tuple):
        return {f"{i}.{name}": value for i, item in enumerate(result) for name, value in numbers(item).items()}
    found = {name: value for name, value in vars(result).items() if isinstance(value, Tensor)}
    for name, value in vars(result).items():
        if is_dataclass(value):
            found |= {f"{name}.{inner}": tensor for inner, tensor in numbers(value).items()}
    return found


@pytest.mark.parametrize("name", [pytest.param(n, marks=pytest.mark.slow if n in SLOW else ()) for n in ANALYSES])
def test_an_analysis_over_two_devices_is_that_on_one(name: str) -> None:
    analyse = ANALYSES[name]
    expected = numbers(analyse(Model(tiny_models.build("llama"))))
    with pretend_devices():
        found = numbers(analyse(Model(spread(tiny_models.build("llama")))))
    assert found.keys() == expected.keys()
    assert expected
    for key, value in found.items():
        assert device_of(value).type == "cpu", f"{key} was left on a device"
        # Not to the last bit, since some sums are made in other parts on a GPU.
        torch.testing.assert_close(value, expected[key], rtol=1e-4, atol=1e-5, equal_nan=True)


@pytest.mark.parametrize("method", ["rome", pytest.param("memit", marks=pytest.mark.slow)])
def test_an_edit_found_over_two_devices_is_that_on_one(method: str) -> None:
    fact = Fact("tower of Pisa", "the {} is in the city of", " Ann")
    settings = EditSettings(min_tokens=1, shrinkage=0.01, steps=3)
    texts = [list(range(3, 40))] * 3

    def edited(model: Model) -> tuple[interp.Edit, Tensor]:
        layers = [1] if method == "rome" else [0, 1]
        moments = interp.second_moments(model, layers, texts)
        edit = interp.edit_facts(model, [fact], method=method, layers=layers, moments=moments, settings=settings)
        before = model.run(fact.prompt).logits.cpu()
        with edit.applied(model):
            after = model.run(fact.prompt).logits.cpu()
        assert torch.equal(model.run(fact.prompt).logits.cpu(), before)
        return edit, after

    wanted, logits = edited(word_model.build("llama"))
    with pretend_devices():
        plain = word_model.build("llama")
        edit, found = edited(Model(spread(plain.hf), plain.tokenizer))
    torch.testing.assert_close(found, logits, rtol=1e-4, atol=1e-4)
    for one, other in zip(edit.layers, wanted.layers, strict=True):
        torch.testing.assert_close(one.left @ one.right, other.left @ other.right, rtol=1e-3, atol=1e-5)
        assert one.base_sha256 == other.base_sha256
