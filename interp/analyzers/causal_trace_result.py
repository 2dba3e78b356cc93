"""What a causal trace ends in: how much of the answer comes back when one state of a corrupted run is restored."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from jaxtyping import Float
from torch import Tensor

from interp.analyzers.answers import Answer
from interp.errors import NumericsError, unknown
from interp.maths.estimates import Estimate, Estimates
from interp.maths.statistics import mean_estimates
from interp.maths.tracing import indirect_effects, place_of, total_effect
from interp.results import Result
from interp.tokens import Tokens

if TYPE_CHECKING:
    from pandas import DataFrame
    from plotly.graph_objects import Figure

KINDS = ("resid", "mlp", "attn", "resid-mlp-severed", "resid-attn-severed")
"""What can be restored at (layer, position): see ``interp.causal_trace``."""

MEASURES = {"probability": "probability", "logit_difference": "logits"}
"""What a trace reads off each run, with its unit."""


@dataclass(frozen=True, kw_only=True, eq=False)
class CausalTraceResult(Result):
    """A causal trace of one prompt: clean, corrupted and restored probability of the answer, and logit difference.

    ``clean_*`` is of the prompt as it is, ``corrupted_*`` of each sample with the subject corrupted, ``restored_*`` of each sample with
    one state put back: [kind layer pos sample], the kinds in the order of ``kinds``, every layer, every position of the prompt.
    Probability is of the whole answer (a product over its tokens); the logit difference is of the answer's first token less that of
    ``against``, at the prompt's last position.

    ``corruption`` is "noise" (each sample a draw; ``noise`` is in multiples of ``noise_std``, the standard deviation of the token
    embeddings; ``replacements`` is empty) or "tokens" (each sample one of ``replacements`` in the subject's place; ``noise`` and
    ``noise_std`` are NaN). ``window`` is how many layers are restored together for mlp and attn. Cells before the subject hold the
    corrupted value: nothing differs there, so restoring changes nothing.
    """

    kind: ClassVar[str] = "causal_trace"
    schema_version: ClassVar[int] = 1

    prompt: Tokens
    subject: str
    subject_positions: tuple[int, ...]
    answer: Answer
    against: Answer
    corruption: str
    noise: float
    noise_std: float
    replacements: tuple[str, ...]
    window: int
    kinds: tuple[str, ...]
    clean_probability: float
    clean_logit_difference: float
    corrupted_probability: Float[Tensor, " sample"]
    corrupted_logit_difference: Float[Tensor, " sample"]
    restored_probability: Float[Tensor, "kind layer pos sample"]
    restored_logit_difference: Float[Tensor, "kind layer pos sample"]
    confidence: float

    @property
    def n_samples(self) -> int:
        """Corrupted runs: noise draws or replacements."""
        return self.corrupted_probability.shape[0]

    @property
    def n_layers(self) -> int:
        """Layers of the model, all of them traced."""
        return self.restored_probability.shape[1]

    @property
    def places(self) -> tuple[str, ...]:
        """For each position one of ``interp.maths.tracing.PLACES``, or "before the subject"."""
        n_pos = len(self.prompt)
        return tuple(place_of(position, self.subject_positions, n_pos) for position in range(n_pos))

    def clean(self, measure: str = "probability") -> float:
        """The measure on the prompt as it is."""
        self._check(measure)
        return self.clean_probability if measure == "probability" else self.clean_logit_difference

    def corrupted(self, measure: str = "probability") -> Estimate:
        """The mean over corrupted runs, with its Student t interval."""
        return mean_estimates(self._corrupted(measure)[:, None], self.confidence).at(0)

    def restored(self, kind: str, measure: str = "probability") -> Estimates:
        """The mean over samples after restoring a state, [layer pos]."""
        return mean_estimates(self._restored(kind, measure).movedim(-1, 0), self.confidence)

    def indirect_effect(self, kind: str, measure: str = "probability") -> Estimates:
        """Restored less corrupted, [layer pos]: paired by sample, with Student t intervals.

        Raises UsageError for a kind that was not traced or an unknown measure.
        """
        return indirect_effects(self._restored(kind, measure), self._corrupted(measure), self.confidence)

    def total_effect(self, measure: str = "probability") -> Estimate:
        """Clean less corrupted: what corrupting the subject costs. Where it is not clearly above 0 there is nothing to restore."""
        return total_effect(self.clean(measure), self._corrupted(measure), self.confidence)

    def peak(self, kind: str, measure: str = "probability") -> tuple[int, int, Estimate]:
        """Layer and position of the greatest mean indirect effect, and that effect.

        Raises NumericsError where no cell could be measured.
        """
        effects = self.indirect_effect(kind, measure)
        if effects.value.isnan().all():
            raise NumericsError(f"no cell of {kind!r} was measured")
        layer, position = divmod(int(effects.value.nan_to_num(nan=-float("inf")).argmax()), effects.value.shape[1])
        return layer, position, effects.at(layer, position)

    def to_frame(self) -> "DataFrame":
        """One line for each kind, layer and position. Effects are restored less corrupted; bounds are of the ``confidence`` interval."""
        import pandas as pd

        layers, positions = range(self.n_layers), range(len(self.prompt))
        places, labels = self.places, self.prompt.labels
        frames = []
        for kind in self.kinds:
            columns: dict[str, object] = {
                "kind": kind,
                "layer": [layer for layer in layers for _ in positions],
                "position": [position for _ in layers for position in positions],
                "token": [labels[position] for _ in layers for position in positions],
                "place": [places[position] for _ in layers for position in positions],
            }
            for name, unit in (("probability", ""), ("logit_difference", "_logits")):
                columns |= _columns(f"{name}{{}}{unit}", self.restored(kind, name))
                columns |= _columns(f"{name}_effect{{}}{unit}", self.indirect_effect(kind, name))
            frames.append(pd.DataFrame(columns | {"n_samples": self.n_samples}))
        return pd.concat(frames, ignore_index=True)

    def figure(self, measure: str = "probability") -> "Figure":
        """A map for each kind: the mean indirect effect on ``measure`` ("probability" or "logit_difference") over layers and tokens."""
        from interp.figures.causal_trace import TraceMap, trace_maps

        maps = []
        for kind in self.kinds:
            effect, restored = self.indirect_effect(kind, measure), self.restored(kind, measure)
            maps.append(
                TraceMap(
                    kind=kind,
                    effect=effect.value.double().numpy(),
                    lower=effect.lower.double().numpy(),
                    upper=effect.upper.double().numpy(),
                    restored=restored.value.double().numpy(),
                )
            )
        return trace_maps(
            maps,
            labels=self.prompt.labels,
            subject=self.subject_positions,
            window=self.window,
            n_samples=self.n_samples,
            clean=self.clean(measure),
            corrupted=self.corrupted(measure).value,
            measure=measure,
        )

    def _check(self, measure: str) -> None:
        if measure not in MEASURES:
            raise unknown("measure", measure, MEASURES)

    def _corrupted(self, measure: str) -> Tensor:
        self._check(measure)
        return self.corrupted_probability if measure == "probability" else self.corrupted_logit_difference

    def _restored(self, kind: str, measure: str) -> Tensor:
        self._check(measure)
        if kind not in self.kinds:
            raise unknown("kind of this trace", kind, self.kinds)
        found = self.restored_probability if measure == "probability" else self.restored_logit_difference
        return found[self.kinds.index(kind)]


def _columns(name: str, cells: Estimates) -> dict[str, object]:
    """Value and bounds as three columns, layers first."""
    return {
        name.format(part): getattr(cells, field).flatten().tolist()
        for part, field in (("", "value"), ("_lower", "lower"), ("_upper", "upper"))
    }
