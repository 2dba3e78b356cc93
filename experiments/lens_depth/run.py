"""``python -m experiments.lens_depth.run --texts FILE [--quick]``: at which depth the lens reads what the model will say.

Without ``--quick`` results.json and the tables of README.md are written beside this file; the exit code is then 1 where a figure is
not what is expected.
"""

import argparse
import sys
from pathlib import Path

from experiments.lens_depth.config import FOLDER, Config
from experiments.lens_depth.figure import depth_figure
from experiments.lens_depth.readings import read
from experiments.lens_depth.statistics import depths
from experiments.lens_depth.summary import depth_lines, group_lines, more, values
from experiments.publishing import draw, publish, say, stay_offline
from interp.runner.model import load

OUT = FOLDER / "out"


def main(arguments: list[str] | None = None) -> int:
    """Returns 0 where every figure is as expected, else 1."""
    parser = argparse.ArgumentParser(prog="python -m experiments.lens_depth.run", description=__doc__)
    parser.add_argument("--texts", type=Path, required=True, help="texts, one a line")
    parser.add_argument("--quick", action="store_true", help="two texts, compared with nothing")
    asked = parser.parse_args(arguments)
    stay_offline()
    config = Config().quick() if asked.quick else Config()
    model = load(config.model, device="cpu", dtype="float32")
    found = depths(read(model, asked.texts, config, say), config)
    quick = OUT / "quick" if asked.quick else None
    OUT.mkdir(exist_ok=True)
    draw(depth_figure(found), OUT / "depth.html")
    tables = {"depths": depth_lines(found), "groups": group_lines(found)}
    return publish(FOLDER, model, config.to_json(), values(found), tables, more(found), quick=quick)


if __name__ == "__main__":
    sys.exit(main())
