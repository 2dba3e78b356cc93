"""Heatmaps, bars and lines as SVG, and what their colours mean."""

import base64
import math
import re
import struct
import zlib
from collections.abc import Callable, Sequence
from html import escape
from typing import Any

import numpy as np
from jaxtyping import Float, UInt8
from plotly.colors import sample_colorscale

from interp.figures.static_axes import LETTER, WIDTH, Panel, numbers, plain, svg_text, values

_SHADES = 256


def _heatmap(trace: Any, panel: Panel, _: Sequence[Any]) -> str:
    """The cells as pixels of one picture, those without a number clear."""
    z = np.array([[math.nan if value is None else float(value) for value in row] for row in trace.z], dtype=float)
    low, high = _limits(trace, z)
    shades = _shades(trace.colorscale)
    place = np.clip((np.nan_to_num(z) - low) / ((high - low) or 1.0), 0, 1) * (_SHADES - 1)
    pixels = np.zeros((*z.shape, 4), dtype=np.uint8)
    pixels[..., :3] = shades[np.round(place).astype(int)]
    pixels[..., 3] = np.where(np.isfinite(z), 255, 0)
    rows, columns = z.shape
    left, top = panel.at(-0.5, rows - 0.5)
    right, bottom = panel.at(columns - 0.5, -0.5)
    pixels = pixels[::-1]
    if top > bottom:  # the axis runs down
        top, bottom, pixels = bottom, top, pixels[::-1]
    where = f'x="{left:.1f}" y="{top:.1f}" width="{right - left:.1f}" height="{bottom - top:.1f}"'
    return f'<image {where} preserveAspectRatio="none" style="image-rendering:pixelated" href="{_png(pixels)}"/>'


def _limits(trace: Any, z: Float[np.ndarray, "row column"]) -> tuple[float, float]:
    """The values of the first and the last colour."""
    finite = z[np.isfinite(z)]
    ends = (float(finite.min()), float(finite.max())) if finite.size else (0.0, 1.0)
    return (ends[0] if trace.zmin is None else float(trace.zmin), ends[1] if trace.zmax is None else float(trace.zmax))


def _shades(scale: Any) -> UInt8[np.ndarray, "row 3"]:
    points = [index / (_SHADES - 1) for index in range(_SHADES)]
    colors = sample_colorscale([list(stop) for stop in scale] if scale else "Viridis", points)
    parts = [[float(part) for part in re.findall(r"[\d.]+", str(color))[:3]] for color in colors]
    return np.round(parts).astype(np.uint8)


