"""Random text in which nothing but a repeat can be predicted, and text like it without the repeat (Olsson et al. 2022, section 4).

A token occurs once in a repeated block, so that where it comes again there is exactly one place that it came from.
"""

import torch
from jaxtyping import Float, Int
from torch import Generator, Tensor

from interp.errors import UsageError


def distinct_tokens(
    ordinary: Int[Tensor, " row"],
    weights: Float[Tensor, " row"] | None,
    rows: int,
    length: int,
    generator: Generator,
) -> Int[Tensor, "batch pos"]:
    """``rows`` texts of ``length`` different tokens each, drawn from ``ordinary`` without replacement.

    ``weights`` are the tokens' relative frequencies, None for all alike. Drawing without replacement keeps frequent tokens a
    little below their frequency; the longer the text, the more so.

    Raises UsageError where fewer than ``length`` tokens can occur.
    """
    chance = torch.ones(len(ordinary), dtype=torch.double) if weights is None else weights.double()
    available = int((chance > 0).sum())
    if length > available:
        raise UsageError(
            f"{length} different tokens are needed and {available} can occur; valid lengths: 1 to {available}"
        )
    places = torch.multinomial(chance.expand(rows, -1), length, replacement=False, generator=generator)
    return ordinary[places]


def repeated_tokens(block: Int[Tensor, "batch pos"], copies: int, first: int | None = None) -> Int[Tensor, "batch ..."]:
    """``copies`` of each block one after the other, behind the token ``first`` (begin of text) unless that is None."""
    return _behind(first, block.repeat(1, copies))


def unrepeated_tokens(
    ordinary: Int[Tensor, " row"],
    weights: Float[Tensor, " row"] | None,
    rows: int,
    period: int,
    copies: int,
    generator: Generator,
    first: int | None = None,
) -> Int[Tensor, "batch pos"]:
    """Texts as long as ``copies`` of a block of ``period`` tokens, without the repeat, behind the token ``first``.

    All tokens of a text differ where there are enough of them; else each stretch of ``period`` tokens is drawn by itself.
    """
    available = len(ordinary) if weights is None else int((weights > 0).sum())
    lengths = [period * copies] if period * copies <= available else [period] * copies
    parts = [distinct_tokens(ordinary, weights, rows, length, generator) for length in lengths]
    return _behind(first, torch.cat(parts, 1))


def _behind(first: int | None, ids: Int[Tensor, "batch pos"]) -> Int[Tensor, "batch ..."]:
    return ids if first is None else torch.cat([ids.new_full((len(ids), 1), first), ids], 1)
