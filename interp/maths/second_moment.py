"""The uncentred second moment C = E[k k^T] of rows, streamed in float64; its shrinkage and its condition number.

C is what ROME (Meng et al. 2022, section 3.1) and MEMIT (2023, section 4.2) weigh a change by: directions in which many keys lie are
dear. It is used through its inverse, so directions that a short sample hardly saw matter, and these are what shrinkage is for.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Float64
from torch import Tensor

from interp.errors import NumericsError

_PANEL = 192
"""Columns of C that are done at once: C is symmetric, so of each panel only the part up to the diagonal is computed."""
_BLOCK = 512
"""Rows whose product is taken in float32 before it is added in float64, where the device is not the CPU."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Moments:
    """What was measured of ``n_rows`` rows k: ``matrix`` is the mean of k k^T, ``fourth`` that of |k|^4."""

    matrix: Float64[Tensor, "d_mlp d_mlp"]
    fourth: float
    n_rows: int


class SecondMomentFitter:
    """Sums k k^T over rows as they come; ``result()`` is the mean. The order of the rows matters only to the last digits.

    On the CPU the products themselves are in float64, in which those of float32 numbers are exact: only the additions round.
    Elsewhere, where float64 may be slow or missing, products of up to 512 rows are taken in float32 on the device of the rows and
    added in float64 (relative error about 3e-7, measured on the default model's keys).
    """

    def __init__(self, width: int, *, device: "torch.device | str" = "cpu") -> None:
        # Apple's GPUs have no float64, so the sum stays on the CPU there.
        device = torch.device(device)
        self._sum = torch.zeros(width, width, dtype=torch.float64, device="cpu" if device.type == "mps" else device)
        self._fourth, self._n_rows = 0.0, 0

    @property
    def n_rows(self) -> int:
        """Rows that were counted."""
        return self._n_rows

    def update(self, keys: Float[Tensor, "row d_mlp"]) -> None:
        """Counts these rows.

        Raises NumericsError, and counts none of them, where they hold NaN or infinity; nor does it where memory runs out.
        """
        squares = torch.linalg.vector_norm(keys, dim=1, dtype=torch.float32).double().square()
        fourth = float(squares.square().sum())
        if fourth != fourth or fourth == float("inf"):
            raise NumericsError(
                "the keys hold NaN or infinity, or numbers too large to square; no moment is made of them"
            )
        if keys.device.type == "cpu":
            _add_product(self._sum, keys.double())
        else:
            # Taken once and first: where memory runs out, nothing is counted yet.
            rows, product = keys.float(), torch.zeros_like(self._sum, dtype=torch.float32, device=keys.device)
            for block in rows.split(_BLOCK):
                _add_product(product.zero_(), block)
                self._sum += product.to(self._sum.device)
        self._fourth += fourth
        self._n_rows += keys.shape[0]

    @property
    def state_size(self) -> int:
        """Numbers that ``state`` gives."""
        return 2 + self._sum.numel()

    def state(self) -> Float64[Tensor, " row"]:
        """A copy of all that was summed, on the CPU, from which ``restore`` goes on to the same last digit."""
        head = torch.tensor([self._n_rows, self._fourth], dtype=torch.float64)
        return torch.cat([head, self._sum.flatten().cpu()])

    def restore(self, state: Float64[Tensor, " row"]) -> None:
        """Takes what ``state`` gave in place of what was summed here."""
        self._n_rows, self._fourth = int(state[0]), float(state[1])
        self._sum.copy_(state[2:].view_as(self._sum))

    def result(self) -> Moments:
        """The means over all rows so far. Raises NumericsError where there was none."""
        if not self._n_rows:
            raise NumericsError("no key was counted, so there is no second moment")
        lower = self._sum.tril().cpu() / self._n_rows
        return Moments(matrix=lower + lower.tril(-1).T, fourth=self._fourth / self._n_rows, n_rows=self._n_rows)


def _add_product(into: Tensor, keys: Tensor) -> None:
    """Adds k k^T summed over rows to ``into``, on and below its diagonal (and a little above it)."""
    width = into.shape[0]
    for start in range(0, width, _PANEL):
        stop = min(start + _PANEL, width)
        into[start:stop, :stop].addmm_(keys[:, start:stop].T, keys[:, :stop])


def shrink(matrix: Float64[Tensor, "d_mlp d_mlp"], amount: float) -> Float64[Tensor, "d_mlp d_mlp"]:
    """(1 - a) C + a (tr C / d) I: the same trace, and no eigenvalue below a (tr C / d)."""
    width = matrix.shape[0]
    shrunk = (1 - amount) * matrix
    shrunk.diagonal().add_(amount * float(matrix.trace()) / width)
    return shrunk


def ledoit_wolf(moments: Moments) -> float:
    """The amount of shrinkage of least expected error in the Frobenius norm (Ledoit and Wolf 2004, section 3.3), from 0 to 1.

    Of n rows, with m = tr C / d: b^2 = (mean |k|^4 - |C|^2) / n, the error of C itself, over d^2 = |C - m I|^2. It takes the rows for
    independent; tokens of one text are not quite, so it is rather too small.
    """
    matrix, width = moments.matrix, moments.matrix.shape[0]
    size = float(matrix.square().sum())
    apart = size - float(matrix.trace()) ** 2 / width
    error = (moments.fourth - size) / moments.n_rows
    return 0.0 if error <= 0 else min(error, apart) / apart if apart > 0 else 1.0


def has_inverse(matrix: Float64[Tensor, "d_mlp d_mlp"]) -> bool:
    """Whether C has an inverse that means something: its Cholesky factor exists, with no pivot that rounding alone could give."""
    factor, failed = torch.linalg.cholesky_ex(matrix)
    pivots = factor.diagonal().square()
    least = float(matrix.diagonal().max()) * matrix.shape[0] * torch.finfo(torch.float64).eps
    return not int(failed) and float(pivots.min()) > least


def eigenvalues(matrix: Float64[Tensor, "d_mlp d_mlp"]) -> Float64[Tensor, " d_mlp"]:
    """The eigenvalues of C, greatest first. Those that rounding alone could give are 0."""
    found = torch.linalg.eigvalsh(matrix).flip(0)
    least = float(found[0]) * matrix.shape[0] * torch.finfo(torch.float64).eps
    return found.where(found > least, 0.0)


def condition_number(spectrum: Float64[Tensor, " d_mlp"], amount: float = 0.0) -> float:
    """The greatest eigenvalue over the least, after shrinking by ``amount``; infinite where C has no inverse."""
    shrunk = (1 - amount) * spectrum + amount * spectrum.mean()
    return float(shrunk.max() / shrunk.min()) if float(shrunk.min()) > 0 else float("inf")
