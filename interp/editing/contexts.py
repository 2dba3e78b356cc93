"""Texts to put before an edited prompt, so that an edit holds wherever the prompt stands (Meng et al. 2022, section 3.1)."""

import json
from pathlib import Path

import torch

from interp.editing.cached import cached_path
from interp.editing.settings import EditSettings
from interp.editing.stack import applied_edits
from interp.errors import UsageError
from interp.files import write_bytes
from interp.foreign_json import parse_json
from interp.runner.model import Model
from interp.runner.sampling import sample_ids

OPENERS = ("The", "Therefore", "Because", "I", "You")
"""First words of sampled contexts."""
BREAK = "\n\n"
"""What stands before them. The paper samples from the begin-of-text token alone, from which models tuned to chat write no sentence."""
TOP_K = 5
FOLDER = "contexts"


def sample_contexts(model: Model, settings: EditSettings, seed: int = 0) -> tuple[str, ...]:
    """The empty context, then ``settings.contexts`` texts of each length, drawn from the model among its five likeliest tokens.

    Each ends in ". ". The same seed gives the same texts. A model without a tokenizer has only the empty context. They are drawn once
    (the paper's code does so, too) and kept in the cache folder, but for a model that was made in memory or has an edit applied.
    """
    if model.tokenizer is None:
        return ("",)
    lengths = "-".join(str(length) for length in settings.context_lengths)
    name = f"seed{seed}-{settings.contexts}x{lengths}.json"
    path = None if applied_edits(model) else cached_path(model, FOLDER, name)
    known = None if path is None else _read(path, settings.contexts * len(settings.context_lengths))
    if known is not None:
        return ("", *known)
    made = _drawn(model, settings, seed)
    if path is not None:
        try:
            write_bytes(path, json.dumps(made).encode())
        except UsageError as error:
            model.notify(f"the contexts are not kept: {error}")
    return ("", *made)


def _read(path: Path, n: int) -> list[str] | None:
    """The texts that were drawn before; None where there are none, or what is there is not ``n`` texts."""
    try:
        found = parse_json(path.read_bytes())
    except (OSError, ValueError):
        return None
    good = isinstance(found, list) and len(found) == n and all(isinstance(text, str) for text in found)
    return found if good else None


def _drawn(model: Model, settings: EditSettings, seed: int) -> list[str]:
    generator = torch.Generator().manual_seed(seed)
    found: list[str] = []
    for length in settings.context_lengths:
        openers = [model.tokens(BREAK + OPENERS[i % len(OPENERS)]).ids for i in range(settings.contexts)]
        texts: dict[int, str] = {}
        for width in sorted({len(ids) for ids in openers}):
            rows = [i for i, ids in enumerate(openers) if len(ids) == width]
            prefix = torch.tensor([openers[i] for i in rows])
            made = sample_ids(model, prefix, length, top_k=TOP_K, generator=generator)
            for i, ids in zip(rows, torch.cat([prefix, made.cpu()], 1).tolist(), strict=True):
                texts[i] = model.tokenizer.decode(ids, skip_special_tokens=True)
        found += [f"{texts[i].strip()}. " for i in range(settings.contexts)]
    return found
