"""The figures of the experiment by name, and its tables."""

import math
from itertools import pairwise
from typing import Any

from experiments.nondeterminism.drift import EDGES, Drift, flip_rates
from experiments.nondeterminism.measure import Found
from experiments.nondeterminism.ways import AGAIN, STEPWISE
from experiments.publishing import kept


def values(found: Found) -> dict[str, float]:
    """The figures that are held against what is expected."""
    figures = {
        "repeats_equal": min(_share_equal(one) for one in found.ways if one.way == AGAIN),
        "beyond_reach": float(sum(flip_rates([one])[-1][0] for one in (*found.ways, *found.exact.values()))),
    }
    for dtype in found.exact:
        moved = found.moved(dtype)
        figures[f"{dtype}_worst"] = max(float(one.drift.max()) for one in moved if one.way != STEPWISE)
        figures[f"{dtype}_stepwise"] = float(found.of(dtype, STEPWISE).drift.max())
        figures[f"{dtype}_flipped"] = 100 * sum(one.n_flipped for one in moved) / sum(len(one.drift) for one in moved)
        figures[f"{dtype}_tied"] = 100 * found.tied[dtype]
    if {"float32", "float16", "bfloat16"} <= set(found.exact):
        median = {dtype: float(one.drift.median()) for dtype, one in found.exact.items()}
        figures["bits_bfloat16"] = math.log2(median["bfloat16"] / median["float16"])
        figures["bits_float16"] = math.log2(median["float16"] / median["float32"])
    return figures


def way_lines(found: Found) -> list[str]:
    """Every way of every dtype against the prompt alone, and alone against float64."""
    lines = [
        "| dtype | way | same bits, % | drift, median | drift, most | other first token |",
        "| --- | --- | ---: | ---: | ---: | ---: |",
    ]
    for dtype, exact in found.exact.items():
        lines += [_line(one, one.way) for one in found.ways if one.dtype == dtype]
        lines.append(_line(exact, "alone, against float64"))
    return lines


def flip_lines(found: Found) -> list[str]:
    """How often another token ranks first, by the gap between the two best in units of the drift; all ways of a dtype together."""
    edges = ("0", *(f"{edge:g}" for edge in EDGES))
    spans = [f"{low} to {high}" for low, high in pairwise(edges)] + [f"more than {edges[-1]}"]
    lines = ["| gap / drift | " + " | ".join(found.exact) + " |", "| --- |" + " ---: |" * len(found.exact)]
    rates = [flip_rates(found.moved(dtype)) for dtype in found.exact]
    for span, cells in zip(spans, zip(*rates, strict=True), strict=True):
        lines.append(f"| {span} | " + " | ".join(f"{flips} of {number}" for flips, number in cells) + " |")
    return lines


def more(found: Found) -> dict[str, Any]:
    """What is kept beside the figures."""
    return {
        "positions": found.n_positions,
        "ways": [_plain(one) for one in found.ways],
        "against float64": [_plain(one) for one in found.exact.values()],
    }


def _line(drift: Drift, name: str) -> str:
    return (
        f"| {drift.dtype} | {name} | {_share_equal(drift):.1f} | {float(drift.drift.median()):.2g} | "
        f"{float(drift.drift.max()):.2g} | {drift.n_flipped} of {len(drift.drift)} |"
    )


def _plain(drift: Drift) -> dict[str, Any]:
    return {
        "dtype": drift.dtype,
        "way": drift.way,
        "same_bits_percent": round(_share_equal(drift), 3),
        "drift_quantiles": kept(drift.drift.quantile(drift.drift.new_tensor([0.5, 0.9, 0.99, 1.0]))),
        "flipped": drift.n_flipped,
        "flips_by_reach": [list(pair) for pair in flip_rates([drift])],
    }


def _share_equal(drift: Drift) -> float:
    return 100 * float(drift.equal.double().mean())
