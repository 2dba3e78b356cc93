"""Which layers to edit: those that a caller names, those measured before, or the best of a sweep.

Where a causal trace peaks does not tell where an edit works best (Hase et al. 2023), so layers are chosen by how edits there turn out.
"""

from collections.abc import Sequence
from typing import Literal

from interp.editing.layer_sweep import best_layer
from interp.editing.rewrite import Rewrite
from interp.editing.settings import EditSettings
from interp.models.progress import Step as Progress
from interp.runner.model import Model
from interp.sites import read_layer

SPREAD = 3
"""Layers that MEMIT spreads over where none were measured: the best one layer and those before it."""

Measured = tuple[int, tuple[int, ...]]
"""The layer for one-layer methods, and those for methods that spread."""

BY_WEIGHTS: dict[str, Measured] = {
    "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53": (5, (3, 4, 5)),  # smollm2-135m
}
"""By the SHA-256 of the weights; measured by experiments/rome."""

BY_SHAPE: dict[tuple[str, int, int], Measured] = {
    ("GPT2LMHeadModel", 48, 1600): (17, (13, 14, 15, 16, 17)),
    ("GPTJForCausalLM", 28, 4096): (5, (3, 4, 5, 6, 7, 8)),
}
"""By architecture, layers and width: the published settings of ROME and MEMIT."""


def choose_layers(
    model: Model,
    rewrites: Sequence[Rewrite],
    method: str,
    layers: int | Sequence[int] | Literal["auto"],
    settings: EditSettings,
    *,
    seed: int,
    progress: Progress,
) -> tuple[tuple[int, ...], str]:
    """The layers in ascending order, and "given", "table" or "sweep"."""
    n_layers = model.atlas.n_layers
    if not isinstance(layers, str):
        given = [layers] if isinstance(layers, int) else list(layers)
        return tuple(sorted({read_layer(layer, n_layers) for layer in given})), "given"
    sha = model.source.weights_sha256 if model.source else ""
    shape = (model.atlas.architecture, n_layers, model.atlas.d_model)
    measured = BY_WEIGHTS.get(sha or "") or BY_SHAPE.get(shape)
    if measured:
        return (measured[0],) if method.startswith("rome") else measured[1], "table"
    best = best_layer(model, rewrites, settings, seed=seed, progress=progress)
    if method.startswith("rome"):
        return (best,), "sweep"
    dense = [layer for layer, block in enumerate(model.atlas.blocks) if block.down is not None and layer <= best]
    return tuple(dense[-SPREAD:]), "sweep"
