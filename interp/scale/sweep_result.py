"""What a sweep ends in: where its rows are, what failed and why, and means over items."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from interp.errors import UsageError, unknown
from interp.maths.estimates import Estimate, Estimates
from interp.results import Provenance, Result
from interp.scale.sweep_folder import ROWS, SweepFolder

if TYPE_CHECKING:
    from pandas import DataFrame
    from plotly.graph_objects import Figure

_LINES = 12
_VIEWS = 16


@dataclass(frozen=True, kw_only=True)
class FailedTask:
    """A task whose analyzer failed: its numbers, its model and settings, the item's first text, and why."""

    task: int
    item: int
    where: str
    what: str
    reason: str


@dataclass(frozen=True, kw_only=True, eq=False)
class SweepSummary:
    """Means over items with Student t intervals: ``means`` is [cell measure].

    A cell is a model, the values of the settings that vary (``keys`` names both) and the values of the ``group`` columns.
    """

    keys: tuple[str, ...]
    group: tuple[str, ...]
    cells: tuple[tuple[Any, ...], ...]
    measures: tuple[str, ...]
    means: Estimates
    n_rows: int
    n_failed: int
    failures: tuple[FailedTask, ...]


@dataclass(frozen=True, kw_only=True, eq=False)
class SweepResult(Result):
    """A finished sweep. The rows themselves are in ``folder`` (see ``rows``); here are their means over items.

    ``sources`` is the provenance of each model, by what it is called in the rows; ``settings`` and ``grid`` are as configured, as JSON
    text. ``words`` says what each measure is; ``axis`` and ``across`` are the group columns of the pictures.
    """

    kind: ClassVar[str] = "sweep"
    schema_version: ClassVar[int] = 1

    analyzer: str
    folder: str
    sources: dict[str, Provenance]
    settings: dict[str, str]
    grid: dict[str, tuple[str, ...]]
    n_items: int
    n_tasks: int
    summary: SweepSummary
    words: dict[str, str]
    axis: str
    across: str | None
    confidence: float

    @property
    def n_done(self) -> int:
        """Tasks whose analyzer succeeded."""
        return self.n_tasks - self.summary.n_failed

    def rows(self) -> "DataFrame":
        """The rows of all tasks, in order, read from the folder. Raises ModelError where they are not there any more."""
        import pandas as pd

        return pd.concat([table.to_pandas() for table in SweepFolder(self.folder).row_groups()], ignore_index=True)

    @property
    def table_path(self) -> str:
        """Where the rows are: a Parquet file."""
        return f"{self.folder}/{ROWS}"

    def to_frame(self) -> "DataFrame":
        """One line for each model, point of the grid, group and measure: the mean over ``n_items`` items with its interval."""
        import pandas as pd

        summary, lines = self.summary, []
        names = (*summary.keys, *summary.group)
        for index, cell in enumerate(summary.cells):
            for column, measure in enumerate(summary.measures):
                mean = summary.means.at(index, column)
                values = {"mean": mean.value, "lower": mean.lower, "upper": mean.upper, "n_items": mean.n}
                lines.append({**dict(zip(names, cell, strict=True)), "measure": measure, **values})
        return pd.DataFrame(lines, columns=[*names, "measure", "mean", "lower", "upper", "n_items"])

    def figure(self, measure: str | None = None) -> "Figure":
        """The first picture of a measure, by default the first measure. Raises UsageError for one that is not there."""
        if not self.summary.measures or not self.summary.cells:
            raise UsageError(
                "every task failed or gave no number, so there is no picture; see the reasons in `failures`"
            )
        chosen = self.summary.measures[0] if measure is None else measure
        if chosen not in self.summary.measures:
            raise unknown("measure", chosen, self.summary.measures)
        return next(iter(self.pictures(chosen).values()))

    def pictures(self, measure: str) -> "Mapping[str, Figure]":
        """All pictures of a measure by name, at most 16: one of lines, or one map for each model, point of the grid and kind."""
        from interp.figures.sweep import Mean, sweep_lines, sweep_map

        words, axes = self.words[measure], (self.axis,) if self.across is None else (self.axis, self.across)
        series = {
            name: {key: Mean(mean.value, mean.lower, mean.upper, mean.n) for key, mean in cells.items()}
            for name, cells in self._by(measure, axes).items()
        }
        if self.across is None:
            lines = {name: {str(key[0]): mean for key, mean in cells.items()} for name, cells in series.items()}
            labels = list(dict.fromkeys(label for line in lines.values() for label in line))
            return {"": sweep_lines(dict(list(lines.items())[:_LINES]), labels, axis=self.axis, words=words)}
        maps = list(series.items())[:_VIEWS]
        return {name: sweep_map(cells, x=self.axis, y=self.across, words=words) for name, cells in maps}

    def peaks(self) -> Iterator[tuple[str, tuple[Any, ...], Estimate]]:
        """Of the first measure, for each line or map the cell with the greatest mean: name, place and estimate."""
        if not self.summary.measures:
            return
        axes = (self.axis,) if self.across is None else (self.axis, self.across)
        for name, cells in self._by(self.summary.measures[0], axes).items():
            known = {key: estimate for key, estimate in cells.items() if np.isfinite(estimate.value)}
            if known:
                best = max(known, key=lambda key: known[key].value)
                yield name, best, known[best]

    def _by(self, measure: str, axes: tuple[str, ...]) -> dict[str, dict[tuple[Any, ...], Estimate]]:
        """The cells of a measure by the values of ``axes``, in groups named by all other columns that vary."""
        summary = self.summary
        names = (*summary.keys, *summary.group)
        varying = [
            place
            for place, name in enumerate(names)
            if name not in axes and len({cell[place] for cell in summary.cells}) > 1
        ]
        column = summary.measures.index(measure)
        found: dict[str, dict[tuple[Any, ...], Estimate]] = {}
        for index, cell in enumerate(summary.cells):
            told = [
                f"{names[place]} {cell[place]}" if names[place] in self.grid else str(cell[place]) for place in varying
            ]
            key = tuple(cell[names.index(axis)] for axis in axes)
            found.setdefault(", ".join(told), {})[key] = summary.means.at(index, column)
        return found
