"""TransformerLens' head detector in formulas: how well a pattern p matches a detection pattern d, both lower triangular.

``mul``: ``sum d p / sum p``, the share of attention that goes where d is 1. ``abs``: ``1 - sum |p - d| / n``, n the number of tokens,
rounded to three decimals as TransformerLens does. Key 0 and the current token can be left out of both.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import pad

NAMES = ("previous_token_head", "duplicate_token_head", "induction_head")
MEASURES = ("mul", "abs")


def detection_pattern(name: str, ids: Int[Tensor, " pos"]) -> Float[Tensor, "query_pos key_pos"]:
    """The named pattern over these tokens, with ones where the head should look.

    A previous-token head looks one token back, a duplicate-token head at every earlier occurrence of the current token, an induction
    head at the token after each of those (which can be the current one).
    """
    assert name in NAMES, f"no detection pattern is called {name!r}"
    n_pos = ids.shape[0]
    if name == "previous_token_head":
        return torch.eye(n_pos).roll(1, 0).tril(-1)
    duplicates = (ids[:, None] == ids[None, :]).float().tril(-1)
    return duplicates if name == "duplicate_token_head" else pad(duplicates, (1, 0))[:, :-1]


def match_parts(
    rows: Float[Tensor, "batch head query_pos key_pos"],
    wanted: Float[Tensor, "query_pos key_pos"],
    first_query: int,
    *,
    measure: str,
    exclude_bos: bool,
    exclude_current_token: bool,
) -> Float[Tensor, "batch head query_pos 2"]:
    """What some consecutive rows add to the numerator and denominator of ``match_scores``; ``wanted`` are the same rows of d."""
    n_query, n_key = rows.shape[2:]
    kept = torch.ones(n_query, n_key, dtype=torch.bool, device=rows.device)
    if exclude_bos:
        kept[:, 0] = False
    if exclude_current_token:
        query = torch.arange(n_query, device=rows.device)
        kept[query, first_query + query] = False
    rows, wanted = rows.float(), wanted.float()
    if measure == "mul":
        seen = rows * kept
        return torch.stack([(seen * wanted).sum(-1), seen.sum(-1)], -1)
    error = ((rows - wanted).abs() * kept).sum(-1)
    return torch.stack([error, torch.ones_like(error)], -1)


def match_scores(parts: Float[Tensor, "batch head query_pos 2"], measure: str) -> Float[Tensor, "batch head"]:
    """The score of each head from the parts of all rows. NaN for ``mul`` where nothing is left to divide by."""
    above, below = parts.cpu().double().sum(2).unbind(-1)
    return above / below if measure == "mul" else 1 - (above / below).round(decimals=3)
