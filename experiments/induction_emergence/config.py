"""The settings of the experiment, and the figures that are expected of it."""

import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent
ROOT = FOLDER.parents[1]
BOS = 0
"""The token that every sequence begins with; it is never drawn."""


@dataclass(frozen=True, kw_only=True)
class Config:
    """Model, data, training and measurement.

    A training sequence is BOS and then a block of ``shortest`` to ``longest`` random tokens, repeated until the sequence has
    ``length`` tokens. The block's length changes from sequence to sequence, so that copying from a fixed distance does not help.
    ``attention_decay`` is the weight decay of queries and keys. It is large, so that a head either does something or attends evenly.
    """

    vocabulary: int = 64
    d_model: int = 64
    n_heads: int = 4
    d_head: int = 32
    context: int = 256

    length: int = 64
    shortest: int = 8
    longest: int = 24

    layers: tuple[int, ...] = (1, 2)
    seeds: tuple[int, ...] = (0, 1, 2, 3, 4)
    steps: int = 1000
    rows: int = 32
    learning_rate: float = 2e-3
    weight_decay: float = 0.1
    attention_decay: float = 3.0
    betas: tuple[float, float] = (0.9, 0.98)
    warm_up: int = 100
    clip: float = 1.0

    every: int = 25
    before: int = 150
    periods: tuple[int, ...] = (8, 12, 16, 20, 24)
    measured_rows: int = 16
    measured_seed: int = 1000
    detector_seeds: int = 6

    def quick(self) -> "Config":
        """One seed: it shows that everything runs, in about a minute."""
        return replace(self, seeds=(0,), steps=400)

    def to_json(self) -> dict[str, Any]:
        """The settings as JSON gives them back."""
        return json.loads(json.dumps(asdict(self)))


def read_expected(path: Path = FOLDER / "expected.json") -> dict[str, Any]:
    """The expected figures by name: the value, how far a run may be from it and what it is."""
    return json.loads(path.read_text())
