"""Subjects that end as the edited one does: an edit should not answer to them."""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from interp.analyzers.ordinary_tokens import ordinary_ids
from interp.editing.matrix import output_matrix
from interp.editing.rewrite import Rewrite
from interp.runner.model import Model
from interp.tokens import from_ids

_DRAWN = 2000
"""Tokens that subjects are made of: asking of a whole vocabulary which are ordinary takes as long as the keys."""


def near_misses(rewrite: Rewrite, model: Model, n: int) -> Int[Tensor, "batch pos"]:
    """The bare prompt up to its subject, ``n`` times, with all tokens of the subject but the last drawn anew.

    They are drawn from the ordinary tokens of the vocabulary with the rewrite's seed. A subject of one token has no near miss: then there
    is no row.
    """
    prompt, last = rewrite.prompts[0], rewrite.positions[0]
    start = rewrite.fact.template.index("{}")
    first = next(i for i, span in enumerate(prompt.spans) if span is not None and span[1] > start)
    ids = torch.tensor(prompt.ids[: last + 1]).repeat(n if first < last else 0, 1)
    generator = torch.Generator().manual_seed(rewrite.seed)
    drawn = torch.randperm(model.atlas.d_vocab, generator=generator)[:_DRAWN].tolist()
    ordinary = ordinary_ids(model, drawn)
    ids[:, first:last] = ordinary[torch.randint(len(ordinary), (len(ids), last - first), generator=generator)]
    return ids


def near_miss_keys(model: Model, rewrite: Rewrite, layer: int, n: int) -> Float[Tensor, "batch d_mlp"]:
    """The keys at the last token of ``n`` near misses, see ``near_misses``."""
    ids = near_misses(rewrite, model, n)
    if not len(ids):
        return torch.empty(0, output_matrix(model, layer).values.shape[1])
    run = model.run([from_ids(model.tokenizer, row) for row in ids], capture=f"mlp.post@{layer}", logits=False)
    return run.cache[f"mlp.post@{layer}"][:, -1].float()
