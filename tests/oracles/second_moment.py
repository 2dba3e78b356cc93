"""Second moments by one whole forward for each text, a torch hook on the output projection, and a loop over tokens.

Where a family keeps that projection is written down by hand; nothing of interp is used here.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

DOWN = {
    "gpt2": "transformer.h.{}.mlp.c_proj",
    "llama": "model.layers.{}.mlp.down_proj",
    "gemma2": "model.layers.{}.mlp.down_proj",
    "gpt_neox": "gpt_neox.layers.{}.mlp.dense_4h_to_h",
    "phi3": "model.layers.{}.mlp.down_proj",
    "opt": "model.decoder.layers.{}.fc2",
    "mpt": "transformer.blocks.{}.ffn.down_proj",
}


def keys_of(hf: nn.Module, path: str, text: Sequence[int]) -> Tensor:
    """What the projection gets at each token of one text, [token d_mlp]."""
    seen: list[Tensor] = []
    handle = hf.get_submodule(path).register_forward_pre_hook(lambda module, args: seen.append(args[0]))
    try:
        with torch.no_grad():
            hf(input_ids=torch.tensor([list(text)]), use_cache=False)
    finally:
        handle.remove()
    return seen[0].reshape(len(text), -1).detach()


def second_moment(hf: nn.Module, path: str, texts: Sequence[Sequence[int]]) -> tuple[Tensor, int]:
    """The mean of k k^T over every token of every text in float64, and the number of tokens."""
    total, count = None, 0
    for text in texts:
        for key in keys_of(hf, path, text):
            outer = torch.outer(key.double(), key.double())
            total = outer if total is None else total + outer
            count += 1
    assert total is not None, "there is a text"
    return total / count, count


def moment_of_rows(rows: Tensor) -> Tensor:
    """The mean of k k^T over rows, entry by entry, in Python's own floats."""
    values = rows.double().tolist()
    width = len(values[0])
    return torch.tensor(
        [[sum(row[i] * row[j] for row in values) / len(values) for j in range(width)] for i in range(width)],
        dtype=torch.float64,
    )


def ledoit_wolf_amount(rows: Tensor) -> float:
    """The amount of shrinkage of Ledoit and Wolf (2004), lemma 3.2 to 3.4, row by row (their norm is |A|^2 / d)."""
    width, n_rows = rows.shape[1], rows.shape[0]
    sample = moment_of_rows(rows)
    mean = float(sample.trace()) / width
    apart = float((sample - mean * torch.eye(width, dtype=torch.float64)).square().sum()) / width
    spread = 0.0
    for row in rows.double():
        spread += float((torch.outer(row, row) - sample).square().sum()) / width
    return min(spread / n_rows**2, apart) / apart
