"""Numbers as the page writes them."""

import math
from collections.abc import Sequence

from interp.figures.numerals import counted as counted
from interp.figures.numerals import percent as percent
from interp.maths.estimates import Estimate


def signed(value: float, digits: int = 3) -> str:
    """A number with its sign, and a minus as wide as the plus."""
    return f"{value:+z.{digits}f}".replace("-", "−")  # noqa: RUF001


def plain(value: float, digits: int = 3) -> str:
    """A number without a plus, and with a minus as wide as one."""
    return f"{value:z.{digits}f}".replace("-", "−")  # noqa: RUF001


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
