"""Takes in what a run shows of attention, a few queries at a time, and keeps the little that a result needs."""

from collections.abc import Sequence

import torch
from einops import einsum
from jaxtyping import Float
from torch import Tensor

from interp.errors import VerificationError
from interp.maths.attention import PatternFitter, lower_triangle, n_pairs, value_norms
from interp.models.head_weights import read_head_weights
from interp.runner.model import Model
from interp.runner.plan import Capture
from interp.sites import Site


class PatternCollector:
    """The reducers of one run, and what they gathered.

    In each layer values come first, then the scores and the rows of the pattern, then z: what attention made of pattern and values.
    That z of the last query is their product is checked in every layer.
    """

    def __init__(
        self,
        model: Model,
        layers: Sequence[int],
        heads: Sequence[int],
        n_pos: int,
        *,
        k: int,
        exact: bool,
        scores: bool,
        values: bool,
    ) -> None:
        self._model, self._layers, self._n_pos, self._values = model, tuple(layers), n_pos, values
        self._heads = torch.tensor(heads)
        group = model.atlas.n_heads // model.atlas.n_kv_heads
        self.kv_heads = tuple(head // group for head in heads)
        self.fitter = PatternFitter(n_layers=len(layers), n_heads=len(heads), n_pos=n_pos, k=k, exact=exact)
        shape = (len(layers), len(heads), n_pairs(n_pos))
        self.scores: Float[Tensor, "layer head pair"] | None = torch.zeros(shape) if scores else None
        self._norms: dict[int, tuple[Tensor, Tensor]] = {}
        self._read: dict[int, Tensor] = {}
        self._product: dict[int, Tensor] = {}
        self._z: dict[int, Tensor] = {}

    def captures(self) -> list[Capture]:
        """What the run must capture."""
        found = []
        for layer in self._layers:
            found.append(Capture(f"attn.pattern@{layer}", self._take_rows, by_query=True))
            if self.scores is not None:
                found.append(Capture(f"attn.scores@{layer}", self._take_scores, by_query=True))
            if self._values:
                found += [Capture(f"attn.v@{layer}", self._take_values), Capture(f"attn.z@{layer}", self._take_z)]
        return found

    def norms(self) -> tuple[Float[Tensor, "layer head key_pos"], Float[Tensor, "layer head key_pos"]] | None:
        """||v_j|| and ||v_j W_O||, once the run is over; None where values were not asked for."""
        if not self._values:
            return None
        self._verify()
        plain, written = zip(*(self._norms[layer] for layer in self._layers), strict=True)
        return torch.stack([norm.cpu() for norm in plain]), torch.stack([norm.cpu() for norm in written])

    def _take_values(self, v: Tensor, site: Site) -> Tensor:
        layer = _layer(site)
        clip = self._model.atlas.blocks[layer].qkv_clip
        used = (v[0] if clip is None else v[0].clamp(-clip, clip)).detach()
        weights = read_head_weights(self._model.hf, self._model.atlas, layer, folded=False)
        heads, kv_heads = self._heads.to(v.device), torch.tensor(self.kv_heads, device=v.device)
        self._norms[layer] = value_norms(used, weights.W_O[heads], kv_heads)
        # A copy, because slices of a fused map would keep the whole of it; only until the layer's pattern has been seen.
        self._read[layer] = used[:, kv_heads].float().clone()
        return v[:, :0].clone()  # a slice would keep the whole

    def _take_scores(self, rows: Tensor, site: Site, first_query: int) -> Tensor:
        assert self.scores is not None, "scores were asked for"
        kept = lower_triangle(rows[0, self._heads.to(rows.device)], first_query)
        start = n_pairs(first_query)
        self.scores[self._layers.index(_layer(site)), :, start : start + kept.shape[1]] = kept
        return rows[..., :0].clone()

    def _take_rows(self, rows: Tensor, site: Site, first_query: int) -> Tensor:
        layer = _layer(site)
        kept = rows[0, self._heads.to(rows.device)]
        norms = self._norms.get(layer)
        self.fitter.update(self._layers.index(layer), kept, first_query, None if norms is None else norms[1])
        if self._values and first_query + rows.shape[2] == self._n_pos:
            v = self._read.pop(layer)
            self._product[layer] = einsum(kept[:, -1].float(), v, "head key_pos, key_pos head d_head -> head d_head")
        return rows[..., :0].clone()

    def _take_z(self, z: Tensor, site: Site) -> Tensor:
        self._z[_layer(site)] = z[0, -1, self._heads.to(z.device)].float()
        return z[:, :0].clone()

    def _verify(self) -> None:
        """Raises VerificationError where pattern times values is not z, up to the rounding of the model's dtype."""
        eps = torch.finfo(self._model.dtype).eps
        for layer, z in self._z.items():
            product = self._product[layer]
            allowed = max(1e-4, 8 * eps) * max(1.0, float(z.abs().max()))
            off = float((product - z).abs().max())
            if not off <= allowed:
                raise VerificationError(
                    f"in layer {layer} patterns times values differ from what attention made of them by {off:.2g}; allowed are "
                    f"{allowed:.2g}"
                )


def _layer(site: Site) -> int:
    assert site.layer is not None, "sites of attention have a layer"
    return site.layer
