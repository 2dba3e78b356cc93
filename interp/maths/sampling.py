"""Choosing the next token from logits: greedy, temperature, top-k and top-p (Holtzman et al. 2020)."""

import torch
from jaxtyping import Float, Int
from torch import Generator, Tensor


def filtered(
    logits: Float[Tensor, "batch d_vocab"], *, temperature: float, top_k: int | None, top_p: float | None
) -> Float[Tensor, "batch d_vocab"]:
    """Logits over the temperature, with -inf at tokens that top-k or top-p leave out.

    Top-k keeps the k largest. Top-p keeps the smallest set of most probable tokens whose probabilities sum to ``top_p`` or more,
    the most probable one always. Both are applied after the temperature, top-k first.
    """
    logits = logits.float()
    # From the largest down, and never by a temperature that underflows, so that no quotient is infinite or NaN.
    logits = (logits - logits.amax(-1, keepdim=True)) / max(temperature, 1e-30)
    if top_k is not None and top_k < logits.shape[-1]:
        least = logits.topk(top_k, -1).values[:, -1:]
        logits = logits.masked_fill(logits < least, float("-inf"))
    if top_p is not None and top_p < 1.0:
        ordered, order = logits.sort(-1, descending=True)
        probabilities = ordered.softmax(-1)
        before = probabilities.cumsum(-1) - probabilities
        left_out = (before >= top_p).scatter(-1, order, before >= top_p)
        logits = logits.masked_fill(left_out, float("-inf"))
    return logits


def choose(
    logits: Float[Tensor, "batch d_vocab"],
    *,
    temperature: float = 0.0,
    top_k: int | None = None,
    top_p: float | None = None,
    generator: Generator | None = None,
) -> Int[Tensor, " batch"]:
    """The next token of each row: the largest logit at temperature 0, else one drawn from the filtered distribution."""
    if temperature == 0.0:
        return logits.argmax(-1)
    probabilities = filtered(logits, temperature=temperature, top_k=top_k, top_p=top_p).softmax(-1)
    # Drawn on the CPU, so that a seed gives the same tokens on every device (up to the rounding of the logits).
    return torch.multinomial(probabilities.cpu(), 1, generator=generator)[:, 0].to(logits.device)
