"""Who reads whom in one layer: the mean pattern of its heads, a few queries at a time, reduced to what can be said of it."""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from interp.maths.attention import top


@dataclass(frozen=True, kw_only=True, eq=False)
class LayerSummary:
    """What the heads of one layer read. Weights are means over the heads, but ``edge_weight`` is that of one head.

    ``first`` and ``own`` are the weights on key 0 and on the query itself. ``top_keys`` are the keys between these two that have most,
    most first; -1 where fewer have any. ``received`` is the weight on each key, averaged over the later queries that see it; NaN where
    none does. The edge is the greatest weight of any one head on such a key in between: head, query, key; -1 where there is none.
    ``reach`` is the greatest distance at which any head has any weight.
    """

    first: Float[Tensor, " query_pos"]
    own: Float[Tensor, " query_pos"]
    top_keys: Int[Tensor, "query_pos k"]
    top_weights: Float[Tensor, "query_pos k"]
    received: Float[Tensor, " key_pos"]
    edge: tuple[int, int, int]
    edge_weight: float
    reach: int


class LayerSummaryFitter:
    """Takes the rows of one layer's patterns in the order of their queries."""

    def __init__(self, n_pos: int, k: int, window: int | None) -> None:
        self._n_pos, self._k = n_pos, k
        self._window = n_pos if window is None else window
        self._first: list[Tensor] = []
        self._own: list[Tensor] = []
        self._keys: list[Tensor] = []
        self._weights: list[Tensor] = []
        self._received = torch.zeros(n_pos, dtype=torch.float64)
        self._edge, self._edge_weight, self._reach = (-1, -1, -1), 0.0, 0

    @torch.no_grad()
    def update(self, rows: Float[Tensor, "head query_pos key_pos"], first_query: int) -> None:
        """Adds the next rows; the first of them is query ``first_query``."""
        p = rows.detach().float().cpu()
        queries = torch.arange(first_query, first_query + p.shape[1])
        keys = torch.arange(p.shape[2])
        distances = queries[:, None] - keys
        mean = p.mean(0)
        self._first.append(mean[:, 0])
        self._own.append(mean[torch.arange(len(queries)), queries])
        between = (distances > 0) & (keys > 0)
        found, weights = top((mean * between)[None], self._k)
        self._keys.append(found[0])
        self._weights.append(weights[0])
        self._received += (mean.double() * (distances > 0)).sum(0)
        self._reach = max(self._reach, int(distances[(p > 0).any(0)].max()))
        self._strongest(p * between, first_query)

    def _strongest(self, p: Float[Tensor, "head query_pos key_pos"], first_query: int) -> None:
        place = int(p.argmax())
        weight = float(p.flatten()[place])
        if weight > self._edge_weight:
            head, rest = divmod(place, p.shape[1] * p.shape[2])
            query, key = divmod(rest, p.shape[2])
            self._edge, self._edge_weight = (head, first_query + query, key), weight

    def result(self) -> LayerSummary:
        """What the rows so far show."""
        later = torch.arange(self._n_pos - 1, -1, -1).clamp(max=self._window - 1)
        return LayerSummary(
            first=torch.cat(self._first),
            own=torch.cat(self._own),
            top_keys=torch.cat(self._keys),
            top_weights=torch.cat(self._weights),
            received=(self._received / later).masked_fill(later == 0, float("nan")).float(),
            edge=self._edge,
            edge_weight=self._edge_weight,
            reach=self._reach,
        )
