"""The settings of the experiment."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from experiments.causal_tracing.facts import KnownFact

FOLDER = Path(__file__).parent


@dataclass(frozen=True, kw_only=True)
class Config:
    """How many facts that the model knows, and how each is traced (arguments of ``interp.causal_trace``).

    Of all that it knows those are taken that have the fewest tokens from the subject on: a trace's work grows with their square.
    """

    model: str = "smollm2-135m"
    facts: int = 200
    seed: int = 0
    kinds: tuple[str, ...] = ("resid",)
    samples: int = 1
    noise: float = 3.0

    def quick(self) -> "Config":
        """Eight facts: it shows that everything runs."""
        return replace(self, facts=8)

    def sweep(self, facts: Sequence[KnownFact]) -> dict[str, Any]:
        """The configuration of the sweep."""
        return {
            "analyzer": "causal_trace",
            "model": self.model,
            "device": "cpu",
            "seed": self.seed,
            "items": [{"prompt": fact.prompt, "subject": fact.subject, "target": fact.answer} for fact in facts],
            "settings": {"kinds": list(self.kinds), "samples": self.samples, "noise": self.noise},
        }
