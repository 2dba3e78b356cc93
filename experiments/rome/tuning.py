"""``python -m experiments.rome.tuning --cases FILE --texts FILE [SETTINGS ...]``: other settings of ``rome`` on facts set aside.

Each SETTINGS, such as ``clamp=2.5`` or ``clamp=4,value_contexts=11``, is a line of the table; without any only the defaults are measured.
The facts are those that the experiment does not edit one at a time. Edits are kept in out/tuning/, and a run that was stopped goes on
from there.
"""

import argparse
import hashlib
import json
import os
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from experiments.publishing import say
from experiments.rome.config import Config
from experiments.rome.run import OUT
from experiments.rome.workshop import Workshop
from interp.editing.cases import EditCase
from interp.editing.contexts import sample_contexts
from interp.editing.edit import Edit
from interp.editing.edit_facts import edit_facts
from interp.editing.edit_file import load_edit
from interp.editing.evaluation import evaluate_edit
from interp.editing.settings import EditSettings, settings_of
from interp.runner.model import load

COLUMNS = {
    "ES": "efficacy_score",
    "argmax": "prompt_argmax",
    "PS": "paraphrase_score",
    "argmax of the paraphrase": "paraphrase_argmax",
    "PM": "paraphrase_magnitude",
    "NS": "neighbourhood_score",
    "neighbours that keep their argmax": "neighbours_kept",
    "KL on neighbours": "neighbour_kl",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Prints the table, a line as soon as it is measured, and returns 0."""
    parser = argparse.ArgumentParser(prog="python -m experiments.rome.tuning", description=__doc__)
    parser.add_argument("--cases", type=Path, required=True, help="CounterFact-style records")
    parser.add_argument("--texts", type=Path, required=True, help="texts, one a line, for the second moment")
    parser.add_argument("settings", nargs="*", default=[""], help="settings that differ, such as clamp=2.5,steps=25")
    asked = parser.parse_args(arguments)
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    config, folder = Config(), OUT / "tuning"
    folder.mkdir(parents=True, exist_ok=True)
    model = load(config.model, device="cpu", dtype="float32")
    shop = Workshop.of(model, config, asked.cases, asked.texts, folder, say, float("inf"))
    cases = shop.cases[config.facts : config.most]
    say(f"| {len(cases)} facts | {' | '.join(COLUMNS)} |")
    say("| --- |" + " ---: |" * len(COLUMNS))
    for text in asked.settings:
        say(f"| {text or 'defaults'} | {' | '.join(_scores(shop, cases, _read(text)))} |")
    return 0


def _read(text: str) -> dict[str, Any]:
    """``clamp=2.5,steps=25`` as settings by name."""
    parts = [part.partition("=") for part in text.split(",") if part]
    return {name.strip(): json.loads(value) for name, _, value in parts}


def _scores(shop: Workshop, cases: Sequence[EditCase], changed: dict[str, Any]) -> list[str]:
    """The scores of edits with these settings, each alone, as the cells of a line."""
    settings = replace(settings_of("rome"), **changed)
    text = json.dumps([settings.plain(), [case.fact.prompt for case in cases], shop.layers("rome")])
    folder = shop.folder / hashlib.sha256(text.encode()).hexdigest()[:12]
    folder.mkdir(exist_ok=True)
    contexts = sample_contexts(shop.model, settings, shop.config.seed)
    edits = [
        _edit(shop, case, settings, contexts, folder / f"{number}.safetensors") for number, case in enumerate(cases)
    ]
    scores = evaluate_edit(shop.model, edits, cases)
    found = {name: scores.estimate(name, "after") for name in COLUMNS.values()}
    before = scores.estimate("neighbourhood_score", "before")
    cells = {name: "" if one is None else f"{one.value:.3g}" for name, one in found.items()}
    if before is not None:
        cells["neighbourhood_score"] = f"{before.value:.3g} → {cells['neighbourhood_score']}"
    return list(cells.values())


def _edit(shop: Workshop, case: EditCase, settings: EditSettings, contexts: Sequence[str], path: Path) -> Edit:
    if path.is_file():
        return load_edit(path)
    layers = shop.layers("rome")
    made = edit_facts(
        shop.model,
        case.fact,
        layers=layers,
        moments=[shop.moment(layer) for layer in layers],
        settings=settings,
        contexts=contexts,
        allow_known=True,
    )
    made.save(path)
    return made


if __name__ == "__main__":
    sys.exit(main())
