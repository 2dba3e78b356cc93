"""Attention patterns of one prompt: where each head of each layer looks, and how much it moves from there (Kobayashi et al. 2020)."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np
import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor

from interp.analyzers.pattern_collector import PatternCollector
from interp.errors import MemoryLimitError, NumericsError, UsageError, out_of_range, unknown
from interp.heads import Head
from interp.maths.attention import n_pairs, square, unpack
from interp.models.device import free_memory
from interp.prompts import PromptLike
from interp.results import Result
from interp.runner.model import Model
from interp.tokens import Tokens

if TYPE_CHECKING:
    from pandas import DataFrame
    from plotly.graph_objects import Figure

WEIGHTINGS = ("probability", "value", "output")
_EXACT_BYTES = 1 << 24
"""Patterns are kept exactly, unless asked otherwise, while they take no more than this: 16 MB, 270 heads at 170 tokens."""


@dataclass(frozen=True, kw_only=True, eq=False)
class AttentionPatternsResult(Result):
    """Where the heads of a model look in one prompt.

    The axes layer and head are the ``layers`` and ``heads`` that were asked for. Statistics are those of the exact patterns, taken as
    these were computed (see ``interp.maths.attention.RowStatistics``). ``windows`` are the sliding windows of the layers in tokens, a
    query's own included; None is a layer that sees everything before it. ``kv_heads`` says for each of ``heads`` which of the
    ``n_kv_heads`` key/value heads it reads: heads with the same number share one.

    ``patterns`` are the lower triangles, query by query: probabilities in fp32, or packed into bytes that are at most 1/510 off; use
    ``pattern``. ``scores`` are scaled and masked dot products before the softmax (-inf where a window hides the key), None unless asked
    for. ``value_norms`` are ||v_j|| and ``output_norms`` ||v_j W_O|| of each key, before a norm or a scale that the model puts on
    what attention writes; None unless asked for. ``top_keys`` have most weight, ``top_written_keys`` most of p_ij ||v_j W_O||; -1
    stands where fewer keys have any.
    """

    kind: ClassVar[str] = "attention_patterns"
    schema_version: ClassVar[int] = 1

    tokens: Tokens
    layers: tuple[int, ...]
    heads: tuple[int, ...]
    windows: tuple[int | None, ...]
    kv_heads: tuple[int, ...]
    n_kv_heads: int
    patterns: Float[Tensor, "layer head pair"] | UInt8[Tensor, "layer head pair"]
    scores: Float[Tensor, "layer head pair"] | None
    value_norms: Float[Tensor, "layer head key_pos"] | None
    output_norms: Float[Tensor, "layer head key_pos"] | None
    mass: Float[Tensor, "layer head query_pos"]
    entropy_nats: Float[Tensor, "layer head query_pos"]
    distance_tokens: Float[Tensor, "layer head query_pos"]
    first: Float[Tensor, "layer head query_pos"]
    previous: Float[Tensor, "layer head query_pos"]
    own: Float[Tensor, "layer head query_pos"]
    top_keys: Int[Tensor, "layer head query_pos k"]
    top_weights: Float[Tensor, "layer head query_pos k"]
    top_written_keys: Int[Tensor, "layer head query_pos k"] | None
    top_written_norms: Float[Tensor, "layer head query_pos k"] | None

    @property
    def exact(self) -> bool:
        """Whether ``patterns`` are the numbers themselves rather than packed ones."""
        return self.patterns.is_floating_point()

    @property
    def layer_kinds(self) -> tuple[str, ...]:
        """``global`` or ``sliding`` for each layer."""
        return tuple("global" if window is None else "sliding" for window in self.windows)

    def pattern(self, layer: int, head: int, weighting: str = "probability") -> Float[Tensor, "query_pos key_pos"]:
        """The pattern of one head, 0 at keys after the query.

        ``weighting`` is ``probability`` (p_ij, rows sum to ``mass``), ``value`` (p_ij ||v_j||) or ``output`` (p_ij ||v_j W_O||: how much
        the head writes at i from j; Kobayashi et al. 2020). Packed patterns are at most 1/510 off, times that norm.
        Raises UsageError for a head that the result does not hold, and for a weighting that is unknown or was not measured.
        """
        row, column = self._place(layer, head)
        triangle = self.patterns[row, column]
        whole = square(triangle if self.exact else unpack(triangle), 0.0)
        if weighting not in WEIGHTINGS:
            raise unknown("weighting", weighting, WEIGHTINGS)
        if weighting == "probability":
            return whole
        norms = self.value_norms if weighting == "value" else self.output_norms
        if norms is None:
            raise UsageError("this result has no norms of values; make it with attention_patterns(..., values=True)")
        return whole * norms[row, column]

    def head_scores(self, layer: int, head: int) -> Float[Tensor, "query_pos key_pos"]:
        """The scores of one head, -inf at keys that the query does not see. Raises UsageError where there are none."""
        row, column = self._place(layer, head)
        if self.scores is None:
            raise UsageError("this result has no scores; make it with attention_patterns(..., scores=True)")
        return square(self.scores[row, column], float("-inf"))

    def means(self) -> dict[str, Float[Tensor, "layer head"]]:
        """Each statistic averaged over the queries from the second on; the first sees only itself. NaN for a prompt of one token."""
        names = ("entropy_nats", "distance_tokens", "first", "previous", "own")
        return {name: getattr(self, name)[..., 1:].mean(-1) for name in names}

    def to_frame(self) -> "DataFrame":
        """One line for each head and query: its statistics and the key it looks at most."""
        from interp.analyzers.pattern_tables import query_frame

        return query_frame(self)

    def heads_frame(self) -> "DataFrame":
        """One line for each head: the statistics averaged over the queries from the second on, and where the last query looks."""
        from interp.analyzers.pattern_tables import heads_frame

        return heads_frame(self)

    def pairs_frame(self, layer: int, head: int) -> "DataFrame":
        """One line for each query and key of one head: weight, and value-weighted norms and score where the result has them."""
        from interp.analyzers.pattern_tables import pairs_frame

        return pairs_frame(self, layer, head)

    def figure(self, layer: int | None = None, head: int | None = None, weighting: str = "probability") -> "Figure":
        """One head's pattern as a heatmap, or all heads as one mosaic where neither ``layer`` nor ``head`` is given."""
        from interp.figures.attention import attention_heatmap, attention_mosaic, attention_tile

        if (layer is None) != (head is None):
            raise UsageError("a figure needs both layer and head, or neither for all heads")
        if layer is None or head is None:
            tiles = [[attention_tile(self.pattern(n, h, weighting).numpy()) for h in self.heads] for n in self.layers]
            return attention_mosaic(
                np.array(tiles), weighting, layers=self.layers, heads=self.heads, kv_heads=self.kv_heads
            )
        pattern = self.pattern(layer, head, weighting).numpy()
        row, column = self._place(layer, head)
        title = str(Head(self.layers[row], self.heads[column]))
        return attention_heatmap(pattern, weighting, tokens=self.tokens.labels, title=title)

    def _place(self, layer: int, head: int) -> tuple[int, int]:
        for what, got, held in (("layer", layer, self.layers), ("head", head, self.heads)):
            if got not in held:
                raise UsageError(f"{what} {got} is not in this result; it holds: {', '.join(map(str, held))}")
        return self.layers.index(layer), self.heads.index(head)


