"""Expert routing: what the router's own module returned in a plain Hugging Face run, and its effect on the MLP's output."""

import pytest
import torch

from interp.analyzers.expert_routing import ExpertRoutingResult, expert_routing
from interp.errors import ModelError, UsageError
from interp.models.routers import route
from interp.results import load_result
from interp.runner.model import Model
from tiny_models import build

FAMILIES = ("mixtral", "qwen2_moe", "qwen3_moe", "olmoe", "gpt_oss")


@pytest.mark.parametrize("name", FAMILIES)
def test_choices_and_weights_are_those_of_the_run(family, ids, name):
    model = family(name)
    told: dict[int, tuple[torch.Tensor, ...]] = {}
    handles = [
        model.hf.get_submodule(block.router).register_forward_hook(
            lambda _, __, output, layer=layer: told.setdefault(layer, output) and None
        )
        for layer, block in enumerate(model.atlas.blocks)
    ]
    try:
        with torch.no_grad():
            model.hf(torch.tensor([ids]))
    finally:
        for handle in handles:
            handle.remove()
    got = expert_routing(model, ids)
    assert got.layers == (0, 1, 2)
    for layer, (scores, weights, chosen) in told.items():
        torch.testing.assert_close(got.scores[layer], scores, atol=1e-5, rtol=1e-5)
        for position in range(len(ids)):
            want = sorted(zip(weights[position].tolist(), chosen[position].tolist(), strict=True), reverse=True)
            assert got.chosen[layer, position].tolist() == [expert for _, expert in want]
            assert got.weights[layer, position].tolist() == pytest.approx([weight for weight, _ in want], abs=1e-5)
        share = torch.zeros(4)
        for position in range(len(ids)):
            for expert, weight in zip(chosen[position].tolist(), weights[position].tolist(), strict=True):
                share[expert] += weight
        torch.testing.assert_close(got.share[layer], share / share.sum(), atol=1e-5, rtol=1e-4)


def test_weighted_experts_are_what_the_layer_writes(family, ids):
    """Mixtral's layer of experts, put together by hand from the choices."""
    model = family("mixtral")
    got = expert_routing(model, ids)
    cache = model.run(ids, ["resid_mid@1", "mlp_out@1"]).cache
    block = model.hf.model.layers[1]
    read = block.post_attention_layernorm(cache["resid_mid@1"][0]).detach()
    gate_up, down = block.mlp.experts.gate_up_proj.detach(), block.mlp.experts.down_proj.detach()
    for position in range(len(ids)):
        total = torch.zeros(32)
        for expert, weight in zip(got.chosen[1, position].tolist(), got.weights[1, position].tolist(), strict=True):
            gate, up = (gate_up[expert] @ read[position]).chunk(2)
            total += weight * (down[expert] @ (torch.nn.functional.silu(gate) * up))
        torch.testing.assert_close(total, cache["mlp_out@1"][0, position], atol=1e-4, rtol=1e-3)


def test_table_figure_and_round_trip(family, ids, tmp_path):
    result = expert_routing(family("mixtral"), ids)
    assert len(result.to_frame()) == 3 * len(ids) * 2
    assert result.figure().data
    result.save(tmp_path / "x.safetensors")
    again = load_result(tmp_path / "x.safetensors")
    assert isinstance(again, ExpertRoutingResult)
    assert again.to_json() == result.to_json()


def test_models_without_experts_and_silent_routers_are_errors(family, ids):
    with pytest.raises(UsageError, match="has no experts"):
        expert_routing(family("llama"), ids)
    silent = Model(build("mixtral"))
    silent.hf.model.layers[1].mlp.gate = torch.nn.Linear(32, 4)
    with pytest.raises(ModelError, match=r"layers\.1\.mlp\.gate of MixtralForCausalLM does not tell"):
        route(silent.hf, silent.atlas, 1, torch.zeros(5, 32))
