"""Sees inside attention without replacing it: a function registered with transformers' AttentionInterface.

It gets the post-rotation queries, keys and values (grouped key/value heads not expanded, KV cache included), hands them to the
function that the model would have used, and computes scores or the pattern only in the layers where somebody asked. Logits stay
bit-equal to the plain model's, because its own function still does the work; only a changed score or pattern is multiplied out here.
"""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface

from interp.runner.ports import Port
from interp.runner.session import Session

PREFIX = "interp_"
_ports: ContextVar[dict[nn.Module, dict[int, Port]]] = ContextVar("attention_ports")
_session: ContextVar[Session] = ContextVar("attention_session")
ROT_Q, ROT_K, SCORES, PATTERN = range(4)
_SCORES_AT_ONCE = 1 << 20
"""Scores computed at once on a CPU: 4 MB in fp32, which its last cache holds."""
_SCORES_AT_ONCE_GPU = 1 << 26
"""And on a GPU, where a pattern is reduced by query: 256 MB in fp32, so that launching is not the cost."""


@contextmanager
def watched_attention(hf: Any, session: Session, modules: dict[nn.Module, dict[int, Port]]) -> Iterator[None]:
    """While the block runs, the attention of ``modules`` flows through ``session``; the model's setting is restored after."""
    base = hf.config._attn_implementation
    _register(base)
    before = _ports.set(modules), _session.set(session)
    try:
        with attention_set_to(hf, PREFIX + base):
            yield
    finally:
        _ports.reset(before[0])
        _session.reset(before[1])


@contextmanager
def attention_set_to(hf: Any, implementation: str) -> Iterator[None]:
    """The model's attention implementation while the block runs; its own is restored after."""
    base = hf.config._attn_implementation
    hf.config._attn_implementation = implementation
    try:
        yield
    finally:
        hf.config._attn_implementation = base


def _register(base: str) -> None:
    """Registers the watching function for a base implementation, with the mask that the base expects."""
    name = PREFIX + base
    if name in AttentionInterface():
        return

    def function(
        module: nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, **extra: Any
    ) -> Any:
        return _attend(_base_function(base, module), module, query, key, value, attention_mask, extra)

    AttentionInterface.register(name, function)
    AttentionMaskInterface.register(name, AttentionMaskInterface()[base])


def _base_function(base: str, module: nn.Module) -> Callable[..., Any]:
    if base == "eager":  # each model file has its own
        return sys.modules[type(module).__module__].eager_attention_forward
    return AttentionInterface()[base]