def attention_patterns(
    model: Model,
    prompt: PromptLike,
    *,
    layers: int | Sequence[int] | None = None,
    heads: int | Sequence[int] | None = None,
    scores: bool = False,
    values: bool = True,
    top_k: int = 5,
    exact: bool | None = None,
) -> AttentionPatternsResult:
    """The attention patterns of a prompt, with the statistics of every query and the norms of what is moved.

    No more than a few rows of a pattern exist at a time: statistics are taken from them exactly, then they are packed. 1,000 tokens on
    270 heads need 135 MB for the patterns.

    Args:
        model: the model.
        prompt: text, token ids or a conversation.
        layers: the layers to keep, all if None; negative ones count from the end.
        heads: the heads to keep of each of these layers, all if None.
        scores: whether to keep the scores before the softmax as well, in fp32.
        values: whether to measure ||v_j|| and ||v_j W_O|| (Kobayashi et al. 2020, the norms of alpha f(x)): with them a key that has
            much weight but a short value, such as a sink, is told from one that is read. v_j holds its bias, W_O is the head's slice
            of the output matrix. A norm behind attention (Gemma 2) and a scale of its update (Granite) are left out.
        top_k: how many keys to name for each query.
        exact: keep the patterns in fp32 (True) or packed (False: at most 1/510 off); None keeps them exactly up to 16 MB.

    Raises:
        UsageError: a bad prompt, layer, head or top_k, naming the valid values; a model or layer that shows no patterns or scores.
        ModelError: a layer whose output matrix cannot be read.
        MemoryLimitError: what is kept would not fit.
        NumericsError: NaN in a pattern, from NaN or infinity in the weights.
        VerificationError: patterns times values are not what attention made of them.

    """
    tokens = model.tokens(prompt)
    if len(tokens) == 1:
        model.notify("the prompt has one token, which can only look at itself; give two or more")
    chosen = _layers(model, layers)
    kept_heads = _indices("head", heads, model.atlas.n_heads)
    if top_k < 1:
        raise UsageError(f"top_k is {top_k}; valid: 1 and more")
    _check_sites(model, chosen, scores=scores, values=values)
    pairs = len(chosen) * len(kept_heads) * n_pairs(len(tokens))
    exact = 4 * pairs <= _EXACT_BYTES if exact is None else exact
    _check_memory((4 if exact else 1) * pairs + (4 * pairs if scores else 0))
    collector = PatternCollector(
        model, chosen, kept_heads, len(tokens), k=min(top_k, len(tokens)), exact=exact, scores=scores, values=values
    )
    model.run(tokens, collector.captures(), logits=False)
    return _result(model, tokens, chosen, kept_heads, collector)


