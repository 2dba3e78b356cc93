"""``python -m experiments.causal_tracing.run --facts FILE [--quick] [--fresh]``: traces facts that the model knows, and averages.

Each finished trace goes to out/ and a run that was stopped goes on from there. Without ``--quick`` results.json and the
tables of README.md are written beside this file; the exit code is then 1 where a figure is not what is expected.
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
from typing import Any

import torch

from experiments.causal_tracing.averages import Averages, averages
from experiments.causal_tracing.config import FOLDER, Config
from experiments.causal_tracing.facts import Asked, known_facts, read_facts
from experiments.causal_tracing.figure import averages_figure
from experiments.causal_tracing.summary import lines, values
from experiments.causal_tracing.traces import traced
from experiments.expected import Row, put_into, read_expected, rows, table
from experiments.publishing import say
from interp.files import write_bytes
from interp.maths.tracing import PLACES
from interp.runner.model import Model, load

OUT = FOLDER / "out"
RESULTS = FOLDER / "results.json"
EXPECTED = FOLDER / "expected.json"
PAGE = FOLDER / "README.md"
PACKAGES = ("torch", "transformers")


def main(arguments: list[str] | None = None) -> int:
    """Returns 0 where every figure is as expected, else 1."""
    parser = argparse.ArgumentParser(prog="python -m experiments.causal_tracing.run", description=__doc__)
    parser.add_argument("--facts", type=Path, required=True, help="objects with subject, prompt or template, attribute")
    parser.add_argument("--quick", action="store_true", help="two facts, compared with nothing")
    parser.add_argument("--fresh", action="store_true", help="trace again what an earlier run has left")
    asked = parser.parse_args(arguments)
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    config = Config().quick() if asked.quick else Config()
    folder = OUT / "quick" if asked.quick else OUT
    if asked.fresh:
        shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True, exist_ok=True)
    model = load(config.model, device="cpu", dtype="float32")
    facts, found = trace_all(model, config, asked.facts, folder)
    drawing = averages_figure(found, config.window)
    page = drawing.to_html(include_plotlyjs=True, div_id="averages", config={"displayModeBar": False})
    write_bytes(folder / "averages.html", page.encode())
    figures = rows(values(found), read_expected(EXPECTED))
    data = _json(config, model, facts, found, figures)
    write_bytes(folder / "results.json" if asked.quick else RESULTS, data.encode())
    if not asked.quick:
        put_into(PAGE, {"places": lines(found), "figures": table(figures)})
    say("\n".join([*lines(found), "", *table(figures)]))
    return 0 if asked.quick or all(row.met for row in figures) else 1


def trace_all(model: Model, config: Config, path: Path, folder: Path) -> tuple[Asked, Averages]:
    """The facts that the model knows, and the averages over their traces."""
    asked = known_facts(model, read_facts(path), config)
    say(f"of {asked.n_asked} facts {model.name} knows {len(asked.known)}")
    results = [traced(model, fact, config, folder / "traces", say) for fact in asked.known]
    return asked, averages(results)


def _json(config: Config, model: Model, asked: Asked, found: Averages, figures: Sequence[Row]) -> str:
    def kept(tensor: torch.Tensor) -> list[Any]:
        return [[None if value != value else round(value, 5) for value in row] for row in tensor.tolist()]

    data: dict[str, Any] = {
        "versions": {"python": platform.python_version()} | {name: version(name) for name in PACKAGES},
        "config": config.to_json(),
        "weights_sha256": model.source.weights_sha256 if model.source else None,
        "threads": torch.get_num_threads(),
        "facts": {"asked": asked.n_asked, "known": [fact.number for fact in asked.known]},
        "figures": [asdict(row) | {"met": row.met} for row in figures],
        "clean": asdict(found.clean),
        "corrupted": asdict(found.corrupted),
        "total": asdict(found.total),
        "places": PLACES,
        "effects": {
            kind: {
                "value": kept(one.value),
                "lower": kept(one.lower),
                "upper": kept(one.upper),
                "n": one.n[:, 0].tolist(),
            }
            for kind, one in found.effects.items()
        },
    }
    return json.dumps(data, indent=1) + "\n"


if __name__ == "__main__":
    sys.exit(main())
