"""What attention patterns show: entropy, distance, masses and top keys of each row, value-weighted norms, and patterns packed small.

A pattern is causal: query i sees keys 0 to i. Its lower triangle, row after row, is the axis ``pair``: n (n + 1) / 2 numbers for n
positions. Packed, each is a byte.
"""

from dataclasses import dataclass

import torch
from einops import einsum
from jaxtyping import Float, Int, Shaped, UInt8
from torch import Tensor

PACKED_ERROR = 1 / 510
"""The most by which an unpacked probability differs from the exact one: half of a 255th."""


@dataclass(frozen=True, kw_only=True, eq=False)
class RowStatistics:
    """What the rows p of patterns show, in fp32. i is the query, j the keys; S is the sum of the row.

    S is 1 unless a learned sink takes a share of its own (gpt_oss); entropy and distance are those of p / S, the other masses are
    parts of p itself.
    """

    mass: Float[Tensor, "head query_pos"]
    """S."""
    entropy: Float[Tensor, "head query_pos"]
    """-sum_j p_j ln p_j, in nats: 0 where one key has everything, ln(i + 1) where all have the same."""
    distance: Float[Tensor, "head query_pos"]
    """sum_j p_j (i - j), in tokens."""
    first: Float[Tensor, "head query_pos"]
    """p on key 0."""
    previous: Float[Tensor, "head query_pos"]
    """p on key i - 1; NaN for the first query, which has none."""
    own: Float[Tensor, "head query_pos"]
    """p on key i."""
    top_keys: Int[Tensor, "head query_pos k"]
    """The keys with the most weight, most first; -1 where fewer keys have any."""
    top_weights: Float[Tensor, "head query_pos k"]


@torch.no_grad()
def row_statistics(rows: Float[Tensor, "head query_pos key_pos"], first_query: int, k: int) -> RowStatistics:
    """The statistics of some consecutive rows of patterns; the first of them is query ``first_query``."""
    p = rows.float()
    queries, keys = _places(p, first_query)
    mass = p.sum(-1)
    distances = (queries[:, None] - keys).to(p)
    spread = torch.special.entr(p).sum(-1)
    top_keys, top_weights = top(p, k)
    return RowStatistics(
        mass=mass,
        # With p / S in place of p: ln S - (sum p ln p) / S. Rounding can take it a hair below 0.
        entropy=(mass.log() + spread / mass).clamp_min(0),
        distance=einsum(p, distances, "head query_pos key_pos, query_pos key_pos -> head query_pos") / mass,
        first=p[..., 0].clone(),
        previous=_diagonal(p, first_query, 1),
        own=_diagonal(p, first_query, 0),
        top_keys=top_keys,
        top_weights=top_weights,
    )


def top(
    rows: Float[Tensor, "head query_pos key_pos"], k: int
) -> tuple[Int[Tensor, "head query_pos k"], Float[Tensor, "head query_pos k"]]:
    """The keys with the greatest weights and these weights, greatest first; -1 and 0 where fewer keys have any weight."""
    weights, keys = rows.topk(min(k, rows.shape[-1]), -1)
    return torch.where(weights > 0, keys, -1).int(), weights


def value_norms(
    v: Float[Tensor, "key_pos kv_head d_head"],
    W_O: Float[Tensor, "head d_head d_model"],
    kv_heads: Int[Tensor, " head"],
) -> tuple[Float[Tensor, "head key_pos"], Float[Tensor, "head key_pos"]]:
    """For each head and each key ||v_j|| and ||v_j W_O^h||, in fp32 (Kobayashi et al. 2020, section 3: ||f(x_j)||).

    ``kv_heads`` says which value head each reads. Times p_ij they are the norms of what head h reads, and writes, at i
    from j.
    """
    values = v.float()
    plain, written = [], []
    # Head by head: all heads at once would hold [head key_pos d_model].
    for slice_of_W_O, kv_head in zip(W_O, kv_heads.tolist(), strict=True):
        plain.append(values[:, kv_head].norm(dim=-1))
        out = einsum(values[:, kv_head], slice_of_W_O.float(), "key_pos d_head, d_head d_model -> key_pos d_model")
        written.append(out.norm(dim=-1))
    return torch.stack(plain), torch.stack(written)


def n_pairs(n_pos: int) -> int:
    """Pairs of a query and a key that it may see."""
    return n_pos * (n_pos + 1) // 2


