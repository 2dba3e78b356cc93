"""Building the atlas of a model: where each component lives, and how the model adds its parts up.

``build_atlas(model)`` reads the paths from a table generated from TransformerLens' architecture adapters (``atlas_cache``) and
everything that a config decides (sizes, windows, scales, parallel blocks) from the model itself. Every path that an atlas holds
exists in the model; a required one that does not is an error. An architecture that is not in the shipped table is run once on a few
tokens, and refused if its parts do not add up. The model is only looked at, never changed. The arithmetic stands in ``atlas_parts``.
"""

from torch import nn
from transformers import PreTrainedConfig, PreTrainedModel
from transformers.pytorch_utils import Conv1D

from interp.errors import ModelError
from interp.models import atlas_facts as facts
from interp.models.atlas_cache import components_of, shipped, unsupported
from interp.models.atlas_check import check_atlas
from interp.models.atlas_finder import Finder
from interp.models.atlas_parts import Atlas, BlockMap, LogitTransform
from interp.models.components import module_at
from interp.models.offload import execution_device

__all__ = ["Atlas", "BlockMap", "LogitTransform", "build_atlas", "module_at"]


def build_atlas(model: PreTrainedModel) -> Atlas:
    """The atlas of a Hugging Face causal language model, on any device, the meta device included.

    Raises ModelError for an architecture that is not supported, for one whose modules are not where the table says, and for one
    where the updates of the blocks do not add up to the residual stream (OPT with its norms after the addition).
    """
    atlas = _survey(model)
    if atlas.architecture not in shipped() and execution_device(model).type != "meta":
        check_atlas(model, atlas)
    return atlas


def _survey(model: PreTrainedModel) -> Atlas:
    architecture = type(model).__name__
    config = model.config.get_text_config(decoder=True)
    reason = facts.unfit(model.config, config)
    if reason is not None:
        raise unsupported(architecture, reason)
    finder = Finder(model, components_of(model))
    layers = module_at(model, finder.required("blocks"))
    assert layers is not None
    n_heads = config.num_attention_heads
    n_kv_heads = facts.n_kv_heads(architecture, config)
    first_attention = finder.module(f"{finder.required('blocks')}.0", "blocks.attn")
    d_head = _head_width(first_attention, config)
    blocks = tuple(
        _block_map(finder, architecture, config, layer, d_head) for layer in range(len(list(layers.children())))
    )
    embed, unembed = finder.required("embed"), finder.required("unembed")
    weight = _weight(model, embed)
    if weight.shape[1] != config.hidden_size or finder.optional("project_out"):
        raise unsupported(
            architecture, f"its embeddings ({weight.shape[1]}) are narrower than its stream ({config.hidden_size})"
        )
    atlas = Atlas(
        architecture=architecture,
        n_layers=len(blocks),
        n_heads=n_heads,
        n_kv_heads=n_kv_heads,
        d_model=config.hidden_size,
        d_head=d_head,
        d_mlp=next((_widths(model, block.down)[0] for block in blocks if block.down is not None), None),
        d_vocab=_weight(model, unembed).shape[0],
        n_ctx=_context(config),
        tied_embeddings=_are_tied(model, embed, unembed),
        embed=embed,
        pos_embed=finder.optional("pos_embed"),
        embed_norm=finder.optional("embed_ln"),
        embed_scale=float(getattr(model.base_model, "embedding_multiplier", 1.0)),
        ln_final=finder.optional("ln_final"),
        unembed=unembed,
        blocks=blocks,
        logits=LogitTransform(scale=facts.logit_scale(model, config), softcap=facts.logit_softcap(model, config)),
        routed_attention=facts.is_routed(first_attention),
    )
    for block in blocks:
        if _widths(model, block.o)[0] != n_heads * d_head:
            raise unsupported(architecture, f"{block.o} does not read {n_heads} heads of width {d_head}")
    return atlas


