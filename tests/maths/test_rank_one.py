"""The algebra of edits against plain numpy, and the theorems it rests on."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from interp.errors import NumericsError
from interp.maths.rank_one import (
    LowRank,
    constrained_change,
    joined,
    key_covariance,
    key_direction,
    null_space,
    null_space_change,
    rank_one_change,
    weighted_change,
)

D_MODEL, D_MLP = 5, 9
SEEDS = st.integers(0, 2**31 - 1)
N_FACTS = st.integers(1, 4)


def draw(seed: int, n_facts: int = 1):
    """(C, keys, residuals): the second moment of a few dozen correlated keys, whose scales lie far apart, and new keys of their kind."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    scales = 10 ** torch.linspace(-0.5, 0.5, D_MLP, dtype=torch.float64)
    mixing = torch.linalg.qr(normal(D_MLP, D_MLP))[0] * scales @ torch.linalg.qr(normal(D_MLP, D_MLP))[0]
    seen = normal(40, D_MLP) @ mixing.T
    keys = (normal(n_facts, D_MLP) @ mixing.T).T
    return seen.T @ seen / 40, keys.float(), normal(D_MODEL, n_facts).float()


def full(change: LowRank) -> np.ndarray:
    return change.left.double().numpy() @ change.right.double().numpy()


def disturbance(change: np.ndarray, moment: torch.Tensor) -> float:
    """The mean square by which a change moves the values of ordinary keys: tr(A C A^T)."""
    return float(np.trace(change @ moment.numpy() @ change.T))


def close(got, want) -> None:
    scale = float(np.abs(np.asarray(want)).max())
    np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-5 * scale)


def maps(change: np.ndarray, keys, residuals) -> None:
    """The change gives each key its residual, but for the rounding of its float32 factors."""
    keys = keys.double().numpy()
    rounding = 1e-6 * np.linalg.norm(change) * np.linalg.norm(keys)
    np.testing.assert_allclose(change @ keys, residuals.double().numpy(), rtol=1e-5, atol=rounding)


@given(seed=SEEDS)
def test_the_direction_is_that_of_the_whitened_key(seed):
    moment, keys, _ = draw(seed)
    got = key_direction(moment, keys[:, 0]).numpy()
    want = np.linalg.inv(moment.numpy()) @ keys[:, 0].double().numpy()
    close(got, want / np.linalg.norm(want))
    assert np.linalg.norm(got) == pytest.approx(1)


@given(seed=SEEDS, n_keys=st.integers(1, 6))
def test_the_covariance_is_that_of_numpy(seed, n_keys):
    keys = draw(seed, n_keys)[1].T
    close(key_covariance(keys).numpy() + 1, np.cov(keys.double().numpy().T, bias=True) + 1)


@given(seed=SEEDS)
def test_the_covariance_of_contexts_makes_their_responses_alike(seed):
    """The heavier it weighs, the less k . u differs between contexts, and the more the change disturbs ordinary keys."""
    moment, keys, _ = draw(seed, 4)
    mean, covariance = keys.mean(1), key_covariance(keys.T)
    spreads, costs = [], []
    for weight in (0.0, 0.1, 1.0, 100.0):
        u = key_direction(moment + weight * covariance, mean)
        u = u / (mean.double() @ u)
        spreads.append(float((keys.double().T @ u).std()))
        costs.append(float(u @ moment @ u))
    assert spreads == sorted(spreads, reverse=True)
    assert costs == sorted(costs)


@given(seed=SEEDS)
def test_rank_one_change_maps_the_key_to_its_value(seed):
    moment, keys, residuals = draw(seed)
    key, residual = keys[:, 0], residuals[:, 0]
    change = rank_one_change(residual, key_direction(moment, key), key)
    maps(full(change), key, residual)
    u, k = key_direction(moment, key).numpy(), key.double().numpy()
    close(full(change), np.outer(residual.double().numpy(), u) / (u @ k))
    assert np.linalg.matrix_rank(full(change), tol=1e-4 * np.linalg.norm(full(change))) == 1


@given(seed=SEEDS, other=SEEDS)
def test_no_other_change_that_maps_the_key_disturbs_less(seed, other):
    moment, keys, residuals = draw(seed)
    key, residual = keys[:, 0], residuals[:, 0]
    best = full(rank_one_change(residual, key_direction(moment, key), key))
    k = key.double().numpy()
    away = np.random.default_rng(other).normal(size=best.shape)
    away -= np.outer(away @ k, k) / (k @ k)  # does nothing to the key
    for size in (1e-3, 1.0):
        assert disturbance(best, moment) <= disturbance(best + size * away, moment) * (1 + 1e-4)


@pytest.mark.parametrize("key_size", [1e-6, 1.0, 1e6])
def test_an_orthogonal_key_is_refused(key_size):
    direction, key = torch.eye(D_MLP, dtype=torch.float64)[0], key_size * torch.eye(D_MLP)[1]
    with pytest.raises(NumericsError, match="orthogonal"):
        rank_one_change(torch.ones(D_MODEL), direction, key)
    nearly = key + 1e-3 * key_size * torch.eye(D_MLP)[0]
    maps(full(rank_one_change(torch.ones(D_MODEL), direction, nearly)), nearly, torch.ones(D_MODEL))


@given(seed=SEEDS, n_facts=N_FACTS)
def test_constrained_change_maps_every_key(seed, n_facts):
    moment, keys, residuals = draw(seed, n_facts)
    got = full(constrained_change(keys, residuals, moment))
    maps(got, keys, residuals)
    k, inverse = keys.double().numpy(), np.linalg.inv(moment.numpy())
    close(got, residuals.double().numpy() @ np.linalg.inv(k.T @ inverse @ k) @ k.T @ inverse)


