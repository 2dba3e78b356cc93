"""What many edits end in: the edits, how far the weights have moved, and what still holds after each so many."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar

import torch
from jaxtyping import Float, Int
from torch import Tensor

from interp.editing.edit import Edit, LayerEdit
from interp.errors import UsageError, unknown
from interp.maths.edit_scores import preferred
from interp.maths.estimates import Estimate
from interp.maths.statistics import mean_estimates
from interp.prompts import Fact
from interp.results import Result

if TYPE_CHECKING:
    from pandas import DataFrame
    from plotly.graph_objects import Figure

MEASURES = ("argmax", "preferred")
"""Ways in which a fact holds: every token of its object ranks first in its place; it is likelier than the true object."""


@dataclass(frozen=True, kw_only=True, eq=False)
class EditSequence(Result):
    """Facts that were edited one after another, or batch after batch, each edit made on the model with those before it.

    ``edits[i]`` holds ``batch`` facts (the last may hold fewer). ``drift`` is |dW| / |W| in each of ``layers`` of all edits up to and
    with each one. Checks were made before the first edit and then every so many; ``checked`` says how many facts were edited by then. At
    each check ``accuracy`` is the share of the tokens of a fact's object that rank first in their place, ``new_nats`` and ``true_nats``
    the mean of -ln p over the tokens of its object and of the true one; NaN for facts not edited yet, ``true_nats`` None where the true
    objects were not given. ``perplexity`` is that of the held-out texts, None where there are none. ``stop_reason`` is "end", "drift" or
    "perplexity"; ``warnings`` are the limits that were passed.
    """

    kind: ClassVar[str] = "edit_sequence"
    schema_version: ClassVar[int] = 1

    facts: tuple[Fact, ...]
    method: str
    batch: int
    edits: tuple[Edit, ...]
    layers: tuple[int, ...]
    drift: Float[Tensor, "edit layer"]
    checked: Int[Tensor, " step"]
    accuracy: Float[Tensor, "step fact"]
    new_nats: Float[Tensor, "step fact"]
    true_nats: Float[Tensor, "step fact"] | None
    perplexity: Float[Tensor, " step"] | None
    n_texts: int
    stop_reason: str
    warnings: tuple[str, ...]
    confidence: float
    seconds: float

    @property
    def n_edited(self) -> int:
        """Facts that were edited."""
        return sum(len(edit.facts) for edit in self.edits)

    @property
    def edit(self) -> Edit:
        """All edits as one. Raises UsageError where there is none."""
        return join_edits(self.edits)

    def holding(self, measure: str = "argmax", check: int = -1) -> Estimate | None:
        """The share of the facts edited by a check (the last by default) that hold there, with Student's t interval over facts.

        ``measure`` is "argmax" (every token of the object ranks first in its place) or "preferred" (the object is likelier than the
        true one); see ``MEASURES``. None where that was not measured. Raises UsageError for another measure.
        """
        held = self._held(measure)
        if held is None:
            return None
        estimate = mean_estimates(held[check][:, None], self.confidence).at(0)
        return estimate if estimate.n else None

    @property
    def perplexity_ratio(self) -> float | None:
        """The perplexity at the last check over that before the first edit; None where no text was given."""
        return None if self.perplexity is None else float(self.perplexity[-1] / self.perplexity[0])

    def to_frame(self) -> "DataFrame":
        """One row for each check: facts edited, the share that holds, perplexity, drift of each layer."""
        import pandas as pd

        return pd.DataFrame([self._row(check) for check in range(len(self.checked))])

    def figure(self) -> "Figure":
        """What holds, the perplexity and the drift against the number of facts edited."""
        from interp.figures.edit_sequence import sequence_lines

        held = {measure: [self._share(measure, check) for check in range(len(self.checked))] for measure in MEASURES}
        return sequence_lines(
            self.checked.numpy(),
            {measure: shares for measure, shares in held.items() if any(share == share for share in shares)},
            None if self.perplexity is None else self.perplexity.numpy(),
            self._edited_after().numpy(),
            {layer: self.drift[:, place].numpy() for place, layer in enumerate(self.layers)},
        )

    def _row(self, check: int) -> dict[str, object]:
        edited = int(self.checked[check])
        row: dict[str, object] = {"facts_edited": edited}
        row |= {f"hold_{measure}_percent": self._share(measure, check) for measure in MEASURES}
        row["perplexity"] = float("nan") if self.perplexity is None else float(self.perplexity[check])
        done = int((self._edited_after() <= edited).sum())
        for place, layer in enumerate(self.layers):
            row[f"weight_drift_L{layer}"] = float(self.drift[done - 1, place]) if done else 0.0
        return row

    def _share(self, measure: str, check: int) -> float:
        found = self.holding(measure, check)
        return float("nan") if found is None else 100 * found.value

    def _held(self, measure: str) -> Tensor | None:
        if measure not in MEASURES:
            raise unknown("measure", measure, MEASURES)
        if measure == "preferred":
            return None if self.true_nats is None else preferred(self.new_nats, self.true_nats)
        return (self.accuracy == 1).double().masked_fill(self.accuracy.isnan(), float("nan"))

    def _edited_after(self) -> Tensor:
        """How many facts are edited after each edit."""
        return torch.tensor([len(edit.facts) for edit in self.edits], dtype=torch.int64).cumsum(0)


def join_edits(edits: Sequence[Edit]) -> Edit:
    """Several edits of one model as one, whose change of each layer is the sum of theirs, factor beside factor.

    The matrices that it makes are those of the edits together up to rounding. Raises UsageError for no edit, and for edits of other base
    weights.
    """
    if not edits:
        raise UsageError("there is no edit to join; give at least one")
    if len(edits) == 1:
        return edits[0]
    by_layer: dict[int, list[LayerEdit]] = {}
    for edit in edits:
        for change in edit.layers:
            by_layer.setdefault(change.layer, []).append(change)
    for layer, changes in by_layer.items():
        if len({change.base_sha256 for change in changes}) > 1:
            raise UsageError(f"the edits were made for different weights of layer {layer}; join edits of one model")
    return replace(
        edits[0],
        facts=tuple(fact for edit in edits for fact in edit.facts),
        method=", ".join(dict.fromkeys(edit.method for edit in edits)),
        layers=tuple(_joined(by_layer[layer]) for layer in sorted(by_layer)),
        moments=tuple(dict.fromkeys(line for edit in edits for line in edit.moments)),
        curves=tuple(curve for edit in edits for curve in edit.curves),
        seconds=sum(edit.seconds for edit in edits),
    )


def _joined(changes: Sequence[LayerEdit]) -> LayerEdit:
    return replace(
        changes[0],
        left=torch.cat([change.left for change in changes], 1),
        right=torch.cat([change.right for change in changes], 0),
    )
