"""Labels for the rows of a figure that stand for activation sites."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from interp.sites import KINDS

_BLOCK = re.compile(r"blocks\.(\d+)\.(.+)")


@dataclass(frozen=True)
class Rows:
    """``labels`` to show, the ``layers`` they belong to (None outside the blocks) and the short ``kinds`` of the sites."""

    labels: tuple[str, ...]
    layers: tuple[int | None, ...]
    kinds: tuple[str, ...]


def site_rows(names: Sequence[str]) -> Rows:
    """Rows for full activation names: the bare layer number where all are of one kind, else the layer and the kind."""
    shorts = {kind.hook: short for short, kind in KINDS.items()}
    layers, kinds = [], []
    for name in names:
        match = _BLOCK.fullmatch(name)
        layers.append(int(match[1]) if match else None)
        kinds.append(shorts.get(f"blocks.{{}}.{match[2]}" if match else name, match[2] if match else name))
    single = len({kind for layer, kind in zip(layers, kinds, strict=True) if layer is not None}) <= 1
    labels = tuple(
        kind if layer is None else str(layer) if single else f"{layer} {kind}"
        for layer, kind in zip(layers, kinds, strict=True)
    )
    return Rows(labels, tuple(layers), tuple(kinds))
