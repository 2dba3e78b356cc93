"""The atlas against the models themselves: paths, residual arithmetic, logits, windows and routing of every tiny family."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface, LlamaConfig, LlamaForCausalLM, PreTrainedModel
from transformers.masking_utils import sdpa_mask

from interp.errors import ModelError
from interp.models import atlas_cache
from interp.models.atlas import Atlas, build_atlas
from interp.models.components import module_at
from tiny_models import EXTRA, FAMILIES, VARIANTS, WINDOW, build, prompt_ids

REFUSED = ("opt_post_norm",)
SUPPORTED = tuple(name for name in (*FAMILIES, *VARIANTS, *EXTRA) if name not in REFUSED)
NOT_ROUTED = {"gptj", "gpt_neo", "codegen", "bloom", "mpt", "falcon", "falcon_new", "falcon_rw"}
MOE = ("mixtral", "qwen2_moe", "qwen3_moe", "olmoe", "gpt_oss", "granitemoe")
TOLERANCE = 1e-5  # of the scale of what is compared


@contextmanager
def recorded(model: nn.Module, paths: set[str]) -> Iterator[dict[str, tuple[Tensor, Tensor]]]:
    """Input and output of the modules at these paths, copied as the forward runs."""
    seen: dict[str, tuple[Tensor, Tensor]] = {}

    def keep(path: str) -> Callable[[nn.Module, Any, dict[str, Any], Any], None]:
        def hook(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
            before = args[0] if args else kwargs["hidden_states"]
            seen[path] = before.clone(), (output[0] if isinstance(output, tuple) else output).clone()

        return hook

    handles = [model.get_submodule(path).register_forward_hook(keep(path), with_kwargs=True) for path in paths]
    try:
        yield seen
    finally:
        for handle in handles:
            handle.remove()


def forward(model: PreTrainedModel, atlas: Atlas) -> tuple[dict[str, tuple[Tensor, Tensor]], Tensor]:
    """One forward pass: what went into and came out of the parts that the residual arithmetic needs, and the logits."""
    paths = {
        path
        for block in atlas.blocks
        for path in (block.block, block.attn_out, block.mlp_out, block.o, block.ln2)
        if path
    }
    paths |= {path for path in (atlas.embed, atlas.pos_embed, atlas.embed_norm, atlas.ln_final, atlas.unembed) if path}
    with torch.no_grad(), recorded(model, paths) as seen:
        logits = model(prompt_ids(), use_cache=False).logits
    return seen, logits


def assert_near(actual: Tensor, expected: Tensor) -> None:
    """Equal to ``TOLERANCE`` of the largest expected value."""
    torch.testing.assert_close(actual, expected, rtol=0, atol=TOLERANCE * expected.abs().max().item())


@pytest.mark.parametrize("name", SUPPORTED)
def test_every_path_exists_and_every_part_is_there(name: str) -> None:
    model = build(name)
    atlas = build_atlas(model)
    named = dict(model.named_modules())
    for block in atlas.blocks:
        values = asdict(block)
        not_paths = {"qkv_split", "gate_up_split", "qk_norm"}
        paths = {key: value for key, value in values.items() if isinstance(value, str) and key not in not_paths}
        assert {key: path for key, path in paths.items() if path not in named} == {}
        assert (block.qkv is None) == all((block.q, block.k, block.v))
        assert sum(part is not None for part in (block.up, block.gate_up, block.mlp_in, block.experts)) == 1
        assert (block.gate is None) == (block.up is None)
        assert (block.router is None) == (block.experts is None)
        assert (block.down is None) == (block.experts is not None)
        assert (block.q_norm is None) == (block.k_norm is None) == (block.qk_norm is None)
    for path in (atlas.embed, atlas.unembed, atlas.pos_embed, atlas.embed_norm, atlas.ln_final):
        assert path is None or path in named


@pytest.mark.parametrize("name", SUPPORTED)
def test_updates_add_up_to_the_stream(name: str) -> None:
    model = build(name)
    atlas = build_atlas(model)
    seen, _ = forward(model, atlas)
    first = seen[atlas.embed][1] * atlas.embed_scale
    if atlas.pos_embed:
        first = first + seen[atlas.pos_embed][1]
    if atlas.embed_norm:
        assert_near(seen[atlas.embed_norm][0], first)
        first = seen[atlas.embed_norm][1]
    assert_near(seen[atlas.blocks[0].block][0], first)
    for block in atlas.blocks:
        before, after = seen[block.block]
        attn = seen[block.attn_out][1] * block.attn_scale
        mlp = seen[block.mlp_out][1].reshape(before.shape) * block.mlp_scale
        assert_near(before + attn + mlp, after)
        if block.ln2 is not None:
            assert_near(seen[block.ln2][0].reshape(before.shape), before if block.parallel else before + attn)


@pytest.mark.parametrize("name", SUPPORTED)
def test_logits_are_the_transformed_unembedding_of_the_normed_stream(name: str) -> None:
    model = build(name)
    atlas = build_atlas(model)
    seen, logits = forward(model, atlas)
    with torch.no_grad():
        normed = seen[atlas.blocks[-1].block][1]
        if atlas.ln_final:
            normed = model.get_submodule(atlas.ln_final)(normed)
        mine = atlas.logits.apply(model.get_submodule(atlas.unembed)(normed))
    assert_near(mine, logits)


@pytest.mark.parametrize("name", SUPPORTED)
def test_sizes_are_those_of_the_weights(name: str) -> None:
    model = build(name)
    atlas = build_atlas(model)
    assert model.get_input_embeddings().weight.shape == (atlas.d_vocab, atlas.d_model)
    assert atlas.tied_embeddings == (model.get_input_embeddings().weight is model.get_output_embeddings().weight)
    for block in atlas.blocks:
        if block.k is not None:
            assert model.get_submodule(block.k).weight.shape[0] == atlas.n_kv_heads * atlas.d_head
        with torch.no_grad(), recorded(model, {block.o} | ({block.down} if block.down else set())) as seen:
            model(prompt_ids(), use_cache=False)
        assert seen[block.o][0].shape[-1] == atlas.n_heads * atlas.d_head
        assert block.down is None or seen[block.down][0].shape[-1] == atlas.d_mlp


@pytest.mark.parametrize("name", SUPPORTED)
def test_windows_are_those_of_the_patterns(name: str) -> None:
    model = build(name, attn="eager")
    blocks = build_atlas(model).blocks
    with torch.no_grad():
        patterns = model(prompt_ids(), output_attentions=True, use_cache=False).attentions
    n_pos = patterns[0].shape[-1]
    distance = torch.arange(n_pos)[:, None] - torch.arange(n_pos)
    assert n_pos > WINDOW
    for block, pattern in zip(blocks, patterns, strict=True):
        reach = n_pos if block.window is None else block.window
        torch.testing.assert_close((pattern > 0).all(dim=(0, 1)), (distance >= 0) & (distance < reach))


@pytest.mark.parametrize("name", SUPPORTED)
def test_routed_attention_reaches_a_registered_function(name: str) -> None:
    layers: list[int] = []

    def probe(module: nn.Module, query: Tensor, *_: Any, **__: Any) -> tuple[Tensor, None]:
        layers.append(module.layer_idx)
        return query.transpose(1, 2).contiguous(), None

    AttentionInterface.register("atlas_probe", probe)
    AttentionMaskInterface.register("atlas_probe", sdpa_mask)
    model = build(name)
    atlas = build_atlas(model)
    assert atlas.routed_attention == (name not in NOT_ROUTED)
    if not atlas.routed_attention:
        return
    model.set_attn_implementation("atlas_probe")
    with torch.no_grad():
        model(prompt_ids(), use_cache=False)
    assert layers == list(range(atlas.n_layers))


@pytest.mark.parametrize("name", SUPPORTED)
def test_rotation_happens_where_the_atlas_says(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model = build(name)
    atlas = build_atlas(model)
    assert rotated_layers(model, atlas, monkeypatch) == [block.rotary for block in atlas.blocks]


def rotated_layers(model: PreTrainedModel, atlas: Atlas, monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Whether the rotation of transformers is called while each attention module runs."""
    running = [-1]
    rotated: set[int] = set()
    code = sys.modules[type(model.get_submodule(atlas.blocks[0].attn)).__module__]
    rotate = getattr(code, "apply_rotary_pos_emb", None)
    if rotate is not None:

        def watched(*args: Any, **kwargs: Any) -> Any:
            rotated.add(running[0])
            return rotate(*args, **kwargs)

        monkeypatch.setattr(code, "apply_rotary_pos_emb", watched)
    for layer, block in enumerate(atlas.blocks):
        attention = model.get_submodule(block.attn)
        attention.register_forward_pre_hook(lambda *_, layer=layer: running.__setitem__(0, layer))
    with torch.no_grad():
        model(prompt_ids(), use_cache=False)
    return [layer in rotated for layer in range(atlas.n_layers)]


