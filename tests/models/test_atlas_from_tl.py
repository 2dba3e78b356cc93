"""The shipped component table against TransformerLens' adapters as they are, and architectures that are not shipped."""

import json
import sys
from dataclasses import replace
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from transformers import PreTrainedModel

from interp.errors import ModelError
from interp.models import atlas_cache
from interp.models.atlas import build_atlas
from interp.models.atlas_cache import shipped
from interp.models.atlas_check import check_atlas
from tiny_models import EXTRA, FAMILIES, VARIANTS, WINDOW, build

pytestmark = pytest.mark.tl
REFUSED = {"opt_post_norm"}
SIZES = {"vocab_size": 97, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}


def unshipped(class_name: str = "AfmoeConfig", **settings: Any) -> PreTrainedModel:
    """A small random model of an architecture that TransformerLens knows and the shipped table does not have."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        config = getattr(transformers, class_name)(**{**SIZES, "pad_token_id": 0, **settings})
        return transformers.AutoModelForCausalLM.from_config(config).eval()


@pytest.fixture
def afmoe() -> PreTrainedModel:
    return unshipped(
        num_key_value_heads=2,
        head_dim=8,
        num_experts=4,
        num_experts_per_tok=2,
        moe_intermediate_size=16,
        sliding_window=WINDOW,
    )


@pytest.fixture
def without_transformer_lens(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if TransformerLens were not installed."""
    monkeypatch.setitem(sys.modules, "transformer_lens", None)
    for name in [name for name in sys.modules if name.startswith("transformer_lens.")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.delitem(sys.modules, "interp.models.atlas_from_tl", raising=False)


@pytest.mark.long
def test_shipped_table_is_what_transformer_lens_says() -> None:
    from interp.models.atlas_from_tl import generate

    data = json.loads(files("interp.models").joinpath("atlas_data.json").read_text(encoding="utf-8"))
    assert generate() == data, "run `python -m interp.models.atlas_from_tl`"


@pytest.mark.parametrize("name", sorted({*FAMILIES, *VARIANTS, *EXTRA} - REFUSED))
def test_each_family_is_where_transformer_lens_says(name: str) -> None:
    from interp.models.atlas_from_tl import resolve

    model = build(name)
    components = resolve(model)
    assert components is not None
    atlas = build_atlas(model)
    paths = {key: candidates[0] for key, candidates in components.paths.items() if key not in components.optional}
    block = atlas.blocks[0]
    theirs = {
        key.removeprefix("blocks."): f"{block.block}.{path}" for key, path in paths.items() if key.startswith("blocks.")
    }
    router = block.router is not None
    ours = {
        "ln1": block.ln1,
        "ln1_post": block.ln1_post,
        "ln2": block.ln2,
        "ln2_post": block.ln2_post,
        "mlp": block.mlp,
        "attn": block.attn,
        "attn.qkv": block.qkv,
        "attn.q": block.q,
        "attn.k": block.k,
        "attn.v": block.v,
        "attn.o": block.o,
        "attn.q_norm": block.q_norm,
        "attn.k_norm": block.k_norm,
        "mlp.gate": block.router if router else block.gate,
        "mlp.router": block.router,
        "mlp.experts": block.experts,
        "mlp.shared_expert": block.shared_expert,
        "mlp.in": block.up or block.mlp_in,
        "mlp.gate_up": block.gate_up,
        "mlp.out": block.down,
    }
    assert {key: ours[key] for key in theirs.keys() & ours.keys()} == {
        key: theirs[key] for key in theirs.keys() & ours.keys()
    }
    model_wide = {
        "embed": atlas.embed,
        "pos_embed": atlas.pos_embed,
        "embed_ln": atlas.embed_norm,
        "ln_final": atlas.ln_final,
    }
    assert {key: paths.get(key) for key in model_wide} == model_wide
    assert paths["unembed"] == atlas.unembed
    assert components.parallel == block.parallel


def test_unshipped_architecture_is_resolved_checked_and_cached(
    afmoe: PreTrainedModel, empty_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    atlas = build_atlas(afmoe)
    assert "AfmoeForCausalLM" not in shipped()
    assert atlas.blocks[0].ln1_post is not None
    (cached,) = (empty_cache / "atlas").iterdir()
    assert cached.name.startswith("AfmoeForCausalLM-")
    monkeypatch.setattr(atlas_cache, "_ask_transformer_lens", lambda *_: pytest.fail("asked again"))
    assert build_atlas(afmoe) == atlas


def test_a_damaged_cache_file_is_written_anew(afmoe: PreTrainedModel, empty_cache: Path) -> None:
    atlas = build_atlas(afmoe)
    (cached,) = (empty_cache / "atlas").iterdir()
    good = cached.read_bytes()
    for damage in (b"", good[: len(good) // 2], b"[]", b'{"paths": {}}', b"\xff\xfe"):
        cached.write_bytes(damage)
        assert build_atlas(afmoe) == atlas
        assert cached.read_bytes() == good


def test_a_cache_folder_that_cannot_be_written_is_no_error(
    afmoe: PreTrainedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_bytes(b"")
    monkeypatch.setenv("INTERP_CACHE", str(tmp_path / "file"))
    assert build_atlas(afmoe).n_layers == 2


@pytest.mark.usefixtures("empty_cache", "without_transformer_lens")
def test_unshipped_architecture_without_transformer_lens_names_what_is_supported(afmoe: PreTrainedModel) -> None:
    with pytest.raises(
        ModelError, match=r"AfmoeForCausalLM is not supported: .*not installed; supported: .*LlamaForCausalLM"
    ):
        build_atlas(afmoe)


@pytest.mark.usefixtures("without_transformer_lens")
def test_shipped_architectures_need_no_transformer_lens() -> None:
    assert build_atlas(build("llama")).n_layers == 3


@pytest.mark.usefixtures("empty_cache")
def test_architecture_unknown_to_transformer_lens() -> None:
    model = unshipped("BioGptConfig", hidden_size=32)
    with pytest.raises(
        ModelError, match=r"BioGptForCausalLM is not supported: TransformerLens \S+ has no adapter for it; supported: "
    ):
        build_atlas(model)


@pytest.mark.usefixtures("empty_cache")
def test_a_model_whose_parts_do_not_add_up_is_refused() -> None:
    with pytest.raises(ModelError, match=r"BertLMHeadModel is not supported: its parts do not add up at block 0 "):
        build_atlas(unshipped("BertConfig", is_decoder=True))


def test_the_check_finds_each_kind_of_mistake() -> None:
    model = build("granite")
    atlas = build_atlas(model)
    check_atlas(model, atlas)
    wrong_block = replace(atlas.blocks[1], mlp_scale=1.0)
    wrong = {
        "the embedding": replace(atlas, embed_scale=1.0),
        "block 1": replace(atlas, blocks=(atlas.blocks[0], wrong_block, atlas.blocks[2])),
        "the unembedding": replace(atlas, logits=replace(atlas.logits, scale=1.0)),
    }
    for part, mistaken in wrong.items():
        with pytest.raises(
            ModelError, match=f"GraniteForCausalLM is not supported: its parts do not add up at {part} "
        ):
            check_atlas(model, mistaken)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_the_check_allows_for_rounding(dtype: torch.dtype) -> None:
    model = build("llama").to(dtype)
    check_atlas(model, build_atlas(model))
