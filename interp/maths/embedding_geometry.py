"""How the rows of an embedding matrix lie to each other: nearest rows, analogies, and the cosines of random pairs.

All cosines are taken in fp32, a block of rows at a time, so that no copy of the matrix is made.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from interp.maths.estimates import Estimate
from interp.maths.ranking import top_lowest_first
from interp.maths.statistics import mean_estimates

BLOCK = 4096
BINS = 80


def unit(rows: Float[Tensor, "*batch d_model"]) -> Float[Tensor, "*batch d_model"]:
    """Rows of length 1 in fp32; a row of zeros stays one."""
    return torch.nn.functional.normalize(rows.detach().float(), dim=-1)


def nearest_rows(
    matrix: Float[Tensor, "d_vocab d_model"],
    queries: Float[Tensor, "row d_model"],
    k: int,
    leave_out: Int[Tensor, "row _"],
) -> tuple[Float[Tensor, "row k"], Int[Tensor, "row k"]]:
    """The ``k`` rows of the matrix with the greatest cosine to each query, and these cosines; of equal ones the lower row first.

    ``leave_out`` names rows that a query must not find, such as the one it is.
    """
    best = queries.new_empty(len(queries), 0, dtype=torch.float32)
    ids = torch.empty(len(queries), 0, dtype=torch.int64, device=queries.device)
    for start, cosines in _cosines(matrix, queries):
        cosines = _without(cosines, start, leave_out)
        places = torch.arange(start, start + cosines.shape[1], device=cosines.device).expand_as(cosines)
        best, columns = top_lowest_first(torch.cat([best, cosines], 1), k)
        ids = torch.cat([ids, places], 1).gather(1, columns)
    return best, ids


def cosines_to_rows(
    matrix: Float[Tensor, "d_vocab d_model"], queries: Float[Tensor, "row d_model"]
) -> Float[Tensor, "row d_vocab"]:
    """The cosine of each query with every row of the matrix; for a few queries."""
    return torch.cat([cosines for _, cosines in _cosines(matrix, queries)], 1)


def rank_of(cosines: Float[Tensor, " d_vocab"], row: int, leave_out: Int[Tensor, " _"]) -> int:
    """How many rows have a greater cosine than ``row``, those in ``leave_out`` not counted: 0 is the nearest."""
    greater = cosines > cosines[row]
    return int(greater.sum() - greater[leave_out].sum())


def analogy_query(
    a: Float[Tensor, " d_model"], b: Float[Tensor, " d_model"], c: Float[Tensor, " d_model"]
) -> Float[Tensor, " d_model"]:
    """The sum a - b + c of rows of length 1: the row nearest to it answers "b is to a as c is to ?" (Mikolov et al. 2013, 3CosAdd)."""
    return unit(a) - unit(b) + unit(c)


def mean_row(matrix: Float[Tensor, "d_vocab d_model"]) -> Float[Tensor, " d_model"]:
    """The mean of all rows, in fp32."""
    total = torch.zeros(matrix.shape[1], dtype=torch.float32, device=matrix.device)
    for rows in matrix.split(BLOCK):
        total += rows.float().sum(0)
    return total / len(matrix)


@dataclass(frozen=True, kw_only=True, eq=False)
class PairCosines:
    """Cosines of random pairs of rows: their mean, their root mean square, and their numbers in ``BINS`` even bins from -1 to 1."""

    mean: Estimate
    root_mean_square: Estimate
    counts: Int[Tensor, " bin"]


def pair_cosines(
    matrix: Float[Tensor, "d_vocab d_model"],
    rows: Int[Tensor, " row"],
    n_pairs: int,
    generator: torch.Generator,
    *,
    origin: Float[Tensor, " d_model"] | None = None,
    confidence: float = 0.95,
) -> PairCosines:
    """The cosines of ``n_pairs`` pairs of two distinct ``rows``, each drawn independently of the others, as seen from ``origin``.

    Without an origin they are those of the rows as they are. Directions drawn evenly from the sphere have the mean 0 and the root mean
    square 1 / sqrt(d_model). The intervals are Student's t over pairs, for the root mean square that of the squares.
    """
    first = torch.randint(len(rows), (n_pairs,), generator=generator)
    second = (first + torch.randint(1, len(rows), (n_pairs,), generator=generator)) % len(rows)
    at = 0.0 if origin is None else origin
    left, right = (unit(matrix[rows[drawn].to(matrix.device)].float() - at) for drawn in (first, second))
    cosines = (left * right).sum(-1).clamp(-1, 1).cpu()
    mean, square = (mean_estimates(values, confidence).at() for values in (cosines, cosines.double().square()))
    return PairCosines(
        mean=mean,
        # The square root of a mean and of its bounds: it rises all the way, so that the interval stays one.
        root_mean_square=Estimate(
            value=math.sqrt(square.value),
            lower=math.sqrt(max(square.lower, 0.0)),
            upper=math.sqrt(square.upper),
            n=square.n,
        ),
        counts=torch.histc(cosines.double(), BINS, -1.0, 1.0).long(),
    )


def sphere_density(cosine: Float[Tensor, "*batch"], d_model: int) -> Float[Tensor, "*batch"]:
    """The density of the cosine of two directions drawn evenly from the sphere: proportional to (1 - x²) ** ((d - 3) / 2)."""
    log_scale = math.lgamma(d_model / 2) - math.lgamma((d_model - 1) / 2) - 0.5 * math.log(math.pi)
    return torch.exp(log_scale + (d_model - 3) / 2 * torch.log1p(-cosine.double().square()))


def _cosines(
    matrix: Float[Tensor, "d_vocab d_model"], queries: Float[Tensor, "row d_model"]
) -> Iterator[tuple[int, Float[Tensor, "row _"]]]:
    """The cosines of every query with a block of rows, and the first of these."""
    wanted = unit(queries)
    for start in range(0, len(matrix), BLOCK):
        yield start, wanted @ unit(matrix[start : start + BLOCK]).T


def _without(cosines: Float[Tensor, "row _"], start: int, leave_out: Int[Tensor, "row _"]) -> Float[Tensor, "row _"]:
    columns = leave_out - start
    inside = (columns >= 0) & (columns < cosines.shape[1])
    rows = torch.arange(len(columns), device=columns.device)[:, None].expand_as(columns)
    cosines[rows[inside], columns[inside]] = -torch.inf
    return cosines
