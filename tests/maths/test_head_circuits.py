"""Circuits from their factors, against explicit matrices in plain loops."""

import pytest
import torch

from interp.maths.head_circuits import (
    Circuit,
    decompose,
    distance_profile,
    eigenvalue_score,
    ov_eigenvalue_score,
    own_token_ranks,
    reduced_input,
    reduced_output,
    singular_values,
    strongest_tokens,
    token_moment,
    vocabulary_eigenvalues,
)
from oracles import head_circuits as oracle

D_MODEL, D_HEAD, VOCABULARY = 12, 3, 17


@pytest.fixture
def draw() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def random(draw: torch.Generator, *shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=draw, dtype=torch.float64)


def circuit(draw: torch.Generator, *batch: int) -> Circuit:
    return Circuit(read=random(draw, *batch, D_MODEL, D_HEAD), write=random(draw, *batch, D_MODEL, D_HEAD))


def blocks(rows: torch.Tensor, size: int = 5):
    return [(torch.arange(i, min(i + size, len(rows))), rows[i : i + size]) for i in range(0, len(rows), size)]


def test_singular_directions_are_those_of_the_whole_matrix(draw) -> None:
    c = circuit(draw)
    whole = oracle.qk(c.read.tolist(), c.write.tolist())
    found = decompose(c)
    torch.testing.assert_close(found.values.tolist(), oracle.singular_values(whole)[:D_HEAD])
    torch.testing.assert_close(singular_values(c), found.values)
    torch.testing.assert_close((found.read * found.values) @ found.write.T, torch.tensor(whole, dtype=torch.float64))
    for directions in (found.read, found.write):
        torch.testing.assert_close(directions.T @ directions, torch.eye(D_HEAD, dtype=torch.float64))


def test_reduced_factors_keep_the_norm_of_products(draw) -> None:
    c, other = circuit(draw), random(draw, D_MODEL, D_MODEL)
    whole = c.read @ c.write.T
    assert float(c.norm()) == pytest.approx(oracle.frobenius(whole.tolist()))
    assert float((reduced_output(c) @ other).norm()) == pytest.approx(oracle.frobenius((whole @ other).tolist()))
    assert float((other @ reduced_input(c)).norm()) == pytest.approx(oracle.frobenius((other @ whole).tolist()))


def test_eigenvalues_are_those_of_the_vocabularys_matrix(draw) -> None:
    c, embed, unembed = circuit(draw), random(draw, VOCABULARY, D_MODEL), random(draw, VOCABULARY, D_MODEL)
    moment = token_moment((unembed[i : i + 5], embed[i : i + 5]) for i in range(0, VOCABULARY, 5))
    table = oracle.token_map(embed.tolist(), oracle.qk(c.read.tolist(), c.write.tolist()), unembed.tolist())
    found = vocabulary_eigenvalues(c, moment) * VOCABULARY
    expected = torch.linalg.eigvals(torch.tensor(table, dtype=torch.float64))
    expected = expected[expected.abs().argsort(descending=True)]
    torch.testing.assert_close(found.abs(), expected.abs()[:D_HEAD])
    assert float(expected.abs()[D_HEAD:].max()) < 1e-6
    score = ov_eigenvalue_score(c.read, c.write.T, moment)
    assert float(score) == pytest.approx(oracle.eigenvalue_score(table), abs=1e-6)


def test_all_heads_at_once_are_the_heads_one_by_one(draw) -> None:
    c, moment = circuit(draw, 2, 4), random(draw, D_MODEL, D_MODEL)
    together = eigenvalue_score(vocabulary_eigenvalues(c, moment))
    for layer in range(2):
        for head in range(4):
            one = Circuit(read=c.read[layer, head], write=c.write[layer, head])
            assert float(eigenvalue_score(vocabulary_eigenvalues(one, moment))) == pytest.approx(
                float(together[layer, head])
            )
            torch.testing.assert_close(decompose(one).values, decompose(c).values[layer, head])


