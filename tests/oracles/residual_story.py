"""Norms, cosines and pushed tokens in plain loops."""

import math


def norm(v):
    return math.sqrt(math.fsum(x * x for x in v))


def cosine(a, b):
    lengths = norm(a) * norm(b)
    return math.fsum(x * y for x, y in zip(a, b, strict=True)) / lengths if lengths else 0.0


def pushed(update, weight, k, scale=1.0):
    """Ids of the tokens whose logits rise most, and of those that fall most."""
    values = [scale * math.fsum(a * b for a, b in zip(update, row, strict=True)) for row in weight]
    up = sorted(range(len(values)), key=lambda token: (-values[token], token))[:k]
    down = sorted(range(len(values)), key=lambda token: (values[token], token))[:k]
    return up, down
