"""Sees inside attention without replacing it: a function registered with transformers' AttentionInterface.

It gets the post-rotation queries, keys and values (grouped key/value heads not expanded, KV cache included), hands them to the
function that the model would have used, and computes scores or the pattern only in the layers where somebody asked. Logits stay
bit-equal to the plain model's, because its own function still does the work; only a changed score or pattern is multiplied out here.
"""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
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
    changed = session.gradients
    out, weights = None, None
    if not changed:
        out, weights = base(module, query, key, value, mask, **extra)
    if SCORES in ports or PATTERN in ports:
        pattern = weights if SCORES not in ports else None
        if pattern is None:
            scores = attention_scores(module, query, key, mask, extra)
            if SCORES in ports:
                seen = session.flow(ports[SCORES], scores)
                changed, scores = changed or seen is not scores, seen
            pattern = softmax_with_sink(scores, extra.get("s_aux")).to(query.dtype)
        if PATTERN in ports:
            seen = session.flow(ports[PATTERN], pattern)
            changed, pattern = changed or seen is not pattern, seen
        if changed:
            expanded = value.repeat_interleave(query.shape[1] // value.shape[1], dim=1)
            out = (pattern @ expanded).transpose(1, 2).contiguous()
    if out is None:
        out, weights = base(module, query, key, value, mask, **extra)
    for port in ports.values():
        session.passed(port)
    return out, weights


def attention_scores(module: nn.Module, query: Tensor, key: Tensor, mask: Any, extra: dict) -> Tensor:
    """Scaled and masked dot products in fp32, [batch head query_pos key_pos]; what may not be seen is -inf."""
    n_heads, n_kv_heads = query.shape[1], key.shape[1]
    scaling = extra.get("scaling")
    scaling = query.shape[-1] ** -0.5 if scaling is None else scaling
    grouped = query.unflatten(1, (n_kv_heads, n_heads // n_kv_heads))
    scores = torch.matmul(grouped, key[:, :, None].transpose(-1, -2)).flatten(1, 2).float() * scaling
    softcap = extra.get("softcap")
    if softcap is not None:
        scores = torch.tanh(scores / softcap) * softcap
    return scores.masked_fill(_hidden(module, scores, mask, extra), float("-inf"))


def _hidden(module: nn.Module, scores: Tensor, mask: Any, extra: dict) -> Tensor:
    """Which keys a query may not see. No mask means plain causal attention."""
    n_query, n_key = scores.shape[-2:]
    if mask is None:
        is_causal = extra.get("is_causal")
        is_causal = getattr(module, "is_causal", True) if is_causal is None else is_causal
        hidden = torch.ones(n_query, n_key, dtype=torch.bool, device=scores.device)
        return hidden.triu(n_key - n_query + 1) if is_causal and n_query > 1 else torch.zeros_like(hidden)
    if mask.dtype == torch.bool:
        return ~mask
    return mask < torch.finfo(mask.dtype).min / 2


def softmax_with_sink(scores: Tensor, sink: Tensor | None) -> Tensor:
    """Probabilities over the keys; a learned sink (gpt_oss) takes its share and is dropped, so rows may sum to less than one."""
    if sink is None:
        return torch.softmax(scores, -1)
    column = sink.reshape(1, -1, 1, 1).expand(scores.shape[0], -1, scores.shape[2], 1).float()
    return torch.softmax(torch.cat([scores, column], -1), -1)[..., :-1]
