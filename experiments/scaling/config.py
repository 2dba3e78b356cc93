"""The settings of the experiment."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent

_LOCATED = "{} is located in the city of"
_FACTS = (
    ("The Eiffel Tower", _LOCATED, " Paris"),
    ("The Louvre", _LOCATED, " Paris"),
    ("The Colosseum", _LOCATED, " Rome"),
    ("Big Ben", _LOCATED, " London"),
    ("The Brandenburg Gate", _LOCATED, " Berlin"),
    ("The Sagrada Familia", _LOCATED, " Barcelona"),
    ("The iPhone", "{} is made by the company", " Apple"),
    ("Windows", "{} is made by the company", " Microsoft"),
)


@dataclass(frozen=True, kw_only=True)
class Config:
    """What is swept: traces of ``facts`` facts with every noise; ``runs`` are engines with their numbers of workers."""

    model: str = "smollm2-135m"
    facts: int = len(_FACTS)
    noises: tuple[float, ...] = (2.0, 3.0, 4.0)
    samples: int = 1
    runs: tuple[tuple[str, int], ...] = (("embedded", 1), ("embedded", 2), ("ray", 1), ("ray", 2))

    def quick(self) -> "Config":
        """Two facts and one noise: it shows that everything runs."""
        return replace(self, facts=2, noises=(3.0,))

    def sweep(self) -> dict[str, Any]:
        """The configuration of the sweep."""
        return {
            "analyzer": "causal_trace",
            "model": self.model,
            "device": "cpu",
            "items": [
                {"prompt": template.replace("{}", subject), "subject": subject, "target": target}
                for subject, template, target in _FACTS[: self.facts]
            ],
            "settings": {"kinds": ["resid"], "samples": self.samples},
            "grid": {"noise": list(self.noises)},
        }
