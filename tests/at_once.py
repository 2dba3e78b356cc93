"""Runs commands twice at once on one store, sweep, cache folder or model folder, and prints what did not end as promised.

``python tests/at_once.py FOLDER ROUNDS SEED [COMMAND...]``: two children of this process, the second of which begins a random part of the
time later that one alone takes. Each is to end as alone, or in one line that says that another is at work; then all is whole.
"""

import json
import os
import random
import sys
import time
import warnings
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path

import torch

import bad_workspace
from interrupted_commands import TIMES, contents, fresh, line_of

FORK = get_context("fork")
SHARING = ("collect", "sweep", "trace", "moments", "edit apply", "edit export", "models fetch")
BUSY = (
    *("another process", "is in model already", "new exists already", "new: Directory not empty"),
    *("holds a sweep with", "holds a finished sweep", "there was nothing to do"),
)
"""What the second may say: the first is at work, or has done it."""
AFTER = {
    "collect": ("store", "new-store", "--verify"),
    "sweep": (*line_of("sweep"), "--resume"),
    "trace": line_of("trace"),
    "edit apply": ("edit", "undo", "model"),
}
"""A command that ends well only where all is whole; ``edit undo`` gives the bytes of the model back."""


def _child(arguments: tuple[str, ...], wait: float, told: Connection) -> None:
    time.sleep(wait)
    try:
        told.send(bad_workspace.quietly(*arguments))
    except BaseException as error:  # noqa: BLE001 - whatever it is, it is reported
        told.send((-1, "", f"{type(error).__name__}: {error}"))


def at_once(arguments: tuple[str, ...], wait: float) -> list[tuple[int, str, str]]:
    """How both ended: code, stdout, stderr."""
    begun = []
    for later in (0.0, wait):
        ours, theirs = FORK.Pipe(duplex=False)
        child = FORK.Process(target=_child, args=(arguments, later, theirs))
        child.start()
        begun.append((child, ours))
    ended = [ours.recv() for _, ours in begun]
    for child, _ in begun:
        child.join()
    return ended


def faults(name: str, wait: float, whole: str) -> tuple[int, list[str]]:
    """How many did the work, and what was wrong with how they ended or with what they left."""
    fresh()
    ended, found = at_once(line_of(name), wait), []
    for code, out, err in ended:
        same = TIMES.sub("#", out).split() == TIMES.sub("#", whole).split()
        one_line = code == 0 or (code == 2 and not out and err.count("error: ") == 1)
        if not (one_line and (any(words in err for words in BUSY) or (code == 0 and same))):
            found.append(f"code {code}, stdout {out[-300:]!r}, stderr {err[-300:]!r}")
    n_done = sum(code == 0 for code, _, _ in ended)
    if not n_done:
        found.append("neither did the work")
    if name in AFTER:
        code, _, err = bad_workspace.quietly(*AFTER[name])
        found += [f"then: code {code}, {err[-300:]!r}"] if code else []
    if contents("model") != contents("model.kept") and name == "edit apply":
        found.append("the model's bytes are others after the undo")
    unfinished = [*Path(os.environ["INTERP_CACHE"]).glob("unfinished/*")]
    left = [*unfinished, *(path for path in Path().rglob(".*") if path.name.startswith((".new", ".interp")))]
    return n_done, found + ([f"left {[*map(str, left)]}"] if left else [])


def main(folder: Path, rounds: int, seed: int, only: list[str]) -> None:
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)  # a child has none of the others
    os.chdir(folder)
    bad_workspace.build(folder)
    Path("model").rename("model.kept")
    draw, n_done = random.Random(seed), 0
    for name in only or SHARING:
        fresh()
        bad_workspace.quietly(*line_of(name))  # imports and caches
        fresh()
        arguments, begun = line_of(name), time.perf_counter()
        code, whole, err = bad_workspace.quietly(*arguments)
        took = time.perf_counter() - begun
        assert code == 0, (name, err)
        for _ in range(rounds):
            done, found = faults(name, draw.random() * took * 1.2, whole)
            n_done += done
            for fault in found:
                print(json.dumps({"name": name, "fault": fault}), flush=True)
    print(json.dumps({"done": n_done}))


if __name__ == "__main__":
    main(Path(sys.argv[1]).resolve(), int(sys.argv[2]), int(sys.argv[3]), sys.argv[4:])