def _png(pixels: UInt8[np.ndarray, "row column 4"]) -> str:
    """RGBA pixels as the address of a PNG that is written into it."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    rows, columns, _ = pixels.shape
    lines = b"".join(b"\0" + row.tobytes() for row in np.ascontiguousarray(pixels))
    head = struct.pack(">IIBBBBB", columns, rows, 8, 6, 0, 0, 0)
    data = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(lines, 9)) + chunk(b"IEND", b"")
    return f"data:image/png;base64,{base64.b64encode(data).decode()}"


def _bar(trace: Any, panel: Panel, bars: Sequence[Any]) -> str:
    """Rectangles from 0; those of several traces beside each other."""
    flat = trace.orientation == "h"
    lengths, places = (numbers(values(trace, name)) for name in (("x", "y") if flat else ("y", "x")))
    width = 0.8 / max(len(bars), 1)
    shift = -0.4 + width * next(index for index, one in enumerate(bars) if one is trace)
    colors = trace.marker.color
    parts = []
    for index, (length, place) in enumerate(zip(lengths, places, strict=True)):
        if not math.isfinite(length):
            continue
        start, end = place + shift, place + shift + width
        (x0, y0), (x1, y1) = (
            (panel.at(0.0, start), panel.at(length, end)) if flat else (panel.at(start, 0.0), panel.at(end, length))
        )
        where = f'x="{min(x0, x1):.1f}" y="{min(y0, y1):.1f}" width="{abs(x1 - x0):.1f}" height="{abs(y1 - y0):.1f}"'
        color = colors if isinstance(colors, str) or colors is None else colors[index]
        parts.append(f'<rect {where} fill="{_color(color)}"/>')
    return "".join(parts)


def _scatter(trace: Any, panel: Panel, _: Sequence[Any]) -> str:
    """Lines, and circles where there are markers; gaps stay gaps. Filled bands are left out."""
    mode = trace.mode or "lines"
    if trace.fill not in (None, "none") or trace.line.width == 0:
        return ""
    color = _color(trace.line.color or trace.marker.color)
    xs, ys = numbers(values(trace, "x")), numbers(values(trace, "y"))
    points = [panel.at(x, y) if math.isfinite(x) and math.isfinite(y) else None for x, y in zip(xs, ys, strict=True)]
    parts = []
    if "lines" in mode:
        runs: list[list[tuple[float, float]]] = [[]]
        for point in points:
            runs[-1].append(point) if point is not None else runs.append([])
        dash = ' stroke-dasharray="4 3"' if trace.line.dash not in (None, "solid") else ""
        for run in runs:
            path = " ".join(f"{x:.1f},{y:.1f}" for x, y in run)
            parts.append(
                f'<polyline points="{path}" fill="none" stroke="{color}" stroke-width="2"{dash}/>' if run else ""
            )
    if "markers" in mode:
        parts += [f'<circle cx="{p[0]:.1f}" cy="{p[1]:.1f}" r="3" fill="{color}"/>' for p in points if p is not None]
    return "".join(parts)


DRAWERS: dict[str, Callable[[Any, Panel, Sequence[Any]], str]] = {
    "heatmap": _heatmap,
    "bar": _bar,
    "scatter": _scatter,
}


def legend(traces: Sequence[Any], height: float) -> tuple[str, float]:
    """What the colours mean, below the drawing, and the room that it takes."""
    parts, x, y = [], 12.0, height + 12
    for trace in traces:
        words, swatch, size = _entry(trace, len(traces))
        if not words:
            continue
        wide = size + LETTER * min(60, len(words)) + 24
        if x + wide > WIDTH and x > 12:
            x, y = 12.0, y + 18
        place = f'x="{x:.0f}" y="{y - 9:.0f}" width="{size:.0f}" height="10"'
        text = f'<text x="{x + size + 6:.0f}" y="{y:.0f}">{svg_text(words, 60)}</text>'
        parts.append(swatch.replace("PLACE", place, 1) + text)
        x += wide
    return "".join(parts), (y - height + 10 if parts else 0.0)


def _entry(trace: Any, count: int) -> tuple[str, str, int]:
    """The words of a trace, its colours with PLACE for where they are, and how wide these are; no words where there is nothing to say."""
    if trace.type == "heatmap":
        if trace.showscale is False:
            return "", "", 0
        shades = np.concatenate([_shades(trace.colorscale)[None, ::4], np.full((1, _SHADES // 4, 1), 255, np.uint8)], 2)
        low, high = _ends(trace)
        title = plain(trace.colorbar.title.text or "")
        return (
            f"{low:.3g} to {high:.3g} {title}",
            f'<image PLACE preserveAspectRatio="none" href="{_png(shades)}"/>',
            64,
        )
    if not trace.name or count == 1 or trace.showlegend is False:
        return "", "", 0
    color = (trace.line.color or trace.marker.color) if trace.type == "scatter" else trace.marker.color
    return plain(trace.name), f'<rect PLACE fill="{_color(color)}"/>', 10


def _ends(trace: Any) -> tuple[float, float]:
    """The numbers of the first and the last colour; where logarithms are coloured, the numbers themselves."""
    logarithms = trace.meta is not None and "log" in trace.meta and trace.customdata is not None
    shown: Any = trace.customdata if logarithms else trace.z
    finite = np.array([value for row in shown for value in row if value is not None], dtype=float)
    finite = finite[np.isfinite(finite)]
    if logarithms and finite.size:
        return float(finite.min()), float(finite.max())
    return _limits(trace, finite[None])


def _color(color: Any) -> str:
    return escape(color) if isinstance(color, str) else "#0b78b5"
