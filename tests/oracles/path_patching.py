"""Path patching as Wang et al. 2022 describe it (section 3.1 and appendix B), one pair and one sender at a time, with plain hooks.

Nothing of interp is used: full forwards of the Hugging Face model, each changed activation put in place by a hook.
"""

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor, nn

from oracles.runner import LAYOUTS, Function, _by_fused, _by_head, _edit_input, _edit_output, plain_logits

Receiver = tuple[int, int, str]
"""Layer, head and "q", "k" or "v"."""


def path_patched_logits(
    family: str,
    hf: nn.Module,
    base: Tensor,
    source: Tensor,
    sender: tuple[int, int],
    receivers: Sequence[Receiver] = (),
    *,
    positions: Sequence[int] | None = None,
    freeze_mlps: bool = False,
) -> Tensor:
    """Logits [pos d_vocab] of ``base`` [pos] with one path from the sender taken from ``source``; no receivers: the path to the logits.

    First forward: the sender's output from ``source``, every other head's from ``base`` (MLPs too if they are frozen), all else
    computed. What the receivers' inputs are there goes, in a second forward of ``base``, into the receivers and nowhere else.
    """
    layer, head = sender
    n_layers = len(hf.get_submodule(LAYOUTS[family].blocks))
    kept, other = recorded(family, hf, base), recorded(family, hf, source)
    where = list(range(len(base))) if positions is None else list(positions)
    first: list[tuple[str, int, Function]] = []
    for at in range(n_layers):
        z = kept["attn.z", at].clone()
        if at == layer:
            z[:, where, head] = other["attn.z", at][:, where, head]
        first.append(("attn.z", at, lambda _, z=z: z))
        if freeze_mlps:
            first.append(("mlp_out", at, lambda _, out=kept["mlp_out", at]: out))
    seen: dict[tuple[str, int], Tensor] = {}
    direct = forward(family, hf, base, first, seen)
    if not receivers:
        return direct
    second = []
    for at, reader, name in receivers:
        index = reader if name == "q" else reader * LAYOUTS[family].kv_heads // LAYOUTS[family].heads

        def replace(x: Tensor, new: Tensor = seen[f"attn.{name}", at], index: int = index) -> Tensor:
            out = x.clone()
            out[:, :, index] = new[:, :, index]
            return out

        second.append((f"attn.{name}", at, replace))
    return forward(family, hf, base, second)


def recorded(family: str, hf: nn.Module, ids: Tensor) -> dict[tuple[str, int], Tensor]:
    """Every site of a plain forward."""
    seen: dict[tuple[str, int], Tensor] = {}
    forward(family, hf, ids, (), seen)
    return seen


def forward(
    family: str,
    hf: nn.Module,
    ids: Tensor,
    edits: Sequence[tuple[str, int, Function]],
    seen: dict[tuple[str, int], Tensor] | None = None,
) -> Tensor:
    """Logits [pos d_vocab] with these sites replaced; what q, k, v, z and mlp_out then are goes into ``seen``."""
    layout = LAYOUTS[family]
    with ExitStack() as stack:
        for kind, layer, edit in edits:
            stack.callback(_hook(family, hf, kind, layer, edit).remove)
        if seen is not None:
            for layer in range(len(hf.get_submodule(layout.blocks))):
                for kind in ("attn.q", "attn.k", "attn.v", "attn.z", "mlp_out"):
                    note: Callable[[Tensor], Any] = _noter(seen, kind, layer)
                    stack.callback(_hook(family, hf, kind, layer, note).remove)
        return plain_logits(hf, torch.as_tensor(ids)[None])[0]


def _noter(seen: dict[tuple[str, int], Tensor], kind: str, layer: int) -> Function:
    def note(x: Tensor) -> Tensor:
        seen[kind, layer] = x.clone()
        return x

    return note


def _hook(family: str, hf: nn.Module, kind: str, layer: int, edit: Function) -> Any:
    layout = LAYOUTS[family]
    block = hf.get_submodule(f"{layout.blocks}.{layer}")
    if kind == "mlp_out":
        return _edit_output(block.get_submodule(layout.mlp_out), edit)
    if kind == "attn.z":
        return _edit_input(block.get_submodule(layout.z), _by_head(edit, layout.heads))
    name = kind[-1]
    if layout.qkv:
        return _edit_output(block.get_submodule(layout.qkv), _by_fused(edit, "qkv".index(name), layout))
    heads = layout.heads if name == "q" else layout.kv_heads
    return _edit_output(block.get_submodule(getattr(layout, name)), _by_head(edit, heads))
