"""Where each site's tensor is in a Hugging Face model, and how to read it there and put a changed one back.

A port is a module's input, its output, or a tensor inside an attention function. A binding ties a site to its port: ``read`` takes
the site's tensor, shaped as ``interp.sites`` says, out of the raw tensor that flows through the port, ``write`` puts it back. Where
a fused matrix carries several sites, several bindings share a port.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any, Literal, NamedTuple
from weakref import ref

from einops import einsum, rearrange
from torch import Tensor, nn

from interp.maths.norms import Norm
from interp.models.atlas import Atlas, BlockMap, module_at
from interp.models.fused import merge_gate_up, merge_qkv, split_gate_up, split_qkv
from interp.models.norms import read_norm
from interp.models.offload import read_weight
from interp.sites import KINDS, Site

Side = Literal["in", "out", "attention"]
ATTENTION_KINDS = ("attn.rot_q", "attn.rot_k", "attn.scores", "attn.pattern")
"""The sites inside an attention function, in the order of their ports' ``item``."""


class Port(NamedTuple):
    """A place that a tensor flows through: ``side`` of the module at ``path``; ``item`` of the output where that is a tuple."""

    path: str
    side: Side
    item: int = 0


@dataclass(frozen=True, eq=False)
class Binding:
    """How a site is read from its port and written back.

    ``computed`` sites are derived from the raw tensor: they can be captured, not changed. ``scale`` multiplies the raw tensor to
    give the site's (granite scales its updates outside the module). ``copy`` is set where the model overwrites the raw tensor
    afterwards.
    """

    site: Site
    port: Port
    select: Callable[[Tensor], Tensor] | None = None
    insert: Callable[[Tensor, Tensor], Tensor] | None = None
    computed: bool = False
    scale: float = 1.0
    copy: bool = False

    def read(self, raw: Tensor) -> Tensor:
        """The site's tensor."""
        value = raw if self.select is None else self.select(raw)
        value = value if self.scale == 1.0 else value * self.scale
        return value.clone() if self.copy else value

    def write(self, raw: Tensor, value: Tensor) -> Tensor:
        """The raw tensor with the site's part replaced."""
        value = value if self.scale == 1.0 else value / self.scale
        value = value.clone() if self.copy else value
        return value.view(raw.shape) if self.insert is None else self.insert(raw, value)

    def read_gradient(self, gradient: Tensor) -> Tensor:
        """The gradient with respect to the site, from the one with respect to the raw tensor."""
        value = gradient if self.select is None else self.select(gradient)
        return value if self.scale == 1.0 else value / self.scale


def bind_sites(hf: nn.Module, atlas: Atlas) -> dict[Site, Binding]:
    """The bindings of every site that the model has."""
    bindings = [_plain("embed", None, Port(atlas.embed, "out"))]
    if atlas.pos_embed:
        bindings.append(_plain("pos_embed", None, Port(atlas.pos_embed, "out")))
    for layer, block in enumerate(atlas.blocks):
        bindings += _bind_stream(hf, layer, block)
        bindings += _bind_attention(hf, layer, block, atlas)
        bindings += _bind_mlp(layer, block)
    if atlas.ln_final:
        bindings += _bind_norm(hf, "ln_final", None, atlas.ln_final)
    return {binding.site: binding for binding in bindings}


def _plain(kind: str, layer: int | None, port: Port, *, scale: float = 1.0, copy: bool = False) -> Binding:
    return Binding(Site(kind, layer), port, scale=scale, copy=copy)


