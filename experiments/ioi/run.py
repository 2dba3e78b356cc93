"""``python -m experiments.ioi.run --prompts FILE [--quick]``: the heads of the indirect-object task, exactly and by estimate.

Each sweep goes to out/ and a run that was stopped goes on from there. Without ``--quick`` results.json and the tables of
README.md are written beside this file; the exit code is then 1 where a figure is not what is expected.
"""

import argparse
import json
import os
import platform
import sys
from collections.abc import Sequence
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from experiments.expected import Row, put_into, read_expected, rows, table
from experiments.ioi.config import FOLDER, Config
from experiments.ioi.figure import heads_figure
from experiments.ioi.heads import Heads, measure
from experiments.ioi.pairs import Chosen, chosen, read_flips
from experiments.ioi.summary import lines, values
from experiments.publishing import say
from interp.files import write_bytes
from interp.runner.model import Model, load

OUT = FOLDER / "out"
RESULTS = FOLDER / "results.json"
EXPECTED = FOLDER / "expected.json"
PAGE = FOLDER / "README.md"
PACKAGES = ("torch", "transformers")


def main(arguments: list[str] | None = None) -> int:
    """Returns 0 where every figure is as expected, else 1."""
    parser = argparse.ArgumentParser(prog="python -m experiments.ioi.run", description=__doc__)
    parser.add_argument("--prompts", type=Path, required=True, help="objects with prompt and answer")
    parser.add_argument("--quick", action="store_true", help="two pairs, compared with nothing")
    asked = parser.parse_args(arguments)
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    config = Config().quick() if asked.quick else Config()
    folder = OUT / "quick" if asked.quick else OUT
    folder.mkdir(parents=True, exist_ok=True)
    model = load(config.model, device="cpu", dtype="float32")
    pairs = chosen(model, read_flips(asked.prompts), config)
    say(f"of {pairs.n_tried} pairs {len(pairs.flips)} are patched; left out: {pairs.left_out or 'none'}")
    found = measure(model, pairs.flips, config, folder, say)
    page = heads_figure(found).to_html(include_plotlyjs=True, div_id="heads", config={"displayModeBar": False})
    write_bytes(folder / "heads.html", page.encode())
    figures = rows(values(found, config.top), read_expected(EXPECTED))
    data = _json(config, model, pairs, found, figures)
    write_bytes(folder / "results.json" if asked.quick else RESULTS, data.encode())
    if not asked.quick:
        put_into(PAGE, {"heads": lines(found, config.top), "figures": table(figures)})
    say("\n".join([*lines(found, config.top), "", *table(figures)]))
    return 0 if asked.quick or all(row.met for row in figures) else 1


def _json(config: Config, model: Model, pairs: Chosen, found: Heads, figures: Sequence[Row]) -> str:
    def kept(tensor: torch.Tensor) -> list[Any]:
        return [[None if value != value else round(value, 5) for value in row] for row in tensor.tolist()]

    data: dict[str, Any] = {
        "versions": {"python": platform.python_version()} | {name: version(name) for name in PACKAGES},
        "config": config.to_json(),
        "weights_sha256": model.source.weights_sha256 if model.source else None,
        "threads": torch.get_num_threads(),
        "pairs": {"tried": pairs.n_tried, "left_out": pairs.left_out, "numbers": [flip.number for flip in pairs.flips]},
        "figures": [asdict(row) | {"met": row.met} for row in figures],
        "clean": found.clean,
        "corrupted": found.corrupted,
    }
    for swept in (found.exact, found.gradient, found.integrated):
        effects = {name: kept(getattr(swept.effects, name)) for name in ("value", "lower", "upper")}
        data[swept.name] = {
            "seconds": round(swept.seconds, 1),
            "top": [str(head) for head in swept.top(config.top)],
            "effects": effects,
        }
    return json.dumps(data, indent=1) + "\n"


if __name__ == "__main__":
    sys.exit(main())