def lower_triangle(rows: Shaped[Tensor, "head query_pos key_pos"], first_query: int) -> Shaped[Tensor, "head pair"]:
    """The part of some consecutive rows that a causal pattern can fill, row after row."""
    # Slices side by side are six times as quick as a mask.
    return torch.cat([rows[:, row, : first_query + row + 1] for row in range(rows.shape[1])], 1)


def square(triangle: Shaped[Tensor, " pair"], fill: float) -> Shaped[Tensor, "query_pos key_pos"]:
    """The inverse of ``lower_triangle`` for one whole pattern, with ``fill`` at keys after the query."""
    n_pos = int(((8 * triangle.shape[0] + 1) ** 0.5 - 1) / 2 + 0.5)
    out = torch.full((n_pos, n_pos), fill, dtype=triangle.dtype, device=triangle.device)
    out[torch.ones_like(out, dtype=torch.bool).tril()] = triangle
    return out


def pack(p: Float[Tensor, "*batch"]) -> UInt8[Tensor, "*batch"]:
    """Probabilities as the nearest of 256 even steps; at most ``PACKED_ERROR`` off."""
    return (p.float() * 255).round_().to(torch.uint8)


def unpack(codes: UInt8[Tensor, "*batch"]) -> Float[Tensor, "*batch"]:
    """The probabilities that codes stand for."""
    return codes.float() / 255


class PatternFitter:
    """Takes patterns a few rows at a time and keeps their statistics, and their lower triangles exactly or packed.

    Memory is that of what is kept: nothing grows with a pattern but the triangles.
    """

    def __init__(self, *, n_layers: int, n_heads: int, n_pos: int, k: int, exact: bool) -> None:
        self.k = k
        self._n_pos = n_pos
        dtype = torch.float32 if exact else torch.uint8
        self.triangles = torch.zeros(n_layers, n_heads, n_pairs(n_pos), dtype=dtype)
        self._statistics: dict[int, list[RowStatistics]] = {}
        self._written: dict[int, list[tuple[Tensor, Tensor]]] = {}

    def update(
        self,
        layer: int,
        rows: Float[Tensor, "head query_pos key_pos"],
        first_query: int,
        written: Float[Tensor, "head key_pos"] | None = None,
    ) -> None:
        """Adds the next rows of a layer, given in the order of the queries. ``written`` are the ||v_j W_O|| of the keys."""
        statistics = row_statistics(rows, first_query, self.k)
        self._statistics.setdefault(layer, []).append(_on_cpu(statistics))
        if written is not None:
            keys, weights = top(rows.float() * written[:, None, :], self.k)
            self._written.setdefault(layer, []).append((keys.cpu(), weights.cpu()))
        kept = lower_triangle(rows, first_query)
        start = n_pairs(first_query)
        self.triangles[layer, :, start : start + kept.shape[1]] = (
            kept if self.triangles.is_floating_point() else pack(kept)
        )

    def statistics(self, name: str) -> Float[Tensor, "layer head query_pos *k"] | Int[Tensor, "layer head query_pos k"]:
        """One field of ``RowStatistics`` over all layers and queries."""
        layers = sorted(self._statistics)
        return torch.stack([torch.cat([getattr(part, name) for part in self._statistics[n]], 1) for n in layers])

    def top_written(
        self,
    ) -> tuple[Int[Tensor, "layer head query_pos k"], Float[Tensor, "layer head query_pos k"]] | None:
        """The keys from which each head writes most, by p_ij ||v_j W_O||, and these norms; None where no norms were given."""
        if not self._written:
            return None
        layers = [zip(*self._written[layer], strict=True) for layer in sorted(self._written)]
        parts = [[torch.cat(column, 1) for column in columns] for columns in layers]
        return torch.stack([keys for keys, _ in parts]), torch.stack([weights for _, weights in parts])


def _on_cpu(statistics: RowStatistics) -> RowStatistics:
    return RowStatistics(**{name: value.cpu() for name, value in vars(statistics).items()})


def _places(rows: Tensor, first_query: int) -> tuple[Int[Tensor, " query_pos"], Int[Tensor, " key_pos"]]:
    queries = torch.arange(first_query, first_query + rows.shape[1], device=rows.device)
    return queries, torch.arange(rows.shape[2], device=rows.device)


def _diagonal(
    p: Float[Tensor, "head query_pos key_pos"], first_query: int, back: int
) -> Float[Tensor, "head query_pos"]:
    """What each query puts on the key ``back`` places before it; NaN where there is none."""
    queries, _ = _places(p, first_query)
    keys = (queries - back).clamp_min(0)
    found = p.gather(2, keys.expand(p.shape[0], -1)[..., None])[..., 0]
    return found.masked_fill(queries < back, float("nan"))
