"""One circuit of a head as a table: how strong its directions are and which tokens lie at their ends."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from interp.analyzers.circuit_weights import embedding_blocks
from interp.maths.head_circuits import Circuit, decompose, eigenvalue_score, strongest_tokens, vocabulary_eigenvalues
from interp.runner.model import Model

BY = ("cosine", "projection")
"""What tokens are ranked by. Long embeddings, of rare tokens mostly, lie far out in most directions: a cosine does not see lengths."""


@dataclass(frozen=True, kw_only=True, eq=False)
class CircuitTable:
    """One circuit of a head, W_QK or W_OV.

    ``singular_values`` are all of them; the token fields are for the leading directions. In W_OV a token far out
    on the reading side of a direction raises the logits of the tokens on its writing side; in W_QK a query on the reading side attends to
    keys on the writing side. The first pole pairs the positive ends, the second the negative ones. The scores are cosines between token and
    direction, or projections of the token where the result's ``by`` says so. ``eigenvalues_*`` are the non-zero
    eigenvalues of the circuit from token to token, over their number; ``eigenvalue_score`` is their sum over the sum of moduli, and
    ``eigenvalue_score_centred`` the same with each column's mean over the vocabulary taken off, which a softmax does not see.
    """

    singular_values: Float[Tensor, " d_head"]
    eigenvalues_real: Float[Tensor, " d_head"]
    eigenvalues_imag: Float[Tensor, " d_head"]
    eigenvalue_score: float
    eigenvalue_score_centred: float
    read_ids: Int[Tensor, "direction pole k"]
    read_scores: Float[Tensor, "direction pole k"]
    write_ids: Int[Tensor, "direction pole k"]
    write_scores: Float[Tensor, "direction pole k"]


def circuit_table(
    model: Model,
    circuit: Circuit,
    moment: Float[Tensor, "d_model d_model"],
    centred: Float[Tensor, "d_model d_model"],
    write_side: Callable[[Model], Iterable[tuple[Tensor, Tensor]]],
    directions: int,
    top_k: int,
    by: str,
) -> CircuitTable:
    """The table of one circuit; ``write_side`` gives what its output is matched with: embeddings of keys, or unembeddings."""
    found = decompose(circuit)
    eigenvalues = vocabulary_eigenvalues(circuit, moment)
    read, write = (x[:, :directions].float() for x in (found.read, found.write))
    read_ids, read_values = strongest_tokens(read, _scaled(embedding_blocks(model), by), top_k)
    write_ids, write_values = strongest_tokens(write, _scaled(write_side(model), by), top_k)
    # The sign of a direction is arbitrary: let its stronger end on the reading side be the positive one.
    turned = (-read_values[:, 1, 0] > read_values[:, 0, 0])[:, None, None].cpu()
    ids_and_values = [x.cpu() for x in (read_ids, read_values, write_ids, write_values)]
    read_ids, read_values, write_ids, write_values = (torch.where(turned, x.flip(1), x) for x in ids_and_values)
    sign = torch.where(turned, -1.0, 1.0)
    return CircuitTable(
        singular_values=found.values.float().cpu(),
        eigenvalues_real=eigenvalues.real.float(),
        eigenvalues_imag=eigenvalues.imag.float(),
        eigenvalue_score=float(eigenvalue_score(eigenvalues)),
        eigenvalue_score_centred=float(eigenvalue_score(vocabulary_eigenvalues(circuit, centred))),
        read_ids=read_ids,
        read_scores=read_values * sign,
        write_ids=write_ids,
        write_scores=write_values * sign,
    )


def _scaled(blocks: Iterable[tuple[Tensor, Tensor]], by: str) -> Iterator[tuple[Tensor, Tensor]]:
    """The rows, of unit length where tokens are ranked by cosine; a row of zeros stays one."""
    for ids, rows in blocks:
        yield ids, rows if by == "projection" else torch.nn.functional.normalize(rows, dim=-1)
