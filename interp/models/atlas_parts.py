"""The atlas as data: where each component of a model lives and how its parts add up.

One block computes, in the notation of Elhage et al. 2021 (A Mathematical Framework for Transformer Circuits)::

    resid_mid  = resid_pre + attn_scale * output(attn_out)          # output(path): what the module at that path returns
    resid_post = resid_mid + mlp_scale * output(mlp_out)

where the MLP of a ``parallel`` block reads ``resid_pre`` and ``resid_mid`` is no state of the model. Before the first block
``resid_pre = embed_norm(embed_scale * output(embed) + output(pos_embed))`` and after the last
``logits = transform(output(unembed))`` with ``unembed`` on ``ln_final(resid_post)``. The parts that a model does not have drop out.
"""

from dataclasses import dataclass

import torch
from torch import Tensor


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
