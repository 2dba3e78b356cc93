"""What the evaluation of an edit ends in: the numbers of every prompt before and after, and the scores that are made from them."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import torch
from jaxtyping import Float, Int
from torch import Generator, Tensor

from interp.editing.asked_prompts import WHEN, AskedPrompts
from interp.editing.cases import EditCase
from interp.editing.edit_metrics import HARMONIC, METRICS, samples_of
from interp.errors import UsageError, unknown
from interp.maths.edit_scores import harmonic_mean, papers_half_width, perplexity
from interp.maths.estimates import Estimate
from interp.maths.statistics import bootstrap_estimates, mean_estimates
from interp.results import Result

if TYPE_CHECKING:
    from pandas import DataFrame
    from plotly.graph_objects import Figure

_OTHERS = {
    "score": ("%", "S: the harmonic mean of the means ES, PS and NS; 0 if one of them is 0"),
    "generation_entropy": ("bits x 100", "GE: entropy of 2-grams and 3-grams of generated text; low where it repeats itself"),
    "reference_score": ("% of cosine", "RS: TF-IDF cosine of generated text and texts about the new object"),
    "perplexity": ("", "exp of the loss per token of held-out texts"),
    "perplexity_ratio": ("", "perplexity after the edit over that before"),
}  # fmt: skip
"""Scores that are not means over prompts: unit and meaning."""
SCORES: tuple[str, ...] = ("score", *METRICS, *(name for name in _OTHERS if name != "score"))
"""The names that ``EditScores.estimate`` knows."""


@dataclass(frozen=True, kw_only=True, eq=False)
class EditScores(Result):
    """What an edit did to its facts, to what follows from them, and to everything else.

    ``n_edits`` is 1 where one edit holds all facts, 0 where the model was measured as it is, else one for each case. ``asked`` holds the
    prompts by role, only those that there are. ``drift`` is |dW| / |W| (Frobenius norms, the weights before any edit below) of each edit
    in each of ``layers``; ``edit_seconds`` is what making each edit took. ``entropy_before`` and so on are of each case, None where no
    text was generated. ``text_nats_before`` is the loss of each held-out text summed over its ``text_tokens``, ``text_nats_after`` that
    after each edit. ``vocabulary`` has the text of the tokens that rank first somewhere, by id. ``seconds`` is what the evaluation took.
    """

    kind: ClassVar[str] = "edit_scores"
    schema_version: ClassVar[int] = 1

    cases: tuple[EditCase, ...]
    method: str
    n_edits: int
    layers: tuple[int, ...]
    drift: Float[Tensor, "edit layer"]
    edit_seconds: Float[Tensor, " edit"]
    asked: dict[str, AskedPrompts]
    entropy_before: Float[Tensor, " case"] | None
    entropy_after: Float[Tensor, " case"] | None
    reference_before: Float[Tensor, " case"] | None
    reference_after: Float[Tensor, " case"] | None
    text_tokens: Int[Tensor, " batch"] | None
    text_nats_before: Float[Tensor, " batch"] | None
    text_nats_after: Float[Tensor, "edit batch"] | None
    vocabulary: dict[str, str]
    seed: int
    confidence: float
    seconds: float

    def samples(self, name: str, when: str = "after") -> Float[Tensor, " sample"] | None:
        """A score of each case (see ``SCORES``): NaN for a case without such prompts; None where it was not measured.

        Of unrelated prompts and of texts the samples are the edits, or the prompts where there is one edit; None for S and for texts of
        one edit, which have no samples of their own.
        """
        self._check(name, when)
        if name in METRICS:
            return samples_of(self, name, when)
        held = {
            "generation_entropy": (self.entropy_before, self.entropy_after),
            "reference_score": (self.reference_before, self.reference_after),
        }
        if name in held:
            return held[name][WHEN.index(when)]
        if name == "score" or when == "before" or self.n_edits < 2 or self.perplexities is None:
            return None
        return self.perplexities if name == "perplexity" else self.perplexities / self._perplexity_before()

    def estimate(self, name: str, when: str = "after") -> Estimate | None:
        """A score "before" or "after" the edit; None where it was not measured.

        The mean over cases with Student's t interval. The harmonic mean S and the perplexity after one edit have percentile
        bootstrap intervals, over cases and over texts. Raises UsageError for a score that there is not.
        """
        self._check(name, when)
        if name == "score":
            parts = [self.samples(part, when) for part in HARMONIC]
            found = [part for part in parts if part is not None and not bool(part.isnan().all())]
            return self._bootstrap(torch.stack(found, 1), _harmonic) if len(found) == len(HARMONIC) else None
        samples = self.samples(name, when)
        if samples is not None:
            estimate = mean_estimates(samples[:, None], self.confidence).at(0)
            return estimate if estimate.n else None
        return self._of_texts(name, when)

    def papers_interval(self, name: str, when: str = "after") -> float | None:
        """Half the 95 % interval as the papers give it, 1.96 standard deviations over the root of n; None where there are no samples."""
        samples = self.samples(name, when)
        half = float("nan") if samples is None else papers_half_width(samples)
        return None if half != half else half

    def weight_drift(self, layer: int) -> Estimate:
        """|dW| / |W| of a layer, the mean over edits. Raises UsageError for a layer that no edit changes."""
        if layer not in self.layers:
            raise UsageError(f"layer {layer} is not edited; edited: {', '.join(map(str, self.layers)) or 'none'}")
        return mean_estimates(self.drift[:, self.layers.index(layer), None], self.confidence).at(0)

    @property
    def perplexities(self) -> Float[Tensor, " edit"] | None:
        """The perplexity of the held-out texts after each edit; None where there are none."""
        if self.text_nats_after is None or self.text_tokens is None:
            return None
        return perplexity(self.text_nats_after, self.text_tokens)

    def to_frame(self) -> "DataFrame":
        """One row for each score that was measured, before and after: value, Student t interval, the papers' half width, n."""
        import pandas as pd

        return pd.DataFrame(list(self._rows()))

    def prompts_frame(self) -> "DataFrame":
        """One row for each prompt and state: likelihoods of both objects, what ranks first, divergence."""
        import pandas as pd

        from interp.editing.evaluation_tables import prompt_rows

        return pd.DataFrame(list(prompt_rows(self)))

    def side_effects(self) -> "DataFrame":
        """The neighbours, locality and unrelated prompts after which another token ranks first than before the edit."""
        import pandas as pd

        from interp.editing.evaluation_tables import SIDE_EFFECT_COLUMNS, side_effect_rows

        return pd.DataFrame(list(side_effect_rows(self)), columns=list(SIDE_EFFECT_COLUMNS))

    def figure(self) -> "Figure":
        """The scores in per cent, before and after."""
        from interp.figures.edit_scores import score_dots

        shown = ("score", *(name for name in METRICS if METRICS[name].unit == "%"))
        rows = [(name, _bounds(self.estimate(name, "before")), _bounds(self.estimate(name, "after"))) for name in shown]
        return score_dots([row for row in rows if row[1:] != (None, None)])

    def _rows(self) -> Iterator[dict[str, object]]:
        for name in SCORES:
            for when in WHEN:
                estimate = self.estimate(name, when)
                if estimate is not None:
                    yield _row(name, unit_of(name), when, estimate, self.papers_interval(name, when))
        for layer in self.layers if self.n_edits else ():
            half = papers_half_width(self.drift[:, self.layers.index(layer)]) if self.n_edits > 1 else None
            yield _row(f"weight_drift_L{layer}", "|dW|/|W|", "after", self.weight_drift(layer), half)

    def _of_texts(self, name: str, when: str) -> Estimate | None:
        """The perplexity, or its ratio, with an interval over texts; None for other scores."""
        counts, before, after = self.text_tokens, self.text_nats_before, self.text_nats_after
        if name not in ("perplexity", "perplexity_ratio") or counts is None or before is None:
            return None
        if name == "perplexity" and when == "before":
            return self._bootstrap(torch.stack([counts.double(), before], 1), _perplexity)
        if after is None or when == "before":
            return None
        if name == "perplexity":
            return self._bootstrap(torch.stack([counts.double(), after[0]], 1), _perplexity)
        return self._bootstrap(torch.stack([counts.double(), after[0] - before], 1), _perplexity)

    def _perplexity_before(self) -> Tensor:
        assert self.text_nats_before is not None, "it goes with the losses after"
        assert self.text_tokens is not None, "it goes with the losses"
        return perplexity(self.text_nats_before, self.text_tokens)

    def _bootstrap(self, samples: Tensor, statistic: Callable[[Tensor], Tensor]) -> Estimate:
        generator = Generator().manual_seed(self.seed)
        found = bootstrap_estimates(samples, statistic, generator, confidence=self.confidence).at(0)
        return Estimate(value=found.value, lower=found.lower, upper=found.upper, n=len(samples))

    def _check(self, name: str, when: str) -> None:
        if name not in SCORES:
            raise unknown("score", name, SCORES)
        if when not in WHEN:
            raise unknown("state", when, WHEN)


def unit_of(name: str) -> str:
    """The unit of a score."""
    return METRICS[name].unit if name in METRICS else _OTHERS[name][0]


def meaning_of(name: str) -> str:
    """What a score means, in a line."""
    return METRICS[name].meaning if name in METRICS else _OTHERS[name][1]


def _harmonic(samples: Tensor) -> Tensor:
    return harmonic_mean(samples.nanmean(0))[None]


def _perplexity(samples: Tensor) -> Tensor:
    """Samples are (tokens, nats) of texts."""
    return (samples[:, 1].sum() / samples[:, 0].sum()).exp()[None]


def _bounds(estimate: Estimate | None) -> tuple[float, float, float] | None:
    return None if estimate is None else (estimate.value, estimate.lower, estimate.upper)


def _row(name: str, unit: str, when: str, estimate: Estimate, half: float | None) -> dict[str, object]:
    return {
        "score": name,
        "unit": unit,
        "when": when,
        "value": estimate.value,
        "lower": estimate.lower,
        "upper": estimate.upper,
        "papers_half_width": half,
        "n": estimate.n,
    }
