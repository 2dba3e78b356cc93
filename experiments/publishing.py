"""Where the figures of an experiment go: results.json, the tables of its page, and the terminal."""

import json
import os
import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from experiments.expected import put_into, read_expected, rows, table
from interp.files import write_bytes
from interp.runner.model import Model

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

PACKAGES = ("torch", "transformers")
DIGITS = 6
"""Of a kept number, after the point."""


def say(line: str) -> None:
    """A line of progress, shown at once."""
    print(line, flush=True)


def draw(figure: "Figure", path: Path) -> None:
    """The figure as a page that opens by itself."""
    page = figure.to_html(include_plotlyjs=True, div_id=path.stem, config={"displayModeBar": False})
    write_bytes(path, page.encode())


def publish(
    folder: Path,
    model: Model,
    settings: Mapping[str, Any],
    found: Mapping[str, float],
    tables: Mapping[str, Sequence[str]],
    more: Mapping[str, Any],
    *,
    quick: Path | None,
) -> int:
    """Writes results.json and the tables of README.md in ``folder`` and prints both; a quick run only results.json, in ``quick``.

    ``found`` are the figures that are held against expected.json, ``tables`` the lines to put into the page by name, ``more`` what
    else is kept. Returns 1 where a figure is not what is expected, else 0; of a quick run always 0.
    """
    figures = rows(found, read_expected(folder / "expected.json"))
    data = {
        "versions": {"python": platform.python_version()} | {name: version(name) for name in PACKAGES},
        "config": dict(settings),
        "weights_sha256": model.source.weights_sha256 if model.source else None,
        "threads": torch.get_num_threads(),
        "processor": torch.backends.cpu.get_cpu_capability(),
        "figures": [asdict(row) | {"met": row.met} for row in figures],
        **more,
    }
    (quick or folder).mkdir(parents=True, exist_ok=True)
    write_bytes((quick or folder) / "results.json", (json.dumps(data, indent=1) + "\n").encode())
    lines = table(figures)
    if quick is None:
        put_into(folder / "README.md", {**tables, "figures": lines})
    say("\n".join([*(line for part in tables.values() for line in (*part, "")), *lines]))
    return 0 if quick is not None or all(row.met for row in figures) else 1


def kept(tensor: torch.Tensor) -> list[Any]:
    """A tensor's numbers for a JSON file: rounded, and None in place of NaN."""
    if tensor.ndim > 1:
        return [kept(part) for part in tensor]
    return [None if value != value else round(value, DIGITS) for value in tensor.double().tolist()]


def stay_offline() -> None:
    """No hub is asked; for the models that are cached."""
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
