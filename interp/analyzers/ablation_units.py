"""The parts of a model that ablation takes out, one at a time, and what taking one out changes in a forward."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from interp.errors import UsageError, unknown
from interp.heads import Head
from interp.interventions import Intervention, Patch, ZeroAblate
from interp.sites import Site

SITES: Mapping[str, tuple[str, ...]] = {
    "heads": ("attn.z",),
    "attention": ("attn_out",),
    "mlps": ("mlp_out",),
    "layers": ("attn_out", "mlp_out"),
}
"""The sites that each kind of unit writes: a layer's block adds what its attention and its MLP put out."""

UNITS = tuple(SITES)
_WORDS = {"attention": "attention", "mlps": "MLP", "layers": "block"}


@dataclass(frozen=True, kw_only=True)
class Component:
    """One part of the model: a head, or the attention, the MLP or the whole block of a layer. ``unit`` is its kind, of ``UNITS``."""

    unit: str
    layer: int
    head: int | None = None

    def __str__(self) -> str:
        return f"L{self.layer} {_WORDS[self.unit]}" if self.head is None else str(Head(self.layer, self.head))


def units_of(spec: str | Iterable[str]) -> tuple[str, ...]:
    """The kinds of unit that ``spec`` names, each once, in its order. Raises UsageError for an unknown one, or for none."""
    names = tuple(dict.fromkeys([spec] if isinstance(spec, str) else spec))
    for name in names:
        if name not in SITES:
            raise unknown("unit", name, UNITS)
    if not names:
        raise UsageError(f"no units given; valid: {', '.join(UNITS)}")
    return names


def components_of(unit: str, layers: Sequence[int], n_heads: int) -> tuple[Component, ...]:
    """Every component of one kind in these layers, layer by layer."""
    heads = range(n_heads) if unit == "heads" else (None,)
    return tuple(Component(unit=unit, layer=layer, head=head) for layer in layers for head in heads)


def sites_of(units: Sequence[str], layers: Sequence[int]) -> tuple[Site, ...]:
    """The sites whose values stand in for the ablated ones, each once."""
    kinds = dict.fromkeys(kind for unit in units for kind in SITES[unit])
    return tuple(Site(kind, layer) for layer in layers for kind in kinds)


def without(
    component: Component,
    values: Mapping[Site, Float[Tensor, "pos ..."]] | None,
    positions: Sequence[int] | None,
) -> list[Intervention]:
    """What takes a component out at these positions (None: all): its output becomes what ``values`` holds, or zero.

    ``values`` are those of every position of the prompt, by site.
    """
    heads = None if component.head is None else (component.head,)
    changes: list[Intervention] = []
    for kind in SITES[component.unit]:
        site = Site(kind, component.layer)
        if values is None:
            changes.append(ZeroAblate(site.name, heads=heads, positions=positions))
            continue
        value = values[site] if positions is None else values[site][list(positions)]
        value = value if component.head is None else value[:, component.head : component.head + 1]
        changes.append(Patch(site.name, value, heads=heads, positions=positions))
    return changes
