"""Numbers as pictures and the page write them."""

import math

_SURE = 1 - 1e-6
"""From here on a probability in single precision is not told apart from 1."""


def percent(probability: float) -> str:
    """A probability as a percentage that keeps small ones apart from zero, and great ones from one."""
    if 0.9995 <= probability < _SURE:
        return f"{probability:.{-2 - math.floor(math.log10(1 - probability))}%}"
    if probability >= 0.001 or probability == 0:
        return f"{probability:.1%}"
    return f"{100 * probability:.2g}%"


def counted(count: int, noun: str) -> str:
    """A number of things, such as 1 token or 2 tokens."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"
