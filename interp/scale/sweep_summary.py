"""The summary of a sweep's rows: means over items with their intervals, read from the table piece by piece.

Within an item a measure is first averaged over the rows of each group (such as the positions of a prompt), so that every item counts
once. Only the number, the mean and the sum of squared deviations of each group are kept (Chan, Golub and LeVeque 1979), so a sweep may
be as long as it likes.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from interp.maths.statistics import estimates_of_moments
from interp.scale.sweep_analyzers import SweepAnalyzer
from interp.scale.sweep_folder import SweepFolder
from interp.scale.sweep_result import FailedTask, SweepSummary

if TYPE_CHECKING:
    from pandas import DataFrame

_FAILURES_KEPT = 1000


@dataclass
class _Moments:
    """Number, mean and sum of squared deviations of the items of a group, for each measure."""

    n: np.ndarray
    mean: np.ndarray
    squares: np.ndarray

    def add(self, n: np.ndarray, mean: np.ndarray, squares: np.ndarray) -> None:
        """Takes in others of the same group."""
        total = self.n + n
        share = np.divide(n, total, out=np.zeros_like(mean), where=total > 0)
        gap = np.where(n > 0, mean - self.mean, 0.0)
        self.mean = self.mean + gap * share
        self.squares = self.squares + squares + gap * gap * self.n * share
        self.n = total


@dataclass
class _Sums:
    """What has been read so far."""

    cells: dict[tuple[Any, ...], _Moments] = field(default_factory=dict)
    failures: list[FailedTask] = field(default_factory=list)
    n_failed: int = 0
    n_rows: int = 0


def summarize(
    folder: SweepFolder, analyzer: SweepAnalyzer, settings: Sequence[str], confidence: float = 0.95
) -> SweepSummary:
    """Means over items of each model, point of the grid (``settings`` are the names that vary) and group of the analyzer.

    Raises UsageError for a confidence that is not between 0 and 1, ModelError where the table cannot be read.
    """
    sums = _Sums()
    keys, measures = ["model", *(f"setting_{name}" for name in settings)], list(analyzer.measures)
    group: list[str] = []
    for table in folder.row_groups():
        columns = table.column_names
        group = [name for name in analyzer.group if name in columns]
        measures = [name for name in analyzer.measures if name in columns]
        # Parted before pandas sees them, in which a missing number makes a column of integers one of floats.
        good, failed = table.filter(table["error"].is_null()), table.filter(table["error"].is_valid())
        _take_failures(sums, failed.to_pandas(), keys)
        sums.n_rows += len(good)
        if group and measures and len(good):
            _take(sums, good.to_pandas(), [*keys, *group], measures)
    moments = list(sums.cells.values())
    shape = (len(moments), len(measures))
    stacked = [
        torch.from_numpy(np.array([getattr(one, name) for one in moments]).reshape(shape))
        for name in ("mean", "squares", "n")
    ]
    mean, squares, n = stacked
    return SweepSummary(
        keys=("model", *settings),
        group=tuple(group),
        cells=tuple(sums.cells),
        measures=tuple(measures),
        means=estimates_of_moments(mean.double(), squares.double(), n.long(), confidence),
        n_rows=sums.n_rows,
        n_failed=sums.n_failed,
        failures=tuple(sums.failures),
    )


def _take(sums: _Sums, frame: "DataFrame", keys: list[str], measures: list[str]) -> None:
    """Adds the items of a piece of the table."""
    values: Any = frame[measures].astype("float64")
    values = values.where(np.isfinite(values))
    found: Any = frame[["task", *keys]].join(values)
    items = found.groupby(["task", *keys], sort=False, dropna=False)[measures].mean().reset_index()
    groups: Any = items.groupby(keys, sort=False, dropna=False)[measures]
    n, mean, deviation = groups.count(), groups.mean().fillna(0.0), groups.var(ddof=0).fillna(0.0)
    squares = (deviation * n).to_numpy()
    for index, key in enumerate(n.index):
        cell = tuple(_plain(part) for part in (key if isinstance(key, tuple) else (key,)))
        if cell not in sums.cells:
            sums.cells[cell] = _Moments(*(np.zeros(len(measures)) for _ in range(3)))
        sums.cells[cell].add(n.to_numpy()[index].astype(float), mean.to_numpy()[index], squares[index])


def _take_failures(sums: _Sums, frame: "DataFrame", keys: list[str]) -> None:
    sums.n_failed += len(frame)
    names = [name for name in frame.columns if name.startswith("item_")]
    for row in frame.head(_FAILURES_KEPT - len(sums.failures)).to_dict("records"):
        told = next((str(row[name]) for name in names if isinstance(row[name], str)), f"item {row['item']}")
        sums.failures.append(
            FailedTask(
                task=int(row["task"]),
                item=int(row["item"]),
                where=", ".join(str(row[name]) for name in keys),
                what=told,
                reason=str(row["error"]),
            )
        )


def _plain(value: Any) -> str | int | float | None:
    """A cell of a table as plain Python; a missing one is None."""
    if isinstance(value, np.generic):
        value = value.item()
    return None if value is None or value != value else value
