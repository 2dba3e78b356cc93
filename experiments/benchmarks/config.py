"""What is measured and how often."""

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent
ROOT = FOLDER.parents[1]
SEED = 0
PEER_EVERY = 3
"""Other tools take part in every third round only: what has to be sharp is our ratio to the plain forward."""


@dataclass(frozen=True, kw_only=True)
class Shape:
    """A batch of ``rows`` prompts of ``tokens`` tokens, and the rounds that it is measured for."""

    rows: int
    tokens: int
    rounds: int

    def __str__(self) -> str:
        return f"{self.rows}x{self.tokens}"


@dataclass(frozen=True, kw_only=True)
class Config:
    """The settings of one run of the benchmarks."""

    model: str = "smollm2-135m"
    threads: int = 2
    shapes: tuple[Shape, ...] = (
        Shape(rows=1, tokens=12, rounds=60),
        Shape(rows=4, tokens=128, rounds=11),
        Shape(rows=1, tokens=512, rounds=11),
    )
    stop_layer: int = 5
    start_layer: int = 25
    lens_positions: int = 512
    lens_rounds: int = 5
    scan: Shape = Shape(rows=16, tokens=101, rounds=7)
    scan_memory_tokens: int = 1025
    fault_rounds: int = 7
    memory_tokens: int = 64
    starts: int = 2
    help_starts: int = 11
    peers: tuple[str, ...] = ("Hugging Face", "TransformerLens", "nnsight")

    def quick(self) -> "Config":
        """Few rounds and short prompts: it shows that everything runs, in about a minute."""
        return replace(
            self,
            shapes=(Shape(rows=1, tokens=12, rounds=20), Shape(rows=1, tokens=128, rounds=6)),
            lens_positions=32,
            lens_rounds=3,
            fault_rounds=3,
            scan=Shape(rows=2, tokens=41, rounds=3),
            scan_memory_tokens=129,
            starts=1,
            help_starts=3,
        )


def read_goals(path: Path = FOLDER / "goals.json") -> dict[str, Any]:
    """The goals by row, with what each is about."""
    return json.loads(path.read_text())
