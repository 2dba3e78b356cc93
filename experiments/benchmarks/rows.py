"""Rows of the page: what was measured, the goal, whether it is met, and what other tools take."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from experiments.benchmarks.harness import Spread, Timing


@dataclass(frozen=True, kw_only=True)
class Row:
    """One line. ``others`` holds another tool's spread, or the reason why there is none.

    ``unit`` is "ratio" (to ``against``), "s" or "MB". ``baseline`` is what the ratio is to, in seconds. ``agreement`` is the greatest
    distance found between two sides before timing. ``note`` says what the page's head does not: what was timed, and how equal it was.
    """

    key: str
    title: str
    unit: str
    ours: Spread | str
    goal: float | None = None
    others: Mapping[str, Spread | str] = field(default_factory=dict)
    against: str = ""
    baseline: Spread | None = None
    agreement: float | None = None
    note: str = ""

    @property
    def met(self) -> bool | None:
        """Whether the median reaches the goal; None where there is no goal. What could not run has not reached it."""
        if self.goal is None:
            return None
        return isinstance(self.ours, Spread) and self.ours.median <= self.goal

    @classmethod
    def of(cls, data: Mapping[str, Any]) -> "Row":
        """A row from what ``to_json`` gave."""
        fields = {name: value for name, value in data.items() if name != "met"}
        fields["others"] = {name: _spread(value) for name, value in data["others"].items()}
        return cls(**(fields | {name: _spread(data[name]) for name in ("ours", "baseline")}))

    def to_json(self) -> dict[str, Any]:
        """All of it, JSON-safe."""
        return {**asdict(self), "met": self.met}


def _spread(value: Any) -> Any:
    return Spread(**value) if isinstance(value, Mapping) else value


def timed_row(
    key: str,
    title: str,
    goal: Mapping[str, Any],
    timings: Mapping[tuple[str, str], Timing],
    names: tuple[str, tuple[str, str]],
    missing: Mapping[str, str],
    agreement: float,
    note: str = "",
) -> Row:
    """The row ``key`` out of a measurement. ``names`` are our side's name and the key of the baseline."""
    ours, baseline = names
    others: dict[str, Spread | str] = {
        name: timing.ratio
        for (row, name), timing in timings.items()
        if row == key and name != ours and (row, name) != baseline
    }
    return Row(
        key=key,
        title=title,
        unit="ratio",
        ours=timings[key, ours].ratio,
        goal=goal["goal"],
        others={**others, **missing},
        against=goal["against"],
        baseline=timings[baseline].seconds,
        agreement=agreement,
        note=note,
    )


def shown(value: Spread | str, unit: str) -> str:
    """A spread as text: the median and the quartiles."""
    if isinstance(value, str):
        return value
    digits = 2 if unit in ("ratio", "s") else 0
    digits = 3 if unit == "ratio" and value.median < 1.1 else digits
    digits = 1 if unit == "MB" and value.median < 100 else digits
    text = f"{value.median:.{digits}f}"
    return text if value.n == 1 else f"{text} ({value.lower:.{digits}f} to {value.upper:.{digits}f})"


def page(rows: Sequence[Row], about: Mapping[str, str], failures: Sequence[str], more: Sequence[str] = ()) -> str:
    """docs/benchmarks.md; ``more`` are the lines of what was measured elsewhere."""
    lines = [
        "# Benchmarks",
        "",
        f"Written by `{about['command']}`; not by hand. The same figures with more digits lie in",
        "[experiments/benchmarks/results.json](../experiments/benchmarks/results.json).",
        "",
        "| | |",
        "| --- | --- |",
        *(f"| {name} | {value} |" for name, value in about.items() if name != "command"),
        "",
        "All sides of a row run in one process on the same weights and the same token ids. Each round runs every side once, in a",
        "shuffled order; other tools take part in every third round. A ratio is that of one side to the baseline of the same round;",
        "shown are the median of the rounds and, in brackets, the quartiles. Before a side is timed its numbers are compared with",
        "Hugging Face's own (stream and logits with SDPA attention, patterns with eager attention): the greatest distance of two",
        "vectors over the norm of the reference is at most 1e-4. The plain forward is Hugging Face's model with SDPA attention and no",
        "KV cache. The lens is compared with its formulas written out in fp64; its baseline is the fastest of eight tilings of the",
        "matrix products by `torch.mm`. Causal traces and patching sweeps are compared cell by cell; under the table stands how equal",
        "they are, in what unit, on how many threads, and which cells of the slower side were timed. Only ratios mean something on",
        "another machine.",
    ]
    for unit, head in (
        ("ratio", "Time, as a ratio to the baseline"),
        ("s", "Starting, in seconds"),
        ("MB", "Memory, in MB"),
    ):
        chosen = [row for row in rows if row.unit == unit]
        if chosen:
            lines += ["", f"## {head}", "", *_table(chosen, unit)]
            notes = [f"- {row.title}: {row.note}" for row in chosen if row.note]
            lines += ["", *notes] if notes else []
    if failures:
        lines += ["", "## What could not run", "", *(f"- {line}" for line in failures)]
    if more:
        lines += ["", *more]
    return "\n".join(lines) + "\n"


def _table(rows: Sequence[Row], unit: str) -> list[str]:
    lines = ["| work | interp | goal | met | others | baseline |", "| --- | --- | --- | --- | --- | --- |"]
    for row in rows:
        others = "<br>".join(f"{name} {shown(value, unit)}" for name, value in row.others.items()) or "-"
        goal = "-" if row.goal is None else f"≤ {row.goal:g}"
        met = {None: "-", True: "yes", False: "**no**"}[row.met]
        base = "-" if row.baseline is None else f"{row.against}, {row.baseline.median:.3f} s"
        lines.append(f"| {row.title} | {shown(row.ours, unit)} | {goal} | {met} | {others} | {base} |")
    return lines
