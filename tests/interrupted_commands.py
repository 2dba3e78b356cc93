"""Stops every long command at many points of our code, in a process of its own, and prints what did not end as promised.

``python tests/interrupted_commands.py FOLDER POINTS SEED [COMMAND...]``: a KeyboardInterrupt is raised when the command has called that
many functions of ours. It is to end in 130 with one line and nothing on stdout, with no part of a file and nothing left behind in the
model or in torch; and the same command afterwards in what it ends in when nobody stops it.
"""

import hashlib
import json
import logging
import os
import random
import re
import shutil
import sys
import warnings
from pathlib import Path
from types import FrameType
from typing import Any

import torch

import bad_workspace
from bad_arguments import WORKS

ROOT = str(Path(__file__).resolve().parents[1])
OURS = (f"{ROOT}{os.sep}interp{os.sep}", f"{ROOT}{os.sep}cli{os.sep}")
LONG = {
    **dict.fromkeys(("attention", "heads", "induction", "trace", "patch", "ablate", "compare", "generate", "circuits"), ()),
    "lens": ("-o", "new.json"), "report": (), "edit": ("-o", "new.safetensors"), "edit eval": (), "moments": (),
    "collect": ("--shard-rows", "5"), "sweep": (),
    "edit apply": (), "edit undo": (), "edit export": ("--peft", "new"), "models fetch": (), "store": ("--verify",),
}  # fmt: skip
"""The commands with what is added to the line that works; ``models fetch`` gets a file to convert, ``edit undo`` an edit to undo."""
SHORT = {"edit show", "models", "tensors", "doctor"}
"""The others: they read little and write nothing."""
DONE = {
    "edit apply": "is in model already", "edit undo": "no edit is in model", "collect": "there was nothing to do",
}  # fmt: skip
"""What a command says that has nothing more to do."""
IN_GUARD = 3
"""The first two calls are the command line's own, around what catches the interrupt."""
TIMES = re.compile(r"\d[\d.,]*( ?(ms|s|tokens/s|tokens a second))?|[▁▂▃▄▅▆▇█]+")


class Stop:
    """Raises KeyboardInterrupt at the call of a function of ours that has this number; without one it counts them."""

    def __init__(self, at: int | None) -> None:
        self.at, self.calls = at, 0

    def __call__(self, frame: FrameType, event: str, _: Any) -> None:
        if event != "call" or not frame.f_code.co_filename.startswith(OURS):
            return
        self.calls += 1
        if self.calls == self.at:
            sys.setprofile(None)
            raise KeyboardInterrupt


def run(arguments: tuple[str, ...], at: int | None) -> tuple[int, int, str, str]:
    """How many functions were called, and how the command ended."""
    stop = Stop(at)
    main = bad_workspace.main

    def watched(given: list[str]) -> int:
        sys.setprofile(stop)
        try:
            return main(given)
        finally:
            sys.setprofile(None)

    bad_workspace.main = watched
    try:
        ended = bad_workspace.quietly(*arguments)
    finally:
        bad_workspace.main = main
    return stop.calls, *ended


def state(loaded: dict[Any, Any]) -> dict[str, Any]:
    """What no command may leave changed."""
    found: dict[str, Any] = {
        "grad": torch.is_grad_enabled(),
        "inference": torch.is_inference_mode_enabled(),
        "dtype": torch.get_default_dtype(),
        "random": hashlib.sha256(torch.get_rng_state().numpy().tobytes()).hexdigest(),
        "threads": torch.get_num_threads(),
        "logging": logging.getLogger("transformers").level,
    }
    for key, model in loaded.items():
        hooks = sum(len(part._forward_hooks) + len(part._forward_pre_hooks) for part in model.hf.modules())
        bits = hashlib.sha256()
        for value in model.hf.state_dict().values():
            bits.update(value.contiguous().view(torch.uint8).numpy().tobytes())
        modes = (
            model.hf.training,
            model.hf.config._attn_implementation,
            {p.requires_grad for p in model.hf.parameters()},
        )
        found[f"model {key[0]}"] = (hooks, bits.hexdigest(), modes)
    return found


