"""Component tables from TransformerLens' architecture adapters; run as a program it regenerates the shipped one.

``python -m interp.models.atlas_from_tl`` writes ``atlas_data.json``. This is the only module that imports TransformerLens. The
adapters are private to it and its import takes seconds, so the rest of the atlas works from the table, and comes here only for an
architecture that the table does not have.
"""

import json
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
import transformers
from torch import nn
from transformer_lens.factories.architecture_adapter_factory import ArchitectureAdapterFactory
from transformer_lens.model_bridge.generalized_components.base import GeneralizedComponent
from transformer_lens.model_bridge.generalized_components.block import ParallelBlockBridge
from transformer_lens.model_bridge.generalized_components.joint_gate_up_mlp import JointGateUpMLPBridge
from transformer_lens.model_bridge.generalized_components.joint_qkv_attention import JointQKVAttentionBridge
from transformer_lens.model_bridge.sources._bridge_builder import build_bridge_config_from_hf
from transformers import PreTrainedModel

from interp.files import write_bytes
from interp.models.components import Components, module_at

# Config classes of the shipped table, each with the settings that change where its parts are.
_CONFIGS: dict[str, tuple[dict[str, Any], ...]] = {
    "ApertusConfig": ({},),
    "ArceeConfig": ({},),
    "BloomConfig": ({},),
    "CodeGenConfig": ({},),
    "Cohere2Config": ({},),
    "CohereConfig": ({}, {"use_qk_norm": True}),
    "Ernie4_5Config": ({},),
    "Exaone4Config": ({},),
    "FalconConfig": (
        {},
        {"new_decoder_architecture": True},
        {"new_decoder_architecture": True, "num_ln_in_parallel_attn": 1},
        {"parallel_attn": False, "multi_query": False, "alibi": True},
    ),
    "GPT2Config": ({},),
    "GPTBigCodeConfig": ({},),
    "GPTJConfig": ({},),
    "GPTNeoConfig": ({},),
    "GPTNeoXConfig": ({}, {"use_parallel_residual": False}),
    "Gemma2Config": ({},),
    "Gemma3Config": ({},),
    "Gemma3TextConfig": ({},),
    "GemmaConfig": ({},),
    "Glm4Config": ({},),
    "GlmConfig": ({},),
    "GptOssConfig": ({},),
    "GraniteConfig": ({},),
    "GraniteMoeConfig": ({},),
    "HunYuanDenseV1Config": ({"head_dim": 128},),
    "Jais2Config": ({},),
    "LlamaConfig": ({},),
    "Ministral3Config": ({},),
    "MistralConfig": ({},),
    "MixtralConfig": ({},),
    "MptConfig": ({},),
    "NemotronConfig": ({"num_key_value_heads": 8},),
    "OPTConfig": ({}, {"_remove_final_layer_norm": True}),
    "Olmo2Config": ({},),
    "Olmo3Config": ({},),
    "OlmoConfig": ({},),
    "OlmoeConfig": ({},),
    "Phi3Config": ({},),
    "PhiConfig": ({}, {"qk_layernorm": True}),
    "Qwen2Config": ({},),
    "Qwen2MoeConfig": ({}, {"mlp_only_layers": [0]}),
    "Qwen3Config": ({},),
    "Qwen3MoeConfig": ({}, {"mlp_only_layers": [0]}),
    "SeedOssConfig": ({},),
    "SmolLM3Config": ({},),
    "StableLmConfig": ({}, {"use_parallel_residual": True, "qk_layernorm": True}),
    "Starcoder2Config": ({},),
    "VaultGemmaConfig": ({},),
}
_DATA = Path(__file__).with_name("atlas_data.json")


def resolve(model: PreTrainedModel) -> Components | None:
    """What TransformerLens says about where this model keeps its parts; None where it has no adapter for the architecture."""
    architecture = type(model).__name__
    ArchitectureAdapterFactory.discover_entry_points()
    if architecture not in ArchitectureAdapterFactory._adapters:
        return None
    dtype = next(model.parameters()).dtype
    adapter = ArchitectureAdapterFactory.select_architecture_adapter(
        build_bridge_config_from_hf(model.config, architecture, "atlas", dtype)
    )
    mapping = adapter.get_component_mapping()
    paths: dict[str, str] = {}
    optional: set[str] = set()
    for name, component in mapping.items():
        _collect(component, name, "", [model], paths, optional)
    return Components(
        paths={name: (path,) for name, path in paths.items()},
        optional=frozenset(optional),
        parallel=isinstance(mapping.get("blocks"), ParallelBlockBridge),
    )


def _collect(
    component: GeneralizedComponent,
    name: str,
    prefix: str,
    parents: list[nn.Module],
    paths: dict[str, str],
    optional: set[str],
) -> None:
    """Adds a component and those inside it. ``parents`` are the modules that contain it: the model, or the part in each layer."""
    if component.name is None:  # no container of its own: OPT's MLP hangs on the block
        path, modules = prefix.rstrip("."), parents
    else:
        path = prefix + component.name
        modules = [module for parent in parents if (module := module_at(parent, component.name)) is not None]
        paths[name] = path
        if component.optional or 0 < len(modules) < len(parents):
            optional.add(name)
    if component.is_list_item:
        modules, path = [item for module in modules for item in module.children()], ""
    if isinstance(component, JointGateUpMLPBridge):
        paths[f"{name}.gate_up"] = f"{path}.{component.fused_attr}"
    for key, part in component.submodules.items():
        if key in _parts_of_fused(component):
            continue
        _collect(part, f"{name}.{key}", f"{path}." if path else "", modules, paths, optional)


def _parts_of_fused(component: GeneralizedComponent) -> tuple[str, ...]:
    """Names that TransformerLens gives to pieces of one fused map: no such modules are in the model."""
    if isinstance(component, JointQKVAttentionBridge):
        return ("q", "k", "v")
    return ("gate", "in") if isinstance(component, JointGateUpMLPBridge) else ()


def _merged(variants: list[Components]) -> Components:
    """One table for an architecture whose configs keep parts in different places."""
    paths: dict[str, tuple[str, ...]] = {}
    optional: set[str] = set()
    for variant in variants:
        optional |= variant.optional
        for name, candidates in variant.paths.items():
            paths[name] = tuple(dict.fromkeys(paths.get(name, ()) + candidates))
    for variant in variants:
        optional |= paths.keys() - variant.paths.keys()
    return Components(paths=paths, optional=frozenset(optional), parallel=variants[0].parallel)


def generate() -> dict[str, Any]:
    """The shipped table as TransformerLens states it now: models on the meta device, so no weights are made."""
    architectures: dict[str, dict[str, Any]] = {}
    for class_name, variants in _CONFIGS.items():
        answers: list[Components] = []
        architecture = ""
        for settings in variants:
            config = getattr(transformers, class_name)(**settings)
            with torch.device("meta"):
                model = transformers.AutoModelForCausalLM.from_config(config)
            architecture = type(model).__name__
            components = resolve(model)
            if components is None:
                raise RuntimeError(f"TransformerLens has no adapter for {architecture}")
            answers.append(components)
        architectures[architecture] = _merged(answers).to_json()
    return {
        "transformer_lens": version("transformer-lens"),
        "transformers": version("transformers"),
        "architectures": dict(sorted(architectures.items())),
    }


if __name__ == "__main__":
    write_bytes(_DATA, (json.dumps(generate(), indent=1) + "\n").encode())
