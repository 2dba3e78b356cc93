"""Texts of unlike lengths as token ids, and what a store of them should hold by plain forwards, one window at a time."""

import random
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

import tiny_models


def texts(number: int = 40, longest: int = 150, seed: int = 0) -> list[list[int]]:
    """Texts of 1 to ``longest`` tokens, longer than the tiny models' context of 64 now and then."""
    draw = random.Random(seed)
    return [[draw.randrange(3, tiny_models.VOCABULARY) for _ in range(draw.randint(1, longest))] for _ in range(number)]


def cut(corpus: Sequence[Sequence[int]], window: int) -> Iterator[tuple[int, int, list[int]]]:
    """Document, number of the window, and its tokens."""
    for document, text in enumerate(corpus):
        for index, start in enumerate(range(0, len(text), window)):
            yield document, index, list(text[start : start + window])


def streams(hf: nn.Module, ids: Sequence[int], layer: int) -> Tensor:
    """The residual stream leaving a block of a Llama, [pos d_model], by a plain forward of one window."""
    seen: list[Tensor] = []
    handle = hf.get_submodule(f"model.layers.{layer}").register_forward_hook(lambda m, a, out: seen.append(out))
    try:
        with torch.no_grad():
            hf(input_ids=torch.tensor([list(ids)]), use_cache=False)
    finally:
        handle.remove()
    return seen[0][0]


def files(folder: Path) -> dict[str, bytes]:
    """What each file of a store's shards holds; the manifest, which names times, is left out."""
    return {
        path.name: path.read_bytes()
        for path in sorted(folder.iterdir())
        if path.name != "store.json" and not path.name.startswith(".")
    }
