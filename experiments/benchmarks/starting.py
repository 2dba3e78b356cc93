"""Times fresh processes: loading the default model once imports are done, ``interp --help``, ``interp lens``."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from experiments.benchmarks.config import ROOT
from experiments.benchmarks.harness import Spread

_IMPORTS = """
import json, sys
import interp
interp.load({model!r}, device="cpu", dtype="float32")
print(json.dumps(list(sys.modules)))
"""
_LOAD = """
import contextlib, importlib, json, sys, time
import interp.runner.model
for name in json.load(sys.stdin):
    with contextlib.suppress(ImportError):
        importlib.import_module(name)
import torch
torch.set_num_threads({threads})
start = time.perf_counter()
interp.runner.model.load({model!r}, device="cpu", dtype="float32")
print(time.perf_counter() - start)
"""
_NOTHING: Mapping[str, str] = {}
_INTERP = str(Path(sys.executable).parent / "interp")


class FailedStart(Exception):
    """A process that was to be timed failed; the message is the last line of its errors."""


def load_time(model: str, threads: int, times: int) -> Spread:
    """Seconds to load the model, after importing everything that loading imports."""
    modules = _run([sys.executable, "-c", _IMPORTS.format(model=model)]).splitlines()[-1]
    json.loads(modules)
    code = _LOAD.format(model=model, threads=threads)
    return Spread.of([float(_run([sys.executable, "-c", code], modules).splitlines()[-1]) for _ in range(times)])


def wall_time(arguments: Sequence[str], threads: int, times: int) -> Spread:
    """Seconds of the whole ``interp`` command, from start to exit. A first run, which fills caches, is not counted."""
    took = []
    for _ in range(times + 1):
        start = time.perf_counter()
        _run([_INTERP, *arguments], threads=threads)
        took.append(time.perf_counter() - start)
    return Spread.of(took[1:])


def printed_number(module: str, arguments: Sequence[object], environment: Mapping[str, str] = _NOTHING) -> float:
    """What ``python -m module arguments`` prints, as a number."""
    return float(_run([sys.executable, "-m", module, *map(str, arguments)], environment=environment).splitlines()[-1])


def _run(
    command: Sequence[str], stdin: str = "", threads: int | None = None, environment: Mapping[str, str] = _NOTHING
) -> str:
    variables = {**os.environ, **environment, **({} if threads is None else {"OMP_NUM_THREADS": str(threads)})}
    done = subprocess.run(
        command, input=stdin, capture_output=True, text=True, cwd=ROOT, env=variables, check=False, timeout=300
    )
    if done.returncode:
        last = (done.stderr.strip() or f"exit code {done.returncode}").splitlines()[-1]
        raise FailedStart(f"{Path(command[0]).name} {' '.join(command[1:3])[:40]!r} failed: {last}")
    return done.stdout
