"""Tiny models with random weights, one for each architecture family, made from a config without any download.

``build("llama")`` is the model, the same one for the same seed. All families load with transformers 5.23. The vocabulary is
``VOCABULARY`` ids, the context 64 positions; sliding windows are 8 positions, so that a prompt of 16 tokens reaches past them.
"""

from collections.abc import Callable
from typing import Any

import torch
import transformers
from torch import Tensor
from transformers import PretrainedConfig, PreTrainedModel

VOCABULARY = 97
WINDOW = 8

_SPECIAL = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
_GPT_SPECIAL = {"bos_token_id": 1, "eos_token_id": 2}
_HEADS = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "max_position_embeddings": 64,
    **_SPECIAL,
}
_GROUPED = {**_HEADS, "num_key_value_heads": 2}
_GROUPED_WIDE = {**_GROUPED, "head_dim": 16}  # n_heads * d_head is not d_model
_GPT = {"vocab_size": VOCABULARY, "n_embd": 32, "n_layer": 3, "n_head": 4, "n_positions": 64, **_GPT_SPECIAL}
_EXPERTS = {"num_experts": 4, "num_experts_per_tok": 2}
_OPT = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "ffn_dim": 64,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "max_position_embeddings": 64,
    **_SPECIAL,
}
_FALCON = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "alibi": False,
    **_SPECIAL,
}
_GRANITE = {
    **_GROUPED,
    "residual_multiplier": 0.5,
    "embedding_multiplier": 3.0,
    "logits_scaling": 2.0,
    "attention_multiplier": 0.4,
}
_MOE_SHARED = {**_EXPERTS, "moe_intermediate_size": 16, "shared_expert_intermediate_size": 24, "decoder_sparse_step": 1}
_MPT = {"vocab_size": VOCABULARY, "d_model": 32, "n_heads": 4, "n_layers": 3, "max_seq_len": 64, "expansion_ratio": 2}

# family -> (name of the transformers config class, its arguments)
_CONFIGS: dict[str, tuple[str, dict[str, Any]]] = {
    "gpt2": ("GPT2Config", _GPT),
    "gpt_neox": ("GPTNeoXConfig", _HEADS),
    "gpt_neox_seq": ("GPTNeoXConfig", {**_HEADS, "use_parallel_residual": False}),
    "gptj": ("GPTJConfig", {**_GPT, "rotary_dim": 4}),
    "gpt_neo": (
        "GPTNeoConfig",
        {
            "vocab_size": VOCABULARY,
            "hidden_size": 32,
            "num_layers": 2,
            "num_heads": 4,
            "max_position_embeddings": 64,
            "attention_types": [[["global", "local"], 1]],
            "window_size": WINDOW,
            **_GPT_SPECIAL,
        },
    ),
    "llama": ("LlamaConfig", _GROUPED),
    "mistral": ("MistralConfig", {**_GROUPED, "sliding_window": WINDOW}),
    "qwen2": ("Qwen2Config", _GROUPED),
    "qwen3": ("Qwen3Config", _GROUPED_WIDE),
    "gemma": ("GemmaConfig", _GROUPED_WIDE),
    "gemma2": ("Gemma2Config", {**_GROUPED_WIDE, "sliding_window": WINDOW, "query_pre_attn_scalar": 16}),
    "gemma3_text": ("Gemma3TextConfig", {**_GROUPED_WIDE, "sliding_window": WINDOW, "query_pre_attn_scalar": 16}),
    "phi": ("PhiConfig", _HEADS),
    "phi3": ("Phi3Config", _GROUPED),
    "opt": ("OPTConfig", {**_OPT, "word_embed_proj_dim": 32}),
    "bloom": ("BloomConfig", {"vocab_size": VOCABULARY, "hidden_size": 32, "n_layer": 3, "n_head": 4, **_SPECIAL}),
    "falcon": (
        "FalconConfig",
        {**_FALCON, "multi_query": True, "new_decoder_architecture": False, "parallel_attn": True},
    ),
    "mpt": ("MptConfig", _MPT),
    "mixtral": (
        "MixtralConfig",
        {**_GROUPED, "num_local_experts": 4, "num_experts_per_tok": 2, "sliding_window": None},
    ),
    "qwen2_moe": ("Qwen2MoeConfig", {**_GROUPED, **_MOE_SHARED}),
    "qwen3_moe": (
        "Qwen3MoeConfig",
        {**_GROUPED, **_EXPERTS, "head_dim": 8, "moe_intermediate_size": 16, "decoder_sparse_step": 1},
    ),
    "olmo": ("OlmoConfig", _GROUPED),
    "olmo2": ("Olmo2Config", _GROUPED),
    "olmo3": ("Olmo3Config", {**_GROUPED, "sliding_window": WINDOW}),
    "olmoe": ("OlmoeConfig", {**_GROUPED, **_EXPERTS}),
    "gpt_oss": (
        "GptOssConfig",
        {
            **_GROUPED,
            "head_dim": 8,
            "num_local_experts": 4,
            "num_experts_per_tok": 2,
            "sliding_window": WINDOW,
            "rope_parameters": {
                "rope_type": "yarn",
                "rope_theta": 150000.0,
                "factor": 2.0,
                "original_max_position_embeddings": 32,
            },
        },
    ),
    "stablelm": ("StableLmConfig", _GROUPED),
    "starcoder2": ("Starcoder2Config", {**_GROUPED, "sliding_window": WINDOW}),
    "granite": ("GraniteConfig", _GRANITE),
    "cohere": ("CohereConfig", _GROUPED),
    "smollm3": ("SmolLM3Config", _GROUPED),
    "glm4": ("Glm4Config", _GROUPED_WIDE),
    "gpt_bigcode": ("GPTBigCodeConfig", _GPT),
    "codegen": ("CodeGenConfig", {**_GPT, "n_ctx": 64, "rotary_dim": 4}),
}