def _block_map(finder: Finder, architecture: str, config: PreTrainedConfig, layer: int, d_head: int) -> BlockMap:
    block = f"{finder.required('blocks')}.{layer}"
    attn = finder.required("blocks.attn", block)
    attention = finder.module(block, "blocks.attn")
    mlp = finder.optional("blocks.mlp", block)
    mlp_module = None if mlp is None else finder.module(block, "blocks.mlp")
    qkv = finder.optional("blocks.attn.qkv", block)
    q_norm = finder.optional("blocks.attn.q_norm", block) or finder.child(attn, "q_norm", "q_layernorm")
    window = facts.window(config, layer)
    parallel = facts.is_parallel(architecture, config, finder.components.parallel)
    residual_scale = float(getattr(module_at(finder.model, block), "residual_multiplier", 1.0))
    o = finder.required("blocks.attn.o", block)
    return BlockMap(
        block=block,
        attn=attn,
        o=o,
        ln1=finder.optional("blocks.ln1", block),
        ln1_post=finder.optional("blocks.ln1_post", block),
        ln2=finder.optional("blocks.ln2", block),
        ln2_post=finder.optional("blocks.ln2_post", block),
        q=finder.optional("blocks.attn.q", block),
        k=finder.optional("blocks.attn.k", block),
        v=finder.optional("blocks.attn.v", block),
        qkv=qkv,
        qkv_split=None if qkv is None else facts.qkv_layout(architecture, config),
        qkv_clip=facts.qkv_clip(config),
        q_norm=q_norm,
        k_norm=finder.optional("blocks.attn.k_norm", block) or finder.child(attn, "k_norm", "k_layernorm"),
        qk_norm=facts.qk_norm_kind(module_at(finder.model, q_norm) if q_norm else None, d_head),
        mlp=mlp,
        **_mlp_maps(finder, block, mlp),
        conv1d=isinstance(module_at(finder.model, o), Conv1D),
        parallel=parallel,
        attn_has_residual=facts.has_residual(attention),
        mlp_has_residual=facts.has_residual(mlp_module),
        mlp_overwritten=parallel and architecture == "FalconForCausalLM",
        attn_scale=residual_scale,
        mlp_scale=residual_scale,
        window=window,
        rotary=facts.is_rotary(architecture, config, attention, window is not None),
    )


def _mlp_maps(finder: Finder, block: str, mlp: str | None) -> dict[str, str | None]:
    """The maps inside an MLP or a layer of experts. What TransformerLens calls ``mlp.gate`` is the router where there are experts."""
    gate = finder.optional("blocks.mlp.gate", block)
    experts = finder.child(mlp, "experts")
    if experts is not None:
        router = finder.optional("blocks.mlp.router", block) or gate or finder.child(mlp, "router", "gate")
        return {
            "router": router,
            "experts": experts,
            "shared_expert": finder.child(mlp, "shared_expert", "shared_experts"),
        }
    gate = gate or finder.optional("blocks.mlp.dense_gate", block)
    first = finder.optional("blocks.mlp.in", block) or finder.optional("blocks.mlp.dense_in", block)
    gate_up = finder.optional("blocks.mlp.gate_up", block)
    return {
        "gate": gate,
        "up": first if gate is not None else None,
        "mlp_in": None if gate is not None else first,
        "gate_up": gate_up,
        "gate_up_split": None if gate_up is None else "gate_first",
        "down": finder.optional("blocks.mlp.out", block) or finder.optional("blocks.mlp.dense_out", block),
    }


def _weight(model: nn.Module, path: str) -> nn.Parameter:
    weight = getattr(module_at(model, path), "weight", None)
    if not isinstance(weight, nn.Parameter):
        raise ModelError(f"{path} of {type(model).__name__} has no weight")
    return weight


def _are_tied(model: PreTrainedModel, embed: str, unembed: str) -> bool:
    """Whether both are one weight; by name where they are offloaded, since then each use makes new objects."""
    first, second = _weight(model, embed), _weight(model, unembed)
    tied = getattr(model, "all_tied_weights_keys", {})
    by_name = tied.get(f"{unembed}.weight") == f"{embed}.weight" or tied.get(f"{embed}.weight") == f"{unembed}.weight"
    return first is second or (first.is_meta and second.is_meta and by_name)


def _widths(model: nn.Module, path: str | None) -> tuple[int, int]:
    """Width in and out of a linear map, by its type: Conv1D keeps its weight transposed."""
    assert path is not None
    rows, columns = _weight(model, path).shape
    return (rows, columns) if isinstance(module_at(model, path), Conv1D) else (columns, rows)


def _head_width(attention: nn.Module, config: PreTrainedConfig) -> int:
    for holder in (attention, config):
        if isinstance(found := getattr(holder, "head_dim", None), int):
            return found
    return config.hidden_size // config.num_attention_heads


def _context(config: PreTrainedConfig) -> int | None:
    for name in ("max_position_embeddings", "max_seq_len"):
        if isinstance(length := getattr(config, name, None), int):
            return length
    return None
