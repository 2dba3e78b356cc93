"""Rows of an embedding matrix in plain loops: nearest ones, analogies (3CosAdd), cosines of pairs."""

import math


def cosine(v, w):
    length = math.sqrt(math.fsum(x * x for x in v)) * math.sqrt(math.fsum(y * y for y in w))
    return math.fsum(x * y for x, y in zip(v, w, strict=True)) / length if length else 0.0


def unit(v):
    length = math.sqrt(math.fsum(x * x for x in v))
    return [x / length for x in v]


def nearest(matrix, query, k, without):
    """The rows with the greatest cosine to the query, nearest first, the lower row first of equal ones."""
    found = [(-cosine(row, query), index) for index, row in enumerate(matrix) if index not in without]
    return [index for _, index in sorted(found)[:k]]


def rank(matrix, query, wanted, without):
    return sum(
        cosine(row, query) > cosine(matrix[wanted], query) for index, row in enumerate(matrix) if index not in without
    )


def analogy(matrix, a, b, c):
    return [x - y + z for x, y, z in zip(unit(matrix[a]), unit(matrix[b]), unit(matrix[c]), strict=True)]
