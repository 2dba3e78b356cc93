"""The settings of the experiment."""

import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent


@dataclass(frozen=True, kw_only=True)
class Config:
    """How many facts, and how each is traced (the arguments of ``interp.causal_trace``).

    Facts are taken in an order shuffled with ``seed``; that of the noise is ``seed`` plus the fact's number in the file. ``asked_at_once``
    is how many prompts the model is asked together while looking for facts that it knows.
    """

    model: str = "smollm2-135m"
    facts: int = 12
    seed: int = 0
    asked_at_once: int = 32
    noise: float = 3.0
    samples: int = 5
    window: int = 10
    kinds: tuple[str, ...] = ("resid", "mlp", "attn")

    def quick(self) -> "Config":
        """Two facts and two samples: it shows that everything runs, in less than a minute."""
        return replace(self, facts=2, samples=2)

    def to_json(self) -> dict[str, Any]:
        """The settings as JSON gives them back."""
        return json.loads(json.dumps(asdict(self)))
