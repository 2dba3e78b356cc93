"""Figures as compact JSON: rounded numbers, matrices as references, and of several versions only what differs."""

import gzip
import json
import lzma
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from interp.report.arrays import Arrays, Mapped
from interp.report.blocks import Cells, Version

DIGITS = 4


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


def pack_properties(properties: Mapping[str, Any], arrays: Arrays) -> dict[str, Any]:
    """Properties of a trace, with numeric matrices as references."""
    return {str(key): _packed(value, arrays) for key, value in properties.items()}


def pack_figure(version: Version, arrays: Arrays) -> dict[str, Any]:
    """``{"data": [...], "layout": {...}}`` of a version's figure, without the texts that its ``cells`` let the page write itself."""
    # The properties trace by trace: Figure.to_dict would turn arrays into base64, which cannot be rounded.
    figure: Any = version.figure
    traces = []
    for trace in figure.data:
        properties = trace.to_plotly_json()
        if "log" in properties.get("meta", {}):
            properties["z"] = Mapped(properties["customdata"], properties["meta"]["log"])
        if version.cells is not None:
            properties = {key: value for key, value in properties.items() if key not in ("text", "hovertext")}
            properties["cells"] = _cells(version.cells, arrays)
        traces.append(pack_properties(properties, arrays))
    return {"data": traces, "layout": compact(figure.layout.to_plotly_json())}


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


def compressed(data: Mapping[str, Any], arrays: Arrays) -> tuple[bytes, bytes]:
    """Everything the script reads: JSON, and the bytes of its arrays; the same for the same data."""
    description, binary = arrays.packed()
    text = json.dumps(
        {**data, "arrays": description}, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
    )
    return text.encode("utf-8", "backslashreplace"), binary  # half a surrogate pair becomes its JSON escape


def dense(text: bytes) -> bytes:
    """``text`` as LZMA, in the form of a file that ends in ``.lzma``: a sixth smaller than gzip, unpacked by the page's script."""
    filters = {
        "id": lzma.FILTER_LZMA1,
        "preset": 9 | lzma.PRESET_EXTREME,
        "dict_size": 1 << 21,
        "lc": 3,
        "lp": 0,
        "pb": 0,
    }
    return lzma.compress(text, format=lzma.FORMAT_ALONE, filters=[filters])


def squeezed(data: bytes) -> bytes:
    """``data`` gzipped, the same for the same data: for what is too large to be unpacked by a script."""
    return gzip.compress(data, 9, mtime=0)


def _packed(value: Any, arrays: Arrays) -> Any:
    if isinstance(value, Mapped):
        return arrays.reference(value)
    if isinstance(value, np.ndarray) and value.ndim == 2 and value.dtype.kind in "fiu":
        return arrays.reference(value.astype(np.float64))
    return compact(value)


def _cells(cells: Cells, arrays: Arrays) -> dict[str, Any]:
    packed: dict[str, Any] = {"rows": list(cells.rows), "link": cells.link}
    if cells.best is not None:
        packed["best"] = arrays.words(cells.best)["words"]
        packed["probs"] = [arrays.reference(source) for source in cells.probs]
    return packed


def _rounded(value: float, digits: int) -> float | int | None:
    if not math.isfinite(value):
        return None
    rounded = float(f"{value:.{digits}g}")
    return int(rounded) if rounded.is_integer() and abs(rounded) < 1e15 else rounded


def _changed(base: Mapping[str, Any], other: Mapping[str, Any]) -> dict[str, Any]:
    gone = dict.fromkeys(set(base) - set(other))
    return {key: value for key, value in other.items() if key not in base or base[key] != value} | gone
