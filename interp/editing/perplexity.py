"""How well a model predicts held-out texts: their perplexity, before and after an edit.

A text longer than the context is cut into windows that share one token, so that every token but the first is predicted once. The
perplexity is exp of the mean loss over all predicted tokens of all texts: a text counts by its tokens.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import torch
from jaxtyping import Float, Int
from torch import Tensor

from interp.analyzers.ablation_texts import Item, text_items, text_tokens
from interp.errors import NumericsError, UsageError
from interp.maths import edit_scores
from interp.maths.ablation import mean_losses
from interp.prompts import PromptLike
from interp.runner.memory import in_halves
from interp.runner.model import Model
from interp.tokens import Tokens

_LOGITS_AT_ONCE = 1 << 26
"""Logits of one forward: 256 MB in fp32."""


@dataclass(frozen=True, kw_only=True, eq=False)
class TextLosses:
    """The loss of each text: ``nats`` summed over its predicted tokens, and their number."""

    nats: Float[Tensor, " batch"]
    n_tokens: Int[Tensor, " batch"]

    @property
    def perplexity(self) -> float:
        """The exponential of the mean loss per token over all texts."""
        return float(edit_scores.perplexity(self.nats, self.n_tokens))


def windows_of(model: Model, texts: Sequence[PromptLike | Tokens], context: int | None = None) -> tuple[Item, ...]:
    """Texts (or token ids) in windows of at most ``context`` tokens; None: the model's context, at most 1,024.

    Raises UsageError for a single text in place of a list, for a text of one token and for a context that is too short or too long.
    """
    if isinstance(texts, str):
        raise UsageError("texts is one text; give a list of them")
    return tuple(text_items(model, [text_tokens(model, text) for text in texts], context)) if texts else ()


def text_losses(model: Model, windows: Sequence[Item]) -> TextLosses:
    """The loss of each text, from its windows; windows of about one length run side by side.

    Raises NumericsError where the loss is NaN or infinite.
    """
    n_texts = 1 + max((window.prompt for window in windows), default=-1)
    nats, counts = torch.zeros(n_texts, dtype=torch.float64), torch.zeros(n_texts, dtype=torch.int64)
    for whole in _batches(windows, max(1, _LOGITS_AT_ONCE // model.atlas.d_vocab)):
        for batch, means in in_halves(model, whole, partial(_means, model), "windows"):
            for window, mean in zip(batch, means, strict=True):
                nats[window.prompt] += mean * window.weight
                counts[window.prompt] += window.weight
    if not bool(nats.isfinite().all()):
        raise NumericsError(f"the loss of {model.name} on the texts is NaN or infinite; check the weights and the edit")
    return TextLosses(nats=nats, n_tokens=counts)


def _means(model: Model, batch: Sequence[Item]) -> list[float]:
    """The mean loss of each window at its scored tokens."""
    logits = model.run([window.tokens for window in batch]).logits
    assert logits is not None, "logits were asked for"
    means = []
    for row, window in zip(logits, batch, strict=True):
        ids = torch.tensor(window.tokens.ids, device=logits.device)
        means.append(float(mean_losses(row[None, : len(ids)], ids, window.scored_from)[0]))
    return means


def perplexity(model: Model, texts: Sequence[PromptLike | Tokens], context: int | None = None) -> float:
    """The perplexity of texts under the model as it is now. Raises UsageError for no text."""
    if not texts:
        raise UsageError("there is no text; give at least one")
    return text_losses(model, windows_of(model, texts, context)).perplexity


def _batches(windows: Sequence[Item], n_tokens: int) -> list[list[Item]]:
    """Windows from the longest on, as many side by side as ``n_tokens`` positions hold."""
    found: list[list[Item]] = []
    for window in sorted(windows, key=lambda window: -len(window.tokens)):
        longest = len(found[-1][0].tokens) if found else 0
        if not found or (len(found[-1]) + 1) * longest > n_tokens or len(window.tokens) < 0.75 * longest:
            found.append([])
        found[-1].append(window)
    return found