@given(seed=SEEDS)
def test_one_fact_makes_all_methods_the_same(seed):
    """EMMET with one fact is ROME; MEMIT is, where ordinary keys weigh next to nothing; both listen in the same direction."""
    moment, keys, residuals = draw(seed)
    want = full(rank_one_change(residuals[:, 0], key_direction(moment, keys[:, 0]), keys[:, 0]))
    close(full(constrained_change(keys, residuals, moment)), want)
    close(full(weighted_change(keys, residuals, moment, 1e-6)), want)
    soft = full(weighted_change(keys, residuals, moment, 3.0))
    close(soft / np.linalg.norm(soft), want / np.linalg.norm(want))
    assert np.linalg.norm(soft) < np.linalg.norm(want)


@given(seed=SEEDS, n_facts=N_FACTS, weight=st.floats(0.1, 1e4))
def test_weighted_change_is_the_least_of_its_objective(seed, n_facts, weight):
    moment, keys, residuals = draw(seed, n_facts)
    k, r, c = keys.double().numpy(), residuals.double().numpy(), moment.numpy()
    got = full(weighted_change(keys, residuals, moment, weight))
    close(got, r @ k.T @ np.linalg.inv(weight * c + k @ k.T))
    # where the objective weight tr(A C A^T) + |A K - R|^2 is least, its gradient is nothing
    terms = weight * got @ c, (got @ k - r) @ k.T
    assert np.abs(terms[0] + terms[1]).max() <= 1e-4 * max(np.abs(term).max() for term in terms)


@given(seed=SEEDS)
def test_the_projector_keeps_what_ordinary_keys_do_not_use(seed):
    moment, _, _ = draw(seed)
    values, vectors = np.linalg.eigh(moment.numpy())
    threshold = float(values[3] + values[4]) / 2
    p = null_space(moment, threshold).numpy()
    np.testing.assert_allclose(p @ p, p, atol=1e-9)
    np.testing.assert_allclose(p, p.T, atol=1e-12)
    assert np.trace(p) == pytest.approx(4)
    np.testing.assert_allclose(p @ vectors[:, 4:], 0, atol=1e-9)
    with pytest.raises(NumericsError, match="null_threshold"):
        null_space(moment, float(values[0]) / 2)


@given(seed=SEEDS, n_facts=st.integers(1, 3), n_before=st.integers(0, 2))
def test_null_space_change_leaves_preserved_keys_alone(seed, n_facts, n_before):
    moment, keys, residuals = draw(seed, n_facts)
    before = draw(seed + 1, max(n_before, 1))[1][:, :n_before]
    values, vectors = torch.linalg.eigh(moment)
    projector = null_space(moment, float(values[5] + values[6]) / 2)
    change = null_space_change(keys, residuals, projector, before=before if n_before else None, ridge=0.5)
    got = full(change)
    p, k, r, b = projector.numpy(), keys.double().numpy(), residuals.double().numpy(), before.double().numpy()
    want = (np.linalg.inv(p @ (k @ k.T + b @ b.T) + 0.5 * np.eye(D_MLP)) @ p @ k @ r.T).T
    close(got, want)
    preserved = vectors[:, 6:].numpy()
    assert np.abs(got @ preserved).max() <= 1e-5 * np.abs(got).max()


@given(seed=SEEDS, n_facts=st.integers(1, 3))
def test_null_space_change_without_ridge_maps_the_keys(seed, n_facts):
    """With room for every key and next to no ridge the keys get all of their residuals."""
    _, keys, residuals = draw(seed, n_facts)
    everything = torch.eye(D_MLP, dtype=torch.float64)
    k = keys.double().numpy()
    least = float(np.linalg.svd(k, compute_uv=False)[-1])
    got = full(null_space_change(keys, residuals, everything, ridge=1e-9 * least**2))
    maps(got, keys, residuals)


@given(seed=SEEDS)
def test_joined_changes_add_up(seed):
    moment, keys, residuals = draw(seed, 3)
    parts = [constrained_change(keys[:, [i]], residuals[:, [i]], moment) for i in range(3)]
    whole = joined(parts)
    assert whole.left.shape == (D_MODEL, 3)
    close(full(whole), sum(full(part) for part in parts))
    assert whole.norm == pytest.approx(float(np.linalg.norm(full(whole))), rel=1e-4)


def test_a_moment_without_rank_is_refused():
    _, keys, residuals = draw(0, 2)
    nothing = torch.zeros(D_MLP, D_MLP, dtype=torch.float64)
    for solve in (
        lambda: key_direction(nothing, keys[:, 0]),
        lambda: constrained_change(keys, residuals, nothing),
        lambda: constrained_change(keys[:, [0, 0]], residuals, torch.eye(D_MLP, dtype=torch.float64)),
    ):
        with pytest.raises(NumericsError, match="cannot be inverted"):
            solve()


@given(seed=SEEDS)
def test_the_change_in_plain_loops(seed):
    """r u^T / (u^T k), entry by entry in float64; twice the key's direction or another scale of u changes nothing."""
    moment, keys, residuals = draw(seed)
    k, r = keys[:, 0].double().tolist(), residuals[:, 0].double().tolist()
    u = key_direction(moment, keys[:, 0]).tolist()
    overlap = sum(u[j] * k[j] for j in range(D_MLP))
    want = [[r[i] * u[j] / overlap for j in range(D_MLP)] for i in range(D_MODEL)]
    for scale in (1.0, -3.0, 1e-3):
        direction = scale * torch.tensor(u, dtype=torch.float64)
        close(full(rank_one_change(residuals[:, 0], direction, keys[:, 0])), want)
    got = [sum(want[i][j] * k[j] for j in range(D_MLP)) for i in range(D_MODEL)]
    close(got, r)
