"""Ablation by plain torch hooks on a Hugging Face model: one whole forward for every component of every prompt.

Where a family keeps its parts is written down by hand; nothing of interp is used here.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class Layout:
    """Where a block keeps the map whose input is z, and the modules whose outputs are added to the stream."""

    blocks: str
    z: str
    attn: str
    mlp: str
    heads: int = 4


LAYOUTS = {
    "llama": Layout("model.layers", "self_attn.o_proj", "self_attn", "mlp"),
    "mixtral": Layout("model.layers", "self_attn.o_proj", "self_attn", "mlp"),
    "smollm2": Layout("model.layers", "self_attn.o_proj", "self_attn", "mlp", heads=9),
    "gemma2": Layout(
        "model.layers", "self_attn.o_proj", "post_attention_layernorm", "post_feedforward_layernorm"
    ),  # after the norms behind them
    "gpt2": Layout("transformer.h", "attn.c_proj", "attn", "mlp"),
    "gpt_neox": Layout("gpt_neox.layers", "attention.dense", "attention", "mlp"),
    "gptj": Layout("transformer.h", "attn.out_proj", "attn", "mlp"),
    "bloom": Layout(
        "transformer.h", "self_attention.dense", "self_attention.dense", "mlp.dense_4h_to_h"
    ),  # the modules around them add the stream
    "mpt": Layout("transformer.blocks", "attn.out_proj", "attn", "ffn.down_proj"),
}
PARTS = {"heads": ("z",), "attention": ("attn",), "mlps": ("mlp",), "layers": ("attn", "mlp")}


def logits_of(hf: nn.Module, ids: Sequence[int]) -> Tensor:
    with torch.no_grad():
        return hf(input_ids=torch.tensor([list(ids)]), use_cache=False).logits[0]


def output_of(family: str, hf: nn.Module, ids: Sequence[int], part: str, layer: int) -> Tensor:
    """[pos head d_head] for z, [pos d_model] for the others."""
    seen: list[Tensor] = []

    def keep(value: Tensor) -> Tensor:
        seen.append(value[0].clone())
        return value

    handle = _hook(family, hf, part, layer, keep)
    try:
        logits_of(hf, ids)
    finally:
        handle.remove()
    return seen[0]


def mean_outputs(family: str, hf: nn.Module, texts: Sequence[Sequence[int]], part: str, layer: int) -> list[Tensor]:
    """The mean at the first position, and the mean over all later positions of all texts."""
    outputs = [output_of(family, hf, ids, part, layer) for ids in texts]
    firsts = [output[0] for output in outputs]
    later = [row for output in outputs for row in output[1:]]
    return [sum(firsts) / len(firsts), sum(later) / len(later)]


def logits_without(
    family: str,
    hf: nn.Module,
    ids: Sequence[int],
    unit: str,
    layer: int,
    head: int | None,
    values: dict[str, list[Tensor]] | None,
    positions: Sequence[int] | None = None,
) -> Tensor:
    """The logits when a unit's output is, at each position, the entry of ``values[part]``, or zero."""
    where = range(len(ids)) if positions is None else positions

    def put(part: str) -> Any:
        def edit(value: Tensor) -> Tensor:
            new = value.clone()
            for position in where:
                wanted = torch.zeros_like(new[0, position]) if values is None else values[part][position]
                if head is None:
                    new[0, position] = wanted
                else:
                    new[0, position, head] = wanted[head]
            return new

        return edit

    handles = [_hook(family, hf, part, layer, put(part)) for part in PARTS[unit]]
    try:
        return logits_of(hf, ids)
    finally:
        for handle in handles:
            handle.remove()


def losses(logits: Tensor, ids: Sequence[int]) -> list[float]:
    """-ln p of each next token."""
    found = []
    for row, token in zip(logits[:-1].double().tolist(), ids[1:], strict=True):
        top = max(row)
        found.append(top + math.log(sum(math.exp(x - top) for x in row)) - row[token])
    return found


def mean_loss(logits: Tensor, ids: Sequence[int]) -> float:
    by_token = losses(logits, ids)
    return sum(by_token) / len(by_token)


def _hook(family: str, hf: nn.Module, part: str, layer: int, edit: Any) -> Any:
    layout = LAYOUTS[family]
    block = hf.get_submodule(f"{layout.blocks}.{layer}")
    if part == "z":

        def before(_: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
            split = args[0].unflatten(-1, (layout.heads, -1))
            return (edit(split).flatten(-2), *args[1:])

        return block.get_submodule(layout.z).register_forward_pre_hook(before)

    def after(_: nn.Module, args: Any, output: Any) -> Any:
        if isinstance(output, tuple):
            return (edit(output[0]), *output[1:])
        return edit(output)

    return block.get_submodule(getattr(layout, part)).register_forward_hook(after)
