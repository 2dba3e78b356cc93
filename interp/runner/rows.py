"""Rows of a resumed run: where each has to start, and which interventions several of them share."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from interp.errors import UsageError
from interp.interventions import Intervention
from interp.runner.batch import Batch
from interp.runner.plan import Plan

if TYPE_CHECKING:
    from interp.runner.model import Model


@dataclass(frozen=True, eq=False)
class Row:
    """One row to resume: where it starts, which prompt it is based on, and its changes."""

    index: int
    prompt: int
    layer: int
    position: int
    interventions: tuple[Intervention, ...] = field(default=())


class Locator:
    """Where a row has to start: the lowest layer and earliest position that its interventions touch."""

    def __init__(self, model: "Model", batch: Batch, start: tuple[int, int] | None, *, early: bool) -> None:
        self._model, self._batch, self._start, self._early = model, batch, start, early
        self._known: dict[tuple[int, int], tuple[int, int]] = {}  # by intervention and length of the prompt
        n_layers = model.atlas.n_layers
        if start is not None and not (0 <= start[0] <= n_layers and 0 <= start[1] < batch.n_pos):
            raise UsageError(
                f"start {start} is out of range; valid: layers 0 to {n_layers}, positions 0 to {batch.n_pos - 1}"
            )

    def row(self, index: int, prompt: int, changes: Intervention | Sequence[Intervention]) -> Row:
        """The row with its start."""
        interventions = (changes,) if isinstance(changes, Intervention) else tuple(changes)
        length = self._batch.lengths[prompt]
        starts = [self._reach(intervention, length) for intervention in interventions]
        starts += [] if self._start is None else [self._start]
        layer = min((layer for layer, _ in starts), default=self._model.atlas.n_layers)
        position = min((position for _, position in starts), default=length)
        return Row(index, prompt, layer, min(position, length - 1), interventions)

    def _reach(self, intervention: Intervention, length: int) -> tuple[int, int]:
        key = id(intervention), length
        if key not in self._known:
            plan = Plan(self._model.sites)
            plan.intervene(intervention, (length,), early=self._early)
            self._known[key] = plan.first_layer(), plan.first_position(length)
        return self._known[key]


def shared(chunk: Sequence[Row]) -> Iterator[tuple[Intervention, list[int]]]:
    """The interventions of some rows, each with the places of the rows that share it.

    At one site every row keeps the order of its own interventions: where another row had them the other way round, they stay apart.
    """
    found: list[tuple[Intervention, list[int]]] = []
    known: dict[int, int] = {}
    for place, row in enumerate(chunk):
        last: dict[str, int] = {}
        for intervention in row.interventions:
            index = known.get(id(intervention), -1)
            if index <= last.get(intervention.site, -1) or not intervention.rowwise:
                index = len(found)
                found.append((intervention, []))
                known[id(intervention)] = index
            found[index][1].append(place)
            last[intervention.site] = index
    yield from found
