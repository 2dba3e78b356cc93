"""Sites: the named places in a forward pass that can be captured or changed. The only module that spells activation names.

Names are TransformerLens' hook names (``blocks.3.attn.hook_pattern``), which the field reads and writes. Short forms leave the
layers open (``attn.pattern``) or list them after an @ (``attn.pattern@5,7``, ``resid_post@0-4``, ``resid_post@-1``).
"""

import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import cached_property, lru_cache

from interp.errors import UsageError, out_of_range, unknown

RESID, HEADS, KEY_HEADS, PATTERN = (
    "batch pos d_model",
    "batch pos head d_head",
    "batch pos kv_head d_head",
    "batch head query_pos key_pos",
)


@dataclass(frozen=True)
class SiteKind:
    """One row of the table below: the short name, TransformerLens' name ({} is the layer) and the axes of its tensor."""

    short: str
    hook: str
    axes: str
    meaning: str

    @cached_property
    def per_layer(self) -> bool:
        """Whether each block has one."""
        return "{}" in self.hook

    @cached_property
    def position_axis(self) -> int:
        """The axis of token positions (of the queries for patterns)."""
        names = self.axes.split()
        return names.index("query_pos" if "query_pos" in names else "pos")

    @cached_property
    def head_axis(self) -> int | None:
        """The axis of heads, if it has one."""
        names = self.axes.split()
        return next((names.index(name) for name in ("head", "kv_head") if name in names), None)


# In the order in which a forward pass reaches them.
KINDS: dict[str, SiteKind] = {
    kind.short: kind
    for kind in (
        SiteKind("embed", "hook_embed", RESID, "token embeddings"),
        SiteKind("pos_embed", "hook_pos_embed", RESID, "learned position embeddings"),
        SiteKind("resid_pre", "blocks.{}.hook_resid_pre", RESID, "residual stream entering a block"),
        SiteKind("ln1.scale", "blocks.{}.ln1.hook_scale", "batch pos 1", "divisor of the norm before attention"),
        SiteKind(
            "ln1.normalized",
            "blocks.{}.ln1.hook_normalized",
            RESID,
            "stream over that divisor, before the norm's weight",
        ),
        SiteKind("attn.q", "blocks.{}.attn.hook_q", HEADS, "queries before rotation"),
        SiteKind("attn.k", "blocks.{}.attn.hook_k", KEY_HEADS, "keys before rotation"),
        SiteKind("attn.v", "blocks.{}.attn.hook_v", KEY_HEADS, "values"),
        SiteKind("attn.rot_q", "blocks.{}.attn.hook_rot_q", HEADS, "queries as they enter the dot product"),
        SiteKind("attn.rot_k", "blocks.{}.attn.hook_rot_k", KEY_HEADS, "keys as they enter the dot product"),
        SiteKind(
            "attn.scores", "blocks.{}.attn.hook_attn_scores", PATTERN, "scaled dot products, masked, before the softmax"
        ),
        SiteKind("attn.pattern", "blocks.{}.attn.hook_pattern", PATTERN, "attention probabilities"),
        SiteKind("attn.z", "blocks.{}.attn.hook_z", HEADS, "pattern times values, before the output matrix"),
        SiteKind(
            "attn.result",
            "blocks.{}.attn.hook_result",
            "batch pos head d_model",
            "what each head writes, without the bias",
        ),
        SiteKind("attn_out", "blocks.{}.hook_attn_out", RESID, "what attention adds to the stream"),
        SiteKind("resid_mid", "blocks.{}.hook_resid_mid", RESID, "residual stream between attention and MLP"),
        SiteKind("ln2.scale", "blocks.{}.ln2.hook_scale", "batch pos 1", "divisor of the norm before the MLP"),
        SiteKind(
            "ln2.normalized",
            "blocks.{}.ln2.hook_normalized",
            RESID,
            "stream over that divisor, before the norm's weight",
        ),
        SiteKind(
            "mlp.router", "blocks.{}.mlp.gate.hook_out", "batch pos expert", "router logits of a mixture of experts"
        ),
        SiteKind(
            "mlp.pre",
            "blocks.{}.mlp.hook_pre",
            "batch pos d_mlp",
            "MLP before the activation (the gate where it is gated)",
        ),
        SiteKind(
            "mlp.pre_linear", "blocks.{}.mlp.hook_pre_linear", "batch pos d_mlp", "the linear half of a gated MLP"
        ),
        SiteKind("mlp.post", "blocks.{}.mlp.hook_post", "batch pos d_mlp", "input of the MLP's output projection"),
        SiteKind("mlp_out", "blocks.{}.hook_mlp_out", RESID, "what the MLP adds to the stream"),
        SiteKind("resid_post", "blocks.{}.hook_resid_post", RESID, "residual stream leaving a block"),
        SiteKind("ln_final.scale", "ln_final.hook_scale", "batch pos 1", "divisor of the final norm"),
        SiteKind(
            "ln_final.normalized",
            "ln_final.hook_normalized",
            RESID,
            "stream over that divisor, before the norm's weight",
        ),
    )
}
ORDER = {short: index for index, short in enumerate(KINDS)}
ALIASES = {
    "q": "attn.q",
    "k": "attn.k",
    "v": "attn.v",
    "z": "attn.z",
    "pattern": "attn.pattern",
    "scores": "attn.scores",
    "attn_scores": "attn.scores",
    "attn.attn_scores": "attn.scores",
    "result": "attn.result",
    "rot_q": "attn.rot_q",
    "rot_k": "attn.rot_k",
    "router": "mlp.router",
    "ln_final": "ln_final.normalized",
}
GROUPS = {
    "all": tuple(short for short in KINDS if short not in ("attn.result", "attn.scores")),
    "resid": ("resid_pre", "resid_mid", "resid_post"),
}
"""Names for several kinds. ``all`` leaves out the two that are large and follow from others: per-head results and raw scores."""


