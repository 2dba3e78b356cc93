"""Runs every command where a connection is an error, in a process of its own, and prints what was tried.

``python tests/offline_commands.py FOLDER [default]``: on a tiny model; with ``default`` the cached default model is loaded and read too.
Hugging Face's own offline mode is off, so that nothing but our care keeps it from asking.
"""

import json
import os
import socket
import sys
import warnings
from pathlib import Path
from typing import Any

TRIED: list[str] = []


def forbid() -> None:
    """Every way out of the process is recorded and refused."""

    def refuse(what: str) -> Any:
        def refused(*arguments: Any, **_: Any) -> None:
            TRIED.append(f"{what}{arguments[-1:]}")
            raise OSError("no network in this test")

        return refused

    for name in ("connect", "connect_ex", "sendto"):
        setattr(socket.socket, name, refuse(name))
    for name in ("getaddrinfo", "create_connection", "gethostbyname"):
        setattr(socket, name, refuse(name))


def main(folder: Path, more: list[str]) -> None:
    warnings.simplefilter("ignore")
    forbid()
    os.chdir(folder)
    import bad_workspace
    from bad_arguments import WORKS

    bad_workspace.build(folder)
    lines = {name: (*name.split(), *line) for name, line in WORKS.items() if name != "models fetch"}
    if "default" in more:
        prompt, cpu = "The Eiffel Tower is located in the city of", ("--device", "cpu")
        lines["default lens"] = ("lens", prompt, *cpu)
        lines["default report"] = ("report", prompt, "--sections", "lens", "-o", "default.html", *cpu)
        lines["default fetch"] = ("models", "fetch", "smollm2-135m")
    ended = {name: bad_workspace.quietly(*line) for name, line in lines.items()}
    failed = {name: err[-300:] for name, (code, _, err) in ended.items() if code}
    page = Path("new.html").read_text(encoding="utf-8")
    print(json.dumps({"ran": len(ended), "failed": failed, "tried": TRIED, "page": len(page)}))


if __name__ == "__main__":
    main(Path(sys.argv[1]).resolve(), sys.argv[2:])