@pytest.mark.parametrize(("sign", "score"), [(1.0, 1.0), (-1.0, -1.0)])
def test_a_map_that_only_copies_or_suppresses_scores_one_or_minus_one(draw, sign: float, score: float) -> None:
    """W_OV a projection, embeddings and unembeddings equal: every token raises itself."""
    basis = torch.linalg.qr(random(draw, D_MODEL, D_HEAD)).Q
    embed = random(draw, VOCABULARY, D_MODEL)
    moment = token_moment([(embed, embed)])
    assert float(ov_eigenvalue_score(basis, sign * basis.T, moment)) == pytest.approx(score)


def test_a_rotation_scores_its_cosine() -> None:
    """Eigenvalues exp(+-i 60°) of a rotation in the plane sum to twice their cosine."""
    angle = torch.tensor(torch.pi / 3, dtype=torch.float64)
    turn = torch.stack([torch.stack([angle.cos(), -angle.sin()]), torch.stack([angle.sin(), angle.cos()])])
    score = ov_eigenvalue_score(torch.eye(2, dtype=torch.float64), turn, torch.eye(2, dtype=torch.float64))
    assert float(score) == pytest.approx(0.5)


def test_a_map_of_zeros_has_no_score() -> None:
    zero = torch.zeros(D_MODEL, D_HEAD)
    assert ov_eigenvalue_score(zero, zero.T, torch.eye(D_MODEL)).isnan()


def test_ranks_of_the_own_token_are_those_of_the_whole_table(draw) -> None:
    c, embed, unembed = circuit(draw), random(draw, VOCABULARY, D_MODEL), random(draw, VOCABULARY, D_MODEL)
    table = oracle.token_map(embed.tolist(), oracle.ov(c.read.tolist(), c.write.T.tolist()), unembed.tolist())
    ids = torch.tensor([3, 0, 16, 9])
    found = own_token_ranks(c, ids, embed[ids], unembed[ids], blocks(unembed))
    assert found.tolist() == [oracle.own_ranks(table)[int(t)] for t in ids]


def test_a_copying_map_has_every_token_on_top_and_its_negative_every_token_last() -> None:
    one_hot = torch.eye(D_MODEL)
    ids = torch.arange(D_MODEL)
    for sign, rank in ((1.0, 0), (-1.0, D_MODEL - 1)):
        c = Circuit(read=one_hot, write=sign * one_hot)
        assert own_token_ranks(c, ids, one_hot, one_hot, blocks(one_hot)).tolist() == [rank] * D_MODEL


def test_strongest_tokens_are_the_ends_of_a_full_sort(draw) -> None:
    rows, directions = random(draw, VOCABULARY, D_MODEL), random(draw, D_MODEL, 2)
    ids, values = strongest_tokens(directions, blocks(rows), 4)
    full = (rows @ directions).T
    for direction in range(2):
        order = sorted(range(VOCABULARY), key=lambda t: -float(full[direction, t]))
        assert ids[direction, 0].tolist() == order[:4]
        assert ids[direction, 1].tolist() == order[::-1][:4]
    torch.testing.assert_close(values, full.unsqueeze(1).expand(-1, 2, -1).gather(2, ids))


def test_the_circuit_at_a_distance_is_the_rotated_matrix(draw) -> None:
    width = 4
    c = Circuit(read=random(draw, D_MODEL, width), write=random(draw, D_MODEL, width))
    embed = random(draw, VOCABULARY, D_MODEL)
    distances = (0, 1, 5)
    basis = torch.eye(width, dtype=torch.float64).tolist()
    rotations = torch.tensor([oracle.rotated_qk(basis, basis, n) for n in distances], dtype=torch.float64)
    found = decompose(c)
    got = distance_profile(c, found, rotations, token_moment([(embed, embed)]), embed.mean(0))
    for row, n in enumerate(distances):
        whole = oracle.rotated_qk(c.read.tolist(), c.write.tolist(), n)
        assert float(got.norm[row]) == pytest.approx(oracle.frobenius(whole))
        table = torch.tensor(oracle.token_map(embed.tolist(), whole, embed.tolist()), dtype=torch.float64)
        assert float(got.same_token[row]) == pytest.approx(float(table.diagonal().mean()))
        assert float(got.any_token[row]) == pytest.approx(float(table.mean()))
        scores = found.read.T @ torch.tensor(whole, dtype=torch.float64) @ found.write
        torch.testing.assert_close(got.directions[row], scores.diagonal())
    torch.testing.assert_close(got.directions[0], found.values)
