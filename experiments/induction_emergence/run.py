"""``python -m experiments.induction_emergence.run [--quick] [--fresh]``: trains, measures, looks for heads, draws, compares.

Weights, curves and figure go to out/; a run that was stopped goes on with the model that it was training. Without ``--quick``
results.json is written beside this file. The exit code is 1 where a figure is not what is expected (never with ``--quick``).
"""

import argparse
import json
import os
import platform
import shutil
import sys
from dataclasses import asdict
from importlib.metadata import version
from typing import Any

import torch

from experiments.expected import Row, rows, table
from experiments.induction_emergence.config import FOLDER, Config, read_expected
from experiments.induction_emergence.figure import emergence_figure
from experiments.induction_emergence.store import Trained, trained
from experiments.induction_emergence.summary import chance, change_step, stripe_step, values
from experiments.induction_emergence.verdicts import Finding, findings
from experiments.publishing import say
from interp.files import write_bytes

OUT = FOLDER / "out"
RESULTS = FOLDER / "results.json"
PACKAGES = ("torch", "transformers")


def main(arguments: list[str] | None = None) -> int:
    """Returns 0 where every figure is as expected, else 1."""
    parser = argparse.ArgumentParser(prog="python -m experiments.induction_emergence.run", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one seed and fewer steps, compared with nothing")
    parser.add_argument("--fresh", action="store_true", help="train again what an earlier run has left")
    asked = parser.parse_args(arguments)
    torch.set_num_threads(1)  # the same weights for the same seed
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    config = Config().quick() if asked.quick else Config()
    folder = OUT / "quick" if asked.quick else OUT
    if asked.fresh:
        shutil.rmtree(folder, ignore_errors=True)
    models = [trained(config, layers, seed, folder, say) for seed in config.seeds for layers in config.layers]
    found = findings(config, models)
    for finding in found:
        say(_shown(finding))
    changes = [change_step(model.curve) for model in models if model.layers > 1]
    drawing = emergence_figure(models, changes, chance(config))
    page = drawing.to_html(include_plotlyjs=True, div_id="emergence", config={"displayModeBar": False})
    write_bytes(folder / "emergence.html", page.encode())
    figures = rows(values(config, models, found), read_expected())
    write_bytes(folder / "results.json" if asked.quick else RESULTS, _json(config, models, found, figures).encode())
    say("\n".join(table(figures)))
    return 0 if asked.quick or all(row.met for row in figures) else 1


def _shown(finding: Finding) -> str:
    heads = ", ".join(finding.found) or "none"
    right = "right" if finding.right else "WRONG"
    return (
        f"{finding.layers} layers, seed {finding.seed}, step {finding.step}: {heads} ({right}); "
        f"loss on second copies {finding.loss:.2f}, without them {finding.loss_without:.2f}, "
        f"without the other heads of the last layer {finding.loss_without_others:.2f}"
    )


def _json(config: Config, models: list[Trained], found: tuple[Finding, ...], figures: tuple[Row, ...]) -> str:
    data: dict[str, Any] = {
        "versions": {"python": platform.python_version()} | {name: version(name) for name in PACKAGES},
        "config": config.to_json(),
        "figures": [asdict(row) | {"met": row.met} for row in figures],
        "findings": [asdict(finding) for finding in found],
        "models": [
            {
                "layers": model.layers,
                "seed": model.seed,
                "seconds": round(model.seconds, 1),
                "change_step": change_step(model.curve),
                "stripe_step": stripe_step(model.curve),
                "last": asdict(model.curve[-1]),
            }
            for model in models
        ],
    }
    return json.dumps(data, indent=1, default=list) + "\n"


if __name__ == "__main__":
    sys.exit(main())
