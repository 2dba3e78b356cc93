"""Attention in summary: who reads whom in each layer, with the shapes, groups and masks that attention works in."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import torch
from jaxtyping import Float, Int
from torch import Tensor

from interp.analyzers.attention_patterns import check_patterns
from interp.errors import NumericsError, UsageError, unknown
from interp.maths.attention_summary import LayerSummary, LayerSummaryFitter
from interp.prompts import PromptLike
from interp.results import Result
from interp.runner.model import Model
from interp.runner.plan import Capture
from interp.sites import Site
from interp.tokens import Tokens

if TYPE_CHECKING:
    from pandas import DataFrame
    from plotly.graph_objects import Figure

MEASURES = ("received", "first", "own")
_SHAPED = ("attn.q", "attn.k", "attn.v", "attn.pattern", "attn.z")


@dataclass(frozen=True, kw_only=True, eq=False)
class AttentionSummaryResult(Result):
    """Who reads whom in each layer of a prompt, on average over its heads; see ``interp.maths.attention_summary.LayerSummary``.

    Weights on the first token and on the query itself are kept apart (``first``, ``own``): what is read from the tokens in between is
    what moves between words. ``edge_*`` say which head reads one of these most, and where. ``shapes`` are those of one layer in this run,
    by the names of sites: (pos, head, d_head), the pattern's (head, query_pos, key_pos). ``kv_heads`` says which
    key/value head each head reads. ``windows`` are the layers' sliding windows by the model, a query's own place included, None without
    one; ``reach`` is the greatest distance at which a weight was seen.
    """

    kind: ClassVar[str] = "attention_summary"
    schema_version: ClassVar[int] = 1

    tokens: Tokens
    shapes: dict[str, tuple[int, ...]]
    kv_heads: tuple[int, ...]
    windows: tuple[int | None, ...]
    first: Float[Tensor, "layer pos"]
    own: Float[Tensor, "layer pos"]
    received: Float[Tensor, "layer pos"]
    top_keys: Int[Tensor, "layer pos k"]
    top_weights: Float[Tensor, "layer pos k"]
    edge_heads: Int[Tensor, " layer"]
    edge_queries: Int[Tensor, " layer"]
    edge_keys: Int[Tensor, " layer"]
    edge_weights: Float[Tensor, " layer"]
    reach: Int[Tensor, " layer"]

    def to_frame(self) -> "DataFrame":
        """One line for each layer and query."""
        import pandas as pd

        lines = []
        for layer in range(len(self.windows)):
            for position, piece in enumerate(self.tokens.pieces):
                key = int(self.top_keys[layer, position, 0])
                lines.append(
                    {
                        "layer": layer,
                        "position": position,
                        "token": piece,
                        "first_weight": float(self.first[layer, position]),
                        "own_weight": float(self.own[layer, position]),
                        "most_read_position": None if key < 0 else key,
                        "most_read_token": None if key < 0 else self.tokens.pieces[key],
                        "most_read_weight": float(self.top_weights[layer, position, 0]),
                        "received_weight": float(self.received[layer, position]),
                    }
                )
        return pd.DataFrame(lines)

    def edges_frame(self) -> "DataFrame":
        """One line for each layer: the strongest edge of any head that is neither to the first token nor to itself."""
        import pandas as pd

        return pd.DataFrame(
            [
                {
                    "layer": layer,
                    "window_tokens": window,
                    "reach_tokens": int(self.reach[layer]),
                    "head": int(self.edge_heads[layer]),
                    "query_position": int(self.edge_queries[layer]),
                    "key_position": int(self.edge_keys[layer]),
                    "weight": float(self.edge_weights[layer]),
                }
                for layer, window in enumerate(self.windows)
            ]
        )

    def figure(self, measure: str = "received") -> "Figure":
        """A heatmap over layers and tokens of the weight ``received``, or of that put on the ``first`` token or on itself (``own``)."""
        from interp.figures.attention_summary import weights_heatmap

        if measure not in MEASURES:
            raise unknown("measure", measure, MEASURES)
        return weights_heatmap(getattr(self, measure).double().numpy(), self.tokens.labels, measure)


@torch.no_grad()
def attention_summary(model: Model, prompt: PromptLike, *, top_k: int = 3) -> AttentionSummaryResult:
    """Runs a prompt once and keeps of each layer's patterns who reads whom, without keeping a pattern.

    Args:
        model: the model.
        prompt: text, token ids or a conversation.
        top_k: how many of the keys that a query reads most to keep, the first token and itself left out.

    Raises:
        UsageError: a bad prompt or top_k; a model or layer that shows no patterns.
        NumericsError: NaN in a pattern, from NaN or infinity in the weights.

    """
    if top_k < 1:
        raise UsageError(f"top_k is {top_k}; valid: 1 and more")
    tokens, atlas = model.tokens(prompt), model.atlas
    check_patterns(model, range(atlas.n_layers))
    n_pos = len(tokens)
    fitters = [LayerSummaryFitter(n_pos, min(top_k, n_pos), block.window) for block in atlas.blocks]
    shapes: dict[str, tuple[int, ...]] = {}

    def take_rows(rows: Tensor, site: Site, first_query: int) -> Tensor:
        assert site.layer is not None, "patterns have a layer"
        if not torch.isfinite(rows).all():
            raise NumericsError(
                f"the patterns of layer {site.layer} hold NaN; check the weights, or use dtype='float32'"
            )
        fitters[site.layer].update(rows[0], first_query)
        shapes[site.kind] = (rows.shape[1], first_query + rows.shape[2], rows.shape[3])
        return rows[..., :0].clone()

    def take_shape(value: Tensor, site: Site) -> Tensor:
        shapes[site.kind] = tuple(value.shape[1:])
        return value[:, :0].clone()

    captures = [Capture("attn.pattern", take_rows, by_query=True)]
    for kind in _SHAPED:
        layers = model.sites.available.get(kind, ())
        if kind != "attn.pattern" and layers:
            captures.append(Capture(f"{kind}@{min(layer for layer in layers if layer is not None)}", take_shape))
    model.run(tokens, captures, logits=False)
    return _result(model, tokens, {kind: shapes[kind] for kind in _SHAPED if kind in shapes}, fitters)


def _result(
    model: Model, tokens: Tokens, shapes: dict[str, tuple[int, ...]], fitters: list[LayerSummaryFitter]
) -> AttentionSummaryResult:
    found: list[LayerSummary] = [fitter.result() for fitter in fitters]
    group = model.atlas.n_heads // model.atlas.n_kv_heads
    edges = torch.tensor([layer.edge for layer in found])
    return AttentionSummaryResult(
        provenance=model.provenance(),
        tokens=tokens,
        shapes=shapes,
        kv_heads=tuple(head // group for head in range(model.atlas.n_heads)),
        windows=tuple(block.window for block in model.atlas.blocks),
        **{
            name: torch.stack([getattr(layer, name) for layer in found])
            for name in ("first", "own", "received", "top_keys", "top_weights")
        },
        edge_heads=edges[:, 0],
        edge_queries=edges[:, 1],
        edge_keys=edges[:, 2],
        edge_weights=torch.tensor([layer.edge_weight for layer in found]),
        reach=torch.tensor([layer.reach for layer in found]),
    )
