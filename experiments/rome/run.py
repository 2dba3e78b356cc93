"""``python -m experiments.rome.run --cases FILE --texts FILE [--quick] [--seconds N]``: facts edited one at a time, and many together.

Every edit and score goes to out/ and a run that was stopped goes on from there; ``--seconds`` stops by itself, with exit code 2. Without
``--quick`` results.json and the tables of README.md are written beside this file; the exit code is then 1 where a figure is not what
is expected.
"""

import argparse
import hashlib
import json
import os
import platform
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from experiments.expected import Row, put_into, read_expected, rows, table
from experiments.publishing import say
from experiments.rome.config import FOLDER, Config
from experiments.rome.figure import methods_figure
from experiments.rome.many import Together, at_once, one_after_another
from experiments.rome.singles import Singles, measure
from experiments.rome.summary import many_lines, single_lines, values
from experiments.rome.workshop import OutOfTime, Workshop, default_layers
from interp.editing.settings import sequence_settings_of, settings_of
from interp.files import write_bytes
from interp.runner.model import Model, load

OUT = FOLDER / "out"
RESULTS = FOLDER / "results.json"
EXPECTED = FOLDER / "expected.json"
PAGE = FOLDER / "README.md"
PACKAGES = ("torch", "transformers")


def main(arguments: list[str] | None = None) -> int:
    """Returns 0 where every figure is as expected, 1 where one is not, 2 where the time was used up before the end."""
    parser = argparse.ArgumentParser(prog="python -m experiments.rome.run", description=__doc__)
    parser.add_argument("--cases", type=Path, required=True, help="CounterFact-style records")
    parser.add_argument(
        "--texts", type=Path, required=True, help="texts, one a line: the first for second moments, the last held out"
    )
    parser.add_argument("--quick", action="store_true", help="two facts, compared with nothing")
    parser.add_argument(
        "--seconds", type=float, default=float("inf"), help="stop after about so many seconds; the next call goes on"
    )
    asked = parser.parse_args(arguments)
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    config = Config().quick() if asked.quick else Config()
    model = load(config.model, device="cpu", dtype="float32")
    folder = OUT / f"{'quick-' if asked.quick else ''}{_key(config, model)}"
    folder.mkdir(parents=True, exist_ok=True)
    shop = Workshop.of(model, config, asked.cases, asked.texts, folder, say, asked.seconds)
    try:
        singles = {method: measure(shop, method) for method in config.methods}
        many = [*one_after_another(shop), *at_once(shop)]
    except OutOfTime:
        say("out of time; the next call goes on")
        return 2
    page = methods_figure(singles).to_html(include_plotlyjs=True, div_id="methods", config={"displayModeBar": False})
    write_bytes(OUT / "methods.html", page.encode())
    found = values(singles, many)
    figures = rows(found, {name: goal for name, goal in read_expected(EXPECTED).items() if name in found})
    write_bytes(
        folder / "results.json" if asked.quick else RESULTS, _json(config, model, shop, singles, many, figures).encode()
    )
    if not asked.quick:
        put_into(PAGE, {"singles": single_lines(singles), "many": many_lines(many), "figures": table(figures)})
    say("\n".join([*single_lines(singles), "", *many_lines(many), "", *table(figures)]))
    return 0 if asked.quick or all(row.met for row in figures) else 1


def _key(config: Config, model: Model) -> str:
    """A name for work that is the same for the same model, config, settings of the methods and layers."""
    parts = [config.to_json(), model.source.weights_sha256 if model.source else None]
    parts += [[settings_of(method).plain(), default_layers(model, method)] for method in config.methods]
    parts += [sequence_settings_of("rome").plain(), settings_of("memit").plain()]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:12]


def _json(
    config: Config,
    model: Model,
    shop: Workshop,
    singles: Mapping[str, Singles],
    many: Sequence[Together],
    figures: Sequence[Row],
) -> str:
    data: dict[str, Any] = {
        "versions": {"python": platform.python_version()} | {name: version(name) for name in PACKAGES},
        "config": config.to_json(),
        "weights_sha256": model.source.weights_sha256 if model.source else None,
        "threads": torch.get_num_threads(),
        "settings": {method: settings_of(method).plain() for method in config.methods},
        "sequence_settings": sequence_settings_of("rome").plain(),
        "layers": {method: list(shop.layers(method)) for method in config.methods},
        "facts": [case.name or case.fact.prompt for case in shop.cases],
        "figures": [asdict(row) | {"met": row.met} for row in figures],
        "many": [asdict(one) for one in many],
        "singles": {
            method: {
                "before": {name: _numbers(part) for name, part in one.before.items()},
                "after": {name: _numbers(part) for name, part in one.after.items()},
                "seconds": _numbers(one.seconds),
                "drift": _numbers(one.drift),
                "perplexity_before": one.perplexity,
            }
            for method, one in singles.items()
        },
    }
    return json.dumps(data, indent=1) + "\n"


def _numbers(part: torch.Tensor) -> list[float | None]:
    return [None if value != value else round(value, 4) for value in part.tolist()]


if __name__ == "__main__":
    sys.exit(main())