def _attend(
    base: Callable[..., Any], module: nn.Module, query: Tensor, key: Tensor, value: Tensor, mask: Any, extra: dict
) -> Any:
    ports = _ports.get({}).get(module)
    if not ports:
        return base(module, query, key, value, mask, **extra)
    session = _session.get()
    past = key.shape[2] - query.shape[2]
    if ROT_Q in ports:
        query = session.flow(ports[ROT_Q], query)
    if ROT_K in ports:
        key = session.flow(ports[ROT_K], key, past=past)
    out, weights = None, None
    if not session.gradients:
        out, weights = base(module, query, key, value, mask, **extra)
    if SCORES in ports or PATTERN in ports:
        pattern = _watched_pattern(session, ports, weights, module, query, key, mask, extra)
        if pattern is not None:
            expanded = value.repeat_interleave(query.shape[1] // value.shape[1], dim=1)
            out = (pattern @ expanded).transpose(1, 2).contiguous()
    if out is None:
        out, weights = base(module, query, key, value, mask, **extra)
    for port in ports.values():
        session.passed(port)
    return out, weights


def _watched_pattern(
    session: Session,
    ports: dict[int, Port],
    weights: Tensor | None,
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    mask: Any,
    extra: dict,
) -> Tensor | None:
    """Shows scores and pattern to the session; the pattern to go on with where the model's own result no longer holds, else None."""
    changed, pattern = session.gradients, weights
    if SCORES in ports:
        scores = attention_scores(module, query, key, mask, extra)
        seen = session.flow(ports[SCORES], scores)
        changed = changed or seen is not scores
        pattern = softmax_with_sink(seen, extra.get("s_aux")).to(query.dtype)
    elif pattern is None:
        if session.takes_rows(ports[PATTERN]):
            session.flow_rows(ports[PATTERN], pattern_rows(module, query, key, mask, extra))
            return None
        pattern = attention_pattern(module, query, key, mask, extra)
    if PATTERN in ports:
        seen = session.flow(ports[PATTERN], pattern)
        changed, pattern = changed or seen is not pattern, seen
    return pattern if changed else None


def attention_pattern(module: nn.Module, query: Tensor, key: Tensor, mask: Any, extra: dict) -> Tensor:
    """Attention probabilities, [batch head query_pos key_pos].

    On a CPU some queries at a time, so that their scores never leave the processor's cache.
    """
    n_query, n_key = query.shape[2], key.shape[2]
    if query.device.type != "cpu" or torch.is_grad_enabled() or _queries_at_once(query, n_key) >= n_query:
        return softmax_with_sink(attention_scores(module, query, key, mask, extra), extra.get("s_aux")).to(query.dtype)
    pattern = query.new_empty(*query.shape[:3], n_key)
    for _ in pattern_rows(module, query, key, mask, extra, out=pattern):
        pass
    return pattern


def pattern_rows(
    module: nn.Module, query: Tensor, key: Tensor, mask: Any, extra: dict, *, out: Tensor | None = None
) -> Iterator[tuple[int, Tensor]]:
    """Attention probabilities of some queries at a time: (first query, [batch head query_pos key_pos]), in ``out`` where given.

    Keys that come after all queries of a block are not multiplied out.
    """
    n_query, n_key = query.shape[2], key.shape[2]
    causal, step = mask is None and _is_causal(module, extra), _queries_at_once(query, n_key)
    for start in range(0, n_query, step):
        stop = min(start + step, n_query)
        seen = n_key - n_query + stop if causal else n_key
        visible = mask if mask is None or mask.shape[-2] == 1 else mask[..., start:stop, :]
        scores = attention_scores(module, query[:, :, start:stop], key[:, :, :seen], visible, extra)
        rows = query.new_empty(*query.shape[:2], stop - start, n_key) if out is None else out[:, :, start:stop]
        rows[..., :seen] = softmax_with_sink(scores, extra.get("s_aux"), overwrite=True)
        rows[..., seen:] = 0
        yield start, rows


def _queries_at_once(query: Tensor, n_key: int) -> int:
    scores = _SCORES_AT_ONCE if query.device.type == "cpu" else _SCORES_AT_ONCE_GPU
    return max(16, scores // (query.shape[0] * query.shape[1] * n_key))


def attention_scores(module: nn.Module, query: Tensor, key: Tensor, mask: Any, extra: dict) -> Tensor:
    """Scaled and masked dot products in fp32 at least, [batch head query_pos key_pos]; what may not be seen is -inf."""
    n_heads, n_kv_heads = query.shape[1], key.shape[1]
    scaling = extra.get("scaling")
    scaling = query.shape[-1] ** -0.5 if scaling is None else scaling
    if _is_plain(query, mask, extra):
        return _plain_scores(query, key, scaling, causal=_is_causal(module, extra))
    # The queries of all heads that share a key head meet it in one product; the keys are not repeated for each.
    grouped = query.unflatten(1, (n_kv_heads, n_heads // n_kv_heads)).flatten(2, 3)
    product = torch.matmul(grouped, key.transpose(-1, -2))
    scores = product.unflatten(2, (n_heads // n_kv_heads, query.shape[2])).flatten(1, 2)
    scores = (scores if scores.dtype == torch.float64 else scores.float()).mul_(scaling)
    softcap = extra.get("softcap")
    if softcap is not None:
        scores = torch.tanh(scores / softcap) * softcap
    if mask is not None:
        return scores.masked_fill_(~mask if mask.dtype == torch.bool else _far_below(mask), float("-inf"))
    n_query = scores.shape[-2]
    if _is_causal(module, extra) and n_query > 1:
        # Only among the last keys, as many as there are queries, does one come after a query.
        later = torch.ones(n_query, n_query, dtype=torch.bool, device=scores.device).triu_(1)
        scores[..., scores.shape[-1] - n_query :].masked_fill_(later, float("-inf"))
    return scores


def _is_plain(query: Tensor, mask: Any, extra: dict) -> bool:
    """Whether scores are just products, scaled and causal at most."""
    return mask is None and extra.get("softcap") is None and query.dtype in (torch.float32, torch.float64)


def _plain_scores(query: Tensor, key: Tensor, scaling: float, *, causal: bool) -> Tensor:
    """Scaled dot products, what comes later -inf, in one product: it starts from the mask and scales what it adds."""
    n_rows, n_heads, n_query, d_head = query.shape
    if n_query >= d_head:  # many queries: a product for each head keeps more cores busy than the repeated keys cost
        key = key.repeat_interleave(n_heads // key.shape[1], 1)
    shared = n_heads // key.shape[1]  # heads whose queries meet the same keys in one product
    queries, keys = query.reshape(-1, shared * n_query, d_head), key.reshape(-1, *key.shape[2:])
    bias = _bias(shared, n_query, keys.shape[1], causal, query.dtype, query.device)
    scores = torch.baddbmm(bias.expand(len(queries), -1, -1), queries, keys.transpose(1, 2), alpha=scaling)
    return scores.view(n_rows, n_heads, n_query, -1)


def _bias(shared: int, n_query: int, n_key: int, causal: bool, dtype: torch.dtype, device: torch.device) -> Tensor:
    """What scores start from, [shared * query_pos, key_pos]: zero, and -inf where a key comes later. Small ones are kept."""
    make = _kept_bias if shared * n_query * n_key <= 1 << 14 else _new_bias
    return make(shared, n_query, n_key, causal, dtype, device)


def _new_bias(shared: int, n_query: int, n_key: int, causal: bool, dtype: torch.dtype, device: torch.device) -> Tensor:
    bias = torch.zeros(n_query, n_key, dtype=dtype, device=device)
    if causal:
        later = torch.full((n_query, n_query), float("-inf"), dtype=dtype, device=device)
        bias[:, n_key - n_query :] = later.triu_(1)
    return bias.repeat(shared, 1) if shared > 1 else bias


_kept_bias = lru_cache(maxsize=64)(_new_bias)


def _is_causal(module: nn.Module, extra: dict) -> bool:
    given = extra.get("is_causal")
    return getattr(module, "is_causal", True) if given is None else given


def _far_below(mask: Tensor) -> Tensor:
    """Which keys an additive mask hides."""
    return mask < torch.finfo(mask.dtype).min / 2


def softmax_with_sink(scores: Tensor, sink: Tensor | None, *, overwrite: bool = False) -> Tensor:
    """Probabilities over the keys, in the memory of ``scores`` where it may be overwritten; a learned sink (gpt_oss) takes its share and
    is dropped, so rows may sum to less than one.
    """
    if sink is None:
        return torch.softmax(scores, -1, out=scores) if overwrite else torch.softmax(scores, -1)
    column = sink.reshape(1, -1, 1, 1).expand(scores.shape[0], -1, scores.shape[2], 1).to(scores.dtype)
    return torch.softmax(torch.cat([scores, column], -1), -1)[..., :-1]
