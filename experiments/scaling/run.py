"""``python -m experiments.scaling.run [--quick] [--workers N ...]``: the same work on each engine, timed and compared.

Without ``--quick`` results.json is written beside this file, and its tables into docs/benchmarks.md; ``--page`` writes only the page
anew, from the results that are there. The exit code is 1 where two runs of the same work gave bytes that differ.
"""

import argparse
import datetime
import hashlib
import json
import os
import platform
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from importlib.metadata import version
from pathlib import Path

import psutil
import torch

from experiments.benchmarks.kept import write_page
from experiments.scaling.config import Collected, Config
from experiments.scaling.tables import RESULTS, Timed
from interp.files import write_bytes
from interp.models.cache import Step
from interp.runner.model import Model, load
from interp.scale.collect import collect
from interp.scale.sweep import sweep

PACKAGES = ("torch", "transformers", "ray")
SEED = 0


class Stopwatch:
    """Takes the time of each step of some work: how much was done by when."""

    def __init__(self) -> None:
        self._began = time.perf_counter()
        self._steps: list[tuple[float, int]] = []

    def step(self, what: str, done: int, total: int | None) -> None:
        """A step of the work."""
        if done and (not self._steps or done > self._steps[-1][1]):
            self._steps.append((self.seconds, done))

    @property
    def seconds(self) -> float:
        """Since the beginning."""
        return time.perf_counter() - self._began

    @property
    def started(self) -> float:
        """Seconds until something was done."""
        return self._steps[0][0]

    def rate(self, workers: int) -> float:
        """What was done a second, once each worker had done a first piece."""
        if len(self._steps) <= workers:
            return 0.0
        (start, first), (end, last) = self._steps[workers - 1], self._steps[-1]
        return (last - first) / (end - start)


def timed(engine: str, workers: int, work: Callable[[Path, Step], str], collected: Collected | None = None) -> Timed:
    """One run of some work into a folder that is thrown away; ``work`` returns the digest of what it wrote."""
    watch = Stopwatch()
    with tempfile.TemporaryDirectory() as folder:
        digest = work(Path(folder) / "out", watch.step)
    return Timed(
        engine=engine,
        workers=workers,
        seconds=round(watch.seconds, 1),
        started=round(watch.started, 1),
        rate=round(watch.rate(workers), 3),
        rows_sha256=digest,
        collected=collected,
    )


def swept(config: Config, engine: str, workers: int) -> Timed:
    """One sweep."""

    def work(folder: Path, step: Step) -> str:
        result = sweep(config.sweep(), folder, engine=engine, workers=workers, progress=step)
        return hashlib.sha256(Path(result.table_path).read_bytes()).hexdigest()

    return timed(engine, workers, work)


def stored(model: Model, collected: Collected, engine: str, workers: int) -> Timed:
    """One collection, on one thread a worker. The records hold the digests of all files."""
    generator = torch.Generator().manual_seed(SEED)
    n_texts = collected.shards * collected.shard_tokens // collected.length
    texts = torch.randint(model.atlas.d_vocab, (n_texts, collected.length), generator=generator).tolist()

    def work(folder: Path, step: Step) -> str:
        collect(
            model,
            texts,
            collected.sites,
            folder,
            shard_rows=collected.shard_tokens,
            batch_tokens=collected.shard_tokens,
            engine=engine,
            workers=workers,
            threads=1,
            progress=step,
        )
        records = sorted(folder.glob("shard-*.json"))
        return hashlib.sha256(b"".join(path.read_bytes() for path in records)).hexdigest()

    return timed(engine, workers, work, collected)


def measured(model: Model, config: Config) -> Iterator[Timed]:
    """Every run."""
    for collected in config.collected:
        everywhere = collected == config.everywhere
        for engine, workers in config.runs if everywhere else (run for run in config.runs if run[0] == "embedded"):
            yield stored(model, collected, engine, workers)
    for engine, workers in config.runs:
        yield swept(config, engine, workers)


def alike(runs: list[Timed]) -> bool:
    """Whether runs of the same work wrote the same bytes."""
    works = {run.collected for run in runs}
    return len({(run.collected, run.rows_sha256) for run in runs}) == len(works)


def main(arguments: list[str] | None = None) -> int:
    """Returns 0 where all runs of the same work wrote the same bytes, else 1."""
    parser = argparse.ArgumentParser(prog="python -m experiments.scaling.run", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="little work; nothing is kept")
    parser.add_argument("--page", action="store_true", help="write docs/benchmarks.md from the results that are there")
    parser.add_argument("--workers", type=int, nargs="+", help="numbers of workers, in place of 1 and 2")
    asked = parser.parse_args(arguments)
    if asked.page:
        write_page()
        return 0
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    config = Config().quick() if asked.quick else Config()
    if asked.workers:
        config = replace(config, runs=tuple((engine, n) for engine in ("embedded", "ray") for n in asked.workers))
    load_before, runs = psutil.getloadavg()[0], list[Timed]()
    model = load(config.model, device="cpu", dtype="float32")
    for run in measured(model, config):
        runs.append(run)
        what = "tasks" if run.collected is None else f"tokens, {run.collected.sites}, texts of {run.collected.length}"
        print(f"{run.engine}, {run.workers}: {run.rate:,.2f} a second ({what}), {run.seconds:.0f} s in all", flush=True)
    same = alike(runs)
    print("the same bytes everywhere" if same else "the bytes differ", flush=True)
    if not asked.quick:
        data = {
            "machine": f"{psutil.cpu_count(logical=False)} cores, {platform.machine()}, {platform.system()}",
            "load": round(load_before, 1),
            "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
            "versions": {"python": platform.python_version()} | {name: version(name) for name in PACKAGES},
            "config": asdict(config),
            "tasks": config.facts * len(config.noises),
            "same": same,
            "runs": [run.to_json() for run in runs],
        }
        write_bytes(RESULTS, (json.dumps(data, indent=1) + "\n").encode())
        write_page()
    return 0 if same else 1


if __name__ == "__main__":
    sys.exit(main())
