"""What activation patching ends in: the metric of both runs, and with every patch in place."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING, ClassVar

from jaxtyping import Float
from torch import Tensor

from interp.analyzers.answers import Answer
from interp.errors import UsageError, unknown
from interp.maths.estimates import Estimate, Estimates
from interp.maths.patching import normalised_effects
from interp.maths.statistics import mean_estimates
from interp.results import Result
from interp.tokens import Tokens

if TYPE_CHECKING:
    from pandas import DataFrame
    from plotly.graph_objects import Figure

AXES_BY = {
    "position": ("position",),
    "layer": (),
    "head": ("head",),
    "head_position": ("head", "position"),
}
"""For each way of cutting a site, what the cells of one layer are told apart by, in the order of the axes."""


@dataclass(frozen=True, kw_only=True)
class PatchedCell:
    """One patch: where it was made (None for all heads, or all positions) and what share of the difference it carried over."""

    site: str
    layer: int
    head: int | None
    position: int | None
    effect: Estimate

    def __str__(self) -> str:
        head = "" if self.head is None else f"H{self.head}"
        place = "" if self.position is None else f" at position {self.position}"
        return f"{self.site} L{self.layer}{head}{place}"


@dataclass(frozen=True, kw_only=True, eq=False)
class ActivationPatchingResult(Result):
    """The metric on pairs of prompts, clean and corrupted, and with an activation of one patched into the other.

    ``answers`` (and ``against``, empty where the metric needs none) are those of each pair. ``direction`` is "denoising" (clean
    activations into the corrupted run) or "noising" (corrupted ones into the clean run). ``patched`` holds for each site the metric, in
    ``metric_unit``, of every pair and cell: [batch layer pos] by "position", [batch layer head] by "head", [batch layer head pos]
    by "head_position", [batch layer] by "layer" (all positions at once). Heads of attn.k and attn.v are key/value heads, each shared by
    ``n_heads`` over their number of query heads. ``layers`` are those of the layer axis; NaN marks a layer that lacks the site.
    Cells that cannot change anything, because the two runs are equal there, hold the unpatched run's own value.
    ``confidence`` and ``seed`` are of the bootstrap over pairs.
    """

    kind: ClassVar[str] = "activation_patching"
    schema_version: ClassVar[int] = 1

    clean: tuple[Tokens, ...]
    corrupted: tuple[Tokens, ...]
    answers: tuple[Answer, ...]
    against: tuple[Answer, ...]
    direction: str
    metric: str
    metric_unit: str
    sites: tuple[str, ...]
    by: str
    layers: tuple[int, ...]
    n_heads: int
    clean_metric: Float[Tensor, " batch"]
    corrupted_metric: Float[Tensor, " batch"]
    patched: dict[str, Float[Tensor, "batch layer ..."]]
    confidence: float
    seed: int

    @property
    def n_pairs(self) -> int:
        """The number of pairs of prompts."""
        return len(self.clean)

    @property
    def prompt(self) -> Tokens | None:
        """The clean prompt where there is one pair; None where there are several."""
        return self.clean[0] if len(self.clean) == 1 else None

    def effects(self, site: str) -> Estimates:
        """The share of clean - corrupted that each patch of a site carries over: the axes of ``patched`` without the pairs.

        Denoising (patched - corrupted) / (clean - corrupted), noising (clean - patched) / (clean - corrupted); the mean over pairs of
        the upper over that of the lower, with a bootstrap interval over pairs. Bounds are NaN for one pair; all is NaN where the mean
        difference is not distinguishable from 0. Raises UsageError for a site that was not patched.
        """
        return normalised_effects(
            self._patched(site),
            self.clean_metric,
            self.corrupted_metric,
            self.direction,
            confidence=self.confidence,
            seed=self.seed,
        )

    def total_effect(self) -> Estimate:
        """The mean over pairs of the metric's difference, clean - corrupted, in ``metric_unit``, with its Student t interval."""
        return mean_estimates(self.clean_metric - self.corrupted_metric, self.confidence).at()

    def strongest(self, site: str, k: int = 10) -> tuple[PatchedCell, ...]:
        """The ``k`` cells of a site whose effects are furthest from 0, furthest first. What was not measured is not among them.

        Raises UsageError for a site that was not patched and for k below 1.
        """
        if k < 1:
            raise UsageError(f"k is {k}; give 1 or more")
        cells = [cell for cell in self._cells(site, self.effects(site)) if cell.effect.value == cell.effect.value]
        return tuple(sorted(cells, key=lambda cell: -abs(cell.effect.value))[:k])

    def position_labels(self) -> tuple[str, ...]:
        """A label for each position: its token, "clean → corrupted" where they differ, "…" where pairs have different ones.

        Empty where cells have no position.
        """
        if "position" not in AXES_BY[self.by]:
            return ()
        clean, corrupted = _common(self.clean), _common(self.corrupted)
        pairs = zip(clean, corrupted, strict=True)
        return tuple((one or "…") if one == other else f"{one or '…'} → {other or '…'}" for one, other in pairs)

    def query_heads(self, site: str) -> tuple[tuple[int, ...], ...]:
        """For each head of a site the query heads that it serves: itself, or under grouped-query attention those that share it."""
        if "head" not in AXES_BY[self.by]:
            return ()
        n_shown = self._patched(site).shape[2]
        share = self.n_heads // n_shown
        return tuple(tuple(range(head * share, (head + 1) * share)) for head in range(n_shown))

    def to_frame(self) -> "DataFrame":
        """One line for each site and cell, in the mean over pairs.

        ``effect`` is a share of clean - corrupted; ``patched``, ``clean`` and ``corrupted`` are the metric in ``unit``. ``query_heads``
        are those that a head of the site serves: several for attn.k and attn.v under grouped-query attention. ``clean_token`` and
        ``corrupted_token`` are empty where pairs have different ones.
        """
        import pandas as pd

        clean, corrupted = float(self.clean_metric.double().mean()), float(self.corrupted_metric.double().mean())
        placed = "position" in AXES_BY[self.by]
        tokens = (_common(self.clean), _common(self.corrupted)) if placed else ((), ())
        lines = []
        for site in self.sites:
            means = self._patched(site).double().mean(0).flatten().tolist()
            served = self.query_heads(site)
            for cell, mean in zip(self._cells(site, self.effects(site)), means, strict=True):
                line: dict[str, object] = {"site": site, "layer": cell.layer}
                if cell.head is not None:
                    line |= {"head": cell.head, "query_heads": ",".join(map(str, served[cell.head]))}
                if cell.position is not None:
                    line |= {"position": cell.position}
                    line |= {f"{name}_token": of[cell.position] for name, of in zip(_RUNS, tokens, strict=True)}
                lines.append(
                    line
                    | {
                        "effect": cell.effect.value,
                        "effect_lower": cell.effect.lower,
                        "effect_upper": cell.effect.upper,
                        "n_pairs": cell.effect.n,
                        "metric": self.metric,
                        "unit": self.metric_unit,
                        "patched": mean,
                        "clean": clean,
                        "corrupted": corrupted,
                    }
                )
        return pd.DataFrame(lines)

    def figure(self, site: str | None = None) -> "Figure":
        """A map of one site's effects (the first if None): layers by positions or heads, or heads by positions; by "layer" a line
        for each site over the layers.
        """
        from interp.figures.activation_patching import patching_lines, patching_map

        if self.by == "layer":
            found = {name: self.effects(name) for name in (self.sites if site is None else (site,))}
            return patching_lines(
                {name: (one.value.numpy(), one.lower.numpy(), one.upper.numpy()) for name, one in found.items()},
                self.layers,
                title=self._title(),
            )
        site = self.sites[0] if site is None else site
        effects = self.effects(site)
        rows = [f"L{layer}" for layer in self.layers]
        if self.by == "head_position":
            rows = [f"{row}H{head}" for row in rows for head in range(effects.value.shape[1])]
        columns = self.position_labels() or tuple(f"H{head}" for head in range(effects.value.shape[1]))
        return patching_map(
            effects.value.flatten(0, -2).numpy(),
            effects.lower.flatten(0, -2).numpy(),
            effects.upper.flatten(0, -2).numpy(),
            rows,
            columns,
            row_title="head" if self.by == "head_position" else "layer",
            column_title="head" if self.by == "head" else "token",
            title=f"{site}: {self._title()}",
        )

    def _title(self) -> str:
        verb = "restored" if self.direction == "denoising" else "lost"
        return f"share of the {self.metric.replace('_', ' ')} {verb}"

    def _patched(self, site: str) -> Tensor:
        if site not in self.patched:
            raise unknown("patched site", site, self.sites)
        return self.patched[site]

    def _cells(self, site: str, effects: Estimates) -> Iterator[PatchedCell]:
        """The cells of a site in the order of its axes."""
        axes = AXES_BY[self.by]
        for index in _indices(effects.value.shape):
            place = dict(zip(axes, index[1:], strict=True))
            yield PatchedCell(
                site=site,
                layer=self.layers[index[0]],
                head=place.get("head"),
                position=place.get("position"),
                effect=effects.at(*index),
            )


_RUNS = ("clean", "corrupted")


def _indices(shape: Sequence[int]) -> Iterator[tuple[int, ...]]:
    yield from product(*(range(size) for size in shape))


def _common(prompts: Sequence[Tokens]) -> tuple[str, ...]:
    """The label of each position, empty where prompts differ there."""
    columns = zip(*(tokens.labels for tokens in prompts), strict=True)
    return tuple(column[0] if len(set(column)) == 1 else "" for column in columns)