def _result(
    model: Model, tokens: Tokens, layers: tuple[int, ...], heads: tuple[int, ...], collector: PatternCollector
) -> AttentionPatternsResult:
    atlas, fitter = model.atlas, collector.fitter
    mass = fitter.statistics("mass")
    if not torch.isfinite(mass).all():
        place = int((~torch.isfinite(mass)).flatten(1).any(1).nonzero()[0])
        raise NumericsError(
            f"the patterns of layer {layers[place]} hold NaN; check the weights, or use dtype='float32'"
        )
    norms, written = collector.norms(), fitter.top_written()
    return AttentionPatternsResult(
        provenance=model.provenance(),
        tokens=tokens,
        layers=layers,
        heads=heads,
        windows=tuple(atlas.blocks[layer].window for layer in layers),
        kv_heads=collector.kv_heads,
        n_kv_heads=atlas.n_kv_heads,
        patterns=fitter.triangles,
        scores=collector.scores,
        value_norms=None if norms is None else norms[0],
        output_norms=None if norms is None else norms[1],
        mass=mass,
        entropy_nats=fitter.statistics("entropy"),
        distance_tokens=fitter.statistics("distance"),
        first=fitter.statistics("first"),
        previous=fitter.statistics("previous"),
        own=fitter.statistics("own"),
        top_keys=fitter.statistics("top_keys"),
        top_weights=fitter.statistics("top_weights"),
        top_written_keys=None if written is None else written[0],
        top_written_norms=None if written is None else written[1],
    )


def _layers(model: Model, layers: int | Sequence[int] | None) -> tuple[int, ...]:
    return _indices("layer", layers, model.atlas.n_layers)


def _indices(what: str, given: int | Sequence[int] | None, size: int) -> tuple[int, ...]:
    """The layers or heads asked for, from 0, once each and in order. Raises UsageError naming the valid range."""
    wanted = range(size) if given is None else (given,) if isinstance(given, int) else tuple(given)
    for index in wanted:
        if not -size <= index < size:
            raise out_of_range(what, index, size)
    if not wanted:
        raise UsageError(f"no {what}s given; valid: 0 to {size - 1}, or leave {what}s out for all of them")
    return tuple(sorted({index % size for index in wanted}))


def check_patterns(model: Model, layers: Sequence[int]) -> None:
    """Raises UsageError where the model shows no patterns in one of the layers, saying what it does show."""
    name = model.atlas.architecture
    shown = model.sites.available.get("attn.pattern", ())
    if not shown:
        raise UsageError(
            f"{name} shows no attention patterns with its attention implementation "
            f"{model.hf.config._attn_implementation!r}; load it with model.hf.set_attn_implementation('eager') set before "
            "interp.Model(hf, tokenizer), or use another model"
        )
    hidden = [layer for layer in layers if layer not in shown]
    if hidden:
        raise UsageError(
            f"layer {hidden[0]} of {name} has no attention patterns; layers that have: {', '.join(map(str, shown))}"
        )


def _check_sites(model: Model, layers: Sequence[int], *, scores: bool, values: bool) -> None:
    """Raises UsageError where the model does not show what was asked for."""
    check_patterns(model, layers)
    available, name = model.sites.available, model.atlas.architecture
    if scores and any(layer not in available.get("attn.scores", ()) for layer in layers):
        raise UsageError(
            f"{name} computes its scores inside its own attention, where none can be seen; leave scores out"
        )
    if values and any(layer not in available.get("attn.v", ()) for layer in layers):
        raise UsageError(f"{name} has no values of its heads to be seen; pass values=False")


def _check_memory(need: int) -> None:
    free = free_memory(torch.device("cpu"))
    if free is not None and need > free:
        raise MemoryLimitError(
            f"the patterns would take {need / 1e9:.1f} GB and {free / 1e9:.1f} GB are free; ask for fewer layers or heads, leave out "
            "scores, or pass exact=False"
        )
