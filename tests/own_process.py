"""Scripts of the tests that need a process of their own: each prints a JSON line for every fault, and at the end one that counts."""

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

TESTS = Path(__file__).resolve().parent
ENVIRONMENT = {
    **os.environ,
    "PYTHONPATH": f"{TESTS}{os.pathsep}{TESTS.parent}",
    "PYTHONWARNINGS": "ignore",
    "OMP_NUM_THREADS": "1",
}


def counted(
    script: str, *arguments: object, cache: Path, within: Sequence[str] = (), variables: Mapping[str, str] | None = None
) -> dict[str, Any]:
    """What the script counted; fails where it found a fault or ended badly.

    It keeps models in ``cache``, runs in a command line that begins with ``within``, and with these environment variables.
    """
    command = [*within, sys.executable, "-W", "ignore", str(TESTS / script), *map(str, arguments)]
    environment = {**ENVIRONMENT, "INTERP_CACHE": str(cache), **(variables or {})}
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr[-3000:]
    *faults, last = [json.loads(line) for line in done.stdout.splitlines()]
    assert not faults, "\n".join(map(str, faults))
    return last
