"""What is measured and how often."""

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from interp.prompts import Fact

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


Text = str | tuple[int, ...]
"""A prompt as text or as token ids."""


@dataclass(frozen=True, kw_only=True)
class Traced:
    """A prompt to trace: ``name`` is for the page, ``subject`` its text or positions.

    ``every`` is the step between the layers, and between the positions, of the cells that are timed the naive way; with ``whole`` all
    of them are run that way once, for the first kind.
    """

    name: str
    prompt: Text
    subject: Text
    kinds: tuple[str, ...]
    every: tuple[int, int]
    rounds: int
    whole: bool = False


@dataclass(frozen=True, kw_only=True)
class Pair:
    """Two prompts of as many tokens, with their answers; ``name`` is for the page."""

    name: str
    clean: Text
    corrupted: Text
    answer: str | int
    against: str | int


@dataclass(frozen=True, kw_only=True)
class Edited:
    """A fact to edit at a layer, with a second moment of at least so many ``tokens``."""

    fact: Fact
    layer: int
    tokens: int
    rounds: int


_EIFFEL = "The Eiffel Tower"
_SHORT = Traced(
    name="10 tokens",
    prompt="The Eiffel Tower is located in the city of",
    subject=_EIFFEL,
    kinds=("resid", "mlp", "attn"),
    every=(7, 1),
    rounds=2,
)
_FIRST = Traced(
    name="40 tokens, the subject the first four",
    prompt="The Eiffel Tower, which was built for a fair and has been visited by a great many people from all over the world since "
    "the day on which it was opened, is located in the city of",
    subject=_EIFFEL,
    kinds=("resid",),
    every=(15, 13),
    rounds=1,
)
_MIDDLE = replace(
    _FIRST,
    name="40 tokens, the subject after 18 others",
    prompt="My parents travelled all over Europe before I was born and they often told us about it. The Eiffel Tower, which they had "
    "seen from a boat on the river, is located in the city of",
)
_DIFFERENT = Pair(
    name="the first token differs",
    clean="Italy is a country whose capital is the city of",
    corrupted="Germany is a country whose capital is the city of",
    answer=" Rome",
    against=" Berlin",
)
_LANDMARKS = Pair(
    name="two landmarks",
    clean="The Eiffel Tower is located in the city of",
    corrupted="The Colosseum is located in the city of",
    answer=" Paris",
    against=" Rome",
)


@dataclass(frozen=True, kw_only=True)
class Measured:
    """A second moment to take: of which layer, over how many texts of how many tokens (shortest, longest)."""

    layer: int
    texts: int
    lengths: tuple[int, int]
    rounds: int
    batch_tokens: int = 2048


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
    traces: tuple[Traced, ...] = (_SHORT, _FIRST, _MIDDLE)
    pairs: tuple[Pair, ...] = (_DIFFERENT, _LANDMARKS)
    patch_threads: int = 1
    patch_rounds: int = 2
    patch_every: tuple[int, int] = (7, 1)
    patch_whole: bool = False
    edited: Edited = Edited(fact=Fact(_EIFFEL, "{} is located in the city of", " Rome"), layer=5, tokens=6000, rounds=2)
    measured: Measured = Measured(layer=5, texts=40, lengths=(40, 240), rounds=9)
    collected: Measured = Measured(layer=5, texts=40, lengths=(40, 240), rounds=5)
    edit_threads: int = 1
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
            traces=(replace(_SHORT, kinds=("resid",), every=(29, 3), rounds=1, whole=False),),
            pairs=(_LANDMARKS,),
            patch_rounds=1,
            patch_every=(15, 3),
            patch_whole=False,
            edited=replace(self.edited, tokens=500, rounds=1),
            measured=replace(self.measured, texts=8, rounds=3),
            collected=replace(self.collected, texts=8, rounds=3),
            starts=1,
            help_starts=3,
        )


def read_goals(path: Path = FOLDER / "goals.json") -> dict[str, Any]:
    """The goals by row, with what each is about."""
    return json.loads(path.read_text())
