"""Figures that stand on samples, with their intervals."""

from dataclasses import dataclass

from jaxtyping import Float, Int
from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """A figure estimated from samples: ``value`` with its interval and the number of samples it stands on."""

    value: float
    lower: float
    upper: float
    n: int


@dataclass(frozen=True, kw_only=True, eq=False)
class Estimates:
    """Many estimates at once: a value with its interval in every cell, and the number ``n`` of samples that each stands on.

    A cell without a sample is NaN throughout, one with a single sample has a value and NaN bounds.
    """

    value: Float[Tensor, "*batch"]
    lower: Float[Tensor, "*batch"]
    upper: Float[Tensor, "*batch"]
    n: Int[Tensor, "*batch"]

    def at(self, *index: int) -> Estimate:
        """The estimate in one cell."""
        return Estimate(
            value=float(self.value[index]),
            lower=float(self.lower[index]),
            upper=float(self.upper[index]),
            n=int(self.n[index]),
        )
