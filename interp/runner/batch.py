"""Prompts side by side, padded on the right: causal attention never looks there, so real positions compute as if alone."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from numbers import Integral
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from interp.errors import UsageError
from interp.prompts import Conversation
from interp.tokens import Tokens, from_ids, tokenize

if TYPE_CHECKING:
    from interp.runner.model import Model


@dataclass(frozen=True, eq=False)
class Batch:
    """Token ids [batch pos] of prompts with these lengths."""

    tokens: tuple[Tokens, ...]
    ids: Tensor
    lengths: tuple[int, ...]

    @property
    def n_pos(self) -> int:
        """Length of the longest prompt."""
        return self.ids.shape[1]

    @property
    def ragged(self) -> bool:
        """Whether any row is padded."""
        return min(self.lengths) < self.n_pos

    @classmethod
    def of(cls, model: "Model", prompts: Any) -> "Batch":
        """From one prompt or a list of prompts; each may be text, a conversation, token ids, or tokens made before."""
        single = is_single_prompt(prompts) or isinstance(prompts, Mapping) or not isinstance(prompts, Iterable)
        items = [prompts] if single else list(prompts)
        if not items:
            raise UsageError("there is no prompt; give at least one")
        tokens = tuple(tokens_of(model, item) for item in items)
        lengths = tuple(len(item) for item in tokens)
        padded = [item.ids + (item.ids[-1],) * (max(lengths) - len(item)) for item in tokens]
        return cls(tokens, torch.tensor(padded, device=model.device), lengths)


def by_length(lengths: Sequence[int], batch_tokens: int) -> list[list[int]]:
    """Prompts of about equal length together, the shortest first, by their places in ``lengths``.

    In each batch are at most ``batch_tokens`` positions, padding included; a longer prompt is a batch of its own.
    """
    batches: list[list[int]] = []
    for place in sorted(range(len(lengths)), key=lambda place: lengths[place]):
        if not batches or lengths[place] * (len(batches[-1]) + 1) > batch_tokens:
            batches.append([])
        batches[-1].append(place)
    return batches


def is_single_prompt(prompts: Any) -> bool:
    """Whether this is one prompt rather than a list of them."""
    if isinstance(prompts, str | Conversation | Tokens):
        return True
    if hasattr(prompts, "ndim"):  # a tensor or an array
        return prompts.ndim <= 1
    return isinstance(prompts, Sequence) and len(prompts) > 0 and all(isinstance(item, Integral) for item in prompts)


def tokens_of(model: "Model", prompt: Any) -> Tokens:
    """The prompt's tokens, checked against the model's vocabulary and context. Raises UsageError."""
    if isinstance(prompt, Tokens):
        tokens = prompt
    elif isinstance(prompt, str | Conversation):
        tokens = tokenize(model.tokenizer, prompt)
    else:
        tokens = from_ids(model.tokenizer, prompt)
    size, context = model.atlas.d_vocab, model.atlas.n_ctx
    bad = next((index for index in tokens.ids if not 0 <= index < size), None)
    if bad is not None:
        raise UsageError(f"token id {bad} is outside the vocabulary; valid: 0 to {size - 1}")
    if context is not None and len(tokens) > context:
        raise UsageError(
            f"the prompt has {len(tokens)} tokens, the model's context is {context}; shorten it by {len(tokens) - context}"
        )
    return tokens
