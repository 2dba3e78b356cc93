"""Numbers as the page writes them."""

import math
from collections.abc import Sequence

from interp.maths.estimates import Estimate

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


def signed(value: float, digits: int = 3) -> str:
    """A number with its sign, and a minus as wide as the plus."""
    return f"{value:+.{digits}f}".replace("-", "−")  # noqa: RUF001


def plain(value: float, digits: int = 3) -> str:
    """A number without a plus, and with a minus as wide as one."""
    return f"{value:.{digits}f}".replace("-", "−")  # noqa: RUF001


def brief(number: float) -> str:
    """A number in three digits, large ones without an exponent."""
    return f"{number:,.0f}" if 1000 <= abs(number) < 1e6 else f"{number:.3g}"


def interval_of(estimate: Estimate) -> tuple[float, float] | None:
    """The bounds of an estimate; None where one sample gives none."""
    return (estimate.lower, estimate.upper) if math.isfinite(estimate.lower) else None


def told_from(estimate: Estimate, null: float) -> bool:
    """Whether an estimate's interval leaves out ``null``; without an interval, whether the value is another."""
    if not math.isfinite(estimate.value):
        return False
    return estimate.value != null if not math.isfinite(estimate.lower) else not estimate.lower <= null <= estimate.upper


def part_of(difference: float, unit: str, values: Sequence[float]) -> float:
    """How great a difference is, 0 to 1, whatever its unit.

    Of log-probabilities it is the share of the probability that comes or goes, of probabilities and shares the difference itself, of
    other numbers its part of the greatest of ``values`` and itself.
    """
    size = abs(difference)
    if not math.isfinite(size):
        return 0.0
    if unit.startswith("nats"):
        return 1 - math.exp(-size)
    if unit.startswith(("probability", "share")):
        return min(1.0, size)
    scale = max([size, *(abs(value) for value in values if math.isfinite(value))])
    return size / scale if scale else 0.0
