"""The weights of heads, by the only proof there is: that they give the q, k, v and results that the model computes."""

from collections.abc import Callable
from dataclasses import fields, replace

import pytest
import torch
from torch import Tensor, nn

from interp.analyzers.circuit_weights import checked_rotations
from interp.errors import ModelError, UsageError
from interp.models.head_weights import HeadWeights, read_head_norm, read_head_weights
from interp.models.rotary import rotations
from interp.runner.model import Model
from tiny_models import EXTRA, FAMILIES, VARIANTS, build, prompt_ids

SUPPORTED = tuple(name for name in (*FAMILIES, *VARIANTS, *EXTRA) if name != "opt_post_norm")
POSITIONS = 12
NOT_ON_ITS_OWN = {"gptj", "codegen"}  # their rotation is inside their own attention
NOT_A_ROTATION_LAST = {"hunyuan_v1_dense"}  # a norm comes after the rotation


@pytest.fixture(scope="module")
def tiny_model() -> Callable[[str], Model]:
    made: dict[str, Model] = {}
    return lambda name: made.setdefault(name, Model(build(name)))


def near(actual: Tensor, expected: Tensor, tolerance: float = 1e-5) -> None:
    torch.testing.assert_close(actual, expected, rtol=0, atol=tolerance * float(expected.abs().max()))


