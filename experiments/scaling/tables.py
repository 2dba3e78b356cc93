"""What was measured as tables, and their place in docs/benchmarks.md, which the benchmarks write from their own results and these."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from experiments.scaling.config import FOLDER, Collected

RESULTS = FOLDER / "results.json"


@dataclass(frozen=True, kw_only=True)
class Timed:
    """One run: ``seconds`` in all, ``started`` until the first piece of work was done, and the SHA-256 of its rows.

    ``rate`` is tasks or tokens a second once every worker has its model: of what came behind the first piece of each, over the time
    since then.
    """

    engine: str
    workers: int
    seconds: float
    started: float
    rate: float
    rows_sha256: str
    collected: Collected | None = None

    @classmethod
    def of(cls, data: Mapping[str, Any]) -> "Timed":
        """From what ``to_json`` gave."""
        collected = data["collected"]
        return cls(**{**data, "collected": None if collected is None else Collected(**collected)})

    def to_json(self) -> dict[str, Any]:
        """All of it, JSON-safe."""
        return asdict(self)


def sweep_lines(runs: Sequence[Timed]) -> list[str]:
    """Sweeps as a Markdown table; speed-up is against one worker of the same engine."""
    found = [
        "| engine | workers | tasks/s | speed-up | first task after | in all |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    found += [
        f"| {run.engine} | {run.workers} | {run.rate:.2f} | {_gain(run, runs)} | {run.started:.0f} s | {run.seconds:.0f} s |"
        for run in runs
        if run.collected is None
    ]
    return found


def collection_lines(runs: Sequence[Timed]) -> list[str]:
    """Collections as a Markdown table: tokens a second of each, by engine and workers, with the speed-up of two."""
    places = list(dict.fromkeys((run.engine, run.workers) for run in runs if run.collected is not None))
    heads = [f"{engine}, {_workers(number)}" for engine, number in places]
    found = [
        f"| streams kept | blocks run | tokens of a text | {' | '.join(heads)} |",
        f"| --- | --- | --- |{' --- |' * len(heads)}",
    ]
    for collected in dict.fromkeys(run.collected for run in runs if run.collected is not None):
        mine = [run for run in runs if run.collected == collected]
        by_place = {(run.engine, run.workers): run for run in mine}
        cells = [_cell(by_place.get(place), mine) for place in places]
        found.append(f"| {collected.n_layers} | {collected.through} | {collected.length} | {' | '.join(cells)} |")
    return found


def scaling_section() -> list[str]:
    """The part of docs/benchmarks.md; nothing where nothing was measured."""
    if not RESULTS.is_file():
        return []
    data = json.loads(RESULTS.read_text())
    runs = [Timed.of(run) for run in data["runs"]]
    return [
        "## Scaling, in tokens and tasks a second",
        "",
        "Written by `python -m experiments.scaling.run`; figures with more digits lie in",
        "[experiments/scaling/results.json](../experiments/scaling/results.json). "
        f"{data['machine']}, load average before {data['load']:.1f}, {data['date']}.",
        "The machine was shared with other work while this was measured, and has no more cores than the most workers used: two workers",
        "cannot be twice as fast where the disk, the parent process or a neighbour takes a share. Each worker computes on one thread, with",
        "its own model; the time until every worker has loaded it is left out.",
        "",
        "Activations of SmolLM2-135M in float32, stored: tokens a second, and how many times those of one worker of the same engine.",
        "",
        *collection_lines(runs),
        "",
        f"Causal traces ({data['tasks']} tasks a run), by a sweep:",
        "",
        *sweep_lines(runs),
        "",
        "The rows and stores of one line are the same bytes on every engine; the command fails where they are not."
        if data["same"]
        else "**Rows or stores differed between engines.**",
    ]


def _cell(run: Timed | None, runs: Sequence[Timed]) -> str:
    if run is None:
        return "-"
    return f"{run.rate:,.0f}" if run.workers == 1 else f"{run.rate:,.0f} ({_gain(run, runs)})"


def _gain(run: Timed, runs: Sequence[Timed]) -> str:
    """How many times the rate of one worker of the same engine at the same work."""
    alike = (other for other in runs if (other.engine, other.collected) == (run.engine, run.collected))
    one = next((other for other in alike if other.workers == 1), None)
    return f"{run.rate / one.rate:.2f}" if one is not None and one.rate else "-"


def _workers(number: int) -> str:
    return f"{number} worker" + ("" if number == 1 else "s")
