"""Writes every kind of file where writing fails, in a process of its own, and prints what did not end as promised.

``python tests/faulty_writes.py FOLDER limit`` lets no file grow beyond a few hundred bytes (``ulimit -f``); ``full`` expects FOLDER on a
small file system and fills it, ``readonly`` on one that it may mount read-only. A command is to end in one line with nothing on stdout,
the old file whole, and no other file left.
"""

import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import warnings
from pathlib import Path

import bad_workspace
from bad_arguments import ON_MODEL, WORKS

LIMIT = 600
KEPT = b"what was there before"


def commands() -> dict[str, tuple[tuple[str, ...], str]]:
    """Command lines that write more than ``LIMIT`` bytes, and the file or folder each writes."""
    lens = ("lens", *WORKS["lens"], "-k", "20")
    return {
        "a result": ((*lens, "-o", "out.safetensors"), "out.safetensors"),
        "a result as JSON": ((*lens, "-o", "out.json"), "out.json"),
        "a table": ((*lens, "--site", "components", "-o", "out.csv"), "out.csv"),
        "a page of a result": ((*lens, "-o", "out.html"), "out.html"),
        "a report": (("report", "lens.safetensors", "-o", "out.html"), "out.html"),
        "a second moment": (("moments", *WORKS["moments"], "-o", "out.safetensors"), "out.safetensors"),
        "an edit": (("edit", *WORKS["edit"], "-o", "out.safetensors"), "out.safetensors"),
        "a listing": (("tensors", "model", "--json", "-o", "out.json"), "out.json"),
        "an adapter": (("edit", "export", "edit.safetensors", "--peft", "new"), "new"),
        "an edited model": (("edit", "export", "edit.safetensors", "--model-folder", "new", "-m", "model"), "new"),
        "an edit of a folder": (("edit", "apply", "edit.safetensors", "model"), "model/model.safetensors"),
        "a store": (("collect", "-s", "resid_post@0-2", "-c", "long.txt", "-o", "new", *ON_MODEL), "new"),
        "a sweep": (("sweep", "long.yaml", "-o", "new"), "new"),
    }  # fmt: skip


def faults(arguments: tuple[str, ...], target: Path) -> list[str]:
    """What was wrong with how a command ended that could not write."""
    is_folder = target.name == "new"
    before = b"" if is_folder else target.read_bytes()
    there = set(Path().iterdir())
    try:
        code, out, err = bad_workspace.quietly(*arguments)
    except BaseException as error:  # noqa: BLE001 - whatever it is, it is reported
        return [f"{type(error).__name__}: {str(error)[:300]}"]
    lines, found = err.splitlines(), []
    if code != 2 or out:
        found.append(f"code {code}, {len(out)} characters on stdout: {err[-300:]}")
    elif (
        not lines[-1].startswith(("error: cannot write", "error: cannot create the folder"))
        or sum(line.startswith("error: ") for line in lines) != 1
    ):
        found.append(f"said {err[-300:]!r}")
    if not is_folder and target.read_bytes() != before:
        found.append("the old file is another now")
    stray = [
        str(path)
        for path in Path().rglob("*")
        if path.name.endswith(".part") or path.name.startswith((".new", ".fetch"))
    ]
    extra = {path for path in Path().iterdir() if path not in there} - {Path("new")}
    if stray or extra:
        found.append(f"left: {stray} {[*map(str, extra)]}")
    return found


def main(folder: Path, kind: str) -> None:
    warnings.simplefilter("ignore")
    os.chdir(folder)
    bad_workspace.build(folder)
    Path("long.txt").write_text("The tower of Pisa is in the city\n" * 60)
    config = json.loads(Path("sweep.yaml").read_text())
    Path("long.yaml").write_text(json.dumps({**config, "items": config["items"] * 30}))
    bad_workspace.quietly("lens", *WORKS["lens"])  # imports everything
    bad_workspace.quietly("report", "lens.safetensors", "-o", "first.html")
    for target in (target for _, target in commands().values() if target.startswith("out")):
        Path(target).write_bytes(KEPT)
    if kind == "readonly":
        subprocess.run(["mount", "-o", "remount,ro", str(folder)], check=True)
    elif kind == "limit":
        # Python would not notice that it cut a file of bytecode, and fail to read it from then on.
        sys.dont_write_bytecode = True
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (LIMIT, resource.RLIM_INFINITY))
    else:
        free = os.statvfs(".")
        with open("filler", "wb") as file:
            file.write(b"x" * free.f_bavail * free.f_frsize)
    for name, (arguments, target) in commands().items():
        for fault in faults(arguments, Path(target)):
            print(json.dumps({"name": name, "fault": fault}), flush=True)
        shutil.rmtree("new", ignore_errors=True)
    print(json.dumps({"done": len(commands())}))


if __name__ == "__main__":
    main(Path(sys.argv[1]).resolve(), sys.argv[2])
