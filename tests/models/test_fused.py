"""Fused maps taken apart, against the q, k and v that the models' own attention computes, and put together again."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.masking_utils import sdpa_mask
from transformers.models.mpt.modeling_mpt import build_mpt_alibi_tensor

from interp.errors import ModelError
from interp.models.atlas import Atlas, build_atlas
from interp.models.fused import merge_gate_up, merge_qkv, split_gate_up, split_qkv
from tiny_models import build, prompt_ids

FUSED = [
    "gpt2",
    "gpt_neox",
    "phi3",
    "bloom",
    "falcon",
    "falcon_new",
    "falcon_rw",
    "mpt",
    "codegen",
    "gpt_bigcode",
    "gpt_bigcode_heads",
]
ROUTED = ["gpt2", "gpt_neox", "phi3", "gpt_bigcode", "gpt_bigcode_heads"]


def output_of(model: nn.Module, path: str, ids: Tensor) -> Tensor:
    """What the module at ``path`` returns when the model runs on ``ids``."""
    kept: list[Tensor] = []
    handle = model.get_submodule(path).register_forward_hook(lambda *seen: kept.append(seen[-1].clone()))
    try:
        with torch.no_grad():
            model(ids, use_cache=False)
    finally:
        handle.remove()
    return kept[0]


def split_first(model: Any, ids: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, Atlas]:
    """The fused output of the first block and its q, k, v."""
    atlas = build_atlas(model)
    path = atlas.blocks[0].qkv
    assert path is not None
    fused = output_of(model, path, ids)
    return fused, *split_qkv(fused, atlas.blocks[0], atlas), atlas


@pytest.mark.parametrize("name", ROUTED)
def test_split_is_what_routed_attention_receives(name: str) -> None:
    received: list[tuple[Tensor, ...]] = []

    def probe(_: nn.Module, query: Tensor, key: Tensor, value: Tensor, *__: Any, **___: Any) -> tuple[Tensor, None]:
        received.append(tuple(x.transpose(1, 2).clone() for x in (query, key, value)))
        return query.transpose(1, 2).contiguous(), None

    AttentionInterface.register("fused_probe", probe)
    AttentionMaskInterface.register("fused_probe", sdpa_mask)
    model = build(name)
    model.set_attn_implementation("fused_probe")
    _, *mine, _ = split_first(model, prompt_ids(rows=8, positions=1))  # rotation at position 0 changes nothing
    for actual, expected in zip(mine, received[0], strict=True):
        torch.testing.assert_close(actual, expected)


def test_split_is_blooms() -> None:
    model = build("bloom")
    fused, *mine, atlas = split_first(model, prompt_ids())
    theirs = model.get_submodule(atlas.blocks[0].attn)._reshape(fused)
    for actual, expected in zip(mine, theirs, strict=True):
        torch.testing.assert_close(actual, expected.transpose(1, 2), rtol=0, atol=0)


@pytest.mark.parametrize("name", ["falcon", "falcon_new", "falcon_rw"])
def test_split_is_falcons(name: str) -> None:
    model = build(name)
    fused, *mine, atlas = split_first(model, prompt_ids())
    theirs = model.get_submodule(atlas.blocks[0].attn)._split_heads(fused)
    for actual, expected in zip(mine, theirs, strict=True):
        repeated = actual.repeat_interleave(
            expected.shape[2] // actual.shape[2], dim=2
        )  # the new decoder repeats k and v itself
        torch.testing.assert_close(repeated, expected, rtol=0, atol=0)


def test_split_is_codegens() -> None:
    model = build("codegen")
    attention = model.get_submodule(build_atlas(model).blocks[0].attn)
    received: list[tuple[Tensor, ...]] = []
    own = attention._attn

    def keep(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None = None) -> Any:
        received.append((query, key, value))
        return own(query, key, value, mask)

    attention._attn = keep
    _, *mine, _ = split_first(model, prompt_ids(rows=8, positions=1))  # rotation at position 0 changes nothing
    for actual, expected in zip(mine, received[0], strict=True):
        torch.testing.assert_close(actual, expected.transpose(1, 2))


def test_split_is_mpts() -> None:
    model = build("mpt")
    ids = prompt_ids()
    _, q, k, v, atlas = split_first(model, ids)
    n_pos = ids.shape[1]
    scores = torch.einsum("bqhd,bkhd->bhqk", q, k) * atlas.d_head**-0.5
    scores = scores + build_mpt_alibi_tensor(atlas.n_heads, n_pos, 8)[..., -n_pos:]
    pattern = scores.masked_fill(torch.ones(n_pos, n_pos).triu(1).bool(), float("-inf")).softmax(-1)
    with torch.no_grad():
        theirs = model(ids, output_attentions=True, use_cache=False).attentions[0]
    torch.testing.assert_close(pattern, theirs)
    z = torch.einsum("bhqk,bkhd->bqhd", pattern, v).flatten(2)
    block = atlas.blocks[0]
    torch.testing.assert_close(model.get_submodule(block.o)(z), output_of_first(model, block.attn, ids))


def output_of_first(model: nn.Module, path: str, ids: Tensor) -> Tensor:
    """The first thing that the module at ``path`` returns."""
    kept: list[Tensor] = []
    handle = model.get_submodule(path).register_forward_hook(lambda *seen: kept.append(seen[-1][0].clone()))
    try:
        with torch.no_grad():
            model(ids, use_cache=False)
    finally:
        handle.remove()
    return kept[0]


@pytest.mark.parametrize("name", FUSED)
def test_merging_undoes_splitting(name: str) -> None:
    fused, q, k, v, atlas = split_first(build(name), prompt_ids())
    assert q.shape == (2, 16, atlas.n_heads, atlas.d_head)
    assert k.shape == v.shape == (2, 16, atlas.n_kv_heads, atlas.d_head)
    torch.testing.assert_close(merge_qkv(q, k, v, atlas.blocks[0], atlas), fused, rtol=0, atol=0)
    marked = merge_qkv(q + 1, k, v, atlas.blocks[0], atlas)
    assert (marked != fused).sum() == q.numel()


@pytest.mark.parametrize("name", ["phi3", "glm4"])
def test_gate_up_is_the_input_of_the_output_map(name: str) -> None:
    model = build(name)
    block = build_atlas(model).blocks[0]
    assert block.gate_up is not None
    assert block.down is not None
    ids = prompt_ids()
    fused = output_of(model, block.gate_up, ids)
    gate, up = split_gate_up(fused, block)
    torch.testing.assert_close(
        model.get_submodule(block.down)(nn.functional.silu(gate) * up), output_of(model, block.down, ids)
    )
    torch.testing.assert_close(merge_gate_up(gate, up, block), fused, rtol=0, atol=0)


def test_no_or_unknown_layout_is_an_error() -> None:
    llama = build_atlas(build("llama"))
    with pytest.raises(
        ModelError, match=r"model\.layers\.0 of LlamaForCausalLM has no fused q, k, v map; it has .*q_proj"
    ):
        split_qkv(torch.zeros(1, 1, 3), llama.blocks[0], llama)
    phi = build_atlas(build("phi3"))
    with pytest.raises(ModelError, match=r"how Phi3ForCausalLM lays out q, k and v in .*qkv_proj is not known"):
        split_qkv(torch.zeros(1, 1, 3), replace(phi.blocks[0], qkv_split=None), phi)
