"""The settings of the experiment."""

import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent


@dataclass(frozen=True, kw_only=True)
class Config:
    """The first ``tokens`` of each of the first ``texts`` that are as long.

    A token is ``sure`` where the model's final probability of its choice is at least that, ``unsure`` where it is below that. The
    ``frequent`` tokens are those that make up that share of the file's tokens. Intervals are from ``draws`` bootstrap draws of texts.
    """

    model: str = "smollm2-135m"
    texts: int = 40
    tokens: int = 96
    sure: float = 0.5
    unsure: float = 0.2
    frequent: float = 0.5
    draws: int = 1000
    seed: int = 0

    def quick(self) -> "Config":
        """Two texts: it shows that everything runs, in less than a minute."""
        return replace(self, texts=2, draws=50)

    def to_json(self) -> dict[str, Any]:
        """The settings as JSON gives them back."""
        return json.loads(json.dumps(asdict(self)))
