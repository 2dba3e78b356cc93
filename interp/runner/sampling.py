"""Text drawn from the model itself, several rows side by side with the KV cache."""

from typing import Any

import torch
from jaxtyping import Int
from torch import Generator, Tensor
from transformers.cache_utils import DynamicCache

from interp.errors import NumericsError, UsageError
from interp.maths.sampling import check_sampling, choose
from interp.models.cache import Step
from interp.models.progress import silent
from interp.runner.forward import forward
from interp.runner.model import Model
from interp.runner.session import Session


def sample_ids(
    model: Model,
    prefix: Int[Tensor, "batch pos"],
    n_tokens: int,
    *,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    generator: Generator,
    progress: Step | None = None,
) -> Int[Tensor, "batch step"]:
    """Continues each row of ``prefix`` by ``n_tokens`` tokens and returns only the new ones.

    Rows are of equal length and run side by side; each step unembeds only the last position. Nothing ends a row early: a token that
    ends a text is followed by whatever the model puts behind it.

    Args:
        model: the model that writes.
        prefix: token ids that each row begins with, one or more.
        n_tokens: new tokens of each row; with the prefix they fit the model's context.
        temperature: 0 takes the largest logit; else tokens are drawn after ``top_k`` and ``top_p``, as ``Model.generate`` does.
        top_k: draw from the k most probable tokens only.
        top_p: draw from the smallest set of most probable tokens with this much probability (Holtzman et al. 2020).
        generator: where the draws come from; drawn on the CPU, so that a seed gives the same text on every device, up to rounding.
        progress: called with (what, done, total) as steps are done.

    Raises:
        UsageError: no row, an empty prefix, fewer than one token, a text longer than the context, or a setting out of range.
        NumericsError: the logits hold NaN or infinity.

    """
    _check(model, prefix, n_tokens, temperature, top_k, top_p)
    told, kv = progress or silent, DynamicCache()
    ids, made = prefix.to(model.device), []
    for step in range(n_tokens):
        logits = _next_logits(model, ids, kv)
        if not bool(torch.isfinite(logits).all()):
            raise NumericsError(f"the logits at step {step} hold NaN or infinity; no token can be drawn")
        chosen = choose(logits, temperature=temperature, top_k=top_k, top_p=top_p, generator=generator)
        made.append(chosen)
        ids = chosen[:, None]
        told("sampling text", step + 1, n_tokens)
    return torch.stack(made, 1)


def start_ids(model: Model) -> tuple[int, ...]:
    """What a text that the model writes from nothing begins with: its begin-of-text token, else its end-of-text token, else id 0."""
    config = model.hf.config.get_text_config(decoder=True)
    for name in ("bos_token_id", "eos_token_id"):
        for holder in (model.tokenizer, config):
            value: Any = getattr(holder, name, None)
            value = value[0] if isinstance(value, list | tuple) and value else value
            if isinstance(value, int) and 0 <= value < model.atlas.d_vocab:
                return (value,)
    return (0,)


def _next_logits(model: Model, ids: Tensor, kv: DynamicCache) -> Tensor:
    session = Session(visits={}, n_rows=len(ids), n_pos=ids.shape[1], offset=kv.get_seq_length())
    columns = None if ids.shape[1] == 1 else [[ids.shape[1] - 1]] * len(ids)
    arguments: dict[str, Any] = {"use_cache": True, "past_key_values": kv}
    output = forward(model.hf, ids, session, unembed=model.atlas.unembed, logit_columns=columns, **arguments)
    return output.logits[:, -1]


def _check(
    model: Model, prefix: Tensor, n_tokens: int, temperature: float, top_k: int | None, top_p: float | None
) -> None:
    for name, value, good, valid in (
        ("the number of rows", prefix.shape[0], prefix.shape[0] >= 1, "1 or more"),
        ("the length of the prefix", prefix.shape[1], prefix.shape[1] >= 1, "1 or more tokens; see start_ids"),
        ("n_tokens", n_tokens, n_tokens >= 1, "1 or more"),
    ):
        if not good:
            raise UsageError(f"{name} is {value}; valid: {valid}")
    check_sampling(temperature, top_k, top_p)
    size, context = model.atlas.d_vocab, model.atlas.n_ctx
    bad = prefix[(prefix < 0) | (prefix >= size)]
    if len(bad):
        raise UsageError(f"token id {int(bad[0])} is outside the vocabulary; valid: 0 to {size - 1}")
    if context is not None and prefix.shape[1] + n_tokens > context:
        raise UsageError(
            f"{prefix.shape[1]} tokens and {n_tokens} new ones are longer than the model's context of {context}; "
            f"ask for {max(context - prefix.shape[1], 0)} at most"
        )
