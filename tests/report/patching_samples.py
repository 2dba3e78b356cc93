"""Hand-made results of activation patching: plausible numbers, no model."""

import torch
from torch import Tensor

from interp.analyzers.activation_patching_result import ActivationPatchingResult
from interp.analyzers.answers import Answer
from interp.tokens import Tokens
from report import samples

CLEAN = ("The", " Eiffel", " Tower", " is", " in", " the", " city", " of")
CORRUPTED = ("The", " Colos", "seum", " is", " in", " the", " city", " of")
N_HEADS = 6
_AXES = {"position": ("pos",), "head": ("head",), "head_position": ("head", "pos"), "layer": ()}


def answer(piece: str, number: int = 1000) -> Answer:
    return Answer(text=piece, ids=(number,), pieces=(piece,))


def patching(
    clean: tuple[str, ...] = CLEAN,
    corrupted: tuple[str, ...] = CORRUPTED,
    *,
    by: str = "position",
    sites: tuple[str, ...] = ("resid_pre", "mlp_out"),
    layers: int = 12,
    pairs: int = 1,
    target: str = " Paris",
    against: str | None = " Rome",
    metric: str = "logit_difference",
    unit: str = "logits",
    kv_heads: int = 2,
    **changes,
) -> ActivationPatchingResult:
    """A stream that holds the answer at position 2 in the first half of the layers and at the last position after; L7H3 moves it."""
    draw = torch.Generator().manual_seed(5)
    noise = torch.randn(pairs, generator=draw)
    ends = 3 + 0.3 * noise, -2 + 0.3 * torch.randn(pairs, generator=draw)
    share = {site: _effects(site, by, layers, len(clean), kv_heads, draw) for site in sites}
    start, way = (ends[1], ends[0] - ends[1]) if changes.get("direction") != "noising" else (ends[0], ends[1] - ends[0])
    patched = {
        site: _along(start, effect[None])
        + _along(way, effect[None]) * effect
        + 0.05 * torch.randn(pairs, *effect.shape, generator=draw)
        for site, effect in share.items()
    }
    values = {
        "provenance": samples.provenance(command="interp patch"),
        "clean": (samples.tokens(clean),) * pairs,
        "corrupted": (_tokens(corrupted),) * pairs,
        "answers": (answer(target),) * pairs,
        "against": () if against is None else (answer(against, 1003),) * pairs,
        "direction": "denoising",
        "metric": metric,
        "metric_unit": unit,
        "sites": sites,
        "by": by,
        "layers": tuple(range(layers)),
        "n_heads": N_HEADS,
        "clean_metric": ends[0],
        "corrupted_metric": ends[1],
        "patched": patched,
        "confidence": 0.95,
        "seed": 0,
    }
    return ActivationPatchingResult(**(values | changes))


def _tokens(pieces: tuple[str, ...]) -> Tokens:
    return samples.tokens(pieces)


def _along(values: Tensor, like: Tensor) -> Tensor:
    return values.reshape(-1, *[1] * (like.dim() - 1))


def _effects(site: str, by: str, layers: int, n_pos: int, kv_heads: int, draw: torch.Generator) -> Tensor:
    heads = kv_heads if site in ("attn.k", "attn.v") else N_HEADS
    size = {"layer": layers, "head": heads, "pos": n_pos}
    shape = [size[axis] for axis in ("layer", *_AXES[by])]
    effect = 0.02 * torch.randn(shape, generator=draw)
    if by == "position" and site.startswith("resid_"):
        effect[: layers // 2, min(2, n_pos - 1)] += 0.97
        effect[layers // 2 + 1 :, -1] += 0.95
    elif by == "position":
        effect[1, min(2, n_pos - 1)] += 0.3
    elif by == "layer":
        effect += torch.linspace(0, 0.9, layers)
    else:
        head = min(3, heads - 1)
        effect[min(7, layers - 1), head] += 0.4 if by == "head" else torch.linspace(0, 0.4, n_pos)
    return effect
