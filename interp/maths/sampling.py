"""Choosing the next token from logits: greedy, temperature, top-k and top-p (Holtzman et al. 2020)."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Generator, Tensor

from interp.errors import UsageError


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """A way of choosing the next token: the likeliest one at ``temperature`` 0, else one drawn after ``top_k`` and ``top_p``.

    Logits are divided by the temperature; ``top_k`` then keeps the k likeliest tokens, ``top_p`` the smallest set of likeliest tokens
    whose probabilities sum to p or more. Raises UsageError for a setting out of range.
    """

    temperature: float = 1.0
    top_k: int | None = None
    top_p: float | None = None

    def __post_init__(self) -> None:
        check_sampling(self.temperature, self.top_k, self.top_p)

    @property
    def label(self) -> str:
        """The choice in words: ``greedy``, ``temperature 0.7, top-k 50``. The temperature is left out where only a filter acts."""
        if self.temperature == 0.0:
            return "greedy"
        filters = [
            f"top-{name} {value:g}" for name, value in (("k", self.top_k), ("p", self.top_p)) if value is not None
        ]
        heat = [] if filters and self.temperature == 1.0 else [f"temperature {self.temperature:g}"]
        return ", ".join([*heat, *filters])


def check_sampling(temperature: float, top_k: int | None, top_p: float | None) -> None:
    """Raises UsageError for a setting out of range."""
    for name, value, good, valid in (
        ("temperature", temperature, 0.0 <= temperature < float("inf"), "0 (greedy) or more"),
        ("top_k", top_k, top_k is None or top_k >= 1, "1 or more"),
        ("top_p", top_p, top_p is None or 0.0 < top_p <= 1.0, "above 0, at most 1"),
    ):
        if not good:
            raise UsageError(f"{name} is {value}; valid: {valid}")


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


def distribution(
    logits: Float[Tensor, "batch d_vocab"],
    *,
    temperature: float = 0.0,
    top_k: int | None = None,
    top_p: float | None = None,
) -> Float[Tensor, "batch d_vocab"]:
    """The probabilities that the next token is drawn with; at temperature 0 the largest logit has all of it."""
    if temperature == 0.0:
        return torch.zeros_like(logits, dtype=torch.float32).scatter(-1, logits.argmax(-1, keepdim=True), 1.0)
    return filtered(logits, temperature=temperature, top_k=top_k, top_p=top_p).softmax(-1)


def choose(
    logits: Float[Tensor, "batch d_vocab"],
    *,
    temperature: float = 0.0,
    top_k: int | None = None,
    top_p: float | None = None,
    generator: Generator | None = None,
) -> Int[Tensor, " batch"]:
    """The next token of each row: the largest logit at temperature 0, else one drawn from ``distribution``."""
    if temperature == 0.0:
        return logits.argmax(-1)
    probabilities = distribution(logits, temperature=temperature, top_k=top_k, top_p=top_p)
    # Drawn on the CPU, so that a seed gives the same tokens on every device (up to the rounding of the logits).
    return torch.multinomial(probabilities.cpu(), 1, generator=generator)[:, 0].to(logits.device)


@dataclass(frozen=True, kw_only=True, eq=False)
class ChoiceStatistics:
    """What each way of choosing leaves of one next-token distribution.

    ``n_kept`` counts the tokens that can be drawn, those whose probability is not 0 in fp32; ``kept_mass`` is what they hold of the
    model's own distribution, and ``entropy_nats`` the entropy of what is drawn from.
    """

    probs: Float[Tensor, "choice d_vocab"]
    n_kept: Int[Tensor, " choice"]
    kept_mass: Float[Tensor, " choice"]
    entropy_nats: Float[Tensor, " choice"]


def choice_statistics(logits: Float[Tensor, " d_vocab"], choices: Sequence[Sampling]) -> ChoiceStatistics:
    """The distribution that each choice draws from, and how much of the model's own it leaves."""
    settings = [{"temperature": one.temperature, "top_k": one.top_k, "top_p": one.top_p} for one in choices]
    probs = torch.cat([distribution(logits[None], **setting) for setting in settings])
    own = logits.double().softmax(-1)
    kept = probs > 0
    return ChoiceStatistics(
        probs=probs,
        n_kept=kept.sum(-1),
        kept_mass=(own * kept).sum(-1).float(),
        entropy_nats=torch.special.entr(probs.double()).sum(-1).float(),
    )
