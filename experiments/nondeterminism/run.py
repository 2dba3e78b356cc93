"""``python -m experiments.nondeterminism.run [--quick] [--prompts FILE]``: how logits drift, and when another token ranks first.

Without ``--quick`` results.json and the tables of README.md are written beside this file; the exit code is then 1 where a figure is
not what is expected.
"""

import argparse
import sys
from pathlib import Path

import torch

from experiments.nondeterminism.config import FOLDER, PROMPTS, Config, read_prompts
from experiments.nondeterminism.figure import drift_figure
from experiments.nondeterminism.measure import measure
from experiments.nondeterminism.summary import flip_lines, more, values, way_lines
from experiments.publishing import draw, publish, say, stay_offline
from interp.runner.model import Model, load

OUT = FOLDER / "out"


def main(arguments: list[str] | None = None) -> int:
    """Returns 0 where every figure is as expected, else 1."""
    parser = argparse.ArgumentParser(prog="python -m experiments.nondeterminism.run", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="two prompts, compared with nothing")
    parser.add_argument("--prompts", type=Path, default=PROMPTS, help="other prompts, parted by empty lines")
    asked = parser.parse_args(arguments)
    stay_offline()
    torch.set_num_threads(1)
    config = Config().quick() if asked.quick else Config()

    def in_dtype(dtype: str) -> Model:
        return load(config.model, device="cpu", dtype=dtype)

    found = measure(config, in_dtype, read_prompts(asked.prompts), say)
    quick = OUT / "quick" if asked.quick else None
    OUT.mkdir(exist_ok=True)
    draw(drift_figure(found), OUT / "drift.html")
    tables = {"ways": way_lines(found), "flips": flip_lines(found)}
    return publish(FOLDER, in_dtype("float32"), config.to_json(), values(found), tables, more(found), quick=quick)


if __name__ == "__main__":
    sys.exit(main())
