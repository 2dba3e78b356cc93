"""The circuits of an attention head, in low rank (Elhage et al. 2021, "A Mathematical Framework for Transformer Circuits").

A head touches the residual stream through two matrices of rank d_head, written here for rows, as ``x W``::

    W_QK = W_Q W_Kᵀ        the score of a query against a key is x_query W_QK x_keyᵀ
    W_OV = W_V W_O         what a token adds to the stream where it is attended to

Both are ``read writeᵀ`` with two factors [d_model, d_head]. Everything here works on the factors: no matrix of d_model x d_model or of
the vocabulary's size squared is made, but for one moment of the vocabulary that serves all heads.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from einops import einsum
from jaxtyping import Complex, Float, Int
from torch import Tensor

from interp.maths.ranking import top_lowest_first


@dataclass(frozen=True, kw_only=True, eq=False)
class Circuit:
    """The map ``x -> x read writeᵀ`` of the residual stream.

    W_QK has ``read=W_Q, write=W_K`` (its output is matched with keys), W_OV has ``read=W_V, write=W_Oᵀ``.
    """

    read: Float[Tensor, "*batch d_model d_head"]
    write: Float[Tensor, "*batch d_model d_head"]

    @property
    def transposed(self) -> "Circuit":
        """The map from the other side: W_QK as keys see it."""
        return Circuit(read=self.write, write=self.read)

    def norm(self) -> Float[Tensor, "*batch"]:
        """The Frobenius norm."""
        return torch.linalg.matrix_norm(reduced_output(self))


@dataclass(frozen=True, kw_only=True, eq=False)
class Directions:
    """The singular value decomposition ``sum_i values_i read_i write_iᵀ``, strongest first; the directions are columns of unit length.

    A stream along ``read_i`` is taken to ``values_i write_i``. A pair's common sign is arbitrary, as in any such decomposition.
    """

    values: Float[Tensor, "*batch direction"]
    read: Float[Tensor, "*batch d_model direction"]
    write: Float[Tensor, "*batch d_model direction"]


def decompose(circuit: Circuit) -> Directions:
    """The singular directions, from a QR decomposition of each factor and the SVD of a d_head x d_head matrix, in double precision."""
    (read, upper), (write, other) = (torch.linalg.qr(x.double()) for x in (circuit.read, circuit.write))
    left, values, right = torch.linalg.svd(upper @ other.mT)
    return Directions(values=values, read=read @ left, write=write @ right.mT)


def singular_values(circuit: Circuit) -> Float[Tensor, "*batch direction"]:
    """The singular values alone, greatest first, in double precision."""
    (_, upper), (_, other) = (torch.linalg.qr(x.double(), mode="r") for x in (circuit.read, circuit.write))
    return torch.linalg.svdvals(upper @ other.mT)


def reduced_output(circuit: Circuit) -> Float[Tensor, "*batch d_head d_model"]:
    """``R writeᵀ`` with ``read = Q R``: products of the map with anything after it keep their Frobenius norm."""
    return torch.linalg.qr(circuit.read, mode="r").R @ circuit.write.mT


def reduced_input(circuit: Circuit) -> Float[Tensor, "*batch d_model d_head"]:
    """``read Rᵀ`` with ``write = Q R``: products of the map with anything before it keep their Frobenius norm."""
    return circuit.read @ torch.linalg.qr(circuit.write, mode="r").R.mT


def token_moment(
    rows: Iterable[tuple[Float[Tensor, "_ _"], Float[Tensor, "_ d_model"]]],
) -> Float[Tensor, "_ d_model"]:
    """``sum_t u_tᵀ e_t / n`` over the tokens of the vocabulary, in double precision, from blocks of rows (u, e).

    With the embeddings as e and the unembeddings as u it is what the eigenvalues of every head's W_E W_OV W_U need. Several kinds
    of u may stand side by side: their moments then stand below each other.
    """
    total, count = None, 0
    for u, e in rows:
        part = einsum(u, e, "row left, row right -> left right").double()
        total = part if total is None else total + part
        count += len(u)
    assert total is not None, "a vocabulary has tokens"
    return total / count


def vocabulary_eigenvalues(
    circuit: Circuit, moment: Float[Tensor, "d_model d_model"]
) -> Complex[Tensor, "*batch d_head"]:
    """The eigenvalues of ``W_E read writeᵀ W_U / n`` other than zero, greatest modulus first.

    They are those of ``writeᵀ moment read``, a d_head x d_head matrix: AB and BA share their non-zero eigenvalues. ``n`` is the number
    of tokens behind the moment (see ``token_moment``).
    """
    read, write, moment = (x.double().cpu() for x in (circuit.read, circuit.write, moment))
    values = torch.linalg.eigvals(write.mT @ moment @ read)
    order = values.abs().argsort(dim=-1, descending=True, stable=True)
    return values.gather(-1, order)


def eigenvalue_score(eigenvalues: Complex[Tensor, "*batch d_head"]) -> Float[Tensor, "*batch"]:
    """``sum(lambda) / sum(|lambda|)``, from -1 to 1 (Elhage et al. 2021, "Summarizing OV/QK Matrices"); NaN where all are zero.

    Eigenvalues come in conjugate pairs, so the sum is real. Positive eigenvalues are sets of tokens that raise their own logits on
    the whole: 1 is what a map that only copies gives, -1 one that only suppresses, and a random one is near 0.
    """
    return eigenvalues.real.sum(-1) / eigenvalues.abs().sum(-1)


def ov_eigenvalue_score(
    W_V: Float[Tensor, "*batch d_model d_head"],
    W_O: Float[Tensor, "*batch d_head d_model"],
    moment: Float[Tensor, "d_model d_model"],
) -> Float[Tensor, "*batch"]:
    """The copying score of heads by eigenvalues of W_E W_OV W_U: see ``eigenvalue_score`` and ``token_moment``."""
    return eigenvalue_score(vocabulary_eigenvalues(Circuit(read=W_V, write=W_O.mT), moment))


def own_token_ranks(
    circuit: Circuit,
    ids: Int[Tensor, " row"],
    embedded: Float[Tensor, "row d_model"],
    unembedded: Float[Tensor, "row d_model"],
    vocabulary: Iterable[tuple[Int[Tensor, " _"], Float[Tensor, "_ d_model"]]],
) -> Int[Tensor, " row"]:
    """How many tokens each token's OV output promotes more than the token itself: 0 is a token that is copied.

    ``ids`` are the tokens, ``embedded`` and ``unembedded`` their rows of W_E and W_U; ``vocabulary`` gives the ids and rows of W_U block
    by block. The divisors of both norms scale a row of logits as a whole, so that no rank depends on them. NaN is an error
    of the caller: it would rank as nothing.
    """
    between = embedded @ circuit.read
    own = einsum(between, unembedded @ circuit.write, "row d_head, row d_head -> row")
    rank = torch.zeros(len(ids), dtype=torch.int64, device=own.device)
    ids = ids.to(own.device)
    for block, rows in vocabulary:
        logits = between @ (rows @ circuit.write).T
        itself = ids[:, None] == block.to(own.device)[None]
        rank += ((logits > own[:, None]) & ~itself).sum(1)
    return rank


def strongest_tokens(
    directions: Float[Tensor, "d_model direction"],
    vocabulary: Iterable[tuple[Int[Tensor, " _"], Float[Tensor, "_ d_model"]]],
    k: int,
) -> tuple[Int[Tensor, "direction pole k"], Float[Tensor, "direction pole k"]]:
    """The ``k`` tokens with the greatest and the ``k`` with the least projection on each direction, and these projections.

    ``vocabulary`` gives the ids, in ascending order, and a row of the stream for each, block by block. The first pole is the
    positive one, greatest first, the second the negative one, least first.
    """
    poles = torch.cat([directions, -directions], 1).T
    values = poles.new_empty(len(poles), 0)
    ids = torch.empty(len(poles), 0, dtype=torch.int64, device=poles.device)
    for block, rows in vocabulary:
        values = torch.cat([values, poles @ rows.to(poles).T], 1)
        ids = torch.cat([ids, block.to(poles.device).expand(len(poles), -1)], 1)
        best, columns = top_lowest_first(values, min(k, values.shape[1]))
        values, ids = best.clone(), ids.gather(1, columns)
    count = directions.shape[1]
    signed = torch.stack([values[:count], -values[count:]], 1)
    return torch.stack([ids[:count], ids[count:]], 1), signed


@dataclass(frozen=True, kw_only=True, eq=False)
class DistanceProfile:
    """W_QK of a rotary layer as the key moves away from the query: ``W_QK(n) = W_Q R_n W_Kᵀ`` for a key n positions back.

    ``norm`` is its Frobenius norm. ``directions`` is ``read_iᵀ W_QK(n) write_i`` for the leading directions of the circuit at
    distance 0, where it is their singular value. ``same_token`` is the mean over the vocabulary of the score of a token's
    embedding against itself, ``any_token`` the mean over all pairs of tokens: their difference is how much the head looks for
    its own token. Scores are before the scale and before the norms' divisors.
    """

    norm: Float[Tensor, " distance"]
    directions: Float[Tensor, "distance direction"]
    same_token: Float[Tensor, " distance"]
    any_token: Float[Tensor, " distance"]


def distance_profile(
    qk: Circuit,
    directions: Directions,
    rotations: Float[Tensor, "distance d_head d_head"],
    moment: Float[Tensor, "d_model d_model"],
    mean: Float[Tensor, " d_model"],
) -> DistanceProfile:
    """How W_QK changes with distance. ``rotations`` are R_n, which multiply queries as rows from the right (Su et al. 2021, eq. 16).

    ``moment`` is ``token_moment`` of the embeddings with themselves, ``mean`` the mean embedding.
    """
    W_Q, W_K, R, moment, mean = (x.double() for x in (qk.read, qk.write, rotations, moment, mean))
    upper_q, upper_k = (torch.linalg.qr(x, mode="r").R for x in (W_Q, W_K))
    queries, keys = directions.read.double().T @ W_Q, directions.write.double().T @ W_K
    between = W_K.T @ moment @ W_Q  # [key channel, query channel]
    return DistanceProfile(
        norm=torch.linalg.matrix_norm(upper_q @ R @ upper_k.T),
        directions=einsum(queries, R, keys, "direction q, distance q k, direction k -> distance direction"),
        same_token=einsum(R, between, "distance q k, k q -> distance"),
        any_token=einsum(mean @ W_Q, R, mean @ W_K, "q, distance q k, k -> distance"),
    )