@dataclass(frozen=True)
class Site:
    """One place in the forward pass: a kind and, for all but a few, a layer."""

    kind: str
    layer: int | None = None

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise unknown("site", self.kind, KINDS)
        if KINDS[self.kind].per_layer == (self.layer is None):
            raise UsageError(f"the site {self.kind!r} {'needs a layer' if self.layer is None else 'has no layer'}")

    @cached_property
    def name(self) -> str:
        """TransformerLens' hook name."""
        return KINDS[self.kind].hook.format(self.layer)

    @property
    def info(self) -> SiteKind:
        """The table row of its kind."""
        return KINDS[self.kind]

    @cached_property
    def order(self) -> tuple[int, int]:
        """Sorts sites as a forward pass reaches them."""
        if self.layer is not None:
            return (self.layer, ORDER[self.kind])
        return (-1 if ORDER[self.kind] < ORDER["resid_pre"] else 1 << 30, ORDER[self.kind])

    def __str__(self) -> str:
        return self.name


Available = Mapping[str, Collection[int | None]]
"""For each kind of site that a model has, the layers that have it (``{None}`` where there are no layers)."""


def parse_sites(specs: "str | Site | Iterable[str | Site]", available: Available, n_layers: int) -> tuple[Site, ...]:
    """The sites that ``specs`` name, once each, in the order a forward pass reaches them.

    Raises UsageError for a name that no site has, a layer out of range, or a site that this model does not have.
    """
    if isinstance(specs, str | Site):
        specs = (specs,)
    found: set[Site] = set()
    for spec in specs:
        found.update(_parse_one(spec, available, n_layers))
    return tuple(sorted(found, key=lambda site: site.order))


def parse_site(spec: "str | Site", available: Available, n_layers: int) -> Site:
    """The one site that ``spec`` names; naming several is an error."""
    sites = parse_sites(spec, available, n_layers)
    if len(sites) != 1:
        raise UsageError(
            f"{spec!r} names {len(sites)} sites, one is needed; add the layer, such as '{sites[0].kind}@5'"
        )
    return sites[0]


