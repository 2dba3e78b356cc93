"""The settings of the experiment."""

import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent


@dataclass(frozen=True, kw_only=True)
class Config:
    """How many facts are edited one at a time, drawn from those that the model knows with ``seed``, by which methods; how many together.

    Second moments are taken over the first ``moment_texts`` texts, ``moment_tokens`` of them; the perplexity after each single edit over
    the last ``held_out`` texts, after many edits over the last ``held_out_many``. Each case has up to ``neighbours`` neighbours. Text is
    generated for the first ``generated`` facts, by both kinds of ``rome``. ``sequence`` and ``batches`` are numbers of edits after one
    another and at once. ``at_once`` cases are measured between two saves.
    """

    model: str = "smollm2-135m"
    facts: int = 50
    seed: int = 0
    methods: tuple[str, ...] = ("rome", "rome-original", "memit", "alphaedit")
    neighbours: int = 10
    moment_texts: int = 625
    moment_tokens: int = 100_000
    held_out: int = 3
    held_out_many: int = 12
    generated: int = 20
    at_once: int = 5
    sequence: tuple[int, ...] = (1, 10, 100)
    batches: tuple[int, ...] = (10, 100)

    def quick(self) -> "Config":
        """Two facts and few texts: it shows that everything runs, in a few minutes."""
        return replace(
            self, facts=2, methods=("rome",), moment_texts=40, moment_tokens=6000, held_out=1, held_out_many=1, generated=1,
            at_once=1, sequence=(1, 2), batches=(2,),
        )  # fmt: skip

    @property
    def most(self) -> int:
        """Facts that are needed."""
        return max(self.facts, *self.sequence, *self.batches)

    def to_json(self) -> dict[str, Any]:
        """The settings as JSON gives them back."""
        return json.loads(json.dumps(asdict(self)))
