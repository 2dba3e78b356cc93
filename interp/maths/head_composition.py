"""How much of what one head writes another head reads (Elhage et al. 2021, "Three Kinds of Composition").

For a writing head 1 and a reading head 2 of a later layer, with matrices for rows (``x W``)::

    Q-composition  |W_OV1 W_QK2|  / (|W_OV1| |W_QK2|)
    K-composition  |W_OV1 W_QK2ᵀ| / (|W_OV1| |W_QK2|)
    V-composition  |W_OV1 W_OV2|  / (|W_OV1| |W_OV2|)

in Frobenius norms. A product's norm follows from two small factors: ``R_V1 W_O1`` [d_head, d_model] and, for K, ``W_K2 R_Q2ᵀ``
[d_model, d_head], with R from QR decompositions. Two matrices that know nothing of each other do not compose to zero but to about
``1 / sqrt(d_model)``, so every number is held against draws of a null.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Generator, Tensor

from interp.errors import UsageError
from interp.maths.head_circuits import Circuit, reduced_input, reduced_output, singular_values

Through = Literal["q", "k", "v"]
THROUGH: tuple[Through, ...] = ("q", "k", "v")


def composition(
    outputs: Float[Tensor, "writer d_head d_model"], inputs: Float[Tensor, "reader d_model d_head"]
) -> Float[Tensor, "reader writer"]:
    """The composition of every writer with every reader, between 0 and 1, from their reduced factors.

    ``outputs`` are ``reduced_output(W_OV)`` of the writers, ``inputs`` ``reduced_input`` of the readers' map (W_QK, W_QK
    transposed, W_OV). NaN for a head whose map is zero.
    """
    n_writers, n_readers = len(outputs), len(inputs)
    product = rearrange(outputs, "writer i d_model -> (writer i) d_model") @ rearrange(
        inputs, "reader d_model j -> d_model (reader j)"
    )
    squares = (
        product.square().unflatten(0, (n_writers, -1)).unflatten(2, (n_readers, -1)).sum((1, 3), dtype=torch.float64)
    )
    energy = [x.square().sum((1, 2), dtype=torch.float64) for x in (outputs, inputs)]
    return (squares.T / (energy[0][None, :] * energy[1][:, None])).sqrt().clamp(max=1.0)


def energies(circuit: Circuit) -> Float[Tensor, "*batch direction"]:
    """The squared singular values of a map as shares of their sum: all that a rotation of its output leaves as it is."""
    squares = singular_values(circuit).square()
    return squares / squares.sum(-1, keepdim=True)


@dataclass(frozen=True, kw_only=True, eq=False)
class Null:
    """Mean and standard deviation of the composition over the draws of a null."""

    mean: Float[Tensor, "*batch"]
    sd: Float[Tensor, "*batch"]
    draws: int


def random_rotations(
    d_model: int, width: int, generator: Generator, draws: int
) -> Float[Tensor, "sample direction direction"]:
    """The squared entries of the corner of uniformly random orthogonal matrices of the stream, ``width`` rows and columns each.

    From the QR decomposition of Gaussian matrices (Stewart 1980); the signs that it leaves open do not matter to squares.
    Raises UsageError for fewer than two draws.
    """
    _check_draws(draws)
    gaussian = (torch.randn(d_model, width, generator=generator, dtype=torch.float64) for _ in range(draws))
    return torch.stack([torch.linalg.qr(matrix).Q[:width].square() for matrix in gaussian])


def rotation_null(
    writers: Float[Tensor, "writer direction"],
    readers: Float[Tensor, "reader direction"],
    rotations: Float[Tensor, "sample direction direction"],
) -> Null:
    """The null that the writer's output lies anywhere in the stream: its map followed by a uniformly random rotation.

    Both heads keep their singular values (given as ``energies``); only how their directions lie to each other is drawn. Then the
    squared composition is ``sum_ij a_i b_j O_ij²`` with O a corner of a random orthogonal matrix, so that one draw of
    ``random_rotations`` serves all pairs. Its mean is exactly ``1 / d_model``.
    """
    writers, readers = writers.cpu().double(), readers.cpu().double()
    draws = len(rotations)
    total = torch.zeros(len(readers), len(writers), dtype=torch.float64)
    squares = torch.zeros_like(total)
    for corner in rotations:
        drawn = (readers @ corner.T @ writers.T).sqrt()
        total += drawn
        squares += drawn.square()
    mean = total / draws
    variance = (squares - draws * mean.square()).clamp(min=0) / (draws - 1)
    return Null(mean=mean, sd=variance.sqrt(), draws=draws)


def shape_null(d_model: int, d_head: int, generator: Generator, draws: int) -> Null:
    """The null of matrices that have nothing of the heads but their shape: independent Gaussian factors, for all kinds alike.

    Raises UsageError for fewer than two draws.
    """
    _check_draws(draws)
    drawn = []
    for _ in range(draws):
        factors = [torch.randn(d_model, d_head, generator=generator, dtype=torch.float64) for _ in range(4)]
        writer, reader = Circuit(read=factors[0], write=factors[1]), Circuit(read=factors[2], write=factors[3])
        drawn.append(composition(reduced_output(writer)[None], reduced_input(reader)[None])[0, 0])
    values = torch.stack(drawn)
    return Null(mean=values.mean(), sd=values.std(), draws=draws)


def _check_draws(draws: int) -> None:
    if draws < 2:
        raise UsageError(f"draws is {draws}; a null needs 2 or more, such as 100")
