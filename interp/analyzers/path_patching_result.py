"""What path patching ends in: for every sending head the metric with only its path to the receivers exchanged."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from interp.analyzers.answers import Answer
from interp.errors import UsageError
from interp.heads import Head
from interp.maths.estimates import Estimate, Estimates
from interp.maths.patching import normalised_effects
from interp.maths.statistics import bootstrap_estimates, mean_estimates
from interp.results import Result
from interp.tokens import Tokens

if TYPE_CHECKING:
    from pandas import DataFrame
    from plotly.graph_objects import Figure

INPUTS = ("q", "k", "v")
"""What of a receiving head can be patched: its queries, keys or values."""


@dataclass(frozen=True, kw_only=True)
class Receiver:
    """An input of a head that paths end in. Under grouped-query attention keys and values are also those of ``shared_with``."""

    head: Head
    input: str
    shared_with: tuple[Head, ...] = ()

    def __str__(self) -> str:
        return f"{self.head}.{self.input}"


@dataclass(frozen=True, kw_only=True)
class SendingHead:
    """One sender: the share of clean - corrupted that its path carries, and the change of the metric in its own unit."""

    head: Head
    effect: Estimate
    change: Estimate


@dataclass(frozen=True, kw_only=True, eq=False)
class PathPatchingResult(Result):
    """The metric on pairs of prompts with one path of the base run taken from the other run.

    The base run is the clean one for ``direction`` "noising", the corrupted one for "denoising". ``receivers`` are what the paths lead
    to; none means the logits. ``senders`` are the heads patched, at ``positions`` (None: at all that differ). ``patched`` is the metric in
    ``metric_unit`` for each pair and sender; heads that are no senders are NaN. MLPs after the sender are computed anew, or stay
    those of the base run where ``freeze_mlps`` is set. ``confidence`` and ``seed`` are of the bootstrap over pairs.
    """

    kind: ClassVar[str] = "path_patching"
    schema_version: ClassVar[int] = 1

    clean: tuple[Tokens, ...]
    corrupted: tuple[Tokens, ...]
    answers: tuple[Answer, ...]
    against: tuple[Answer, ...]
    direction: str
    metric: str
    metric_unit: str
    senders: tuple[Head, ...]
    receivers: tuple[Receiver, ...]
    positions: tuple[int, ...] | None
    freeze_mlps: bool
    clean_metric: Float[Tensor, " batch"]
    corrupted_metric: Float[Tensor, " batch"]
    patched: Float[Tensor, "batch layer head"]
    confidence: float
    seed: int

    @property
    def n_pairs(self) -> int:
        """The number of pairs of prompts."""
        return len(self.clean)

    @property
    def receiver(self) -> str:
        """Where the paths lead, in words."""
        return ", ".join(map(str, self.receivers)) or "logits"

    def effects(self) -> Estimates:
        """The share of clean - corrupted that each sender's path carries, [layer head], with a bootstrap interval over pairs.

        Noising (clean - patched) / (clean - corrupted), denoising (patched - corrupted) / (clean - corrupted), as in activation patching.
        """
        return normalised_effects(
            self.patched,
            self.clean_metric,
            self.corrupted_metric,
            self.direction,
            confidence=self.confidence,
            seed=self.seed,
        )

    def changes(self) -> Estimates:
        """The mean over pairs of patched - base in ``metric_unit``, [layer head], with a bootstrap interval over pairs."""
        base = self.clean_metric if self.direction == "noising" else self.corrupted_metric
        return bootstrap_estimates(
            self.patched.double() - base.double()[:, None, None],
            lambda samples: samples.mean(0),
            torch.Generator().manual_seed(self.seed),
            confidence=self.confidence,
        )

    def total_effect(self) -> Estimate:
        """The mean over pairs of the metric's difference, clean - corrupted, in ``metric_unit``, with its Student t interval."""
        return mean_estimates(self.clean_metric - self.corrupted_metric, self.confidence).at()

    def strongest(self, k: int = 10) -> tuple[SendingHead, ...]:
        """The ``k`` senders whose paths change the metric most, most first. Raises UsageError for k below 1."""
        if k < 1:
            raise UsageError(f"k is {k}; give 1 or more")
        return tuple(sorted(self._sent(), key=lambda sent: -abs(sent.change.value))[:k])

    def to_frame(self) -> "DataFrame":
        """One line for each sender, in the mean over pairs.

        ``effect`` is a share of clean - corrupted, ``change`` is patched - base in ``unit``.
        """
        import pandas as pd

        return pd.DataFrame(
            [
                {
                    "sender": str(sent.head),
                    "layer": sent.head.layer,
                    "head": sent.head.head,
                    "receiver": self.receiver,
                    "effect": sent.effect.value,
                    "effect_lower": sent.effect.lower,
                    "effect_upper": sent.effect.upper,
                    "change": sent.change.value,
                    "change_lower": sent.change.lower,
                    "change_upper": sent.change.upper,
                    "n_pairs": sent.change.n,
                    "metric": self.metric,
                    "unit": self.metric_unit,
                }
                for sent in self._sent()
            ]
        )

    def figure(self) -> "Figure":
        """A map of layers by heads: the effect of each sender's path; the receivers are outlined."""
        from interp.figures.path_patching import path_map

        effects = self.effects()
        return path_map(
            effects.value.numpy(),
            effects.lower.numpy(),
            effects.upper.numpy(),
            [(receiver.head.layer, receiver.head.head, str(receiver)) for receiver in self.receivers],
            title=f"share of the {self.metric.replace('_', ' ')} through paths to {self.receiver}",
        )

    def _sent(self) -> Sequence[SendingHead]:
        effects, changes = self.effects(), self.changes()
        return [
            SendingHead(head=head, effect=effects.at(head.layer, head.head), change=changes.at(head.layer, head.head))
            for head in self.senders
        ]
