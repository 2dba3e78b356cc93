"""What one head reads, matches and writes, from its weights (Elhage et al. 2021)."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import torch

from interp.analyzers.circuit_tokens import BY, CircuitTable, circuit_table
from interp.analyzers.circuit_weights import (
    VocabularyMoments,
    checked_rotations,
    embedding_blocks,
    layer_weights,
    left_out,
    one_of,
    ov_circuits,
    qk_circuits,
    unembedding_blocks,
    vocabulary_moments,
)
from interp.analyzers.composition_partners import Partners, partners_of
from interp.analyzers.head_composition import DRAWS
from interp.analyzers.ov_copying import COPY_TOKENS, Copying, copying_of
from interp.errors import UsageError, unknown
from interp.heads import Head, heads_of
from interp.maths.head_circuits import Circuit, Directions, DistanceProfile, decompose, distance_profile
from interp.maths.head_composition import shape_null
from interp.models.vocabulary import n_tokens
from interp.results import Result
from interp.runner.model import Model
from interp.tokens import vocabulary

if TYPE_CHECKING:
    from pandas import DataFrame
    from plotly.graph_objects import Figure

DISTANCES = (*range(17), 24, 32, 48, 64)
FIGURES = ("composition", "singular_values", "eigenvalues", "distance")


@dataclass(frozen=True, kw_only=True, eq=False)
class HeadCircuitsResult(Result):
    """The circuits of one head. ``shared_with`` are the heads that have the same keys and values (grouped-query attention).

    ``profile`` gives W_QK at ``distances`` in a rotary layer; None elsewhere and where it could not be had, which
    ``no_profile`` explains. ``partners`` are its compositions with all other heads; ``shape_mean`` and ``shape_sd`` are those
    of Gaussian matrices. ``left_out`` says what weights alone do not show. ``vocabulary`` gives the text of every id that occurs.
    """

    kind: ClassVar[str] = "head_circuits"
    schema_version: ClassVar[int] = 1

    head: Head
    kv_head: int
    shared_with: tuple[Head, ...]
    qk: CircuitTable
    ov: CircuitTable
    by: str
    copying: Copying
    distances: tuple[int, ...]
    profile: DistanceProfile | None
    no_profile: str | None
    partners: tuple[Partners, ...]
    shape_mean: float
    shape_sd: float
    draws: int
    seed: int
    left_out: tuple[str, ...]
    vocabulary: dict[str, str]

    def partner(self, through: str, *, reads: bool = True) -> Partners:
        """The compositions of one kind, as the reader of earlier heads or as what later heads read."""
        return next(partner for partner in self.partners if (partner.through, partner.reads) == (through, reads))

    def to_frame(self) -> "DataFrame":
        """One line for each circuit, direction, pole and place: the token read and the token on the other side."""
        import pandas as pd

        lines = [
            {
                "head": str(self.head),
                "circuit": name,
                "direction": direction,
                "singular_value": float(table.singular_values[direction]),
                "pole": "+-"[pole],
                "rank": rank,
                "read_token": self.vocabulary[str(int(table.read_ids[direction, pole, rank]))],
                "read_score": float(table.read_scores[direction, pole, rank]),
                "write_token": self.vocabulary[str(int(table.write_ids[direction, pole, rank]))],
                "write_score": float(table.write_scores[direction, pole, rank]),
            }
            for name, table in (("QK", self.qk), ("OV", self.ov))
            for direction in range(table.read_ids.shape[0])
            for pole in range(2)
            for rank in range(table.read_ids.shape[2])
        ]
        return pd.DataFrame(lines)

    def partners_frame(self) -> "DataFrame":
        """One line for each head that this one can compose with and each kind of composition."""
        import pandas as pd

        lines = [
            {
                "head": str(self.head),
                "partner": str(Head(layer, head)),
                "side": "reads" if partner.reads else "is read by",
                "through": partner.through,
                "composition": float(partner.composition[layer, head]),
                "null_mean": float(partner.null_mean[layer, head]),
                "null_sd": float(partner.null_sd[layer, head]),
                "z": float(partner.z[layer, head]),
            }
            for partner in self.partners
            for layer, head in (~partner.composition.isnan()).nonzero().tolist()
        ]
        columns = ["head", "partner", "side", "through", "composition", "null_mean", "null_sd", "z"]
        return pd.DataFrame(lines, columns=columns)

    def figure(self, what: str = "composition") -> "Figure":
        """``what`` is composition (with every head), singular_values, eigenvalues (of W_OV from token to token) or distance."""
        from interp.figures import head_circuits as draw

        if what not in FIGURES:
            raise unknown("figure of circuits", what, FIGURES)
        if what == "composition":
            maps = {partner.through: partner.composition.double().numpy() for partner in self.partners if partner.reads}
            return draw.partner_map(maps["k"], self.partner("k").z.double().numpy(), str(self.head), "k")
        if what == "singular_values":
            return draw.singular_value_lines(
                {"W_QK": self.qk.singular_values.double().numpy(), "W_OV": self.ov.singular_values.double().numpy()}
            )
        if what == "eigenvalues":
            return draw.eigenvalue_plane(
                self.ov.eigenvalues_real.double().numpy(), self.ov.eigenvalues_imag.double().numpy()
            )
        if self.profile is None:
            raise UsageError(f"{self.head} has no W_QK by distance: {self.no_profile}")
        return draw.distance_lines(self.profile.directions.double().numpy(), self.distances)


def head_circuits(
    model: Model,
    head: str | Head | tuple[int, int],
    *,
    directions: int = 4,
    top_k: int = 8,
    by: str = "cosine",
    copy_tokens: int | None = COPY_TOKENS,
    distances: Iterable[int] | None = None,
    draws: int = DRAWS,
    seed: int = 0,
) -> HeadCircuitsResult:
    """The circuits of a head: how W_QK and W_OV stretch the stream, which tokens they connect, and which heads they compose with.

    Args:
        model: the model.
        head: such as "L5H3", "5.3", ``Head(5, 3)`` or (5, 3).
        directions: leading singular directions for which tokens are listed.
        top_k: tokens listed at each end.
        by: what they are ranked by: "cosine" with the direction, or "projection" on it, which favours long embeddings.
        copy_tokens: how many tokens of the vocabulary to draw for the copying scores; None, or as many as there are: all.
        distances: for rotary models, how many positions a key lies before its query; None: a spread up to 64.
        draws: random rotations behind the null of each composition.
        seed: of all draws.

    Weights of norms are folded in, and the write side goes through the final norm's own weight. What no weight shows (divisors, biases,
    earlier layers, rotation) is listed in ``left_out``. No matrix of d_model x d_model of the head or of the vocabulary's size is made.

    Raises:
        UsageError: a head out of range, or a count or distance that is not possible.
        ModelError: a family whose heads have no weights of their own.

    """
    atlas = model.atlas
    chosen = heads_of([head], atlas.n_layers, atlas.n_heads)[0]
    if by not in BY:
        raise unknown("way to rank tokens", by, BY)
    _check("directions", directions, min(atlas.d_head, atlas.d_model))
    _check("top_k", top_k, n_tokens(model.hf, atlas))
    asked = _distances(distances, atlas.n_ctx)
    weights, moments = layer_weights(model, chosen.layer), vocabulary_moments(model)
    qk = one_of(qk_circuits(weights), chosen.head)
    ov = one_of(ov_circuits(weights), chosen.head)
    generator = torch.Generator().manual_seed(seed)
    qk_table = circuit_table(
        model, qk, moments.matching, moments.matching_centred, embedding_blocks, directions, top_k, by
    )
    ov_table = circuit_table(
        model, ov, moments.copying, moments.copying_centred, unembedding_blocks, directions, top_k, by
    )
    profile, no_profile = _profile(model, chosen.layer, qk, directions, moments, asked)
    shape = shape_null(atlas.d_model, atlas.d_head, generator, draws)
    ids = [table_ids for table in (qk_table, ov_table) for table_ids in (table.read_ids, table.write_ids)]
    return HeadCircuitsResult(
        provenance=model.provenance(seed=seed),
        head=chosen,
        kv_head=chosen.head // (atlas.n_heads // atlas.n_kv_heads),
        shared_with=_sharers(chosen, atlas.n_heads // atlas.n_kv_heads),
        qk=qk_table,
        ov=ov_table,
        by=by,
        copying=copying_of(model, ov, copy_tokens, generator),
        distances=asked if profile is not None else (),
        profile=profile,
        no_profile=no_profile,
        partners=partners_of(model, chosen, generator, draws),
        shape_mean=float(shape.mean),
        shape_sd=float(shape.sd),
        draws=draws,
        seed=seed,
        left_out=left_out(model, [chosen.layer]),
        vocabulary=vocabulary(model.tokenizer, torch.cat([x.flatten() for x in ids]).tolist()),
    )


def _check(name: str, value: int, most: int) -> None:
    if not 1 <= value <= most:
        raise UsageError(f"{name} is {value}; valid: 1 to {most}")


def _distances(asked: Iterable[int] | None, n_ctx: int | None) -> tuple[int, ...]:
    """The distances asked for, or a spread of those that fit the context."""
    if asked is None:
        return tuple(n for n in DISTANCES if n_ctx is None or n < n_ctx)
    distances = tuple(int(distance) for distance in asked)
    bad = next((n for n in distances if n < 0 or (n_ctx is not None and n >= n_ctx)), None)
    if bad is not None or not distances:
        most = "any number" if n_ctx is None else n_ctx - 1
        raise UsageError(f"distance {bad} is out of range; valid: one or more of 0 to {most}")
    return distances


def _sharers(head: Head, group: int) -> tuple[Head, ...]:
    first = head.head // group * group
    return tuple(Head(head.layer, other) for other in range(first, first + group) if other != head.head)


def _profile(
    model: Model, layer: int, qk: Circuit, directions: int, moments: VocabularyMoments, distances: tuple[int, ...]
) -> tuple[DistanceProfile | None, str | None]:
    """W_QK by distance, or the reason why there is none."""
    try:
        rotation = checked_rotations(model, layer, distances)
    except UsageError as error:
        return None, str(error)
    if rotation is None:
        return None, "this layer does not rotate its queries and keys"
    found = decompose(qk)
    leading = Directions(
        values=found.values[:directions], read=found.read[:, :directions], write=found.write[:, :directions]
    )
    device = qk.read.device
    profile = distance_profile(
        qk, leading, rotation.to(device), moments.matching.to(device), moments.mean_embedding.to(device)
    )
    values = {name: getattr(profile, name).float().cpu() for name in ("norm", "directions", "same_token", "any_token")}
    return DistanceProfile(**values), None
