"""Activation patching as the papers describe it: one full forward of the plain model for every cell, plain torch hooks, plain loops.

Wang et al. 2022 and Heimersheim and Nanda 2024, section 2: run one prompt and keep an activation, run the other with that
activation in its place, read the metric. Nothing of interp is used; where a family keeps its parts is written down again.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from math import exp, log
from typing import Any

import torch
from torch import Tensor, nn

Edit = Callable[[Tensor], Tensor]
Score = Callable[[Tensor], float]


@dataclass(frozen=True)
class Layout:
    """Where a family keeps the parts of a block, relative to it; ``fused`` says how q, k and v lie in the one map ``qkv``."""

    blocks: str
    z: str  # the map whose input is z
    attn_out: str
    mlp_out: str
    qkv: Sequence[str]  # three maps, or the fused one
    middle: str = ""  # the norm whose input is the stream between attention and MLP
    second_half: Callable[[Any, Tensor], Tensor] | None = None
    fused: str = ""
    heads: int = 4
    kv_heads: int = 4


_LLAMA = Layout(
    blocks="model.layers",
    z="self_attn.o_proj",
    attn_out="self_attn",
    mlp_out="mlp",
    qkv=("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
    middle="post_attention_layernorm",
    second_half=lambda block, x: x + block.mlp(block.post_attention_layernorm(x)),
    kv_heads=2,
)
_GPT2 = Layout(
    blocks="transformer.h",
    z="attn.c_proj",
    attn_out="attn",
    mlp_out="mlp",
    qkv=("attn.c_attn",),
    fused="concat",
    middle="ln_2",
    second_half=lambda block, x: x + block.mlp(block.ln_2(x)),
)
LAYOUTS: dict[str, Layout] = {
    "gpt2": _GPT2,
    "llama": _LLAMA,
    "mixtral": _LLAMA,
    "smollm2-135m": replace(_LLAMA, heads=9, kv_heads=3),
    "gemma2": replace(
        _LLAMA,
        attn_out="post_attention_layernorm",
        mlp_out="post_feedforward_layernorm",
        middle="pre_feedforward_layernorm",
        second_half=lambda block, x: (
            x + block.post_feedforward_layernorm(block.mlp(block.pre_feedforward_layernorm(x)))
        ),
    ),
    "gpt_neox": Layout(
        blocks="gpt_neox.layers",
        z="attention.dense",
        attn_out="attention",
        mlp_out="mlp",
        qkv=("attention.query_key_value",),
        fused="per_head",
    ),
    "bloom": Layout(
        blocks="transformer.h",
        z="self_attention.dense",
        attn_out="self_attention.dense",
        mlp_out="mlp.dense_4h_to_h",
        qkv=("self_attention.query_key_value",),
        fused="per_head",
        middle="post_attention_layernorm",
        second_half=lambda block, x: block.mlp(block.post_attention_layernorm(x), x),
    ),
    "gpt_neo": replace(
        _GPT2,
        z="attn.attention.out_proj",
        qkv=("attn.attention.q_proj", "attn.attention.k_proj", "attn.attention.v_proj"),
        fused="",
    ),
}


def activation(family: str, hf: Any, ids: Sequence[int], site: str, layer: int) -> Tensor:
    """The whole tensor of a site, from a run of its own."""
    kept: list[Tensor] = []

    def keep(x: Tensor) -> Tensor:
        kept.append(x.clone())
        return x

    _edited(family, hf, ids, site, layer, keep)
    return kept[0]


def patched(
    family: str,
    hf: Any,
    value: Tensor,
    base: Sequence[int],
    site: str,
    layer: int,
    score: Score,
    *,
    position: int | None = None,
    head: int | None = None,
) -> float:
    """The score of a run of ``base`` with another run's activation in place at one site, layer, position and head (None: all).

    For patterns ``hf`` is a model in eager attention, which shows them.
    """

    def put(x: Tensor) -> Tensor:
        out = x.clone()
        for t in range(len(base)) if position is None else [position]:
            if site.startswith("resid") or site.endswith("_out"):
                out[0, t] = value[0, t]
                continue
            for h in range(x.shape[1 if site == "attn.pattern" else 2]) if head is None else [head]:
                cell = (0, h, t) if site == "attn.pattern" else (0, t, h)
                out[cell] = value[cell]
        return out

    return score(_edited(family, hf, base, site, layer, put))


def logits_of(hf: Any, ids: Sequence[int]) -> Tensor:
    """The plain model's logits [pos d_vocab]."""
    with torch.no_grad():
        return hf(input_ids=torch.tensor([list(ids)]), use_cache=False).logits[0]


def logit_difference(position: int, answer: int, against: int) -> Score:
    """The logit of one token less that of another."""
    return lambda logits: float(logits[position, answer] - logits[position, against])


def log_prob(first: int, answer: Sequence[int]) -> Score:
    """The log probability of an answer whose first token is predicted at ``first``; token after token, each from its own softmax."""

    def score(logits: Tensor) -> float:
        total = 0.0
        for i, token in enumerate(answer):
            row = [float(value) for value in logits[first + i]]
            highest = max(row)
            total += row[token] - highest - log(sum(exp(value - highest) for value in row))
        return total

    return score


def kl(clean: Tensor, positions: Sequence[int]) -> Score:
    """KL(clean || patched), the mean over positions, term by term."""

    def score(logits: Tensor) -> float:
        total = 0.0
        for t in positions:
            p, q = clean[t].double().softmax(-1), logits[t].double().softmax(-1)
            total += sum(float(p[i]) * (log(float(p[i])) - log(float(q[i]))) for i in range(len(p)) if float(p[i]) > 0)
        return total / len(positions)

    return score