def mapped(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    out = torch.einsum("bpm,hmd->bphd", x, weight)
    return out if bias is None else out + bias


def agree(model: Model, ids: list[Tensor], tolerance: float = 1e-5) -> None:
    """Stored weights on what the maps read, folded weights on the stream over its divisor: both give q, k and v; W_O gives results."""
    wanted = ["resid_pre", "ln1.normalized", "attn.q", "attn.k", "attn.v", "attn.z", "attn.result", "attn_out"]
    cache = model.run(ids, [kind for kind in wanted if kind in model.sites.available]).cache
    for layer, block in enumerate(model.atlas.blocks):
        stored = read_head_weights(model.hf, model.atlas, layer, folded=False)
        folded = read_head_weights(model.hf, model.atlas, layer)
        stream = cache[f"ln1.normalized@{layer}" if block.ln1 else f"resid_pre@{layer}"]
        read = model.hf.get_submodule(block.ln1)(cache[f"resid_pre@{layer}"]).detach() if block.ln1 else stream
        for name, bias, norm in (
            ("q", "query_bias", block.q_norm),
            ("k", "key_bias", block.k_norm),
            ("v", "value_bias", None),
        ):
            expected = cache[f"attn.{name}@{layer}"]
            W = f"W_{name.upper()}"
            near(mapped(read, getattr(stored, W), getattr(stored, bias)), expected, tolerance)
            if norm is not None:
                fold = read_head_norm(model.hf, norm, expected.shape[2], model.atlas.d_head).fold
                expected = fold(expected.permute(2, 0, 1, 3)).permute(1, 2, 0, 3)
            near(mapped(stream, getattr(folded, W), getattr(folded, bias)), expected, tolerance)
        z = cache[f"attn.z@{layer}"]
        near(torch.einsum("bphd,hdm->bphm", z, stored.W_O), cache[f"attn.result@{layer}"], tolerance)
        if block.ln1_post is None:
            out = torch.einsum("bphd,hdm->bpm", z, folded.W_O)
            near(out if folded.output_bias is None else out + folded.output_bias, cache[f"attn_out@{layer}"], tolerance)


@pytest.mark.parametrize("name", SUPPORTED)
def test_weights_give_the_captured_queries_keys_values_and_results(tiny_model, name: str) -> None:
    agree(tiny_model(name), list(prompt_ids(2, POSITIONS)))


@pytest.mark.model
def test_weights_give_what_the_default_model_computes(model) -> None:
    agree(model, [torch.tensor(model.tokens("The Eiffel Tower is located in the city of").ids)], tolerance=1e-4)


@pytest.mark.parametrize("name", ["gemma2", "olmo2", "glm4", "exaone4"])
def test_a_norm_after_attention_leaves_only_its_divisor_out(tiny_model, name: str) -> None:
    """What attention adds is the folded output over one number a position, less what the norm itself adds."""
    model = tiny_model(name)
    cache = model.run(list(prompt_ids(1, POSITIONS)), ["attn.z", "attn_out"]).cache
    for layer in range(model.atlas.n_layers):
        weights = read_head_weights(model.hf, model.atlas, layer)
        out = torch.einsum("bphd,hdm->bpm", cache[f"attn.z@{layer}"], weights.W_O)
        out = out if weights.output_bias is None else out + weights.output_bias
        cosine = torch.cosine_similarity(out, cache[f"attn_out@{layer}"], dim=-1)
        torch.testing.assert_close(cosine, torch.ones_like(cosine))


@pytest.mark.parametrize("name", SUPPORTED)
def test_rotations_are_what_the_model_does_to_queries_and_keys(tiny_model, name: str) -> None:
    model = tiny_model(name)
    cache = None
    for layer, block in enumerate(model.atlas.blocks):
        turned = rotations(model.hf, model.atlas, layer, range(POSITIONS))
        if not block.rotary or name in NOT_ON_ITS_OWN:
            assert turned is None
            continue
        assert turned is not None
        if "attn.rot_q" not in model.sites.available or name in NOT_A_ROTATION_LAST:
            continue
        cache = (
            cache or model.run(list(prompt_ids(2, POSITIONS)), ["attn.q", "attn.k", "attn.rot_q", "attn.rot_k"]).cache
        )
        for side, norm in (("q", block.q_norm), ("k", block.k_norm)):
            plain, after = cache[f"attn.{side}@{layer}"], cache[f"attn.rot_{side}@{layer}"]
            if norm is None:
                near(torch.einsum("bphd,pde->bphe", plain, turned), after)
                continue
            undone = torch.einsum("bphe,ped->bphd", after, torch.linalg.inv(turned))
            fold = read_head_norm(model.hf, norm, plain.shape[2], model.atlas.d_head).fold
            if getattr(model.hf.get_submodule(norm), "bias", None) is None:
                folded = fold(plain.permute(2, 0, 1, 3)).permute(1, 2, 0, 3)
                cosine = torch.cosine_similarity(undone.flatten(2), folded.flatten(2), dim=-1)
                if block.qk_norm == "whole":
                    torch.testing.assert_close(cosine, torch.ones_like(cosine))
                cosine = torch.cosine_similarity(undone, folded, dim=-1)
                torch.testing.assert_close(cosine, torch.ones_like(cosine))


@pytest.mark.parametrize(
    "name", ["llama", "gpt_neox", "phi", "glm", "ernie4_5", "gpt_oss", "qwen3", "gemma3_text", "phi_qk_norm"]
)
def test_rotations_depend_on_the_distance_alone(tiny_model, name: str) -> None:
    model = tiny_model(name)
    turned = rotations(model.hf, model.atlas, 0, range(8))
    for i in range(8):
        for j in range(i):
            near(turned[i] @ turned[j].T, turned[i - j] @ turned[0].T)


@pytest.mark.parametrize("name", SUPPORTED)
def test_the_check_at_run_time_lets_the_right_families_through(tiny_model, name: str) -> None:
    model = tiny_model(name)
    block = model.atlas.blocks[-1]
    layer = model.atlas.n_layers - 1
    if block.rotary and (name in NOT_ON_ITS_OWN | NOT_A_ROTATION_LAST or not model.atlas.routed_attention):
        with pytest.raises(UsageError, match=r"rotates queries and keys in a way|does more to its queries than rotate"):
            checked_rotations(model, layer, [0, 3])
    elif block.rotary:
        near(checked_rotations(model, layer, [0, 3]), rotations(model.hf, model.atlas, layer, [0, 3]))
    else:
        assert checked_rotations(model, layer, [0, 3]) is None


def test_grouped_heads_share_keys_and_values(tiny_model) -> None:
    weights = read_head_weights(tiny_model("llama").hf, tiny_model("llama").atlas, 0)
    assert (weights.group, weights.W_K.shape[0], weights.W_Q.shape[0]) == (2, 2, 4)
    wide = weights.expanded()
    for head in range(4):
        assert torch.equal(wide.W_K[head], weights.W_K[weights.kv_head(head)])
        assert torch.equal(wide.W_V[head], weights.W_V[head // 2])
    assert wide.expanded() is wide


def test_weights_are_copies_in_single_precision(tiny_model) -> None:
    model = Model(build("gpt2").to(torch.bfloat16))
    weights = read_head_weights(model.hf, model.atlas, 1)
    for field in fields(HeadWeights):
        value = getattr(weights, field.name)
        assert value is not None
        assert value.dtype == torch.float32
        assert not value.requires_grad


def test_a_layer_out_of_range_names_the_valid_ones(tiny_model) -> None:
    model = tiny_model("llama")
    with pytest.raises(UsageError, match="layer 3 is out of range; valid: 0 to 2"):
        read_head_weights(model.hf, model.atlas, 3)


def test_a_family_without_a_key_map_is_named(tiny_model) -> None:
    """As in multi-head latent attention, where keys and values come from one compressed vector."""
    model = tiny_model("llama")
    block = replace(model.atlas.blocks[0], k=None)
    atlas = replace(model.atlas, blocks=(block, *model.atlas.blocks[1:]))
    with pytest.raises(
        ModelError,
        match=r"layers\.0\.self_attn of LlamaForCausalLM has no key map of its own, so its heads have no W_K",
    ):
        read_head_weights(model.hf, atlas, 0)


def test_a_map_that_is_not_linear_is_named() -> None:
    class Adapter(nn.Module):
        def __init__(self, base: nn.Module) -> None:
            super().__init__()
            self.base = base

        def forward(self, x: Tensor) -> Tensor:
            return self.base(x)

    model = Model(build("llama"))
    attention = model.hf.model.layers[1].self_attn
    attention.v_proj = Adapter(attention.v_proj)
    with pytest.raises(
        ModelError, match=r"layers\.1\.self_attn\.v_proj of LlamaForCausalLM is a Adapter, not a plain linear map"
    ):
        read_head_weights(model.hf, model.atlas, 1)


def test_a_map_of_another_shape_is_named(tiny_model) -> None:
    """A query map twice as wide, as where a gate on the output comes with the queries."""
    model = tiny_model("llama")
    block = replace(model.atlas.blocks[0], q=model.atlas.blocks[0].gate)
    atlas = replace(model.atlas, blocks=(block, *model.atlas.blocks[1:]))
    with pytest.raises(
        ModelError, match=r"gate_proj of LlamaForCausalLM maps 32 to 64, which is not 4 heads .2 of keys and values."
    ):
        read_head_weights(model.hf, atlas, 0)