def _bind_stream(hf: nn.Module, layer: int, block: BlockMap) -> list[Binding]:
    bindings = [
        _plain("resid_pre", layer, Port(block.block, "in")),
        _plain("attn_out", layer, Port(block.attn_out, "out"), scale=block.attn_scale),
        _plain("mlp_out", layer, Port(block.mlp_out, "out"), scale=block.mlp_scale, copy=block.mlp_overwritten),
        _plain("resid_post", layer, Port(block.block, "out")),
    ]
    if block.ln1:
        bindings += _bind_norm(hf, "ln1", layer, block.ln1)
    if block.ln2:
        bindings += _bind_norm(hf, "ln2", layer, block.ln2)
    middle = block.ln2 or block.mlp or block.mlp_in
    if middle and not block.parallel:
        # Only read here: the block adds to its own copy of the stream. A change goes through attn_out (see plan.py).
        bindings.append(Binding(Site("resid_mid", layer), Port(middle, "in"), computed=True))
    return bindings


def _bind_norm(hf: nn.Module, name: str, layer: int | None, path: str) -> list[Binding]:
    module, port = module_at(hf, path), Port(path, "in")
    if module is None or isinstance(module, nn.Identity):
        return []
    reader = _NormReader(module)
    return [
        Binding(Site(f"{name}.scale", layer), port, select=reader.scale, computed=True),
        Binding(Site(f"{name}.normalized", layer), port, select=reader.normalized, computed=True),
    ]


class _NormReader:
    """Divisor and quotient of one norm; the quotient uses the divisor if that was just taken from the same tensor."""

    def __init__(self, module: nn.Module) -> None:
        self.module = module
        self._last: tuple[ref[Tensor], Tensor] | None = None

    @cached_property
    def norm(self) -> Norm:
        """The norm in parts, read when it is first needed."""
        return read_norm(self.module)

    def scale(self, raw: Tensor) -> Tensor:
        """The divisor."""
        scale = self.norm.scale(raw)
        self._last = ref(raw), scale
        return scale

    def normalized(self, raw: Tensor) -> Tensor:
        """The stream over its divisor."""
        known = self._last[1] if self._last is not None and self._last[0]() is raw else None
        self._last = None
        return self.norm.normalized(raw, known)


def _bind_attention(hf: nn.Module, layer: int, block: BlockMap, atlas: Atlas) -> list[Binding]:
    bindings = _bind_projections(layer, block, atlas)
    split, join = _heads(atlas.n_heads)
    bindings.append(Binding(Site("attn.z", layer), Port(block.o, "in"), select=split, insert=join))
    output = module_at(hf, block.o)
    assert output is not None, "the atlas checked this path"

    result = partial(_result, output, block, atlas.n_heads)
    bindings.append(Binding(Site("attn.result", layer), Port(block.o, "in"), select=result, computed=True))
    if not atlas.routed_attention and _eager_is_another(hf, atlas):
        return bindings
    if not atlas.routed_attention:
        return [*bindings, Binding(Site("attn.pattern", layer), Port(block.attn, "out", item=1), computed=True)]
    for item, kind in enumerate(ATTENTION_KINDS):
        rotated = kind in ("attn.rot_q", "attn.rot_k")
        port = Port(block.attn, "attention", item)
        bindings.append(
            Binding(
                Site(kind, layer),
                port,
                select=_swap if rotated else None,
                insert=(lambda _, v: _swap(v)) if rotated else None,
            )
        )
    return bindings


def _bind_projections(layer: int, block: BlockMap, atlas: Atlas) -> list[Binding]:
    if block.qkv is None:
        return [
            Binding(Site(f"attn.{name}", layer), Port(path, "out"), select=split, insert=join)
            for name, path, (split, join) in (
                ("q", block.q, _heads(atlas.n_heads)),
                ("k", block.k, _heads(atlas.n_kv_heads)),
                ("v", block.v, _heads(atlas.n_kv_heads)),
            )
            if path is not None
        ]
    port = Port(block.qkv, "out")

    return [
        Binding(
            Site(f"attn.{name}", layer),
            port,
            select=partial(_take_fused, block, atlas, i),
            insert=partial(_put_fused, block, atlas, i),
        )
        for i, name in enumerate("qkv")
    ]


