"""How much paraphrases and other subjects hear of an edit, by what its direction is solved with. Nothing is optimised.

    python -m experiments.rome.hearing --cases counterfact.json --texts paragraphs.txt

The edit's direction u answers with 1 to the subject's averaged key. A line for each way to choose u: what it answers to the key at the
subject's last token of each paraphrase, and the most that it answers to any key of a neighbour's prompt. The facts are those that the
experiment does not edit one at a time.
"""

import argparse
import os
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from experiments.rome.config import Config
from experiments.rome.run import OUT
from experiments.rome.workshop import Workshop
from interp.editing.contexts import sample_contexts
from interp.editing.rewrite import last_token, rewrite_of
from interp.editing.rome import edit_direction
from interp.editing.settings import settings_of
from interp.runner.model import Model, load

WAYS = {
    "C": {"context_weight": 0.0, "near_misses": 0},
    "C + 0.1 S": {"context_weight": 0.1, "near_misses": 0},
    "C + 0.1 S + 0.03 M": {"context_weight": 0.1, "near_miss_weight": 0.03},
    "C + 0.3 S": {"context_weight": 0.3, "near_misses": 0},
    "C + 0.3 S + 0.03 M": {"context_weight": 0.3, "near_miss_weight": 0.03},
    "C + 0.3 S + 0.3 M": {"context_weight": 0.3, "near_miss_weight": 0.3},
    "C + 0.3 S + M": {"context_weight": 0.3, "near_miss_weight": 1.0},
}
"""What differs from the defaults of ``rome``."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Prints the table, a line as soon as it is measured, and returns 0."""
    parser = argparse.ArgumentParser(prog="python -m experiments.rome.hearing", description=__doc__)
    parser.add_argument("--cases", type=Path, required=True, help="CounterFact-style records")
    parser.add_argument("--texts", type=Path, required=True, help="texts, one a line, for the second moment")
    asked = parser.parse_args(arguments)
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    config, folder = Config(), OUT / "tuning"
    folder.mkdir(parents=True, exist_ok=True)
    model = load(config.model, device="cpu", dtype="float32")
    shop = Workshop.of(model, config, asked.cases, asked.texts, folder, print, float("inf"))
    print("| | paraphrases, mean | a tenth of them below | neighbours, mean | above 0.3 | above 0.5 |")
    print("| --- |" + " ---: |" * 5)
    for name, changed in WAYS.items():
        heard, overheard = _answers(shop, changed)
        cells = (heard.mean(), heard.quantile(0.1), overheard.mean())
        counts = (int((overheard > 0.3).sum()), int((overheard > 0.5).sum()))
        shown = [*(f"{float(cell):.3f}" for cell in cells), *(f"{count} of {len(overheard)}" for count in counts)]
        print(f"| {name} | {' | '.join(shown)} |", flush=True)
    return 0


def _answers(shop: Workshop, changed: dict[str, float]) -> tuple[Tensor, Tensor]:
    """The answers of paraphrases, and the greatest of each neighbour, over all facts set aside."""
    settings = replace(settings_of("rome"), **changed)
    (layer,) = shop.layers("rome")
    moment = shop.moment(layer).shrunk(settings.shrinkage)
    contexts = sample_contexts(shop.model, settings, shop.config.seed)
    heard: list[float] = []
    overheard: list[float] = []
    for case in shop.cases[shop.config.facts : shop.config.most]:
        rewrite = rewrite_of(shop.model, case.fact, contexts)
        direction = edit_direction(shop.model, rewrite, layer, moment, settings)
        for prompt in case.paraphrases:
            end = prompt.rfind(case.fact.subject)
            if end >= 0:
                position = last_token(shop.model.tokens(prompt), end + len(case.fact.subject))
                heard.append(float(direction.shares(_keys(shop.model, prompt, layer))[position]))
        overheard += [float(direction.shares(_keys(shop.model, prompt, layer)).max()) for prompt in case.neighbours]
    return torch.tensor(heard), torch.tensor(overheard)


def _keys(model: Model, prompt: str, layer: int) -> Tensor:
    """The keys of every position, [pos d_mlp]."""
    run = model.run(prompt, capture=f"mlp.post@{layer}", logits=False)
    return run.cache[f"mlp.post@{layer}"][0]


if __name__ == "__main__":
    sys.exit(main())
