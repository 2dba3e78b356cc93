"""The first columns of a sweep's rows: what the task is, each of one type in every row, fixed from the configuration before any work."""

import json
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from interp.scale.sweep_config import SweepConfig, Task

if TYPE_CHECKING:
    from pandas import DataFrame
    from pyarrow import Table

_LARGEST = 1 << 63


def kinds_of(config: SweepConfig) -> dict[str, str]:
    """The type of each ``setting_`` and ``item_`` column, by Arrow's name. Values of several types are text.

    Fields of items that hold lists are no columns.
    """
    kinds = {f"setting_{name}": _kind(map(_cell, values)) for name, values in config.grid.items()}
    fields: dict[str, list[Any]] = {}
    for item in config.items:
        for name, value in item.items():
            if _is_cell(value):
                fields.setdefault(name, []).append(value)
    return kinds | {f"item_{name}": _kind(values) for name, values in fields.items()}


def table_of(task: Task, frame: "DataFrame | None", error: str | None, kinds: Mapping[str, str]) -> "Table":
    """The rows of a task: the analyzer's, or one that says why there are none. What the task is stands in every row."""
    import pyarrow as pa

    own = pa.table({}) if frame is None else pa.Table.from_pandas(frame, preserve_index=False)
    n_rows = 1 if frame is None else len(frame)
    values: dict[str, Any] = {f"setting_{name}": _cell(value) for name, value in task.point.items()}
    values |= {f"item_{name}": value for name, value in task.item.items() if _is_cell(value)}
    base: dict[str, tuple[Any, str]] = {
        "task": (task.index, "int64"),
        "item": (task.item_index, "int64"),
        "model": (task.model, "string"),
        "seed": (task.seed, "int64"),
        "error": (error, "string"),
        **{name: (_as(values.get(name), kind), kind) for name, kind in kinds.items()},
    }
    columns = {name: pa.array([value] * n_rows, pa.type_for_alias(kind)) for name, (value, kind) in base.items()}
    rest = {name: column for name, column in zip(own.column_names, own.columns, strict=True) if name not in base}
    return pa.table({**columns, **rest})


def _is_cell(value: Any) -> bool:
    return isinstance(value, str | int | float)


def _cell(value: Any) -> Any:
    """A setting as one cell of a table: a list as text."""
    return value if value is None or _is_cell(value) else ", ".join(map(str, value))


def _kind(values: Iterable[Any]) -> str:
    found = [value for value in values if value is not None]
    if found and all(isinstance(value, bool) for value in found):
        return "bool"
    if found and all(isinstance(value, int | float) and not isinstance(value, bool) for value in found):
        if any(isinstance(value, float) for value in found):
            return "float64"
        return "int64" if all(-_LARGEST <= value < _LARGEST for value in found) else "string"
    return "string"


def _as(value: Any, kind: str) -> Any:
    """A value as a column of this type holds it."""
    if kind != "string" or value is None or isinstance(value, str):
        return float(value) if kind == "float64" and value is not None else value
    return json.dumps(value)
