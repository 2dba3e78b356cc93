"""Subjects that end as the edited one does: an edit should not answer to them, and where they hear it, they should say what they did."""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from interp.analyzers.ordinary_tokens import ordinary_ids
from interp.editing.matrix import output_matrix
from interp.editing.rewrite import Rewrite
from interp.maths.rank_one import Direction
from interp.runner.model import Model
from interp.tokens import Tokens, from_ids

_DRAWN = 2000
"""Tokens that subjects are made of: asking of a whole vocabulary which are ordinary takes as long as the keys."""
CANDIDATES = 32
"""Near misses that overhearers are chosen from."""
AUDIBLE = 0.2
"""The share of an edit from which on a near miss counts as hearing it."""


def near_misses(rewrite: Rewrite, model: Model, n: int, seed: int | None = None) -> Int[Tensor, "batch pos"]:
    """The bare prompt ``n`` times, with all tokens of the subject but the last drawn anew.

    They are drawn from the ordinary tokens of the vocabulary with ``seed`` (the rewrite's by default); where the subject begins with a
    capital letter, from those that do. A subject of one token has no near miss: then there is no row.
    """
    prompt, last = rewrite.prompts[0], rewrite.positions[0]
    start = rewrite.fact.template.index("{}")
    first = next(i for i, span in enumerate(prompt.spans) if span is not None and span[1] > start)
    length = len(prompt) - len(rewrite.target.ids) + 1
    ids = torch.tensor(prompt.ids[:length]).repeat(n if first < last else 0, 1)
    if not len(ids):
        return ids
    generator = torch.Generator().manual_seed(rewrite.seed if seed is None else seed)
    drawn = torch.randperm(model.atlas.d_vocab, generator=generator)[:_DRAWN].tolist()
    pool = _like(rewrite.fact.subject, model, ordinary_ids(model, drawn))
    ids[:, first:last] = pool[torch.randint(len(pool), (len(ids), last - first), generator=generator)]
    return ids


def _like(subject: str, model: Model, ids: Int[Tensor, " row"]) -> Int[Tensor, " _"]:
    """Those of some tokens that begin with a capital letter, where the subject does and any of them does too; else all."""
    if model.tokenizer is None or not subject.strip()[:1].isupper():
        return ids
    texts = model.tokenizer.batch_decode([[index] for index in ids.tolist()], clean_up_tokenization_spaces=False)
    capital = torch.tensor([text.strip()[:1].isupper() for text in texts])
    return ids[capital] if bool(capital.any()) else ids


def near_miss_keys(
    model: Model, rewrite: Rewrite, layer: int, ids: Int[Tensor, "batch pos"]
) -> Float[Tensor, "batch d_mlp"]:
    """The keys at the last token of the subject of some ``near_misses``."""
    if not len(ids):
        return torch.empty(0, output_matrix(model, layer).values.shape[1])
    rows = [from_ids(model.tokenizer, row[: rewrite.positions[0] + 1]) for row in ids]
    run = model.run(rows, capture=f"mlp.post@{layer}", logits=False)
    return run.cache[f"mlp.post@{layer}"][:, -1].float()


def overhearers(model: Model, rewrite: Rewrite, layer: int, direction: Direction, n: int) -> tuple[Tokens, ...]:
    """Of CANDIDATES near misses, others than those that the direction was solved with, the ``n`` that hear most of the edit.

    They come loudest first; those that hear less than AUDIBLE are left out.
    """
    ids = near_misses(rewrite, model, CANDIDATES if n else 0, rewrite.seed + 1)
    shares = direction.shares(near_miss_keys(model, rewrite, layer, ids))
    loudest = shares.argsort(descending=True)[:n].tolist()
    return tuple(from_ids(model.tokenizer, ids[place]) for place in loudest if shares[place] > AUDIBLE)
