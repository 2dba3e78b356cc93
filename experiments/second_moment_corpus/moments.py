"""The second moments that are tried, each made once and kept."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float64
from torch import Tensor

from experiments.rome.workshop import Workshop
from experiments.second_moment_corpus.config import Config
from interp.editing.second_moments import SecondMoment, second_moments

DEFAULT, AGAIN, OTHER, IDENTITY = "sampled, default", "sampled, other seed", "other paragraphs", "identity"
"""The one that edits use unless told otherwise, and those that say how much a sample, and C at all, matter."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Tried:
    """A second moment by its name, and the shrinkage it is used with: None is what edits choose, 1 leaves a multiple of the identity."""

    name: str
    moment: SecondMoment
    shrinkage: float | None = None

    @property
    def matrix(self) -> Float64[Tensor, "d_mlp d_mlp"]:
        """C as it is used."""
        return self.moment.shrunk(self.shrinkage)


def tried_moments(shop: Workshop, layer: int, config: Config, folder: Path) -> Iterator[Tried]:
    """The default first, then the others; those that ``folder`` has are not made again."""
    for name, asked in _asked(shop, config).items():
        path = folder / f"moment-{name.replace(' ', '-').replace(',', '')}.safetensors"
        if not path.is_file():
            shop.say(f"second moment: {name}")
            (made,) = second_moments(shop.model, layer, **asked)
            made.save(path)
        moment = SecondMoment.load(path)
        yield Tried(name=name, moment=moment)
        if name == DEFAULT:
            yield Tried(name=IDENTITY, moment=moment, shrinkage=1.0)


def _asked(shop: Workshop, config: Config) -> dict[str, dict[str, Any]]:
    """What each is made of."""
    paragraphs = list(shop.texts[: config.moment_texts])
    sampled = {"corpus": "sampled", "seed": config.seed, "max_tokens": config.default_tokens}
    found = {DEFAULT: sampled, AGAIN: sampled | {"seed": config.seed + 1}}
    found |= {f"sampled, {size:,} tokens": sampled | {"max_tokens": size} for size in config.sampled_sizes}
    found |= {
        f"paragraphs, {size:,} tokens": {"corpus": paragraphs, "max_tokens": size} for size in config.paragraph_sizes
    }
    found[OTHER] = {"corpus": paragraphs[config.other_texts :], "max_tokens": config.default_tokens}
    return found


def apart(a: Float64[Tensor, "d_mlp d_mlp"], b: Float64[Tensor, "d_mlp d_mlp"]) -> float:
    """|A - B| / |B| in the Frobenius norm."""
    return float(torch.linalg.matrix_norm(a - b) / torch.linalg.matrix_norm(b))
