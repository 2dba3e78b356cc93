"""Texts to put before an edited prompt, so that an edit holds wherever the prompt stands (Meng et al. 2022, section 3.1)."""

import torch

from interp.editing.settings import EditSettings
from interp.runner.model import Model
from interp.runner.sampling import sample_ids

OPENERS = ("The", "Therefore", "Because", "I", "You")
"""First words of sampled contexts."""
BREAK = "\n\n"
"""What stands before them. The paper samples from the begin-of-text token alone, from which models tuned to chat write no sentence."""
TOP_K = 5


def sample_contexts(model: Model, settings: EditSettings, seed: int = 0) -> tuple[str, ...]:
    """The empty context, then ``settings.contexts`` texts of each length, drawn from the model among its five likeliest tokens.

    Each ends in ". ". The same seed gives the same texts. A model without a tokenizer has only the empty context.
    """
    found = [""]
    if model.tokenizer is None:
        return tuple(found)
    generator = torch.Generator().manual_seed(seed)
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
    return tuple(found)
