"""Analogies between rows of an embedding matrix (Mikolov et al. 2013): does king - man + woman come out at queen?"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from interp.maths.embedding_geometry import analogy_query, cosines_to_rows, rank_of
from interp.maths.ranking import top_lowest_first

ANALOGIES = (
    ("king", "man", "woman", "queen"),
    ("Paris", "France", "Italy", "Rome"),
    ("bigger", "big", "small", "smaller"),
    ("walking", "walk", "swim", "swimming"),
)


@dataclass(frozen=True, kw_only=True)
class Analogy:
    """``words`` (a, b, c, expected) and where the row of ``expected`` lies beside a - b + c.

    Ranks count from 0, the nearest row. ``rank`` leaves the rows of a, b and c out, as is usual, because one of them is nearly always the
    nearest; ``rank_with_inputs`` does not. ``rank_beside_first`` is where ``expected`` lies beside a alone: what the other two add shows in
    the difference (Linzen 2016). ``nearest_ids`` are the nearest rows with a, b and c left out. All is None or empty where
    ``not_one_token`` names words that are not one token.
    """

    words: tuple[str, str, str, str]
    ids: tuple[int, ...]
    not_one_token: tuple[str, ...]
    cosine: float | None
    rank: int | None
    rank_with_inputs: int | None
    rank_beside_first: int | None
    nearest_ids: tuple[int, ...]
    nearest_cosines: tuple[float, ...]

    @property
    def question(self) -> str:
        """Such as king - man + woman."""
        a, b, c, _ = self.words
        return f"{a} - {b} + {c}"


def solve(
    tokenizer: Any, matrix: Float[Tensor, "d_vocab d_model"], analogies: Sequence[tuple[str, str, str, str]], k: int
) -> tuple[Analogy, ...]:
    """Each analogy with the ``k`` rows nearest to its sum, or with the words that keep it from being asked."""
    read = [_ids(tokenizer, words) for words in analogies]
    asked = [ids for ids, cut in read if not cut]
    # Of each the sum and its first word alone, all in one pass over the matrix.
    sums = [analogy_query(matrix[a], matrix[b], matrix[c]) for a, b, c, _ in asked]
    queries = [*sums, *(matrix[a].float() for a, *_ in asked)]
    cosines = cosines_to_rows(matrix, torch.stack(queries)) if asked else matrix.new_empty(0, len(matrix))
    places = iter(range(len(asked)))
    found = []
    for words, (ids, cut) in zip(analogies, read, strict=True):
        if cut:
            found.append(_not_asked(words, cut))
        else:
            place = next(places)
            found.append(_asked(words, ids, cosines[place], cosines[len(asked) + place], k))
    return tuple(found)


def _asked(
    words: tuple[str, str, str, str],
    ids: tuple[int, ...],
    to_sum: Float[Tensor, " d_vocab"],
    to_first: Float[Tensor, " d_vocab"],
    k: int,
) -> Analogy:
    expected = ids[3]
    inputs = torch.tensor(ids[:3], device=to_sum.device)
    left = to_sum.index_fill(0, inputs, -torch.inf)
    best, nearest = top_lowest_first(left[None], min(k, len(left) - len(inputs.unique())))
    return Analogy(
        words=words,
        ids=ids,
        not_one_token=(),
        cosine=float(to_sum[expected]),
        rank=rank_of(to_sum, expected, inputs),
        rank_with_inputs=rank_of(to_sum, expected, inputs[:0]),
        rank_beside_first=rank_of(to_first, expected, inputs),
        nearest_ids=tuple(nearest[0].tolist()),
        nearest_cosines=tuple(best[0].tolist()),
    )


def _not_asked(words: tuple[str, str, str, str], cut: tuple[str, ...]) -> Analogy:
    return Analogy(
        words=words,
        ids=(),
        not_one_token=cut,
        cosine=None,
        rank=None,
        rank_with_inputs=None,
        rank_beside_first=None,
        nearest_ids=(),
        nearest_cosines=(),
    )


def _ids(tokenizer: Any, words: tuple[str, ...]) -> tuple[tuple[int, ...], tuple[str, ...]]:
    """The ids of the words as they stand inside a sentence, else as they stand at its start; else those that are several tokens."""
    if tokenizer is None:
        return (), words
    inside, bare = ([_id(tokenizer, lead + word) for word in words] for lead in (" ", ""))
    for form in (inside, bare):
        ids = tuple(number for number in form if number is not None)
        if len(ids) == len(words):
            return ids, ()
    return (), tuple(word for word, number in zip(words, inside, strict=True) if number is None)


def _id(tokenizer: Any, text: str) -> int | None:
    """The id of a text that is one token of the vocabulary."""
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    return ids[0] if len(ids) == 1 and ids[0] != tokenizer.unk_token_id else None
