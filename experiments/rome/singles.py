"""Single edits: each fact alone on the unedited model, by each method."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from experiments.rome.workshop import Workshop
from interp.editing.edit_metrics import HARMONIC
from interp.editing.evaluation import evaluate_edit
from interp.editing.evaluation_result import EditScores
from interp.maths.edit_scores import harmonic_mean

BOTH = (
    "efficacy_score", "paraphrase_score", "neighbourhood_score", "prompt_argmax", "paraphrase_argmax", "efficacy_magnitude",
    "paraphrase_magnitude", "neighbourhood_magnitude", "generation_entropy",
)  # fmt: skip
"""Scores with a value before and after."""
AFTER = ("neighbours_kept", "neighbour_kl", "perplexity_ratio")


@dataclass(frozen=True, kw_only=True, eq=False)
class Singles:
    """The scores of one method's edits, a number an edit: ``before`` and ``after`` by name; NaN was not measured."""

    method: str
    before: dict[str, Tensor]
    after: dict[str, Tensor]
    seconds: Tensor
    drift: Tensor
    perplexity: float

    def mean(self, name: str, when: str = "after") -> float:
        """The mean over edits of those that were measured."""
        return float((self.before if when == "before" else self.after)[name].nanmean())

    def harmonic(self, when: str = "after") -> float:
        """S, of the three means."""
        return float(harmonic_mean(torch.tensor([self.mean(name, when) for name in HARMONIC], dtype=torch.float64)))

    @property
    def worst(self) -> float:
        """The greatest perplexity after an edit over that before."""
        return float(self.after["perplexity_ratio"].max())


def measure(shop: Workshop, method: str) -> Singles:
    """Edits and scores every fact, some at a time; finished ones are kept. Raises OutOfTime."""
    found: list[EditScores] = []
    size, cases = shop.config.at_once, shop.singles
    for start in range(0, len(cases), size):
        chunk = cases[start : start + size]
        path = shop.folder / f"{method}-scores-{start}.safetensors"
        if not path.is_file():
            numbers = range(start, start + len(chunk))
            edits = [
                shop.edit(f"{method}-{number}", [case], method) for number, case in zip(numbers, chunk, strict=True)
            ]
            shop.check_time()
            texts = list(shop.texts[-shop.config.held_out :])
            generate = start < shop.config.generated and method.startswith("rome")
            scores = evaluate_edit(shop.model, edits, chunk, texts=texts, generate=generate)
            scores.save(path)
            shop.say(f"{method}: {start + len(chunk)} of {len(cases)} facts")
        found.append(EditScores.load(path))
    return joined(method, found)


def joined(method: str, found: Sequence[EditScores]) -> Singles:
    """The scores of all chunks in a row."""

    def all_of(name: str, when: str) -> Tensor:
        parts = []
        for scores in found:
            part = scores.samples(name, when)
            if part is None and name == "perplexity_ratio":  # a single edit has no samples, but a value
                estimate = scores.estimate(name, when)
                part = None if estimate is None else torch.tensor([estimate.value], dtype=torch.float64)
            parts.append(torch.full((len(scores.cases),), torch.nan, dtype=torch.float64) if part is None else part)
        return torch.cat(parts)

    before = found[0].estimate("perplexity", "before")
    return Singles(
        method=method,
        before={name: all_of(name, "before") for name in BOTH},
        after={name: all_of(name, "after") for name in (*BOTH, *AFTER)},
        seconds=torch.cat([scores.edit_seconds for scores in found]),
        drift=torch.cat([scores.drift.square().sum(1).sqrt() for scores in found]),
        perplexity=float("nan") if before is None else before.value,
    )
