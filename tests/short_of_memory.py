"""Runs every long command where memory runs out, each time in a child of this process, and prints what did not end as promised.

``python tests/short_of_memory.py FOLDER POINTS SEED [COMMAND...]``: what a command adds to the process is measured first; then a child may
have a random part of that. It is to end as it does with enough, or in one line that says so with its exit code, nothing on stdout and no
part of a file. The model is loaded already for two of three points, so that the work itself is short of memory, and not only the loading.

The environment of cli/test_at_once.py makes every allocation ask the system, so that the limit is not hidden by memory freed before.
"""

import gc
import json
import os
import random
import re
import resource
import shutil
import sys
import warnings
from collections import Counter
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path

import torch

import bad_workspace
import interp
from interp.errors import InterpError, MemoryLimitError, ModelError
from interrupted_commands import LONG, TIMES, fresh, line_of, loading_once

FORK = get_context("fork")
SAID = re.compile(r"^error: .*(out of memory|do(es)? not fit|Cannot allocate memory)")
CODES = {MemoryLimitError.exit_code, ModelError.exit_code}
"""The second where a file could not be read for it."""
KILLED = -2
"""A library aborted the process, as those in Rust do where memory runs out: nothing can be said, and no part of a file may be left."""
FORGOTTEN = "SystemError: error return without exception set"
"""What Python says where an extension in C has no memory and does not say so: nothing that we can word better."""
LINES = 80
"""Texts of 56 words for the commands that read a file of them, so that there is work to cut."""


def size(field: str) -> int:
    """Bytes of address space that this process has (``VmSize``) or has had at the most (``VmPeak``)."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{field}:")) << 10


def _child(arguments: tuple[str, ...], spare: int | None, told: Connection) -> None:
    before = size("VmSize")
    if spare is not None:
        resource.setrlimit(resource.RLIMIT_AS, (before + spare, resource.RLIM_INFINITY))
    try:
        ended = bad_workspace.quietly(*arguments)
    except BaseException as error:  # noqa: BLE001 - whatever it is, it is reported
        ended = (-1, "", f"{type(error).__name__}: {error}")
    resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    told.send((*ended, size("VmPeak") - before))


def in_child(arguments: tuple[str, ...], spare: int | None) -> tuple[int, str, str, int]:
    """How a command ended that may add ``spare`` bytes: code, stdout, stderr, and how much it had added at the most."""
    ours, theirs = FORK.Pipe(duplex=False)
    child = FORK.Process(target=_child, args=(arguments, spare, theirs))
    child.start()
    theirs.close()
    try:
        ended = ours.recv()
    except EOFError:
        ended = (KILLED, "", "", 0)
    child.join()
    return ended if ended[0] != KILLED else (KILLED, "", f"the process ended with {child.exitcode}", 0)


def faults(name: str, spare: int, whole: str) -> tuple[str, list[str]]:
    """``enough``, ``halved``, ``short`` of memory or ``killed`` by a library, and what was wrong with how the command ended."""
    fresh()
    code, out, err, _ = in_child(line_of(name), spare)
    found = []
    if code == 0:
        if TIMES.sub("#", out).split() != TIMES.sub("#", whole).split():
            found.append(f"another result: {out[-300:]!r}")
    elif code == KILLED:
        return "killed", whole_files()
    elif err != FORGOTTEN and (code not in CODES or out or not SAID.search(err.splitlines()[-1])):
        found.append(f"code {code}, stdout {out[-200:]!r}, stderr {err[-600:]!r}")
    left = [str(path) for path in Path().rglob(".*") if path.name.startswith((".new", ".interp"))]
    found += [f"left {left}"] if left else []
    return "short" if code else "halved" if "memory" in err else "enough", found + whole_files()


def whole_files() -> list[str]:
    """What is wrong with the new files that are there. What a killed process was writing is removed, as the next write does later."""
    found = []
    for path in Path().glob("new.safetensors"):
        try:
            interp.load_result(path)
        except InterpError as error:
            found.append(str(error))
    for path in Path().rglob(".new*"):
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    for path in Path().rglob(".interp*.part"):
        path.unlink()
    return found


def main(folder: Path, points: int, seed: int, only: list[str]) -> None:
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)  # a child has none of the others
    os.chdir(folder)
    bad_workspace.build(folder)
    Path("model").rename("model.kept")
    Path("texts.txt").write_text(
        "".join(f"{bad_workspace.PROMPT} word{number} " * 7 + "\n" for number in range(40, 40 + LINES))
    )
    LONG["collect"] = ()
    loaded, draw, counts = loading_once(), random.Random(seed), Counter()
    for name in only or LONG:
        fresh()
        bad_workspace.quietly(*line_of(name))  # imports and caches
        gc.collect()
        models = dict(loaded)
        for number in range(points):
            loaded.clear() if number % 3 == 2 else loaded.update(models)
            fresh()
            code, whole, err, needed = in_child(line_of(name), None)
            assert code == 0, (name, err)
            spare = int(draw.random() * needed)
            how, found = faults(name, spare, whole)
            counts[how] += 1
            for fault in found:
                print(json.dumps({"name": name, "spare": spare, "needed": needed, "fault": fault}), flush=True)
        loaded.update(models)
    print(json.dumps(counts))


if __name__ == "__main__":
    main(Path(sys.argv[1]).resolve(), int(sys.argv[2]), int(sys.argv[3]), sys.argv[4:])
