"""``python -m experiments.scaling.run [--quick] [--workers N ...]``: the same sweep on each engine, timed and compared.

Without ``--quick`` results.json and the table of README.md are written beside this file. The exit code is 1 where two runs gave rows
that differ.
"""

import argparse
import hashlib
import json
import os
import platform
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from pathlib import Path

import psutil

from experiments.expected import put_into
from experiments.scaling.config import FOLDER, Config
from interp.files import write_bytes
from interp.scale.sweep import sweep

PACKAGES = ("torch", "transformers", "ray")


@dataclass(frozen=True, kw_only=True)
class Timed:
    """One run: ``seconds`` in all, ``started`` until the first task was done, and the SHA-256 of its rows.

    ``rate`` is tasks a second once every worker has its model: those after the first ``workers``, over the time since then.
    """

    engine: str
    workers: int
    tasks: int
    seconds: float
    started: float
    rate: float
    rows_sha256: str


def timed(config: Config, engine: str, workers: int) -> Timed:
    """One sweep into a folder that is thrown away."""
    began, ends = time.perf_counter(), []

    def progress(what: str, done: int, total: int | None) -> None:
        if done:
            ends.append(time.perf_counter() - began)

    with tempfile.TemporaryDirectory() as folder:
        result = sweep(config.sweep(), Path(folder) / "rows", engine=engine, workers=workers, progress=progress)
        seconds = time.perf_counter() - began
        digest = hashlib.sha256(Path(result.table_path).read_bytes()).hexdigest()
    after = len(ends) - workers
    return Timed(
        engine=engine,
        workers=workers,
        tasks=result.n_tasks,
        seconds=round(seconds, 1),
        started=round(ends[0], 1),
        rate=round(after / (ends[-1] - ends[workers - 1]), 3) if after > 0 else 0.0,
        rows_sha256=digest,
    )


def lines(runs: Sequence[Timed]) -> list[str]:
    """The runs as a Markdown table; speed-up is against one worker of the same engine."""
    found = [
        "| engine | workers | tasks/s | speed-up | first task after | in all |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for run in runs:
        one = next((other for other in runs if other.engine == run.engine and other.workers == 1), None)
        gain = f"{run.rate / one.rate:.2f}" if one is not None and one.rate else "-"
        found.append(
            f"| {run.engine} | {run.workers} | {run.rate:.2f} | {gain} | {run.started:.0f} s | {run.seconds:.0f} s |"
        )
    return found


def main(arguments: list[str] | None = None) -> int:
    """Returns 0 where all runs gave the same rows, else 1."""
    parser = argparse.ArgumentParser(prog="python -m experiments.scaling.run", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="two tasks a run; nothing is kept")
    parser.add_argument("--workers", type=int, nargs="+", help="numbers of workers, in place of 1 and 2")
    asked = parser.parse_args(arguments)
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    config = Config().quick() if asked.quick else Config()
    if asked.workers:
        config = replace(config, runs=tuple((engine, n) for engine in ("embedded", "ray") for n in asked.workers))
    runs = []
    for engine, workers in config.runs:
        runs.append(timed(config, engine, workers))
        print(lines(runs)[-1], flush=True)
    same = len({run.rows_sha256 for run in runs}) == 1
    print("all rows are the same" if same else "the rows differ", flush=True)
    if not asked.quick:
        data = {
            "machine": f"{psutil.cpu_count(logical=False)} cores, {platform.machine()}",
            "versions": {"python": platform.python_version()} | {name: version(name) for name in PACKAGES},
            "config": asdict(config),
            "same_rows": same,
            "runs": [asdict(run) for run in runs],
        }
        write_bytes(FOLDER / "results.json", (json.dumps(data, indent=1) + "\n").encode())
        put_into(FOLDER / "README.md", {"table": lines(runs)})
    return 0 if same else 1


if __name__ == "__main__":
    sys.exit(main())
