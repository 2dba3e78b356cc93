"""The sections of the page, one module each; ``BUILDERS`` says which a kind of result gives.

A builder takes a result and the key of its prompt on the page, reads the result's fields and gives a section, or None where the
result has nothing to show. It needs neither the model nor the analyzer.
"""

from collections.abc import Callable, Mapping

from interp.report.blocks import Section
from interp.report.sections import (
    ablation,
    activation_patching,
    architecture,
    attention,
    attention_summary,
    attribution,
    attribution_patching,
    causal_trace,
    comparison,
    decoding_choices,
    edit,
    edit_effect,
    edit_scores,
    edit_sequence,
    embedding_geometry,
    embeddings,
    expert_routing,
    generation,
    head_circuits,
    head_composition,
    head_profiles,
    induction,
    lens,
    logits,
    next_token_logits,
    path_patching,
    position_encoding,
    story,
    sweep,
    token_losses,
)

Builder = Callable[..., Section | None]
"""Makes a section of a result and the key of its prompt ("" for none); that of a comparison gets the keys of both sides."""

BUILDERS: Mapping[str, tuple[Builder, ...]] = {
    "logit_lens": (lens.build,),
    "ablation": (ablation.build,),
    "activation_patching": (activation_patching.build,),
    "architecture": (architecture.build,),
    "attention_patterns": (attention.build,),
    "attention_summary": (attention_summary.build,),
    "attribution_patching": (attribution_patching.build,),
    "decoding_choices": (decoding_choices.build,),
    "direct_logit_attribution": (attribution.build,),
    "causal_trace": (causal_trace.build,),
    "comparison": (comparison.build,),
    "edit": (edit.facts, edit.value, edit.weights),
    "edit_effect": (edit_effect.changed, edit_effect.value, edit_effect.acts, edit_effect.weights),
    "edit_scores": (edit_scores.build,),
    "edit_sequence": (edit_sequence.build,),
    "head_circuits": (head_circuits.build,),
    "head_profiles": (head_profiles.build,),
    "induction_heads": (induction.build,),
    "head_composition": (head_composition.build,),
    "embedding_geometry": (embedding_geometry.build,),
    "expert_routing": (expert_routing.build,),
    "generation": (generation.build,),
    "next_token_logits": (next_token_logits.build,),
    "path_patching": (path_patching.build,),
    "position_encoding": (position_encoding.build,),
    "sweep": (sweep.build,),
    "residual_story": (embeddings.build, story.build, logits.build),
    "token_losses": (token_losses.build,),
}