def loading_once() -> dict[Any, Any]:
    """The models that were loaded; from now on each is loaded once."""
    from interp.runner import model as runner

    really, loaded = runner.load, {}

    def load(name: str, **asked: Any) -> Any:
        key = (name, asked.get("dtype"))
        if key not in loaded:
            loaded[key] = really(name, **asked)
        return loaded[key]

    runner.load = load
    return loaded


def fresh() -> None:
    """The folder as it was made: nothing new, the model without edits, no converted file."""
    for path in Path().glob("new*"):
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    shutil.rmtree("model", ignore_errors=True)
    shutil.copytree("model.kept", "model")
    shutil.rmtree(Path(os.environ["INTERP_CACHE"]) / "converted", ignore_errors=True)


def line_of(name: str) -> tuple[str, ...]:
    """The command line of a long command, which finds what it works on."""
    if name == "edit undo":
        bad_workspace.quietly("edit", "apply", *WORKS["edit apply"])
    if name != "models fetch":
        return (*name.split(), *WORKS[name], *LONG[name])
    from models.test_gguf import write_gguf

    write_gguf(Path("tiny.gguf"))
    return ("models", "fetch", "tiny.gguf")


def contents(folder: str) -> dict[str, bytes]:
    """The bytes of each file of a folder."""
    return {path.name: path.read_bytes() for path in Path(folder).iterdir()}


def faults(name: str, at: int, whole: str, before: dict[str, Any], loaded: dict[Any, Any]) -> tuple[bool, list[str]]:
    """Whether the command was stopped, and what was wrong with how it ended, and with how it ends the next time."""
    fresh()
    arguments, found = line_of(name), []
    _, code, out, err = run(arguments, at)
    stopped = code == 130
    if (code, bool(out)) not in ((130, False), (0, True)):
        found.append(f"code {code}, stdout {out[-200:]!r}, stderr {err[-300:]!r}")
    if stopped and not err.splitlines()[-1].startswith("error: interrupted"):
        found.append(f"said {err[-300:]!r}")
    left = [str(path) for path in Path().rglob(".*") if path.name.startswith((".new", ".interp"))]
    found += [f"left {left}"] if left else []
    if Path("new.json").exists():
        json.loads(Path("new.json").read_text())
    now = state(loaded)
    found += [f"{what} is {now.get(what)}, was {value}" for what, value in before.items() if now.get(what) != value]
    if stopped or name not in ("edit apply", "edit undo", "edit export"):
        _, code, then, err = run((*arguments, "--resume") if name == "sweep" else arguments, None)
        if name == "edit undo":
            same = contents("model") == contents("model.kept")
        else:
            same = TIMES.sub("#", then).split() == TIMES.sub("#", whole).split()
        there = name in DONE and DONE[name] in err and (name != "edit undo" or same)  # it was stopped when all was done
        if (code or not same) and not there:
            found.append(f"the same command then: code {code}, {err[-300:]!r} {'' if same else then[-300:]!r}")
    return stopped, found


def main(folder: Path, points: int, seed: int, only: list[str]) -> None:
    warnings.simplefilter("ignore")
    os.chdir(folder)
    bad_workspace.build(folder)
    Path("model").rename("model.kept")
    loaded, draw, n_stopped = loading_once(), random.Random(seed), 0
    for name in only or LONG:
        fresh()
        bad_workspace.quietly(*line_of(name))  # imports and caches
        fresh()
        calls, code, whole, err = run(line_of(name), None)
        assert code == 0, (name, err)
        before = state(loaded)
        for at in (draw.randint(IN_GUARD, calls) for _ in range(points)):
            stopped, found = faults(name, at, whole, before, loaded)
            n_stopped += stopped
            for fault in found:
                print(json.dumps({"name": name, "at": at, "calls": calls, "fault": fault}), flush=True)
    print(json.dumps({"stopped": n_stopped}))


if __name__ == "__main__":
    main(Path(sys.argv[1]).resolve(), int(sys.argv[2]), int(sys.argv[3]), sys.argv[4:])