def _bind_mlp(layer: int, block: BlockMap) -> list[Binding]:
    bindings = []
    if block.router:
        bindings.append(Binding(Site("mlp.router", layer), Port(block.router, "out")))
    if block.gate_up:
        bindings += [
            Binding(
                Site(kind, layer),
                Port(block.gate_up, "out"),
                select=partial(_take_half, block, i),
                insert=partial(_put_half, block, i),
            )
            for i, kind in enumerate(("mlp.pre", "mlp.pre_linear"))
        ]
    elif block.gate and block.up:
        bindings.append(_plain("mlp.pre", layer, Port(block.gate, "out")))
        bindings.append(_plain("mlp.pre_linear", layer, Port(block.up, "out")))
    elif block.mlp_in:
        bindings.append(_plain("mlp.pre", layer, Port(block.mlp_in, "out")))
    if block.down:
        bindings.append(_plain("mlp.post", layer, Port(block.down, "in")))
    return bindings


def _eager_is_another(hf: Any, atlas: Atlas) -> bool:
    """Whether the family's eager attention, the only one that shows patterns, computes something else than the model does.

    Falcon's adds alibi to its scores twice: in the mask and by itself.
    """
    return (
        atlas.architecture == "FalconForCausalLM"
        and bool(hf.config.alibi)
        and hf.config._attn_implementation != "eager"
    )


def _swap(raw: Tensor) -> Tensor:
    """Between [batch head pos d_head], as attention functions have it, and [batch pos head d_head]."""
    return raw.transpose(1, 2)


def _heads(count: int) -> tuple[Callable[[Tensor], Tensor], Callable[[Tensor, Tensor], Tensor]]:
    return partial(_split_heads, count), _join_heads


def _split_heads(count: int, raw: Tensor) -> Tensor:
    return raw.view(*raw.shape[:-1], count, -1)  # four times a layer: rearrange costs ten times as much


def _join_heads(raw: Tensor, value: Tensor) -> Tensor:
    return value.reshape(raw.shape)


def _result(output: nn.Module, block: BlockMap, n_heads: int, raw: Tensor) -> Tensor:
    weight = read_weight(output)
    assert weight is not None, "an output projection has a weight"
    w_o = rearrange(weight.T if block.conv1d else weight, "d_model (head d_head) -> head d_head d_model", head=n_heads)
    z = _split_heads(n_heads, raw)
    return einsum(z, w_o, "batch pos head d_head, head d_head d_model -> batch pos head d_model")


def _take_fused(block: BlockMap, atlas: Atlas, index: int, raw: Tensor) -> Tensor:
    return split_qkv(raw, block, atlas)[index]


def _put_fused(block: BlockMap, atlas: Atlas, index: int, raw: Tensor, value: Tensor) -> Tensor:
    q, k, v = (value if i == index else part for i, part in enumerate(split_qkv(raw, block, atlas)))
    return merge_qkv(q, k, v, block, atlas)


def _take_half(block: BlockMap, index: int, raw: Tensor) -> Tensor:
    return split_gate_up(raw, block)[index]


def _put_half(block: BlockMap, index: int, raw: Tensor, value: Tensor) -> Tensor:
    gate, up = (value if i == index else half for i, half in enumerate(split_gate_up(raw, block)))
    return merge_gate_up(gate, up, block)


def available_sites(bindings: dict[Site, Binding]) -> dict[str, tuple[int | None, ...]]:
    """For each kind of site that the model has, its layers."""
    layers: dict[str, list[int | None]] = {}
    for site in bindings:
        layers.setdefault(site.kind, []).append(site.layer)
    return {kind: tuple(layers[kind]) for kind in KINDS if kind in layers}


def batched(raw: Tensor, n_pos: int) -> Tensor:
    """A raw tensor with its batch and position axes: some modules work on flattened tokens (OPT's MLP, routers)."""
    return raw.unflatten(0, (-1, n_pos)) if raw.dim() == 2 else raw
