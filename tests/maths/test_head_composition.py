"""Composition from reduced factors against explicit products, and its nulls against the moments of random rotations."""

import pytest
import torch

from interp.errors import UsageError
from interp.maths.head_circuits import Circuit, reduced_input, reduced_output
from interp.maths.head_composition import composition, energies, random_rotations, rotation_null, shape_null
from oracles import head_circuits as oracle

D_MODEL, D_HEAD = 10, 3


@pytest.fixture
def draw() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def random(draw: torch.Generator, *shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=draw, dtype=torch.float64)


def circuits(draw: torch.Generator, count: int) -> Circuit:
    return Circuit(read=random(draw, count, D_MODEL, D_HEAD), write=random(draw, count, D_MODEL, D_HEAD))


@pytest.mark.parametrize("kind", ["q", "k", "v"])
def test_composition_is_that_of_the_whole_matrices(draw, kind: str) -> None:
    ov1, qk2, ov2 = circuits(draw, 4), circuits(draw, 3), circuits(draw, 3)
    reads = {"q": qk2, "k": qk2.transposed, "v": ov2}[kind]
    found = composition(reduced_output(ov1), reduced_input(reads))
    assert found.shape == (3, 4)
    for reader in range(3):
        for writer in range(4):
            whole = [
                oracle.product(c.read[i].tolist(), c.write[i].T.tolist())
                for c, i in ((ov1, writer), (qk2, reader), (ov2, reader))
            ]
            assert float(found[reader, writer]) == pytest.approx(oracle.composition(kind, *whole))


def test_a_head_that_reads_all_that_one_writes_composes_to_one(draw) -> None:
    """Rank one: the writer writes along a direction, the reader reads along it, or across it."""
    along = torch.zeros(1, D_MODEL, 1, dtype=torch.float64)
    along[0, 2] = 1.0
    across = along.roll(1, dims=1)
    writer = Circuit(read=random(draw, 1, D_MODEL, 1), write=along)
    for read, value in ((along, 1.0), (across, 0.0)):
        reader = Circuit(read=read, write=random(draw, 1, D_MODEL, 1))
        assert float(composition(reduced_output(writer), reduced_input(reader))) == pytest.approx(value, abs=1e-12)


def test_a_projection_composes_with_itself_to_one_over_the_root_of_its_rank(draw) -> None:
    basis = torch.linalg.qr(random(draw, D_MODEL, D_HEAD)).Q[None]
    itself = Circuit(read=basis, write=basis)
    assert float(composition(reduced_output(itself), reduced_input(itself))) == pytest.approx(D_HEAD**-0.5)


def test_size_makes_no_difference_and_zero_is_no_number(draw) -> None:
    ov, qk = circuits(draw, 1), circuits(draw, 1)
    large = Circuit(read=1e4 * ov.read, write=ov.write)
    values = [composition(reduced_output(c), reduced_input(qk)) for c in (ov, large)]
    torch.testing.assert_close(values[0], values[1])
    none = Circuit(read=0 * ov.read, write=ov.write)
    assert composition(reduced_output(none), reduced_input(qk)).isnan().all()


def test_the_rotation_null_has_the_moments_of_random_rotations(draw) -> None:
    ov, qk = circuits(draw, 2), circuits(draw, 1)
    draws = 4000
    null = rotation_null(energies(ov), energies(qk), random_rotations(D_MODEL, D_HEAD, draw, draws))
    for writer in range(2):
        mean, variance = oracle.haar_moments(energies(ov)[writer].tolist(), energies(qk)[0].tolist(), D_MODEL)
        assert mean == pytest.approx(1 / D_MODEL)
        second = float(null.mean[0, writer] ** 2 + null.sd[0, writer] ** 2)
        assert second == pytest.approx(mean, abs=5 * (variance / draws) ** 0.5)


def test_the_rotation_null_is_that_of_turned_writers(draw) -> None:
    """The same by brute force: the writer's output turned by a random orthogonal matrix, then composed."""
    ov, qk = circuits(draw, 1), circuits(draw, 1)
    values = []
    for _ in range(1500):
        turn = torch.linalg.qr(random(draw, D_MODEL, D_MODEL)).Q
        turned = Circuit(read=ov.read, write=turn @ ov.write)
        values.append(composition(reduced_output(turned), reduced_input(qk))[0, 0])
    brute = torch.stack(values)
    null = rotation_null(energies(ov), energies(qk), random_rotations(D_MODEL, D_HEAD, draw, 1500))
    assert float(null.mean) == pytest.approx(float(brute.mean()), rel=0.02)
    assert float(null.sd) == pytest.approx(float(brute.std()), rel=0.12)


def test_the_shape_null_is_about_one_over_the_root_of_the_width(draw) -> None:
    null = shape_null(200, 8, draw, 60)
    assert float(null.mean) == pytest.approx(200**-0.5, rel=0.05)
    assert 0 < float(null.sd) < 0.2 * float(null.mean)


def test_a_seed_gives_the_same_null_and_another_another(draw) -> None:
    ov, qk = circuits(draw, 2), circuits(draw, 1)
    first, again, other = (
        rotation_null(
            energies(ov), energies(qk), random_rotations(D_MODEL, D_HEAD, torch.Generator().manual_seed(seed), 5)
        )
        for seed in (1, 1, 2)
    )
    assert torch.equal(first.mean, again.mean)
    assert not torch.equal(first.mean, other.mean)


@pytest.mark.parametrize("null", [lambda g: shape_null(8, 2, g, 1), lambda g: random_rotations(4, 2, g, 0)])
def test_one_draw_has_no_spread(draw, null) -> None:
    with pytest.raises(UsageError, match=r"draws is \d; a null needs 2 or more"):
        null(draw)
