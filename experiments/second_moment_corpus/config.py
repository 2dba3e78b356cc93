"""The settings of the experiment."""

import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from experiments.rome.config import Config as RomeConfig

FOLDER = Path(__file__).parent


@dataclass(frozen=True, kw_only=True)
class Config:
    """How many facts are edited, the first of those of ``experiments/rome``, and the sizes of the corpora in tokens.

    ``default_tokens`` is what ``interp edit`` samples for this model; the other corpora are of ``sizes``. Paragraphs are taken from the
    first ``moment_texts``, a second sample of them from ``other_texts`` on; perplexity is over the last ``held_out``.
    """

    model: str = "smollm2-135m"
    facts: int = 12
    seed: int = 0
    method: str = "rome"
    default_tokens: int = 24576
    sampled_sizes: tuple[int, ...] = (6144,)
    paragraph_sizes: tuple[int, ...] = (6144, 24576, 49152)
    moment_texts: int = 625
    other_texts: int = 400
    held_out: int = 2
    neighbours: int = 10

    def quick(self) -> "Config":
        """Two facts and two corpora: it shows that everything runs, in a few minutes."""
        return replace(self, facts=2, sampled_sizes=(), paragraph_sizes=(6144,), held_out=1, neighbours=2)

    def rome(self) -> RomeConfig:
        """The settings that facts and texts are chosen with."""
        return RomeConfig(
            model=self.model, facts=self.facts, seed=self.seed, methods=(self.method,), neighbours=self.neighbours,
            moment_texts=self.moment_texts, held_out=self.held_out, held_out_many=self.held_out, sequence=(1,), batches=(1,),
        )  # fmt: skip

    def to_json(self) -> dict[str, Any]:
        """The settings as JSON gives them back."""
        return json.loads(json.dumps(asdict(self)))
