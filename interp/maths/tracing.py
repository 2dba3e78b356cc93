"""Causal tracing (Meng et al. 2022): windows of layers, effects of corrupting and restoring, the places of a prompt.

Effects are differences within a noise sample, averaged over samples: every state of a cell is restored in the same corrupted runs.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Generator, Tensor

from interp.maths.estimates import Estimate, Estimates
from interp.maths.statistics import mean_estimates, paired_difference

FIRST_SUBJECT, MIDDLE_SUBJECT, LAST_SUBJECT = "first subject token", "middle subject tokens", "last subject token"
FIRST_AFTER, FURTHER, LAST, BEFORE = "first subsequent token", "further tokens", "last token", "before the subject"
PLACES = (FIRST_SUBJECT, MIDDLE_SUBJECT, LAST_SUBJECT, FIRST_AFTER, FURTHER, LAST)
"""The places that the paper averages over, in the order of its figure. Tokens before the subject are in none of them."""


def window_layers(layer: int, width: int, n_layers: int) -> range:
    """The layers restored together around ``layer``: ``layer - width // 2`` up to ``layer + ceil(width / 2) - 1``, cut to the model.

    So a window of 10 begins 5 below its layer and ends 4 above it, as in the authors' code.
    """
    return range(max(0, layer - width // 2), min(n_layers, layer - (-width // 2)))


def place_of(position: int, subject: Sequence[int], n_pos: int) -> str:
    """Which of ``PLACES`` (or ``BEFORE``) a position is, for a subject at consecutive positions.

    A subject's position is named after the subject even where it ends the prompt. A subject of one token is its own last token.
    The prompt's last position is the last token even where it is the first after the subject.
    """
    first, last = subject[0], subject[-1]
    if position < first:
        return BEFORE
    if position <= last:
        return LAST_SUBJECT if position == last else FIRST_SUBJECT if position == first else MIDDLE_SUBJECT
    if position == n_pos - 1:
        return LAST
    return FIRST_AFTER if position == last + 1 else FURTHER


def gaussian_noise(
    samples: int, positions: int, width: int, std: float, generator: Generator
) -> Float[Tensor, "sample pos d_model"]:
    """Normal noise with mean 0, drawn sample by sample: the first samples are the same however many are drawn."""
    return torch.stack([torch.randn(positions, width, generator=generator) for _ in range(samples)]) * std


def indirect_effects(
    restored: Float[Tensor, "*batch sample"], corrupted: Float[Tensor, " sample"], confidence: float
) -> Estimates:
    """The indirect effect in each cell: restored less corrupted, paired by sample (Meng et al. 2022, section 2.1)."""
    samples = restored.movedim(-1, 0)
    base = corrupted.reshape(-1, *[1] * (samples.dim() - 1)).expand_as(samples)
    return paired_difference(samples, base, confidence)


def total_effect(clean: float, corrupted: Float[Tensor, " sample"], confidence: float) -> Estimate:
    """The total effect: clean less corrupted (Meng et al. 2022, section 2.1)."""
    return mean_estimates(clean - corrupted.double()[:, None], confidence).at(0)
