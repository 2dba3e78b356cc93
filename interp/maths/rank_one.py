"""The algebra of writing facts into a matrix W [d_model d_mlp]: low-rank changes that map keys k to wanted values.

Every change is a pair (left, right) with W_new = W + left @ right. C is the uncentred second moment E[k k^T] of the keys that W sees,
so that |A|_C^2 = tr(A C A^T) is how much a change A disturbs the values of ordinary keys. Solved in float64, returned in float32.

- ROME (Meng et al. 2022, eq. 2): the least disturbing A with A k = r is r u^T / (u^T k), u = C^-1 k.
- EMMET (Gupta et al. 2024): the same for several keys at once, A = R (K^T C^-1 K)^-1 K^T C^-1.
- MEMIT (Meng et al. 2023, eq. 14): keys may be missed for a price, A = R K^T (lambda C + K K^T)^-1.
- AlphaEdit (Fang et al. 2025, eq. 14): only directions P in which C is nearly nothing, A^T = (P (K K^T + K_p K_p^T) + l I)^-1 P K R^T.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Float64
from torch import Tensor

from interp.errors import NumericsError


@dataclass(frozen=True, kw_only=True, eq=False)
class LowRank:
    """A change ``left @ right`` of a matrix."""

    left: Float[Tensor, "d_model rank"]
    right: Float[Tensor, "rank d_mlp"]

    @property
    def norm(self) -> float:
        """The Frobenius norm, without multiplying the factors out: |LR|^2 = sum of (L^T L) * (R R^T)."""
        left, right = self.left.double(), self.right.double()
        return float(((left.T @ left) * (right @ right.T)).sum().clamp(min=0).sqrt())


@dataclass(frozen=True, kw_only=True, eq=False)
class Direction:
    """What a rank-one change listens to: ``vector`` is u, and ``key`` is k, whose answer u^T k counts as hearing all of the change."""

    vector: Float64[Tensor, " d_mlp"]
    key: Float[Tensor, " d_mlp"]

    def shares(self, keys: Float[Tensor, "batch d_mlp"]) -> Float64[Tensor, " batch"]:
        """How much of the change each of some keys hears: u^T k_i over u^T k, on the CPU."""
        return keys.detach().cpu().double() @ self.vector / (self.key.double() @ self.vector)


def key_direction(moment: Float64[Tensor, "d_mlp d_mlp"], key: Float[Tensor, " d_mlp"]) -> Float64[Tensor, " d_mlp"]:
    """The direction u = C^-1 k / |C^-1 k| (ROME, section 3.1): what a change listens to, so that ordinary keys hear it least.

    Raises NumericsError where C cannot be inverted.
    """
    direction = _solve(moment, key.double()[:, None])[:, 0]
    return direction / direction.norm()


def sum_outer(keys: Float[Tensor, "fact d_mlp"]) -> Float64[Tensor, "d_mlp d_mlp"]:
    """The sum of k k^T over some keys."""
    return keys.double().T @ keys.double()


def mean_outer(keys: Float[Tensor, "context d_mlp"]) -> Float64[Tensor, "d_mlp d_mlp"]:
    """The uncentred second moment of some keys; zero where there is none."""
    return sum_outer(keys) / max(len(keys), 1)


def key_covariance(keys: Float[Tensor, "context d_mlp"]) -> Float64[Tensor, "d_mlp d_mlp"]:
    """The covariance of some keys about their mean, divided by their number."""
    return mean_outer(keys.double() - keys.double().mean(0))


def rank_one_change(
    residual: Float[Tensor, " d_model"], direction: Float[Tensor, " d_mlp"], key: Float[Tensor, " d_mlp"]
) -> LowRank:
    """The change r u^T / (u^T k), which adds exactly ``residual`` to the value of ``key``.

    Raises NumericsError where u^T k is nothing beside |u| |k|: then the change would have to be without bound.
    """
    u, k = direction.double(), key.double()
    overlap = u @ k
    if abs(float(overlap)) <= 1e-8 * float(u.norm() * k.norm()):
        raise NumericsError(
            "the key and its direction C^-1 k are orthogonal, so no finite change maps the key to its value"
        )
    return LowRank(left=(residual.double() / overlap).float()[:, None], right=u.float()[None])


def constrained_change(
    keys: Float[Tensor, "d_mlp fact"], residuals: Float[Tensor, "d_model fact"], moment: Float64[Tensor, "d_mlp d_mlp"]
) -> LowRank:
    """The least disturbing change that adds each residual to the value of its key, exactly (EMMET).

    Raises NumericsError where two keys are the same or C cannot be inverted.
    """
    keys = keys.double()
    whitened = _solve(moment, keys)
    right = _solve(keys.T @ whitened, whitened.T)
    return LowRank(left=residuals.float(), right=right.float())


def weighted_change(
    keys: Float[Tensor, "d_mlp fact"],
    residuals: Float[Tensor, "d_model fact"],
    moment: Float64[Tensor, "d_mlp d_mlp"],
    weight: float,
) -> LowRank:
    """MEMIT's change: least squares over the new keys and ``weight`` times the ordinary ones.

    Raises NumericsError where the system cannot be solved.
    """
    keys = keys.double()
    right = _solve(weight * moment + keys @ keys.T, keys).T
    return LowRank(left=residuals.float(), right=right.float())


def null_space(moment: Float64[Tensor, "d_mlp d_mlp"], threshold: float) -> Float64[Tensor, "d_mlp d_mlp"]:
    """The projector P on the eigenvectors of C with an eigenvalue below ``threshold`` (AlphaEdit, section 3.2).

    Raises NumericsError where there is none: nothing could be edited.
    """
    values, vectors = torch.linalg.eigh(moment)
    kept = vectors[:, values < threshold]
    if not kept.shape[1]:
        raise NumericsError(
            f"no eigenvalue of the second moment lies below {threshold:g} (the least is {float(values[0]):.2g}), so there is no null "
            "space to edit in; raise null_threshold"
        )
    return kept @ kept.T


def null_space_change(
    keys: Float[Tensor, "d_mlp fact"],
    residuals: Float[Tensor, "d_model fact"],
    projector: Float64[Tensor, "d_mlp d_mlp"],
    *,
    before: Float[Tensor, "d_mlp rank"] | None = None,
    ridge: float = 10.0,
) -> LowRank:
    """AlphaEdit's change: it does nothing outside the projector's space. ``before`` are keys of earlier edits, to be kept too.

    Raises NumericsError where the system cannot be solved.
    """
    keys = keys.double()
    seen = keys @ keys.T if before is None else keys @ keys.T + before.double() @ before.double().T
    system = projector @ seen + ridge * torch.eye(len(seen), dtype=torch.float64, device=seen.device)
    return LowRank(left=residuals.float(), right=_solve(system, projector @ keys).T.float())


def joined(changes: "tuple[LowRank, ...] | list[LowRank]") -> LowRank:
    """The sum of several changes as one, of the sum of their ranks."""
    return LowRank(left=torch.cat([c.left for c in changes], 1), right=torch.cat([c.right for c in changes], 0))


def _solve(system: Tensor, wanted: Tensor) -> Tensor:
    solution, fault = torch.linalg.solve_ex(system.double(), wanted.double())
    if int(fault) or not bool(torch.isfinite(solution).all()):
        raise NumericsError(
            "the second moment cannot be inverted (too few tokens, or keys that repeat); take more tokens or some shrinkage"
        )
    return solution
