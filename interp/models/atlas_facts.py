"""What an architecture does with its parts, read from a model's config and modules: layouts, windows, rotation, scales.

TransformerLens' adapters say where a component is; these functions say how the model uses it. Where the answer is in the code of a
forward method alone, the names that the compiled method refers to are looked at, so nothing is kept that could go stale.
"""

import inspect

from torch import nn
from transformers import PreTrainedConfig, PreTrainedModel

# Layout of a fused q, k, v map (see interp.models.fused). Falcon and GPTBigCode decide by config.
_QKV_LAYOUT = {
    "BloomForCausalLM": "per_head",
    "CodeGenForCausalLM": "codegen_mp4",
    "GPT2LMHeadModel": "concat",
    "GPTNeoXForCausalLM": "per_head",
    "MptForCausalLM": "concat",
    "Phi3ForCausalLM": "concat",
}


def qkv_layout(architecture: str, config: PreTrainedConfig) -> str | None:
    """How this architecture lays out q, k and v in one map; None where that is not known."""
    if architecture == "FalconForCausalLM":
        if config.new_decoder_architecture:
            return "grouped"
        return "concat" if config.multi_query else "per_head"
    if architecture == "GPTBigCodeForCausalLM":
        return "concat" if config.multi_query else "per_head"
    return _QKV_LAYOUT.get(architecture)


def n_kv_heads(architecture: str, config: PreTrainedConfig) -> int:
    """Key/value heads of a block."""
    if architecture == "FalconForCausalLM":
        several = config.new_decoder_architecture or not config.multi_query
        return config.num_kv_heads if several else 1
    if architecture == "GPTBigCodeForCausalLM":
        return 1 if config.multi_query else config.num_attention_heads
    return getattr(config, "num_key_value_heads", None) or config.num_attention_heads


def is_parallel(architecture: str, config: PreTrainedConfig, by_default: bool) -> bool:
    """Whether attention and MLP both read the state before the block."""
    if architecture in ("GPTNeoXForCausalLM", "StableLmForCausalLM"):
        return config.use_parallel_residual
    if architecture == "FalconForCausalLM":
        return config.new_decoder_architecture or config.parallel_attn
    return by_default


def window(config: PreTrainedConfig, layer: int) -> int | None:
    """The sliding window of a layer in positions, its own included; None where it attends to everything before it."""
    kinds = getattr(config, "attention_layers", None)  # gpt_neo
    if kinds is not None:
        return config.window_size if kinds[layer] == "local" else None
    size = getattr(config, "sliding_window", None)
    kinds = getattr(config, "layer_types", None)
    if kinds is not None:
        return size if kinds[layer] == "sliding_attention" else None
    return size if getattr(config, "use_sliding_window", True) else None


def is_rotary(architecture: str, config: PreTrainedConfig, attention: nn.Module, windowed: bool) -> bool:
    """Whether this attention module rotates q and k by their positions."""
    if "apply_rotary_pos_emb" not in names_used(attention) or getattr(config, "alibi", False):
        return False
    if architecture == "Cohere2ForCausalLM":
        return windowed
    if architecture == "Exaone4ForCausalLM":
        return windowed or config.sliding_window is None
    return bool(getattr(attention, "use_rope", True))


def is_routed(attention: nn.Module) -> bool:
    """Whether the module goes through transformers' AttentionInterface, where a registered function can take its place."""
    return "ALL_ATTENTION_FUNCTIONS" in names_used(attention)


def qk_norm_kind(norm: nn.Module | None, d_head: int) -> str | None:
    """``head`` for a norm over the axis of one head, ``whole`` for one over all heads concatenated, None without a norm."""
    if norm is None:
        return None
    weight = getattr(norm, "weight", None)
    return "whole" if weight is not None and weight.dim() == 1 and weight.numel() > d_head else "head"


def qkv_clip(config: PreTrainedConfig) -> float | None:
    """The bound to which q, k and v are clamped after their maps."""
    return getattr(getattr(config, "attn_config", config), "clip_qkv", None)


def logit_scale(model: PreTrainedModel, config: PreTrainedConfig) -> float:
    """What the output of the unembedding is multiplied by."""
    names = names_used(model)
    if "logits_scaling" in names:  # granite divides
        return 1.0 / config.logits_scaling
    return float(config.logit_scale) if "logit_scale" in names else 1.0


def logit_softcap(model: PreTrainedModel, config: PreTrainedConfig) -> float | None:
    """The bound of the logits: they pass through softcap * tanh(x / softcap)."""
    return getattr(config, "final_logit_softcapping", None) if "final_logit_softcapping" in names_used(model) else None


def has_residual(module: nn.Module | None) -> bool:
    """Whether the module takes the stream as ``residual`` and returns it with its update added."""
    return module is not None and "residual" in inspect.signature(type(module).forward).parameters


def unfit(config: PreTrainedConfig, text_config: PreTrainedConfig) -> str | None:
    """Why a model with this config is no stack of attention and MLP blocks that write to one residual stream; None if it is."""
    if config.is_encoder_decoder:
        return "it has an encoder and a decoder"
    if not isinstance(getattr(text_config, "num_attention_heads", None), int):
        return "its layers have no, or differing numbers of, attention heads"
    if getattr(text_config, "do_layer_norm_before", True) is False:
        return "with do_layer_norm_before=False the norms stand on the residual stream itself"
    if text_config.model_type == "bloom" and text_config.apply_residual_connection_post_layernorm:
        return "with apply_residual_connection_post_layernorm=True the norms stand on the residual stream itself"
    return None


def names_used(module: nn.Module) -> frozenset[str]:
    """The global names and attributes that the module's forward method refers to."""
    return frozenset(inspect.unwrap(type(module).forward).__code__.co_names)
