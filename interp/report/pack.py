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


def compact(value: Any) -> Any:
    """``value`` as JSON-safe Python: numbers rounded to ``DIGITS`` significant digits, NaN and infinity as None."""
    if isinstance(value, np.ndarray):
        return compact(value.tolist())
    if isinstance(value, np.generic):
        return compact(value.item())
    if isinstance(value, bool | int | str) or value is None:
        return value
    if isinstance(value, float):
        return _rounded(value)
    if isinstance(value, Mapping):
        return {str(key): compact(item) for key, item in value.items()}
    if isinstance(value, Sequence):
        return [compact(item) for item in value]
    raise TypeError(f"a page cannot hold a {type(value).__name__}")


def pack_figure(figure: "Figure") -> dict[str, Any]:
    """``{"data": [...], "layout": {...}}`` of a plotly figure."""
    # The properties trace by trace: Figure.to_dict would turn arrays into base64, which cannot be rounded.
    parts: Any = figure
    traces = [compact(trace.to_plotly_json()) for trace in parts.data]
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


def _rounded(value: float) -> float | int | None:
    if not math.isfinite(value):
        return None
    rounded = float(f"{value:.{DIGITS}g}")
    return int(rounded) if rounded.is_integer() and abs(rounded) < 1e15 else rounded


def _changed(base: Mapping[str, Any], other: Mapping[str, Any]) -> dict[str, Any]:
    gone = dict.fromkeys(set(base) - set(other))
    return {key: value for key, value in other.items() if key not in base or base[key] != value} | gone
