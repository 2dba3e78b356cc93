"""Attribution patching by plain autograd on the Hugging Face model: a hook keeps each activation, one backward gives its gradient.

Nanda 2023 / Syed et al. 2023, equation 3: the estimate of a cell is the sum over it of (source - base) * d metric / d activation (base).
Nothing of interp is used.
"""

from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor, nn

from oracles.runner import LAYOUTS

Metric = Callable[[Tensor], Tensor]
"""Logits [d_vocab] of the last position to one number."""


def estimates(
    family: str, hf: nn.Module, base: Tensor, source: Tensor, metric: Metric, kind: str, steps: int = 1
) -> Tensor:
    """(source - base) * gradient [layer pos ...] with the site's own further axes. ``steps`` > 1: mean gradient at the midpoints
    of the line from the base's to the source's stream entering the first block."""
    base_acts, _ = activations(family, hf, base, metric, kind)
    source_acts, _ = activations(family, hf, source, metric, kind)
    if steps == 1:
        _, gradients = activations(family, hf, base, metric, kind)
    else:
        start = entering(family, hf, base)
        line = entering(family, hf, source) - start
        found = [
            activations(family, hf, base, metric, kind, start + line * (step + 0.5) / steps)[1] for step in range(steps)
        ]
        gradients = [sum(parts) / steps for parts in zip(*found, strict=True)]
    out = []
    for new, old, gradient in zip(source_acts, base_acts, gradients, strict=True):
        out.append((new - old) * gradient)
    return torch.stack(out)


def activations(
    family: str, hf: nn.Module, ids: Tensor, metric: Metric, kind: str, stream: Tensor | None = None
) -> tuple[list[Tensor], list[Tensor]]:
    """By layer the activations and their gradients; ``stream`` replaces what enters the first block."""
    layout = LAYOUTS[family]
    kept: list[Tensor] = []

    def keep(x: Tensor) -> Tensor:
        if not x.requires_grad:
            x = x.detach().requires_grad_()
        kept.append(x)
        return x

    with ExitStack() as stack, torch.enable_grad():
        blocks = hf.get_submodule(layout.blocks)
        if stream is not None:
            stack.callback(_on_input(blocks[0], lambda _: stream.clone()).remove)
        for block in blocks:
            stack.callback(_site(block, layout, kind, keep).remove)
        logits = hf(input_ids=torch.as_tensor(ids)[None], use_cache=False).logits[0, -1]
        gradients = torch.autograd.grad(metric(logits), kept)
    shaped = [kept, gradients]
    if kind == "attn.z":
        shaped = [[x.unflatten(-1, (layout.heads, -1)) for x in part] for part in shaped]
    return [x[0].detach() for x in shaped[0]], [x[0].detach() for x in shaped[1]]


def entering(family: str, hf: nn.Module, ids: Tensor) -> Tensor:
    """The stream entering the first block, [1 pos d_model]."""
    seen: list[Tensor] = []
    block = hf.get_submodule(LAYOUTS[family].blocks)[0]
    handle = _on_input(block, lambda x: seen.append(x.detach()) or x)
    try:
        with torch.no_grad():
            hf(input_ids=torch.as_tensor(ids)[None], use_cache=False)
    finally:
        handle.remove()
    return seen[0]


def rank_correlation(first: list[float], second: list[float]) -> float:
    """Spearman's: Pearson's correlation of ranks, ties at their mean rank; by counting, one number at a time."""
    a, b = _ranks(first), _ranks(second)
    n = len(a)
    mean_a, mean_b = sum(a) / n, sum(b) / n
    top = sum((x - mean_a) * (y - mean_b) for x, y in zip(a, b, strict=True))
    return top / (sum((x - mean_a) ** 2 for x in a) * sum((y - mean_b) ** 2 for y in b)) ** 0.5


def _ranks(values: list[float]) -> list[float]:
    return [
        sum(other < value for other in values) + (sum(other == value for other in values) + 1) / 2 for value in values
    ]


def _site(block: Any, layout: Any, kind: str, keep: Callable[[Tensor], Tensor]) -> Any:
    if kind == "resid_pre":
        return _on_input(block, keep)
    if kind == "attn.z":
        return _on_input(block.get_submodule(layout.z), keep)
    return _on_output(block.get_submodule(getattr(layout, kind)), keep)


def _on_input(module: nn.Module, change: Callable[[Tensor], Tensor]) -> Any:
    def hook(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if args:
            return (change(args[0]), *args[1:]), kwargs
        return args, {**kwargs, "hidden_states": change(kwargs["hidden_states"])}

    return module.register_forward_pre_hook(hook, with_kwargs=True)


def _on_output(module: nn.Module, change: Callable[[Tensor], Tensor]) -> Any:
    def hook(_: nn.Module, args: Any, output: Any) -> Any:
        return (change(output[0]), *output[1:]) if isinstance(output, tuple) else change(output)

    return module.register_forward_hook(hook)
