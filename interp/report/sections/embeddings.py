"""Embeddings: the vector that starts each token's residual stream."""

from typing import Any

from interp.figures import token_bars
from interp.report.blocks import Axis, Picture, Section, Version
from interp.report.sections.numbers import brief


def build(result: Any, prompt: str) -> Section | None:
    """The norm of each token's embedding, from a residual story."""
    labels = result.tokens.labels
    figure = token_bars(result.embed_norm.double().numpy(), labels, unit="norm of what enters the first layer")
    lead = (
        f"Each id selects one row of the [[embedding]] matrix. {_entering(result)} the start of the token's [[residual stream]]; "
        "everything after this adds to it. The bars show the length ([[norm]]) of what enters the first layer."
    )
    picture = Picture(
        versions={"norm": Version(figure=figure, x=Axis(of="token"))},
        caption="Length of each token's vector as it enters the first layer.",
        prompt=prompt,
    )
    return Section(name="embeddings", title="Embeddings", label="Embeddings", lead=lead, place=20, blocks=(picture,))


def _entering(result: Any) -> str:
    """What becomes of a row before the first layer, as far as to the verb of the sentence."""
    steps = []
    if result.embed_scale != 1.0:
        steps.append(f"is multiplied by {brief(result.embed_scale)}")
    if result.embed_position:
        steps.append("gets the vector of its place added ([[position embedding]])")
    if result.embed_normed:
        steps.append("goes through a norm")
    if not steps:
        return "That vector is"
    return f"It {', then '.join(steps)}; what comes out is"
