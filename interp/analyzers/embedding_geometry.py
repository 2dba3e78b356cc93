"""Embedding geometry: which rows of the embedding matrix lie near those of a prompt, and how rows lie to each other at large."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import torch
from jaxtyping import Float, Int
from torch import Tensor

from interp.analyzers.embedding_analogies import ANALOGIES, Analogy, solve
from interp.errors import UsageError, unknown
from interp.maths.embedding_geometry import PairCosines, mean_row, nearest_rows, pair_cosines, sphere_density
from interp.models.vocabulary import embedding_matrix
from interp.prompts import PromptLike
from interp.results import Result
from interp.runner.model import Model
from interp.tokens import Tokens, visible, vocabulary

if TYPE_CHECKING:
    from pandas import DataFrame
    from plotly.graph_objects import Figure


@dataclass(frozen=True, kw_only=True, eq=False)
class EmbeddingGeometryResult(Result):
    """How the rows of an embedding matrix lie: nearest rows of the prompt's tokens, analogies, and random pairs.

    ``neighbour_ids`` are the tokens whose rows have the greatest ``neighbour_cosines`` to that of each token, itself left out.
    ``random_pairs`` are the cosines of ``n_pairs`` random pairs of rows, drawn with ``provenance.seed``; ``centred_pairs`` those of the
    same pairs with the mean row taken off every row. Directions drawn evenly from the sphere have the mean 0 and the root mean square
    1 / sqrt(d_model). ``n_zero_rows`` rows of the matrix are zero, have no direction, and are never drawn. ``tied`` says whether the
    same rows are the unembedding.
    """

    kind: ClassVar[str] = "embedding_geometry"
    schema_version: ClassVar[int] = 1

    tokens: Tokens
    n_rows: int
    d_model: int
    tied: bool
    neighbour_ids: Int[Tensor, "pos k"]
    neighbour_cosines: Float[Tensor, "pos k"]
    analogies: tuple[Analogy, ...]
    random_pairs: PairCosines
    centred_pairs: PairCosines
    n_pairs: int
    confidence: float
    n_zero_rows: int
    vocabulary: dict[str, str]

    def pair_shares(self) -> dict[str, Float[Tensor, " bin"]]:
        """The share of random pairs in each of even bins of their cosine from -1 to 1, and that of directions drawn evenly."""
        stored, centred = self.random_pairs.counts, self.centred_pairs.counts
        width = 2 / len(stored)
        middles = torch.arange(len(stored), dtype=torch.float64) * width - 1 + width / 2
        return {
            "rows as stored": stored / stored.sum(),
            "mean row taken off": centred / centred.sum(),
            "random directions": sphere_density(middles, self.d_model) * width,
        }

    def to_frame(self) -> "DataFrame":
        """One line for each token and neighbour."""
        import pandas as pd

        return pd.DataFrame(
            [
                {
                    "position": position,
                    "token": self.tokens.pieces[position],
                    "neighbour": rank,
                    "neighbour_token": self.vocabulary[str(number)],
                    "neighbour_id": number,
                    "cosine": cosine,
                }
                for position, (ids, cosines) in enumerate(
                    zip(self.neighbour_ids.tolist(), self.neighbour_cosines.tolist(), strict=True)
                )
                for rank, (number, cosine) in enumerate(zip(ids, cosines, strict=True))
            ]
        )

    def analogies_frame(self) -> "DataFrame":
        """One line for each analogy; ranks are missing where a word is not one token."""
        import pandas as pd

        return pd.DataFrame(
            [
                {
                    "analogy": analogy.question,
                    "expected": analogy.words[3],
                    "not_one_token": " ".join(analogy.not_one_token),
                    "rank": analogy.rank,
                    "rank_with_inputs": analogy.rank_with_inputs,
                    "rank_beside_first": analogy.rank_beside_first,
                    "cosine": analogy.cosine,
                }
                for analogy in self.analogies
            ]
        )

    def figure(self, what: str = "neighbours") -> "Figure":
        """The ``neighbours`` of each token, or the cosines of random ``pairs`` beside what even directions would have."""
        from interp.figures.embedding_geometry import neighbours_heatmap, pairs_histogram

        if what == "pairs":
            return pairs_histogram({name: shares.numpy() for name, shares in self.pair_shares().items()})
        if what != "neighbours":
            raise unknown("figure", what, ("neighbours", "pairs"))
        return neighbours_heatmap(
            self.neighbour_cosines.T.double().numpy(),
            [[visible(self.vocabulary[str(number)]) for number in row] for row in self.neighbour_ids.T.tolist()],
            self.tokens.labels,
        )


@torch.no_grad()
def embedding_geometry(
    model: Model,
    prompt: PromptLike,
    *,
    k: int = 5,
    analogies: Sequence[tuple[str, str, str, str]] = ANALOGIES,
    pairs: int = 10_000,
    seed: int = 0,
    confidence: float = 0.95,
) -> EmbeddingGeometryResult:
    """Looks at the rows of the embedding matrix W_E as they are stored, before scale, norm and positions that a model adds.

    Args:
        model: the model.
        prompt: text, token ids or a conversation.
        k: how many nearest rows of each token to keep.
        analogies: words (a, b, c, expected), read "b is to a as c is to expected": the rank of expected's row beside a - b + c (rows of
            length 1, the three left out: 3CosAdd, Mikolov et al. 2013). Words that are not one token each are named, not measured.
        pairs: how many random pairs of rows to take, at least 2.
        seed: of the pairs.
        confidence: of the intervals over pairs (Student t; for the root mean square, of the squares).

    Raises:
        UsageError: a bad prompt, k, number of pairs or confidence.
        ModelError: the model has no table of embeddings.

    """
    tokens = model.tokens(prompt)
    matrix = embedding_matrix(model.hf, model.atlas)
    n_rows, d_model = matrix.shape
    if not 1 <= k < n_rows:
        raise UsageError(f"k is {k}; valid: 1 to {n_rows - 1}, all rows of the embedding but one")
    if pairs < 2:
        raise UsageError(f"pairs is {pairs}; give 2 or more")
    distinct, places = torch.tensor(tokens.ids, device=matrix.device).unique(return_inverse=True)
    cosines, ids = nearest_rows(matrix, matrix[distinct], k, leave_out=distinct[:, None])
    there = matrix.abs().amax(1).nonzero()[:, 0].cpu()
    drawn, centred = (
        pair_cosines(matrix, there, pairs, torch.Generator().manual_seed(seed), origin=origin, confidence=confidence)
        for origin in (None, mean_row(matrix))
    )
    solved = solve(model.tokenizer, matrix, analogies, k)
    named = [*ids.flatten().tolist(), *(number for analogy in solved for number in analogy.nearest_ids)]
    return EmbeddingGeometryResult(
        provenance=model.provenance(seed=seed),
        tokens=tokens,
        n_rows=n_rows,
        d_model=d_model,
        tied=model.atlas.tied_embeddings,
        neighbour_ids=ids[places].cpu(),
        neighbour_cosines=cosines[places].cpu(),
        analogies=solved,
        random_pairs=drawn,
        centred_pairs=centred,
        n_pairs=pairs,
        confidence=confidence,
        n_zero_rows=n_rows - len(there),
        vocabulary=vocabulary(model.tokenizer, named),
    )