# The same architectures in their other layouts: what the config decides and the class does not.
_VARIANTS: dict[str, tuple[str, dict[str, Any]]] = {
    "falcon_new": (
        "FalconConfig",
        {**_FALCON, "new_decoder_architecture": True, "num_kv_heads": 2, "multi_query": False, "parallel_attn": True},
    ),
    "falcon_rw": (
        "FalconConfig",
        {**_FALCON, "new_decoder_architecture": False, "multi_query": False, "parallel_attn": False, "alibi": True},
    ),
    "gpt_bigcode_heads": ("GPTBigCodeConfig", {**_GPT, "multi_query": False}),
    "stablelm_parallel": ("StableLmConfig", {**_GROUPED, "use_parallel_residual": True, "qk_layernorm": True}),
    "cohere_qk_norm": ("CohereConfig", {**_GROUPED, "use_qk_norm": True}),
    "opt_post_norm": ("OPTConfig", {**_OPT, "do_layer_norm_before": False, "word_embed_proj_dim": 16}),
    "phi_qk_norm": ("PhiConfig", {**_HEADS, "qk_layernorm": True}),
    "qwen2_window": (
        "Qwen2Config",
        {**_GROUPED, "use_sliding_window": True, "sliding_window": WINDOW, "max_window_layers": 1},
    ),
}

# Further architectures of the shipped component table.
_EXTRA: dict[str, tuple[str, dict[str, Any]]] = {
    "apertus": ("ApertusConfig", {**_GROUPED, "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0}}),
    "arcee": ("ArceeConfig", _GROUPED),
    "cohere2": ("Cohere2Config", {**_GROUPED, "sliding_window": WINDOW}),
    "ernie4_5": ("Ernie4_5Config", _GROUPED_WIDE),
    "exaone4": ("Exaone4Config", {**_GROUPED_WIDE, "sliding_window": WINDOW, "sliding_window_pattern": 2}),
    "gemma3": (
        "Gemma3Config",
        {
            "text_config": {**_GROUPED_WIDE, "sliding_window": WINDOW, "query_pre_attn_scalar": 16},
            "vision_config": {
                "hidden_size": 32,
                "intermediate_size": 32,
                "num_hidden_layers": 1,
                "num_attention_heads": 2,
            },
        },
    ),
    "glm": ("GlmConfig", _GROUPED_WIDE),
    "granitemoe": (
        "GraniteMoeConfig",
        {**_GRANITE, "num_local_experts": 4, "num_experts_per_tok": 2},
    ),
    "hunyuan_v1_dense": ("HunYuanDenseV1Config", {**_GROUPED, "head_dim": 8}),
    "jais2": ("Jais2Config", {**_GROUPED, "head_dim": 8}),
    "ministral3": ("Ministral3Config", {**_GROUPED_WIDE, "sliding_window": WINDOW}),
    "nemotron": ("NemotronConfig", {**_GROUPED, "head_dim": 8}),
    "seed_oss": ("SeedOssConfig", _GROUPED_WIDE),
    "vaultgemma": ("VaultGemmaConfig", {**_GROUPED_WIDE, "sliding_window": WINDOW, "query_pre_attn_scalar": 16}),
}

FAMILIES: tuple[str, ...] = tuple(_CONFIGS)
VARIANTS: tuple[str, ...] = tuple(_VARIANTS)
EXTRA: tuple[str, ...] = tuple(_EXTRA)


def config(name: str, **settings: Any) -> PretrainedConfig:
    """The config of a family, variant or extra architecture, with ``settings`` in place of its own."""
    class_name, arguments = (_CONFIGS | _VARIANTS | _EXTRA)[name]
    make: Callable[..., PretrainedConfig] = getattr(transformers, class_name)
    return make(**{**arguments, **settings})


def build(name: str, attn: str | None = None, seed: int = 0, **settings: Any) -> PreTrainedModel:
    """The model of a family, variant or extra architecture in evaluation mode.

    Its weights are drawn large enough for comparisons to mean something.
    ``attn`` is the attention implementation, by default what transformers chooses; ``settings`` go into the config. The global
    random state is left as it was.
    """
    arguments = {} if attn is None else {"attn_implementation": attn}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = transformers.AutoModelForCausalLM.from_config(config(name, **settings), **arguments).eval()
        with torch.no_grad():
            for parameter_name, parameter in model.named_parameters():
                if parameter.dim() >= 2:
                    parameter.normal_(0, 0.2)
                elif "bias" in parameter_name:
                    parameter.normal_(0, 0.05)
                else:
                    parameter.add_(torch.randn_like(parameter) * 0.05)
    return model


def prompt_ids(rows: int = 2, positions: int = 16, seed: int = 0) -> Tensor:
    """Random token ids [rows positions], none of them special."""
    return torch.randint(3, VOCABULARY, (rows, positions), generator=torch.Generator().manual_seed(seed))
