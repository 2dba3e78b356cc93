"""The figures of the experiment by name, and its tables."""

from typing import Any

import torch

from experiments.lens_depth.statistics import GROUPS, PAIRS, Depths
from experiments.publishing import kept
from interp.maths.estimates import Estimate, Estimates

_COLUMNS = (
    "first token is the final one, %",
    "that of another position, %",
    "KL to the final, nats",
    "entropy, nats",
    "log10(1 + rank of the next token)",
)
_SHOWN = 5
"""Every so many layers stand in the table of depths."""


def values(found: Depths) -> dict[str, float]:
    """The figures that are held against what is expected."""
    agrees, n_layers = found.agrees.value, len(found.agrees.value) - 1
    half = n_layers // 2
    figures = {
        "last_agreement": 100 * float(agrees[-1]),
        "last_kl": float(found.kl_nats.value[-1]),
        "agreement_with_depth": rank_correlation(agrees),
        "kl_with_depth": rank_correlation(found.kl_nats.value),
        "kl_late": rank_correlation(found.kl_nats.value[2 * n_layers // 3 :]),
        "half_agreement": 100 * float(agrees[half]),
        "half_chance": 100 * float(found.agrees_elsewhere.value[half]),
        "last_chance": 100 * float(found.agrees_elsewhere.value[-1]),
        "depth": found.depth["all"].value,
        "late": 100 * float(1 - found.settled["all"].value[2 * n_layers // 3]),
    }
    for first, second in PAIRS:
        one = found.later[first, second]
        figures[f"{first}_later"] = one.value
        figures[f"{first}_later_lower"] = one.lower
    return figures


def rank_correlation(values: torch.Tensor) -> float:
    """Spearman's correlation of values with the depth."""
    ranks = values.argsort().argsort().double()
    depth = torch.arange(len(values), dtype=torch.float64)
    return float(torch.corrcoef(torch.stack([ranks, depth]))[0, 1])


def depth_lines(found: Depths) -> list[str]:
    """What the lens says at some depths."""
    n_layers = len(found.agrees.value) - 1
    shown = sorted({*range(0, n_layers, _SHOWN), n_layers - 2, n_layers - 1, n_layers})
    heads = ("blocks read", *_COLUMNS)
    lines = [f"| {' | '.join(heads)} |", "|" + " ---: |" * len(heads)]
    for row in shown:
        cells = [
            _cell(found.agrees.at(row), 1, 100),
            _cell(found.agrees_elsewhere.at(row), 1, 100),
            _cell(found.kl_nats.at(row), 2),
            _cell(found.entropy_nats.at(row), 2),
            _cell(found.log_rank.at(row), 2),
        ]
        lines.append(f"| {row} | {' | '.join(cells)} |")
    return lines


def group_lines(found: Depths) -> list[str]:
    """When each group of tokens settles."""
    n_layers = len(found.agrees.value) - 1
    marks = (n_layers // 2, 2 * n_layers // 3, n_layers - 1)
    lines = [
        "| tokens | number | mean depth at which the first token stays | "
        + " | ".join(f"settled by {mark}, %" for mark in marks)
        + " |",
        "| --- | ---: | ---: |" + " ---: |" * len(marks),
    ]
    for name in GROUPS:
        cells = [_cell(found.settled[name].at(mark), 1, 100) for mark in marks]
        lines.append(f"| {name} | {found.counts[name]} | {_cell(found.depth[name], 1)} | {' | '.join(cells)} |")
    for pair in PAIRS:
        lines.append(f"| {pair[0]} less {pair[1]} | | {_cell(found.later[pair], 1)} |" + " |" * len(marks))
    return lines


def more(found: Depths) -> dict[str, Any]:
    """What is kept beside the figures."""
    by_depth = {
        name: _plain(getattr(found, name))
        for name in ("agrees", "agrees_elsewhere", "kl_nats", "entropy_nats", "log_rank")
    }
    groups = {
        name: {"tokens": found.counts[name], "depth": vars(found.depth[name]), "settled": _plain(found.settled[name])}
        for name in GROUPS
    }
    return {"by depth": by_depth, "groups": groups}


def _plain(one: Estimates) -> dict[str, Any]:
    return {name: kept(getattr(one, name)) for name in ("value", "lower", "upper")}


def _cell(one: Estimate, digits: int, scale: float = 1.0) -> str:
    value, lower, upper = (f"{scale * part:.{digits}f}" for part in (one.value, one.lower, one.upper))
    return f"{value} ({lower} to {upper})"
