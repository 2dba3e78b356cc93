"""The settings of the experiment."""

import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent


@dataclass(frozen=True, kw_only=True)
class Config:
    """How many pairs are patched, drawn in an order shuffled with ``seed``, and how many ``top`` heads are compared.

    ``asked_at_once`` is how many pairs the model is asked together while looking for those that it answers rightly; ``steps`` are
    those of the integrated gradients.
    """

    model: str = "smollm2-135m"
    pairs: int = 40
    seed: int = 0
    asked_at_once: int = 16
    top: int = 10
    steps: int = 5

    def quick(self) -> "Config":
        """Two pairs: it shows that everything runs, in less than a minute."""
        return replace(self, pairs=2, steps=2)

    def to_json(self) -> dict[str, Any]:
        """The settings as JSON gives them back."""
        return json.loads(json.dumps(asdict(self)))
