"""Numbers as the page writes them."""

import math

from interp.maths.estimates import Estimate


def percent(probability: float) -> str:
    """A probability as a percentage that keeps small ones apart from zero."""
    if probability >= 0.001 or probability == 0:
        return f"{probability:.1%}"
    return f"{100 * probability:.2g}%"


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
