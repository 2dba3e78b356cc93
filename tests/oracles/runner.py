"""What the runner is held against: plain forwards, plain torch hooks at places written down by hand, plain loops.

Nothing of interp is used here; where a family keeps its parts is spelt out again, so that a wrong atlas is seen as well.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

Function = Callable[[Tensor], Tensor]


def plain_logits(hf: nn.Module, ids: Tensor, **arguments: Any) -> Tensor:
    """The model's own logits [batch pos d_vocab] with no hook anywhere."""
    with torch.no_grad():
        return hf(input_ids=ids, **{"use_cache": False, **arguments}).logits


def greedy_ids(hf: nn.Module, ids: Sequence[int], steps: int, end: Sequence[int] = ()) -> list[int]:
    """The largest logit, token after token, each from a forward over the whole text."""
    made: list[int] = []
    for _ in range(steps):
        made.append(int(plain_logits(hf, torch.tensor([[*ids, *made]]))[0, -1].argmax()))
        if made[-1] in end:
            break
    return made


@dataclass(frozen=True)
class Layout:
    """Where a family keeps the parts of a block, relative to it, and how it fuses q, k and v ("", "concat", "per_head")."""

    blocks: str
    z: str  # the map whose input is z
    attn_out: str
    mlp_out: str
    q: str = ""
    k: str = ""
    v: str = ""
    qkv: str = ""
    fused: str = ""
    mlp_pre: str = ""
    mlp_post: str = ""  # the map whose input is mlp.post
    middle: str = ""  # the norm whose input is resid_mid; none in a parallel block
    heads: int = 4
    kv_heads: int = 4


_LLAMA = {
    "blocks": "model.layers",
    "z": "self_attn.o_proj",
    "attn_out": "self_attn",
    "mlp_out": "mlp",
    "q": "self_attn.q_proj",
    "k": "self_attn.k_proj",
    "v": "self_attn.v_proj",
    "middle": "post_attention_layernorm",
    "kv_heads": 2,
}
LAYOUTS: dict[str, Layout] = {
    "gpt2": Layout(
        blocks="transformer.h",
        z="attn.c_proj",
        attn_out="attn",
        mlp_out="mlp",
        qkv="attn.c_attn",
        fused="concat",
        mlp_pre="mlp.c_fc",
        mlp_post="mlp.c_proj",
        middle="ln_2",
    ),
    "llama": Layout(**_LLAMA, mlp_pre="mlp.gate_proj", mlp_post="mlp.down_proj"),
    "gemma2": Layout(
        **{
            **_LLAMA,
            "attn_out": "post_attention_layernorm",
            "mlp_out": "post_feedforward_layernorm",
            "middle": "pre_feedforward_layernorm",
        },
        mlp_pre="mlp.gate_proj",
        mlp_post="mlp.down_proj",
    ),
    "gpt_neox": Layout(
        blocks="gpt_neox.layers",
        z="attention.dense",
        attn_out="attention",
        mlp_out="mlp",
        qkv="attention.query_key_value",
        fused="per_head",
        mlp_pre="mlp.dense_h_to_4h",
        mlp_post="mlp.dense_4h_to_h",
    ),
    "bloom": Layout(
        blocks="transformer.h",
        z="self_attention.dense",
        attn_out="self_attention.dense",
        mlp_out="mlp.dense_4h_to_h",
        qkv="self_attention.query_key_value",
        fused="per_head",
        mlp_pre="mlp.dense_h_to_4h",
        mlp_post="mlp.dense_4h_to_h",
        middle="post_attention_layernorm",
    ),
    "mixtral": Layout(**_LLAMA),
}


def edited_logits(family: str, hf: nn.Module, ids: Tensor, kind: str, layer: int, edit: Function) -> Tensor:
    """The logits when ``edit`` maps the whole tensor of a site to its new numbers, by one hook at a place written down above.

    Tensors have the axes of the site: [batch pos d_model], or [batch pos head d_head] for q, k, v and z.
    """
    layout = LAYOUTS[family]
    block = hf.get_submodule(f"{layout.blocks}.{layer}")
    if kind == "resid_pre":
        handle = _edit_input(block, edit)
    elif kind == "resid_post":
        handle = _edit_output(block, edit)
    elif kind == "resid_mid":
        return _middle_logits(family, hf, ids, block, edit)
    elif kind in ("attn_out", "mlp_out", "mlp.pre"):
        handle = _edit_output(block.get_submodule(getattr(layout, kind.replace(".", "_"))), edit)
    elif kind == "mlp.post":
        handle = _edit_input(block.get_submodule(layout.mlp_post), edit)
    elif kind == "attn.z":
        handle = _edit_input(block.get_submodule(layout.z), _by_head(edit, layout.heads))
    elif layout.qkv:
        handle = _edit_output(block.get_submodule(layout.qkv), _by_fused(edit, "qkv".index(kind[-1]), layout))
    else:
        heads = layout.heads if kind == "attn.q" else layout.kv_heads
        handle = _edit_output(block.get_submodule(getattr(layout, kind[-1])), _by_head(edit, heads))
    try:
        return plain_logits(hf, ids)
    finally:
        handle.remove()


