"""Shows what happens inside a language model and changes it.

The names below are imported when they are first used, so that ``import interp`` is instant and loads no torch.
"""

from importlib import import_module
from sys import modules
from types import ModuleType
from typing import TYPE_CHECKING, Any

from interp._version import __version__

if TYPE_CHECKING:
    from interp.analyzers.ablation import ablation
    from interp.analyzers.activation_patching import activation_patching
    from interp.analyzers.architecture import architecture
    from interp.analyzers.attention_patterns import attention_patterns
    from interp.analyzers.attention_summary import attention_summary
    from interp.analyzers.attribution_patching import attribution_patching
    from interp.analyzers.causal_trace import causal_trace
    from interp.analyzers.compare import compare
    from interp.analyzers.decoding_choices import decoding_choices
    from interp.analyzers.detect_head import detect_head
    from interp.analyzers.direct_logit_attribution import direct_logit_attribution
    from interp.analyzers.embedding_geometry import embedding_geometry
    from interp.analyzers.expert_routing import expert_routing
    from interp.analyzers.head_circuits import head_circuits
    from interp.analyzers.head_composition import head_composition
    from interp.analyzers.head_profiles import head_profiles
    from interp.analyzers.induction_heads import induction_heads
    from interp.analyzers.logit_lens import logit_lens
    from interp.analyzers.next_token_logits import next_token_logits
    from interp.analyzers.path_patching import path_patching
    from interp.analyzers.position_encoding import position_encoding
    from interp.analyzers.residual_story import residual_story
    from interp.analyzers.token_losses import token_losses
    from interp.analyzers.tuned_lens import TunedLens, fit_tuned_lens
    from interp.editing.cases import EditCase, read_cases
    from interp.editing.edit import Edit
    from interp.editing.edit_facts import edit_facts
    from interp.editing.edit_file import load_edit
    from interp.editing.edit_sequence import edit_sequence
    from interp.editing.effect import edit_effect
    from interp.editing.evaluation import evaluate_edit
    from interp.editing.second_moments import SecondMoment, second_moments
    from interp.errors import InterpError, MemoryLimitError, ModelError, NumericsError, UsageError, VerificationError
    from interp.interventions import Apply, MeanAblate, Patch, Scale, Steer, ZeroAblate
    from interp.maths.sampling import Sampling
    from interp.prompts import Conversation, Fact
    from interp.report.page import report
    from interp.results import load_result
    from interp.runner.model import Model, load
    from interp.runner.plan import Capture
    from interp.scale.collect import collect
    from interp.scale.store import ActivationStore, open_store
    from interp.scale.sweep import sweep

_HOME = {
    "load": "interp.runner.model",
    "Model": "interp.runner.model",
    "Capture": "interp.runner.plan",
    "Patch": "interp.interventions",
    "ZeroAblate": "interp.interventions",
    "MeanAblate": "interp.interventions",
    "Steer": "interp.interventions",
    "Scale": "interp.interventions",
    "Apply": "interp.interventions",
    "Conversation": "interp.prompts",
    "Fact": "interp.prompts",
    "residual_story": "interp.analyzers.residual_story",
    "embedding_geometry": "interp.analyzers.embedding_geometry",
    "position_encoding": "interp.analyzers.position_encoding",
    "attention_summary": "interp.analyzers.attention_summary",
    "expert_routing": "interp.analyzers.expert_routing",
    "architecture": "interp.analyzers.architecture",
    "logit_lens": "interp.analyzers.logit_lens",
    "attention_patterns": "interp.analyzers.attention_patterns",
    "head_profiles": "interp.analyzers.head_profiles",
    "detect_head": "interp.analyzers.detect_head",
    "head_circuits": "interp.analyzers.head_circuits",
    "head_composition": "interp.analyzers.head_composition",
    "induction_heads": "interp.analyzers.induction_heads",
    "causal_trace": "interp.analyzers.causal_trace",
    "direct_logit_attribution": "interp.analyzers.direct_logit_attribution",
    "next_token_logits": "interp.analyzers.next_token_logits",
    "decoding_choices": "interp.analyzers.decoding_choices",
    "token_losses": "interp.analyzers.token_losses",
    "Sampling": "interp.maths.sampling",
    "ablation": "interp.analyzers.ablation",
    "activation_patching": "interp.analyzers.activation_patching",
    "attribution_patching": "interp.analyzers.attribution_patching",
    "path_patching": "interp.analyzers.path_patching",
    "compare": "interp.analyzers.compare",
    "fit_tuned_lens": "interp.analyzers.tuned_lens",
    "TunedLens": "interp.analyzers.tuned_lens",
    "Edit": "interp.editing.edit",
    "load_edit": "interp.editing.edit_file",
    "edit_facts": "interp.editing.edit_facts",
    "edit_effect": "interp.editing.effect",
    "collect": "interp.scale.collect",
    "open_store": "interp.scale.store",
    "ActivationStore": "interp.scale.store",
    "sweep": "interp.scale.sweep",
    "report": "interp.report.page",
    "load_result": "interp.results",
    "EditCase": "interp.editing.cases",
    "read_cases": "interp.editing.cases",
    "evaluate_edit": "interp.editing.evaluation",
    "edit_sequence": "interp.editing.edit_sequence",
    "second_moments": "interp.editing.second_moments",
    "SecondMoment": "interp.editing.second_moments",
    "InterpError": "interp.errors",
    "UsageError": "interp.errors",
    "ModelError": "interp.errors",
    "NumericsError": "interp.errors",
    "MemoryLimitError": "interp.errors",
    "VerificationError": "interp.errors",
}
"""Where each public name lives."""

__all__ = [
    "__version__",
    "load",
    "Model",
    "Capture",
    "Patch",
    "ZeroAblate",
    "MeanAblate",
    "Steer",
    "Scale",
    "Apply",
    "Conversation",
    "Fact",
    "residual_story",
    "embedding_geometry",
    "position_encoding",
    "attention_summary",
    "expert_routing",
    "architecture",
    "logit_lens",
    "attention_patterns",
    "head_profiles",
    "detect_head",
    "head_circuits",
    "head_composition",
    "induction_heads",
    "causal_trace",
    "direct_logit_attribution",
    "next_token_logits",
    "decoding_choices",
    "token_losses",
    "Sampling",
    "ablation",
    "activation_patching",
    "attribution_patching",
    "path_patching",
    "compare",
    "fit_tuned_lens",
    "TunedLens",
    "Edit",
    "load_edit",
    "edit_facts",
    "edit_effect",
    "EditCase",
    "read_cases",
    "evaluate_edit",
    "edit_sequence",
    "second_moments",
    "SecondMoment",
    "collect",
    "open_store",
    "ActivationStore",
    "sweep",
    "report",
    "load_result",
    "InterpError",
    "UsageError",
    "ModelError",
    "NumericsError",
    "MemoryLimitError",
    "VerificationError",
]


class _Package(ModuleType):
    """The package itself. A public name that is also a subpackage's, such as ``report``, always means the function."""

    def __setattr__(self, name: str, value: object) -> None:
        if not (name in _HOME and isinstance(value, ModuleType)):
            super().__setattr__(name, value)


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'interp' has no attribute {name!r}; its names are: {', '.join(__all__)}")
    if name == "load_result":  # it knows a kind of result once the module that defines it is imported
        for module in sorted(set(_HOME.values())):
            import_module(module)
    value = getattr(import_module(_HOME[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


modules[__name__].__class__ = _Package