def normalised(patched: Sequence[float], clean: Sequence[float], corrupted: Sequence[float], direction: str) -> float:
    """The effect over pairs: what patching changes over the whole difference, each summed over the pairs."""
    above = below = 0.0
    for p, c, k in zip(patched, clean, corrupted, strict=True):
        above += p - k if direction == "denoising" else c - p
        below += c - k
    return above / below


def _edited(family: str, hf: Any, ids: Sequence[int], site: str, layer: int, edit: Edit) -> Tensor:
    return (_with_pattern if site == "attn.pattern" else _with_site)(family, hf, ids, site, layer, edit)


def _with_site(family: str, hf: Any, ids: Sequence[int], site: str, layer: int, edit: Edit) -> Tensor:
    """The logits [pos d_vocab] when ``edit`` maps the whole tensor of a site to its new numbers."""
    layout = LAYOUTS[family]
    block = hf.get_submodule(f"{layout.blocks}.{layer}")
    if site == "resid_pre":
        handles = [_on_input(block, edit)]
    elif site == "resid_post":
        handles = [_on_output(block, edit)]
    elif site == "resid_mid":
        handles = _on_middle(block, layout, edit)
    elif site in ("attn_out", "mlp_out"):
        handles = [_on_output(block.get_submodule(getattr(layout, site)), edit)]
    elif site == "attn.z":
        handles = [_on_input(block.get_submodule(layout.z), lambda x: _by_head(x, layout.heads, edit))]
    else:
        index = ("attn.q", "attn.k", "attn.v").index(site)
        heads = layout.kv_heads if index else layout.heads
        if layout.fused:
            handles = [_on_output(block.get_submodule(layout.qkv[0]), lambda x: _in_fused(x, layout, index, edit))]
        else:
            handles = [_on_output(block.get_submodule(layout.qkv[index]), lambda x: _by_head(x, heads, edit))]
    try:
        return logits_of(hf, ids)
    finally:
        for handle in handles:
            handle.remove()


def _with_pattern(family: str, eager: Any, ids: Sequence[int], site: str, layer: int, edit: Edit) -> Tensor:
    """The same for the pattern [1 head query key]: z is multiplied out anew, head by head."""
    layout = LAYOUTS[family]
    block = eager.get_submodule(f"{layout.blocks}.{layer}")
    with torch.no_grad():
        output = eager(input_ids=torch.tensor([list(ids)]), use_cache=False, output_attentions=True)
    pattern = edit(output.attentions[layer])
    values: list[Tensor] = []

    def record(module: nn.Module, args: Any, output: Tensor) -> None:
        values.append(_parts(output, layout)[2] if layout.fused else output.unflatten(-1, (layout.kv_heads, -1)))

    def replaced(module: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
        z = args[0].unflatten(-1, (layout.heads, -1)).clone()
        for h in range(layout.heads):
            z[:, :, h] = pattern[:, h] @ values[0][:, :, h // (layout.heads // layout.kv_heads)]
        return (z.flatten(-2), *args[1:])

    handles = [
        block.get_submodule(layout.qkv[-1]).register_forward_hook(record),
        block.get_submodule(layout.z).register_forward_pre_hook(replaced),
    ]
    try:
        return logits_of(eager, ids)
    finally:
        for handle in handles:
            handle.remove()


def _on_input(module: nn.Module, edit: Edit) -> Any:
    def hook(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if args:
            return (edit(args[0]), *args[1:]), kwargs
        return args, {**kwargs, "hidden_states": edit(kwargs["hidden_states"])}

    return module.register_forward_pre_hook(hook, with_kwargs=True)


def _on_output(module: nn.Module, edit: Edit) -> Any:
    def hook(_: nn.Module, args: Any, output: Any) -> Any:
        return (edit(output[0]), *output[1:]) if isinstance(output, tuple) else edit(output)

    return module.register_forward_hook(hook)


def _on_middle(block: nn.Module, layout: Layout, edit: Edit) -> list[Any]:
    """Replaces what a block returns by what its second half gives on the edited middle of the stream."""
    seen: list[Tensor] = []

    def record(module: nn.Module, args: tuple[Any, ...]) -> None:
        if not seen:
            seen.append(args[0])

    def replaced(module: nn.Module, args: Any, output: Any) -> Any:
        assert layout.second_half is not None
        new = layout.second_half(block, edit(seen[0]))
        return (new, *output[1:]) if isinstance(output, tuple) else new

    return [
        block.get_submodule(layout.middle).register_forward_pre_hook(record),
        block.register_forward_hook(replaced),
    ]


def _by_head(x: Tensor, heads: int, edit: Edit) -> Tensor:
    return edit(x.unflatten(-1, (heads, -1))).flatten(-2)


def _parts(fused: Tensor, layout: Layout) -> list[Tensor]:
    if layout.fused == "concat":
        return [part.unflatten(-1, (layout.heads, -1)) for part in fused.chunk(3, -1)]
    return list(fused.unflatten(-1, (layout.heads, 3, -1)).unbind(-2))


def _in_fused(fused: Tensor, layout: Layout, index: int, edit: Edit) -> Tensor:
    parts = _parts(fused, layout)
    parts[index] = edit(parts[index])
    if layout.fused == "concat":
        return torch.cat([part.flatten(-2) for part in parts], -1)
    return torch.stack(parts, -2).flatten(-3)