def pattern_logits(family: str, hf: nn.Module, ids: Tensor, layer: int, edit: Function) -> Tensor:
    """The logits when ``edit`` maps the attention pattern [batch head query_pos key_pos] of a layer to another.

    ``hf`` is an eager model, which gives its pattern away; z is multiplied out by a loop over heads and put before the output map.
    """
    layout = LAYOUTS[family]
    block = hf.get_submodule(f"{layout.blocks}.{layer}")
    with torch.no_grad():
        pattern = edit(hf(input_ids=ids, use_cache=False, output_attentions=True).attentions[layer])
    values: list[Tensor] = []

    def record(module: nn.Module, args: Any, output: Tensor) -> None:
        if layout.fused:
            values.append(_parts(output, layout)[2])
        else:
            values.append(output.unflatten(-1, (layout.kv_heads, -1)))

    def replace(module: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
        z = args[0].unflatten(-1, (layout.heads, -1)).clone()
        for head in range(layout.heads):
            value = values[0][:, :, head // (layout.heads // layout.kv_heads)]
            z[:, :, head] = pattern[:, head] @ value
        return (z.flatten(-2), *args[1:])

    handles = [
        block.get_submodule(layout.qkv or layout.v).register_forward_hook(record),
        block.get_submodule(layout.z).register_forward_pre_hook(replace),
    ]
    try:
        return plain_logits(hf, ids)
    finally:
        for handle in handles:
            handle.remove()


def _middle_logits(family: str, hf: nn.Module, ids: Tensor, block: Any, edit: Function) -> Tensor:
    """Replaces what a block returns by what its second half gives on the edited middle of the stream."""
    seen: list[Tensor] = []

    def record(module: nn.Module, args: tuple[Any, ...]) -> None:
        if not seen:
            seen.append(args[0])

    def replace(module: nn.Module, args: Any, output: Any) -> Any:
        middle = edit(seen[0])
        new = _SECOND_HALF[family](block, middle)
        return (new, *output[1:]) if isinstance(output, tuple) else new

    handles = [
        block.get_submodule(LAYOUTS[family].middle).register_forward_pre_hook(record),
        block.register_forward_hook(replace),
    ]
    try:
        return plain_logits(hf, ids)
    finally:
        for handle in handles:
            handle.remove()


_SECOND_HALF: dict[str, Callable[[Any, Tensor], Tensor]] = {
    "gpt2": lambda block, x: x + block.mlp(block.ln_2(x)),
    "llama": lambda block, x: x + block.mlp(block.post_attention_layernorm(x)),
    "mixtral": lambda block, x: x + block.mlp(block.post_attention_layernorm(x)),
    "gemma2": lambda block, x: x + block.post_feedforward_layernorm(block.mlp(block.pre_feedforward_layernorm(x))),
    "bloom": lambda block, x: block.mlp(block.post_attention_layernorm(x), x),
}


def _edit_input(module: nn.Module, edit: Function) -> Any:
    def hook(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if args:
            return (edit(args[0]), *args[1:]), kwargs
        return args, {**kwargs, "hidden_states": edit(kwargs["hidden_states"])}

    return module.register_forward_pre_hook(hook, with_kwargs=True)


def _edit_output(module: nn.Module, edit: Function) -> Any:
    def hook(_: nn.Module, args: Any, output: Any) -> Any:
        return (edit(output[0]), *output[1:]) if isinstance(output, tuple) else edit(output)

    return module.register_forward_hook(hook)


def _by_head(edit: Function, heads: int) -> Function:
    return lambda x: edit(x.unflatten(-1, (heads, -1))).flatten(-2)


def _parts(fused: Tensor, layout: Layout) -> list[Tensor]:
    if layout.fused == "concat":
        return [part.unflatten(-1, (layout.heads, -1)) for part in fused.chunk(3, -1)]
    return list(fused.unflatten(-1, (layout.heads, 3, -1)).unbind(-2))


def _by_fused(edit: Function, index: int, layout: Layout) -> Function:
    def change(fused: Tensor) -> Tensor:
        parts = _parts(fused, layout)
        parts[index] = edit(parts[index])
        if layout.fused == "concat":
            return torch.cat([part.flatten(-2) for part in parts], -1)
        return torch.stack(parts, -2).flatten(-3)

    return change


@contextmanager
def counted_calls(modules: Sequence[nn.Module]) -> Iterator[list[int]]:
    """How often each module's own forward runs while the block does: counted inside it, so that a hook before it can still stop it."""
    counts = [0] * len(modules)
    handles = []

    def count(index: int) -> Callable[..., None]:
        def hook(module: nn.Module, args: Any, output: Any) -> None:
            counts[index] += 1

        return hook

    for index, module in enumerate(modules):
        handles.append(module.register_forward_hook(count(index), always_call=False))
    try:
        yield counts
    finally:
        for handle in handles:
            handle.remove()


def filtered_probabilities(
    logits: list[float], temperature: float, top_k: int | None, top_p: float | None
) -> list[float]:
    """Temperature, then top-k, then top-p, then renormalised (Holtzman et al. 2020, section 3.1), one token at a time."""
    from math import exp

    highest = max(logits)
    weights = [exp((value - highest) / temperature) for value in logits]
    order = sorted(range(len(logits)), key=lambda i: -logits[i])
    kept = order if top_k is None else order[:top_k]
    total = sum(weights[i] for i in kept)
    if top_p is not None:
        nucleus, mass = [], 0.0
        for i in kept:
            if mass >= top_p:
                break
            nucleus.append(i)
            mass += weights[i] / total
        kept = nucleus
    total = sum(weights[i] for i in kept)
    return [weights[i] / total if i in kept else 0.0 for i in range(len(logits))]


def slope(function: Callable[[Tensor], float], x: Tensor, direction: Tensor, step: float = 1e-5) -> float:
    """Central difference of ``function`` at ``x`` along ``direction``."""
    return (function(x + step * direction) - function(x - step * direction)) / (2 * step)
