"""Figures of an experiment held against what is expected of them, and put into its page."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from interp.files import write_bytes


@dataclass(frozen=True, kw_only=True)
class Row:
    """One figure: what it is, what was measured, what is expected and how far from it a run may be.

    ``reason`` says why that is expected; without one it repeats an earlier run.
    """

    name: str
    about: str
    value: float
    expected: float
    tolerance: float
    reason: str = ""

    @property
    def met(self) -> bool:
        """Whether the measured value is within the tolerance; not a number never is."""
        return abs(self.value - self.expected) <= self.tolerance


def read_expected(path: Path) -> dict[str, Any]:
    """The expected figures by name: the value, how far a run may be from it, what it is, and where there is one the reason."""
    return json.loads(path.read_text())


def rows(found: Mapping[str, float], expected: Mapping[str, Any]) -> tuple[Row, ...]:
    """The figures beside what is expected of them, in the order of the expectations."""
    return tuple(
        Row(
            name=name,
            about=goal["about"],
            value=found[name],
            expected=goal["value"],
            tolerance=goal["tolerance"],
            reason=goal.get("reason", ""),
        )
        for name, goal in expected.items()
    )


def table(figures: Sequence[Row]) -> list[str]:
    """The figures as lines of a Markdown table, with a column of reasons where any is given."""
    reasoned = any(row.reason for row in figures)
    lines = ["| figure | measured | expected | met |", "| --- | --- | --- | --- |"]
    if reasoned:
        lines = [f"{line} {cell} |" for line, cell in zip(lines, ("why", "---"), strict=True)]
    for row in figures:
        met = "yes" if row.met else "**no**"
        line = f"| {row.about} | {row.value:.3g} | {row.expected:g} ± {row.tolerance:g} | {met} |"
        lines.append(f"{line} {row.reason or 'as an earlier run'} |" if reasoned else line)
    return lines


def put_into(page: Path, parts: Mapping[str, Sequence[str]]) -> None:
    """Writes lines into a Markdown page in place of those between ``<!-- name -->`` and ``<!-- /name -->``, for each name."""
    text = page.read_text(encoding="utf-8")
    for name, new in parts.items():
        head, found, rest = text.partition(f"<!-- {name} -->\n")
        _, ended, tail = rest.partition(f"<!-- /{name} -->\n")
        assert ended, f"{page} has no place for {name}"
        text = "".join([head, found, *(f"{line}\n" for line in ["", *new, ""]), ended, tail])
    write_bytes(page, text.encode())
