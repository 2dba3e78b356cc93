"""Axes of a figure as SVG: where a point lies, ticks with their labels, and text that cannot become markup."""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape, unescape
from typing import Any

import numpy as np
from jaxtyping import Float

WIDTH = 760
LETTER = 6.2
"""The width of a letter in pixels, on average."""
_TAG = re.compile(r"<[^>]*>")


@dataclass(frozen=True)
class Panel:
    """A pair of axes on the drawing: its box in pixels, the ends of both axes in their own units, and whether these are logarithmic."""

    box: tuple[float, float, float, float]
    x: tuple[float, float]
    y: tuple[float, float]
    log: tuple[bool, bool]

    def at(self, x: float, y: float) -> tuple[float, float]:
        """Pixels of a point."""
        left, top, right, bottom = self.box
        x, y = (math.log10(v) if log and v > 0 else v for v, log in zip((x, y), self.log, strict=True))
        across = (x - self.x[0]) / (self.x[1] - self.x[0])
        up = (y - self.y[0]) / (self.y[1] - self.y[0])
        return left + across * (right - left), bottom - up * (bottom - top)


def panel_of(x: Mapping[str, Any], y: Mapping[str, Any], traces: Sequence[Any], height: float) -> Panel:
    """The axes that some traces share, in a drawing of this height."""
    left = 14 + LETTER * min(24, max((len(plain(text)) for text in y.get("ticktext", ["00000"])), default=5))
    slanted = bool(x.get("tickangle"))
    longest = max((len(plain(text)) for text in x.get("ticktext", [""])), default=0)
    bottom = 22 + (0.66 * LETTER * min(24, longest) if slanted else 12) + (16 if _title(x) else 0)
    left += 16 if _title(y) else 0
    x_domain, y_domain = x.get("domain", (0, 1)), y.get("domain", (0, 1))
    wide, high = WIDTH - left - 24, height - bottom - 24
    box = (
        left + x_domain[0] * wide,
        24 + (1 - y_domain[1]) * high,
        left + x_domain[1] * wide,
        24 + (1 - y_domain[0]) * high,
    )
    log = (x.get("type") == "log", y.get("type") == "log")
    return Panel(box, _ends(x, "x", traces, log=log[0]), _ends(y, "y", traces, log=log[1]), log)


def _ends(axis: Mapping[str, Any], name: str, traces: Sequence[Any], *, log: bool) -> tuple[float, float]:
    """The first and last value that an axis shows, logarithms where it is logarithmic; turned round where it runs down."""
    if axis.get("range") is not None:
        low, high = (float(end) for end in axis["range"])
    else:
        found = [numbers(values(trace, name)) for trace in traces]
        every = np.concatenate([one[np.isfinite(one)] for one in found]) if found else np.array([])
        if log:
            every = np.log10(every[every > 0])
        low, high = (float(every.min()), float(every.max())) if every.size else (0.0, 1.0)
        if any(trace.type == "bar" and (trace.orientation == "h") == (name == "x") for trace in traces):
            low, high = min(low, 0.0), max(high, 0.0)
        margin = 0.04 * (high - low) or 0.5
        low, high = low - margin, high + margin
    if axis.get("autorange") == "reversed" and low < high:
        low, high = high, low
    return (low, high) if low != high else (low - 0.5, high + 0.5)


def values(trace: Any, name: str) -> Any:
    """The values of a trace along an axis; of a heatmap the places of its cells."""
    given = getattr(trace, name)
    if given is not None:
        return given
    if trace.type == "heatmap":
        return np.arange(np.shape(trace.z)[1 if name == "x" else 0])
    return np.arange(len(trace.y if name == "x" else trace.x))


def numbers(values: Any) -> Float[np.ndarray, " row"]:
    """Values as numbers, NaN for those that are missing."""
    return np.array([math.nan if value is None else float(value) for value in values], dtype=float)


def axes(panel: Panel, x: Mapping[str, Any], y: Mapping[str, Any]) -> str:
    """The frame, the ticks with their labels, and the titles of both axes."""
    left, top, right, bottom = panel.box
    parts = []
    slanted = bool(x.get("tickangle"))
    for value, text in _ticks(x, panel.x, log=panel.log[0]):
        at, _ = panel.at(value, panel.y[0])
        turn = (
            f' transform="rotate(-40 {at:.1f} {bottom + 12:.1f})" text-anchor="end"'
            if slanted
            else ' text-anchor="middle"'
        )
        parts.append(f'<text x="{at:.1f}" y="{bottom + 14:.1f}"{turn}>{svg_text(text, 24)}</text>')
    for value, text in _ticks(y, panel.y, log=panel.log[1]):
        _, at = panel.at(panel.x[0], value)
        parts.append(f'<text x="{left - 5:.1f}" y="{at + 4:.1f}" text-anchor="end">{svg_text(text, 24)}</text>')
    middle = (left + right) / 2, (top + bottom) / 2
    if _title(x):
        below = bottom + 30 + (0.6 * LETTER * 12 if slanted else 0)
        parts.append(f'<text x="{middle[0]:.1f}" y="{below:.1f}" text-anchor="middle">{svg_text(_title(x), 80)}</text>')
    if _title(y):
        turn = f'transform="rotate(-90 10 {middle[1]:.1f})"'
        parts.append(f'<text x="10" y="{middle[1]:.1f}" {turn} text-anchor="middle">{svg_text(_title(y), 60)}</text>')
    frame = f'x="{left:.1f}" y="{top:.1f}" width="{right - left:.1f}" height="{bottom - top:.1f}"'
    return f'<rect {frame} fill="none" stroke="currentColor" stroke-opacity="0.25"/>{"".join(parts)}'


def _ticks(axis: Mapping[str, Any], ends: tuple[float, float], *, log: bool) -> list[tuple[float, str]]:
    """Values in the axis' own units with their labels."""
    if axis.get("tickvals") is not None:
        texts = axis.get("ticktext") or [f"{value:g}" for value in axis["tickvals"]]
        low, high = sorted(ends)
        shown = [(float(value), text) for value, text in zip(axis["tickvals"], texts, strict=False)]
        return [(v, text) for v, text in shown if low <= (math.log10(v) if log and v > 0 else v) <= high]
    low, high = sorted(ends)
    if log:
        return [(10.0**power, f"{10.0**power:g}") for power in range(math.ceil(low), math.floor(high) + 1)]
    step = 10.0 ** math.floor(math.log10((high - low) / 4))
    step *= next((factor for factor in (1, 2, 5) if (high - low) / (step * factor) <= 6), 10)
    return [(n * step, f"{n * step:g}") for n in range(math.ceil(low / step), math.floor(high / step) + 1)]


def _title(axis: Mapping[str, Any]) -> str:
    title = axis.get("title") or {}
    return title.get("text") or "" if isinstance(title, Mapping) else ""


def plain(text: Any) -> str:
    """A label without plotly's markup: ours are escaped, so that only our own tags are markup."""
    return unescape(_TAG.sub(" ", str(text)))


def svg_text(text: Any, length: int) -> str:
    """A label of at most ``length`` letters, escaped."""
    words = plain(text)
    return escape(words if len(words) <= length else words[: length - 1] + "…")
