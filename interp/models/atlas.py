"""The atlas: where each component of a Hugging Face model lives, and how the model adds its parts up.

``build_atlas(model)`` reads the paths from a table generated from TransformerLens' architecture adapters (``atlas_cache``) and
everything that a config decides (sizes, windows, scales, parallel blocks) from the model itself. Every path that an atlas holds
exists in the model; a required one that does not is an error. The model is only looked at, never changed.

With the atlas, one block computes, in the notation of Elhage et al. 2021 (A Mathematical Framework for Transformer Circuits)::

    resid_mid  = resid_pre + attn_scale * output(attn_out)          # output(path): what the module at that path returns
    resid_post = resid_mid + mlp_scale * output(mlp_out)

where the MLP of a ``parallel`` block reads ``resid_pre`` and ``resid_mid`` is no state of the model. Before the first block
``resid_pre = embed_norm(embed_scale * output(embed) + output(pos_embed))`` and after the last
``logits = softcap(scale * unembed(ln_final(resid_post)))``. The parts that a model does not have drop out.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from transformers import PreTrainedConfig, PreTrainedModel
from transformers.pytorch_utils import Conv1D

from interp.errors import ModelError
from interp.models import atlas_facts as facts
from interp.models.atlas_cache import components_of, unsupported
from interp.models.atlas_finder import Finder
from interp.models.components import module_at


@dataclass(frozen=True, kw_only=True)
class LogitTransform:
    """What happens to the logits after the unembedding: ``softcap * tanh(scale * x / softcap)``, or ``scale * x`` without a cap."""

    scale: float = 1.0
    softcap: float | None = None

    def apply(self, logits: Tensor) -> Tensor:
        """The model's logits, from the output of the unembedding matrix, of any shape."""
        scaled = logits if self.scale == 1.0 else logits * self.scale
        return scaled if self.softcap is None else torch.tanh(scaled / self.softcap) * self.softcap


@dataclass(frozen=True, kw_only=True)
class BlockMap:
    """One transformer block. Module paths are full dotted paths in the model; None where the block has no such part.

    Modules inside an MLP may work on flattened tokens ([batch * pos, width], as OPT and all routers and experts do).
    """

    block: str
    attn: str
    o: str  # the attention's output projection; its input is z, heads concatenated
    ln1: str | None = None
    ln1_post: str | None = (
        None  # norm on the attention's update, before it is added (gemma2, gemma3, glm4, olmo2, olmo3)
    )
    ln2: str | None = None  # None too where the MLP reads ln1's output (gptj, phi, cohere, codegen, falcon-7b)
    ln2_post: str | None = None
    q: str | None = None
    k: str | None = None
    v: str | None = None
    qkv: str | None = None  # one map for all three; see ``qkv_split``
    qkv_split: str | None = (
        None  # "concat", "per_head", "grouped" or "codegen_mp4": the layouts of ``interp.models.fused``
    )
    qkv_clip: float | None = None  # q, k and v are clamped to +-this after the map (some olmo and mpt checkpoints)
    q_norm: str | None = None
    k_norm: str | None = None
    qk_norm: str | None = (
        None  # "head": the norms see the last axis d_head; "whole": all heads concatenated (olmo2, olmo3, olmoe)
    )
    mlp: str | None = None  # None where its maps hang on the block itself (opt)
    gate: str | None = None  # gated MLPs: down(act(gate(x)) * up(x))
    up: str | None = None
    gate_up: str | None = None  # gate and up in one map (phi3, glm4)
    gate_up_split: str | None = None  # "gate_first": gate | up along the last axis
    mlp_in: str | None = None  # plain MLPs: down(act(mlp_in(x)))
    down: str | None = None  # None in blocks of experts
    router: str | None = None  # returns (logits [batch * pos, expert], weights, chosen experts), or the logits alone
    experts: str | None = None  # all experts in one module
    shared_expert: str | None = None  # an MLP beside the experts that every token passes
    conv1d: bool = False  # the maps are transformers' Conv1D: weight [in, out], not [out, in]
    parallel: bool = False  # attention and MLP both read resid_pre
    attn_has_residual: bool = False  # the output of ``attn`` is resid_mid, not the update (bloom)
    mlp_has_residual: bool = False  # the output of ``mlp`` is resid_post, not the update (bloom, mpt)
    mlp_overwritten: bool = (
        False  # the model adds to the MLP's output in place right after: copy it in the hook (parallel falcon)
    )
    attn_scale: float = 1.0  # multiplies the update before it is added (granite)
    mlp_scale: float = 1.0
    window: int | None = None  # a position sees itself and the window - 1 before it; None sees all before
    rotary: bool = False  # positions enter by rotating q and k in this block

    @property
    def attn_out(self) -> str:
        """The module whose output, times ``attn_scale``, attention adds to the stream."""
        return self.ln1_post or (self.o if self.attn_has_residual else self.attn)

    @property
    def mlp_out(self) -> str:
        """The module whose output, times ``mlp_scale``, the MLP adds to the stream."""
        path = self.ln2_post or (self.down if self.mlp_has_residual or self.mlp is None else self.mlp)
        assert path is not None, "an MLP without a container, or one that adds the residual, has an output map"
        return path


@dataclass(frozen=True, kw_only=True)
class Atlas:
    """Where the components of one model are. Sizes are counts; paths are full dotted module paths."""

    architecture: str  # the class name of the Hugging Face model
    n_layers: int
    n_heads: int
    n_kv_heads: int
    d_model: int
    d_head: int
    d_mlp: int | None  # width of the dense MLPs; None where all blocks have experts
    d_vocab: int
    n_ctx: int | None  # longest context by the config; None where the architecture sets none (bloom)
    tied_embeddings: bool  # embed and unembed share one weight
    embed: str
    pos_embed: str | None  # learned positions, added to the embedding
    embed_norm: str | None  # norm on the embedding (bloom)
    embed_scale: float  # multiplies the output of ``embed`` (granite; gemma scales inside the module)
    ln_final: str | None
    unembed: str
    blocks: tuple[BlockMap, ...]
    logits: LogitTransform
    routed_attention: (
        bool  # attention goes through transformers' AttentionInterface, so a registered function can see it
    )


def build_atlas(model: PreTrainedModel) -> Atlas:
    """The atlas of a Hugging Face causal language model, on any device, the meta device included.

    Raises ModelError for an architecture that is not supported, for one whose modules are not where the table says, and for a config
    under which the updates of the blocks do not add up to the residual stream (OPT with its norms after the addition).
    """
    architecture = type(model).__name__
    config = model.config.get_text_config(decoder=True)
    reason = facts.norm_on_stream(config)
    if reason is not None:
        raise unsupported(architecture, f"with {reason} the norms stand on the residual stream itself")
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
        tied_embeddings=weight is _weight(model, unembed),
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


def _widths(model: nn.Module, path: str | None) -> tuple[int, int]:
    """Width in and out of a linear map, by its type: Conv1D keeps its weight transposed."""
    assert path is not None
    rows, columns = _weight(model, path).shape
    return (rows, columns) if isinstance(module_at(model, path), Conv1D) else (columns, rows)


def _head_width(attention: nn.Module, config: PreTrainedConfig) -> int:
    for found in (getattr(attention, "head_dim", None), getattr(config, "head_dim", None)):
        if isinstance(found, int):
            return found
    return config.hidden_size // config.num_attention_heads


def _context(config: PreTrainedConfig) -> int | None:
    for name in ("max_position_embeddings", "max_seq_len"):
        if isinstance(length := getattr(config, name, None), int):
            return length
    return None
