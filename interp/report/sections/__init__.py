"""The sections of the page, one module each; ``BUILDERS`` says which a kind of result gives.

A builder takes a result and the key of its prompt on the page, reads the result's fields and gives a section, or None where the
result has nothing to show. It needs neither the model nor the analyzer.
"""

from collections.abc import Callable, Mapping
from typing import Any

from interp.report.blocks import Section
from interp.report.sections import attribution, embeddings, generation, lens, logits, story

Builder = Callable[[Any, str], Section | None]

BUILDERS: Mapping[str, tuple[Builder, ...]] = {
    "logit_lens": (lens.build,),
    "direct_logit_attribution": (attribution.build,),
    "generation": (generation.build,),
    "residual_story": (embeddings.build, story.build, logits.build),
}
