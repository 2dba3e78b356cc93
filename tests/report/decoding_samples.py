"""Synthetic results of the end of a forward: logits, ways of choosing, losses. Hostile text goes wherever text can come from outside."""

import torch

from interp.analyzers.decoding_choices import CHOICES, DecodingChoicesResult
from interp.analyzers.next_token_logits import NextTokenLogitsResult
from interp.analyzers.token_losses import TokenLossesResult
from interp.maths.logits import shifted_probabilities, spread
from interp.maths.sampling import choice_statistics
from report.samples import PIECES, WORDS, provenance, tokens


def logits(words=WORDS, n_vocab: int = 2000) -> torch.Tensor:
    """The ids from 1000 on, whose words these are, lead in their order."""
    values = 2 * torch.randn(n_vocab, generator=torch.Generator().manual_seed(6)).clamp(-3, 3) - 4
    values[1000 : 1000 + len(words)] = torch.linspace(9, 3, len(words))
    return values


def next_token_logits(pieces=PIECES, words=WORDS, **changes) -> NextTokenLogitsResult:
    k = min(10, len(words))
    own, shift = logits(words), 100.0
    before, after = shifted_probabilities(own, shift)
    lie, ids = spread(own), torch.arange(1000, 1000 + k)
    values = {
        "provenance": provenance(),
        "tokens": tokens(pieces),
        "stream_norm": 595.7,
        "norm_divisor": 24.82,
        "normed_norm": 44.99,
        "scale": 1.0,
        "softcap": None,
        "top_ids": ids,
        "top_projections": own[ids],
        "top_logits": own[ids],
        "top_probs": before[ids].float(),
        "shift": shift,
        "shifted_probs": after[ids].float(),
        "shift_difference": float((before - after).abs().max()),
        "log_sum_exp": lie.log_sum_exp,
        "logit_mean": lie.mean,
        "logit_std": lie.std,
        "bin_counts": lie.counts,
        "bin_start": lie.start,
        "bin_width": lie.width,
        "vocabulary": {str(1000 + index): word for index, word in enumerate(words)},
    }
    return NextTokenLogitsResult(**(values | changes))


def decoding_choices(pieces=PIECES, words=WORDS, choices=CHOICES, **changes) -> DecodingChoicesResult:
    own = logits(words)
    ids = torch.arange(1000, 1000 + min(10, len(words)))
    left = choice_statistics(own, choices)
    values = {
        "provenance": provenance(),
        "tokens": tokens(pieces),
        "choices": tuple(choices),
        "d_vocab": len(own),
        "top_ids": ids,
        "top_logits": own[ids],
        "probs": left.probs[:, ids],
        "other_probs": (1 - left.probs[:, ids].sum(1)).clamp(min=0),
        "n_kept": left.n_kept,
        "kept_mass": left.kept_mass,
        "entropy_nats": left.entropy_nats,
        "vocabulary": {str(1000 + index): word for index, word in enumerate(words)},
    }
    return DecodingChoicesResult(**(values | changes))


def token_losses(pieces=PIECES, words=WORDS, **changes) -> TokenLossesResult:
    """The second token surprises most; every third was the likeliest."""
    count = len(pieces) - 1
    losses = torch.linspace(9, 0.5, count)
    ranks = torch.tensor([0 if index % 3 == 2 else 5 * index + 1 for index in range(count)])
    values = {
        "provenance": provenance(),
        "tokens": tokens(pieces),
        "templated": False,
        "losses_nats": losses,
        "entropy_nats": 0.5 + losses / 2,
        "ranks": ranks,
        "top_ids": torch.tensor([[1000 + index % len(words)] for index in range(count)]),
        "top_log_probs_nats": -torch.linspace(2, 0.5, count)[:, None],
        "vocabulary": {str(1000 + index): word for index, word in enumerate(words)},
    }
    return TokenLossesResult(**(values | changes))
