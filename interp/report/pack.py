"""Figures and tables as compact JSON: rounded numbers, and of several versions only what differs."""

import base64
import gzip
import json
import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

DIGITS = 4
_PLAIN_LIMIT = 100_000


def compact(value: Any, digits: int = DIGITS) -> Any:
    """``value`` as JSON-safe Python: numbers rounded to ``digits`` significant digits, NaN and infinity as None."""
    if isinstance(value, np.ndarray | np.generic):
        return compact(value.tolist(), digits)
    if isinstance(value, bool | int | str) or value is None:
        return value
    if isinstance(value, float):
        return _rounded(value, digits)
    if isinstance(value, Mapping):
        return {str(key): compact(item, digits) for key, item in value.items()}
    if isinstance(value, Sequence):
        return [compact(item, digits) for item in value]
    raise TypeError(f"a page cannot hold a {type(value).__name__}")


class Matrices:
    """The matrices of a page, each held once; a packed figure refers to them by number."""

    def __init__(self) -> None:
        self.packed: list[Any] = []
        self._numbers: dict[str, int] = {}

    def reference(self, matrix: np.ndarray) -> dict[str, int]:
        """``{"matrix": number}`` for a matrix, which is added unless an equal one is there."""
        values = compact(matrix)
        number = self._numbers.setdefault(json.dumps(values), len(self.packed))
        if number == len(self.packed):
            self.packed.append(values)
        return {"matrix": number}

    def compact(self, value: Any) -> Any:
        """Like ``compact``, with numeric matrices as references."""
        if isinstance(value, np.ndarray) and value.ndim == 2 and value.dtype.kind in "fiu":
            return self.reference(value)
        if isinstance(value, Mapping):
            return {str(key): self.compact(item) for key, item in value.items()}
        return compact(value)


def pack_figure(figure: "Figure", matrices: Matrices) -> dict[str, Any]:
    """``{"data": [...], "layout": {...}}`` of a plotly figure."""
    # The properties trace by trace: Figure.to_dict would turn arrays into base64, which cannot be rounded.
    parts: Any = figure
    traces = []
    for trace in parts.data:
        properties = trace.to_plotly_json()
        if "log" in properties.get("meta", {}):
            # The page takes the logarithm of customdata itself.
            del properties["z"]
        traces.append(matrices.compact(properties))
    return {"data": traces, "layout": compact(parts.layout.to_plotly_json())}


def difference(base: Mapping[str, Any], other: Mapping[str, Any]) -> dict[str, Any]:
    """What must be assigned over packed figure ``base`` to make ``other``: whole keys of each trace and of the layout."""
    traces = [_changed(one, two) for one, two in zip(base["data"], other["data"], strict=True)]
    layout = _changed(base["layout"], other["layout"])
    patch: dict[str, Any] = {}
    if any(traces):
        patch["data"] = traces
    if layout:
        patch["layout"] = layout
    return patch


def data_script(data: Any) -> tuple[str, str]:
    """The type and the text of a script element that holds ``data``; large data is compressed.

    Nothing in the text can end the element or start another: ``<``, ``>`` and ``&`` are escaped and everything is ASCII.
    """
    text = json.dumps(data, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)
    if len(text) > _PLAIN_LIMIT:
        return "application/gzip", base64.b64encode(gzip.compress(text.encode(), 9, mtime=0)).decode()
    for character in "<>&":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return "application/json", text


def _rounded(value: float, digits: int) -> float | int | None:
    if not math.isfinite(value):
        return None
    rounded = float(f"{value:.{digits}g}")
    return int(rounded) if rounded.is_integer() and abs(rounded) < 1e15 else rounded


def _changed(base: Mapping[str, Any], other: Mapping[str, Any]) -> dict[str, Any]:
    gone = dict.fromkeys(set(base) - set(other))
    return {key: value for key, value in other.items() if key not in base or base[key] != value} | gone
