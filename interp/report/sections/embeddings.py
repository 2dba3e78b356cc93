"""Embeddings: the vector that starts each token's residual stream."""

from typing import Any

from interp.figures import token_bars
from interp.report.blocks import Axis, Picture, Section, Version


def build(result: Any, prompt: str) -> Section | None:
    """The norm of each token's embedding, from a residual story."""
    labels = result.tokens.labels
    figure = token_bars(result.embed_norm.double().numpy(), labels, unit="norm of the embedding")
    lead = (
        "Each id selects one row of the embedding matrix. That vector is the start of the token's [[residual stream]]; "
        "everything after this adds to it. The bars show its length ([[norm]])."
    )
    picture = Picture(
        versions={"norm": Version(figure=figure, x=Axis(of="token"))},
        caption="Length of each token's embedding, before the first layer.",
        prompt=prompt,
    )
    return Section(name="embeddings", title="Embeddings", label="Embeddings", lead=lead, place=20, blocks=(picture,))