def _parse_one(spec: "str | Site", available: Available, n_layers: int) -> list[Site]:
    if isinstance(spec, Site):
        kinds, layers, exact = (spec.kind,), None if spec.layer is None else (spec.layer,), True
    else:
        kinds, layers, exact = _read_spec(spec.strip(), n_layers)
    sites = []
    for kind in kinds:
        owned = available.get(kind, ())
        wanted = owned if layers is None or not KINDS[kind].per_layer else layers
        for layer in wanted:
            if layer is not None and not 0 <= layer < n_layers:
                raise out_of_range("layer", layer, n_layers)
        missing = [layer for layer in wanted if layer not in owned]
        if exact and (missing or not owned):
            where = f" in layer {missing[0]}" if missing and owned else ""
            raise UsageError(f"this model has no site {kind!r}{where}; it has: {', '.join(available)}")
        sites += [Site(kind, layer) for layer in wanted if layer in owned]
    if not sites:
        raise UsageError(f"no site of this model matches {str(spec)!r}; it has: {', '.join(available)}")
    return sites


def _read_spec(spec: str, n_layers: int) -> tuple[tuple[str, ...], tuple[int, ...] | None, bool]:
    """Kinds, layers (None: all) and whether every one of them was asked for by name."""
    name, _, layer_text = spec.partition("@")
    layers = read_layers(layer_text, n_layers) if "@" in spec else None
    if name in GROUPS:
        return GROUPS[name], layers, False
    name = ALIASES.get(name, name)
    if name in KINDS:
        return (name,), layers, True
    hook = _read_hook_name(name, n_layers)
    if hook is not None:
        if layers is not None:
            raise UsageError(f"{spec!r} gives the layer twice; write {hook[0]}@{layer_text}")
        return (hook[0],), hook[1], True
    matching = tuple(short for short in KINDS if fnmatchcase(short, name))
    if not matching:
        raise unknown("site", name, [*KINDS, *GROUPS])
    return matching, layers, False


def _read_hook_name(name: str, n_layers: int) -> tuple[str, tuple[int, ...] | None] | None:
    """The kind and the layers of a TransformerLens name; the layer may be *."""
    kinds = _kinds_by_hook()
    if name in kinds:
        return kinds[name], None
    match = re.fullmatch(r"blocks\.(\*|-?\d{1,9})\.(.+)", name)
    short = kinds.get(f"blocks.{{}}.{match[2]}") if match else None
    if match is None or short is None:
        return None
    return short, None if match[1] == "*" else read_layers(match[1], n_layers)


@lru_cache(maxsize=1)
def _kinds_by_hook() -> dict[str, str]:
    return {kind.hook: short for short, kind in KINDS.items()}


def read_layers(text: str, n_layers: int) -> tuple[int, ...]:
    """Layers from text such as ``5``, ``5,7``, ``0-4`` or ``-1`` (from the end)."""
    layers: list[int] = []
    for part in text.split(","):
        match = re.fullmatch(r"\s*(-?\d{1,9})(?:-(-?\d{1,9}))?\s*", part)
        if match is None:
            raise UsageError(f"cannot read the layers {text!r}; write 5 or 5,7 or 0-4 or -1")
        first, last = (read_layer(int(value), n_layers) for value in (match[1], match[2] or match[1]))
        if last < first:
            raise UsageError(f"the layers {part.strip()!r} run backwards; write {last}-{first}")
        layers += range(first, last + 1)
    return tuple(dict.fromkeys(layers))


def read_layer(layer: int, n_layers: int) -> int:
    """A layer from 0; negative counts from the end."""
    if not -n_layers <= layer < n_layers:
        raise out_of_range("layer", layer, n_layers)
    return layer % n_layers


def name_layers(layers: Iterable[int]) -> str:
    """Rising layers as ``read_layers`` reads them: ``0-4,6``."""
    runs: list[tuple[int, int]] = []
    for layer in layers:
        follows = bool(runs) and runs[-1][1] + 1 == layer
        runs.append((runs.pop()[0] if follows else layer, layer))
    return ",".join(str(first) if first == last else f"{first}-{last}" for first, last in runs)
