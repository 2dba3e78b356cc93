"""What ablation ends in: of every component, how a metric or the loss changes without it."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from interp.analyzers.ablation_units import Component, components_of
from interp.analyzers.answers import Answer
from interp.errors import unknown
from interp.maths.estimates import Estimate, Estimates
from interp.maths.statistics import mean_estimates
from interp.results import Result
from interp.tokens import Tokens

if TYPE_CHECKING:
    from pandas import DataFrame
    from plotly.graph_objects import Figure


@dataclass(frozen=True, kw_only=True)
class Ablated:
    """One component: the metric ``without`` it, and the ``change``, which is that less the metric of the whole model."""

    component: Component
    without: Estimate
    change: Estimate


@dataclass(frozen=True, kw_only=True, eq=False)
class AblationResult(Result):
    """How a metric, or the loss over text, changes when components are taken out one at a time.

    ``whole`` is the metric of the unchanged model on each prompt. ``ablated`` has for each kind of unit the metric without each of its
    components, [batch layer head sample] for heads and [batch layer sample] for the others, where the batch is the prompts, layers
    are those of ``layers`` in order, and a sample is a draw of ``method`` "resample" (one sample for "zero" and "mean").
    ``answers`` and ``against`` are those of the prompts, empty for the loss and where there are none. ``n_reference`` is the number of
    reference texts, or pieces of them, that means and draws come from, 0 for "zero"; ``own_reference`` says whether they are the prompts
    themselves. ``at_positions`` are those ablated, as given; None is all. ``context`` is the length in tokens of the longest piece that
    texts were cut into, 0 where prompts were asked for an answer.
    """

    kind: ClassVar[str] = "ablation"
    schema_version: ClassVar[int] = 1

    prompts: tuple[Tokens, ...]
    units: tuple[str, ...]
    layers: tuple[int, ...]
    n_heads: int
    method: str
    metric: str
    metric_unit: str
    answers: tuple[Answer, ...]
    against: tuple[Answer, ...]
    own_reference: bool
    n_reference: int
    at_positions: tuple[int, ...] | None
    context: int
    seed: int
    confidence: float
    whole: Float[Tensor, " batch"]
    ablated: dict[str, Float[Tensor, "batch layer *head sample"]]

    @property
    def tokens(self) -> Tokens | None:
        """The prompt, where there is one alone."""
        return self.prompts[0] if len(self.prompts) == 1 else None

    @property
    def over(self) -> str:
        """What intervals are over: "prompts", or "draws" where there is a single prompt."""
        return "prompts" if len(self.prompts) > 1 else "draws"

    @property
    def whole_mean(self) -> Estimate:
        """The metric of the unchanged model, the mean over prompts."""
        return mean_estimates(self.whole[:, None], self.confidence).at(0)

    def change(self, unit: str) -> Estimates:
        """The metric without each component of a kind less that of the whole model: [layer head] for heads, else [layer].

        The mean over prompts, of which each counts with the mean over its draws, with Student t intervals over prompts. With a single
        prompt the interval is over its draws, and NaN where there is one.
        Raises UsageError for a kind that was not ablated.
        """
        return self._estimates(self._of(unit) - self._whole_beside(unit))

    def without(self, unit: str) -> Estimates:
        """The metric without each component of a kind, with intervals as in ``change``."""
        return self._estimates(self._of(unit))

    def components(self, unit: str | None = None) -> tuple[Ablated, ...]:
        """Every component of a kind, or of all kinds, layer by layer."""
        return tuple(found for name in (self.units if unit is None else (unit,)) for found in self._each(name))

    def strongest(self, k: int = 10, unit: str | None = None) -> tuple[Ablated, ...]:
        """The ``k`` components of a kind, or of all kinds, whose ablation changes the metric most, in either direction."""
        return tuple(sorted(self.components(unit), key=lambda found: -abs(found.change.value))[:k])

    def to_frame(self) -> "DataFrame":
        """One line for each component. ``change`` is without the component less the whole model; lower and upper are its interval."""
        import pandas as pd

        end = f"_{self.metric_unit}" if self.metric_unit else ""
        whole = self.whole_mean.value
        return pd.DataFrame(
            [
                {
                    "unit": found.component.unit,
                    "component": str(found.component),
                    "layer": found.component.layer,
                    "head": found.component.head,
                    "method": self.method,
                    "metric": self.metric,
                    f"whole{end}": whole,
                    f"ablated{end}": found.without.value,
                    f"change{end}": found.change.value,
                    f"lower{end}": found.change.lower,
                    f"upper{end}": found.change.upper,
                    "n": found.change.n,
                }
                for found in self.components()
            ]
        ).astype({"head": "Int64"})

    def figure(self, unit: str | None = None) -> "Figure":
        """The change without each head as a map, or without each layer's attention, MLP or block as bars.

        By default heads where they were ablated, else every other kind side by side.
        """
        from interp.figures.ablation import change_bars, change_map

        names = self.units[:1] if unit is None else (unit,)
        if unit is None:
            names = ("heads",) if "heads" in self.units else self.units
        changes = {name: self.change(name) for name in names}
        parts = {
            name: (found.value.numpy(), found.lower.numpy(), found.upper.numpy()) for name, found in changes.items()
        }
        what = self.change_words
        if "heads" in parts:
            return change_map(*parts["heads"], self.layers, what)
        return change_bars(parts, self.layers, what)

    @property
    def change_words(self) -> str:
        """What ``change`` is of, with its unit, as figures label it."""
        name = "loss" if self.metric == "loss" else self.metric.replace("_", " ")
        unit = {"": "", "probability": ""}.get(self.metric_unit, f" ({self.metric_unit})")
        return f"change of {name}{' (nats a token)' if self.metric == 'loss' else unit}"

    def _each(self, unit: str) -> Iterator[Ablated]:
        change, without = self.change(unit), self.without(unit)
        for component in components_of(unit, self.layers, self.n_heads):
            row = self.layers.index(component.layer)
            at = (row,) if component.head is None else (row, component.head)
            yield Ablated(component=component, without=without.at(*at), change=change.at(*at))

    def _of(self, unit: str) -> Tensor:
        if unit not in self.ablated:
            raise unknown("unit", unit, self.units)
        return self.ablated[unit].double()

    def _whole_beside(self, unit: str) -> Tensor:
        return self.whole.double().reshape(-1, *[1] * (self.ablated[unit].dim() - 1))

    def _estimates(self, values: Tensor) -> Estimates:
        samples = values.mean(-1) if len(values) > 1 else torch.movedim(values[0], -1, 0)
        return mean_estimates(samples, self.confidence)