def test_facts_of_single_families() -> None:
    blocks = {name: build_atlas(build(name)).blocks[0] for name in SUPPORTED}
    assert {name for name, block in blocks.items() if block.conv1d} == {"gpt2"}
    assert {name for name, block in blocks.items() if block.parallel} == {
        *("gpt_neox", "gptj", "phi", "phi_qk_norm", "falcon", "falcon_new", "cohere", "cohere_qk_norm", "codegen"),
        *("stablelm_parallel", "cohere2"),
    }
    assert {name for name, block in blocks.items() if block.attn_has_residual} == {"bloom"}
    assert {name for name, block in blocks.items() if block.mlp_has_residual} == {"bloom", "mpt"}
    assert {name for name, block in blocks.items() if block.mlp_overwritten} == {"falcon", "falcon_new"}
    assert {name for name, block in blocks.items() if block.qk_norm == "whole"} == {"olmo2", "olmo3", "olmoe"}
    assert {name for name, block in blocks.items() if block.experts} == set(MOE)
    assert {name for name, block in blocks.items() if block.shared_expert} == {"qwen2_moe"}
    assert {name for name, block in blocks.items() if block.attn_scale != 1} == {"granite", "granitemoe"}


@pytest.mark.parametrize("name", MOE)
def test_routers_give_logits_for_each_expert(name: str) -> None:
    model = build(name)
    for block in build_atlas(model).blocks:
        assert block.router is not None
        with torch.no_grad(), recorded(model, {block.router}) as seen:
            model(prompt_ids(rows=2, positions=5), use_cache=False)
        assert seen[block.router][1].shape == (10, 4)


