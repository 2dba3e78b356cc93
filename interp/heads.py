"""The name of an attention head: ``L5H3`` is head 3 of layer 5, both counted from 0."""

import re
from collections.abc import Iterable
from dataclasses import dataclass

from interp.errors import UsageError

_SPELLING = re.compile(r"\s*(?:L\s*(\d{1,9})\s*H\s*(\d{1,9})|(\d{1,9})\.(\d{1,9}))\s*", re.IGNORECASE)


@dataclass(frozen=True, order=True)
class Head:
    """One head of one layer; heads sort by layer, then by number."""

    layer: int
    head: int

    def __str__(self) -> str:
        return f"L{self.layer}H{self.head}"

    @classmethod
    def parse(cls, text: str, n_layers: int, n_heads: int) -> "Head":
        """The head that ``text`` names, written ``L5H3`` (in either case) or ``5.3``.

        Raises UsageError for another spelling, or a layer or head that a model of this size does not have.
        """
        found = _SPELLING.fullmatch(text)
        if found is None:
            raise UsageError(
                f"{text!r} names no head; write L5H3 or 5.3 (layer, then head, from {_range(n_layers, n_heads)})"
            )
        layer, head = (int(part) for part in found.groups() if part is not None)
        return cls(layer, head).checked(n_layers, n_heads)

    def checked(self, n_layers: int, n_heads: int) -> "Head":
        """The head itself. Raises UsageError where a model of this size does not have it."""
        if not (0 <= self.layer < n_layers and 0 <= self.head < n_heads):
            raise UsageError(f"head {self} is out of range; valid: {_range(n_layers, n_heads)}")
        return self


HeadLike = str | Head | tuple[int, int]
"""How a head may be given: ``"L5H3"``, ``"5.3"``, ``Head(5, 3)`` or ``(5, 3)``."""


def heads_of(spec: "str | Head | Iterable[HeadLike] | None", n_layers: int, n_heads: int) -> tuple[Head, ...]:
    """The heads that ``spec`` names, in its order and each once: None for all, a text with commas, one head, or several.

    Raises UsageError for a head that is misspelt or out of range, and for no head at all.
    """
    if spec is None:
        return tuple(Head(layer, head) for layer in range(n_layers) for head in range(n_heads))
    items: list[HeadLike] = (
        list(spec.split(",")) if isinstance(spec, str) else [spec] if isinstance(spec, Head) else list(spec)
    )
    if not items:
        raise UsageError(f"no heads given; valid: {_range(n_layers, n_heads)}, or leave heads out for all of them")
    return tuple(dict.fromkeys(_head(item, n_layers, n_heads) for item in items))


def _head(item: HeadLike, n_layers: int, n_heads: int) -> Head:
    if isinstance(item, str):
        return Head.parse(item, n_layers, n_heads)
    return (item if isinstance(item, Head) else Head(*item)).checked(n_layers, n_heads)


def _range(n_layers: int, n_heads: int) -> str:
    return f"L0H0 to L{n_layers - 1}H{n_heads - 1}"
