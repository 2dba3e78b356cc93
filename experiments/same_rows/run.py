"""``python -m experiments.same_rows.run --facts FILE [--only RUN] [--quick] [--fresh]``: the same traces on every engine, compared.

Runs that are finished are kept in out/ and not repeated. Without ``--quick`` results.json and the table of README.md are written once
all are there. The exit code is 1 where rows differ, where a task failed, or where a finished one was done twice.
"""

import argparse
import json
import os
import platform
import shutil
import sys
from collections.abc import Sequence
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path

import psutil

from experiments.causal_tracing.config import Config as KnownConfig
from experiments.causal_tracing.facts import KnownFact, known_facts, read_facts
from experiments.expected import put_into
from experiments.same_rows.config import FOLDER, Config
from experiments.same_rows.runs import RUNS, Told
from interp.analyzers.causal_trace_corruption import find_subject
from interp.files import write_bytes
from interp.runner.model import load

OUT, RESULTS, PAGE = FOLDER / "out", FOLDER / "results.json", FOLDER / "README.md"
PACKAGES = ("torch", "transformers", "ray")


def main(arguments: list[str] | None = None) -> int:
    """Returns 0 where all runs that are there gave the same rows and lost none, else 1."""
    parser = argparse.ArgumentParser(prog="python -m experiments.same_rows.run", description=__doc__)
    parser.add_argument("--facts", type=Path, required=True, help="objects with subject, prompt or template, attribute")
    parser.add_argument("--only", choices=RUNS, help="one run; the others as they were left")
    parser.add_argument("--quick", action="store_true", help="eight facts; nothing is kept")
    parser.add_argument("--fresh", action="store_true", help="repeat what is finished")
    asked = parser.parse_args(arguments)
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    config, folder = (Config().quick(), OUT / "quick") if asked.quick else (Config(), OUT)
    if asked.quick or asked.fresh:
        shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True, exist_ok=True)
    sweep = config.sweep(_facts(config, asked.facts))
    for name in [asked.only] if asked.only else RUNS:
        if not (folder / f"{name}.json").is_file():
            shutil.rmtree(folder / name, ignore_errors=True)
            told = RUNS[name](sweep, folder / name)
            write_bytes(folder / f"{name}.json", json.dumps(asdict(told)).encode())
        print(lines([_read(folder / f"{name}.json")])[-1], flush=True)
    runs = [_read(path) for name in RUNS if (path := folder / f"{name}.json").is_file()]
    wrong = faults(runs)
    print("\n".join(wrong) if wrong else f"the rows of {len(runs)} runs are the same", flush=True)
    if not asked.quick and len(runs) == len(RUNS):
        _keep(config, [item["subject"] for item in sweep["items"]], runs, same=not wrong)
    return 1 if wrong else 0


def faults(runs: Sequence[Told]) -> list[str]:
    """What is not as it should be, a line each."""
    found = ["the rows differ"] if len({run.rows_sha256 for run in runs}) > 1 else []
    found += [f"{run.name}: {run.failed} tasks failed" for run in runs if run.failed]
    found += [f"{run.name}: {run.redone} finished tasks were done again" for run in runs if run.redone]
    found += [
        f"{run.name}: {run.kept} tasks were kept and {run.resumed} done after that, of {run.tasks}"
        for run in runs
        if run.kept and run.kept + run.resumed != run.tasks
    ]
    return found


def lines(runs: Sequence[Told]) -> list[str]:
    """The runs as a Markdown table."""
    found = [
        "| run | facts | failed | rows | on the way | time | SHA-256 of the rows |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for run in runs:
        way = [f"{what} killed after {done} facts" for what, done in run.lost.items()]
        if run.kept:
            way.append(f"interrupted with {run.kept} kept; {run.resumed} done after that, {run.redone} twice")
        found.append(
            f"| {run.name} | {run.tasks} | {run.failed} | {run.rows:,} | {', '.join(way) or '-'} | {run.seconds:.0f} s | "
            f"`{run.rows_sha256[:16]}` |"
        )
    return found


def _facts(config: Config, path: Path) -> tuple[KnownFact, ...]:
    """The facts with the fewest tokens from the subject on, of those that the model knows."""
    model = load(config.model, device="cpu", dtype="float32")
    facts = read_facts(path)
    asked = known_facts(model, facts, KnownConfig(model=config.model, facts=len(facts), seed=config.seed))
    print(f"of {asked.n_asked} facts {config.model} knows {len(asked.known)}", flush=True)

    def traced(fact: KnownFact) -> tuple[int, int]:
        tokens = model.tokens(fact.prompt)
        return len(tokens) - find_subject(tokens, fact.subject).positions[0], fact.number

    return tuple(sorted(asked.known, key=traced)[: config.facts])


def _read(path: Path) -> Told:
    return Told(**json.loads(path.read_text(encoding="utf-8")))


def _keep(config: Config, subjects: Sequence[str], runs: Sequence[Told], *, same: bool) -> None:
    data = {
        "machine": f"{psutil.cpu_count(logical=False)} cores, {platform.machine()}",
        "versions": {"python": platform.python_version()} | {name: version(name) for name in PACKAGES},
        "config": asdict(config),
        "subjects": list(subjects),
        "same_rows": same,
        "runs": [asdict(run) for run in runs],
    }
    write_bytes(RESULTS, (json.dumps(data, indent=1, ensure_ascii=False) + "\n").encode())
    put_into(PAGE, {"table": lines(runs)})


if __name__ == "__main__":
    sys.exit(main())