def test_layers_without_rotation_are_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    model = build("smollm3", num_hidden_layers=4)
    atlas = build_atlas(model)
    assert [block.rotary for block in atlas.blocks] == [True, True, True, False]
    assert rotated_layers(model, atlas, monkeypatch) == [True, True, True, False]


def test_dense_layers_among_experts() -> None:
    model = build("qwen2_moe", mlp_only_layers=[1])
    blocks = build_atlas(model).blocks
    assert [block.experts is not None for block in blocks] == [True, False, True]
    assert blocks[1].router is None
    assert None not in (blocks[1].gate, blocks[1].up, blocks[1].down)


def test_softcap_and_scale_apply_in_order() -> None:
    atlas = build_atlas(build("gemma2"))
    transform = replace(atlas.logits, scale=2.0)
    expected = 30 * torch.tanh(torch.tensor([2.0, -80.0]) / 30)
    torch.testing.assert_close(transform.apply(torch.tensor([1.0, -40.0])), expected)


def test_builds_on_the_meta_device_and_leaves_the_model_as_it_was() -> None:
    with torch.device("meta"):
        model = LlamaForCausalLM(LlamaConfig(num_hidden_layers=2))
    before = str(model)
    assert build_atlas(model).n_layers == 2
    assert str(model) == before
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


@pytest.mark.parametrize("name", REFUSED)
def test_norms_on_the_stream_are_refused(name: str) -> None:
    with pytest.raises(
        ModelError, match=r"OPTForCausalLM is not supported: with do_layer_norm_before=False.*LlamaForCausalLM"
    ):
        build_atlas(build(name))


def test_a_path_that_does_not_exist_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    table = dict(atlas_cache.shipped())
    llama = table["LlamaForCausalLM"]
    table["LlamaForCausalLM"] = replace(llama, paths={**llama.paths, "blocks.ln2": ("second_norm",)})
    monkeypatch.setattr(atlas_cache, "shipped", lambda: table)
    with pytest.raises(ModelError, match=r"no module second_norm in model\.layers\.0 for blocks\.ln2"):
        build_atlas(build("llama"))


def test_module_at_gives_none_for_what_is_no_module() -> None:
    model = build("gpt2")
    assert module_at(model, "transformer.h.2.ln_1") is model.get_submodule("transformer.h.2.ln_1")
    assert module_at(model, "transformer.h.9") is None
    assert module_at(model, "config") is None
