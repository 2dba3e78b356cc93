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
class Collected:
    """A collection: the streams behind the first ``layers`` blocks, or behind the block ``only``.

    It has ``shards`` shards of ``shard_tokens`` tokens. All texts are ``length`` tokens long, drawn at random: what they say changes no
    time.
    """

    length: int
    layers: int = 6
    only: int | None = None
    shards: int = 8
    shard_tokens: int = 512

    @property
    def sites(self) -> str:
        """The sites that are collected."""
        return f"resid_post@{self.only}" if self.only is not None else f"resid_post@0-{self.layers - 1}"

    @property
    def n_layers(self) -> int:
        """Streams that are kept of each token."""
        return 1 if self.only is not None else self.layers

    @property
    def through(self) -> int:
        """Blocks that the forward runs."""
        return self.layers if self.only is None else self.only + 1


@dataclass(frozen=True, kw_only=True)
class Config:
    """What is measured: traces of ``facts`` facts with every noise, and collections.

    ``runs`` are engines with their numbers of workers. Of the collections that of ``everywhere`` is run on all of them, the others on those
    that are embedded.
    """

    model: str = "smollm2-135m"
    facts: int = 4
    noises: tuple[float, ...] = (2.0, 3.0, 4.0)
    samples: int = 1
    collected: tuple[Collected, ...] = (
        Collected(length=128, only=5),
        Collected(length=32),
        Collected(length=128),
        Collected(length=512),
        Collected(length=128, layers=30, shards=6, shard_tokens=256),
    )
    everywhere: Collected = Collected(length=128)
    runs: tuple[tuple[str, int], ...] = (("embedded", 1), ("embedded", 2), ("ray", 1), ("ray", 2))

    def quick(self) -> "Config":
        """Two facts and one noise, and one small collection: it shows that everything runs."""
        small = Collected(length=32, layers=2, shards=3, shard_tokens=128)
        return replace(self, facts=2, noises=(3.0,), collected=(small,), everywhere=small)

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
