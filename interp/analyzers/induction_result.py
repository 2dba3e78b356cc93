"""What looking for induction heads ends in: scores of every head, and for each candidate a verdict with its evidence."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from jaxtyping import Float
from torch import Tensor

from interp.analyzers.induction_circuit import Mechanism
from interp.errors import unknown
from interp.heads import Head
from interp.maths.estimates import Estimate, Estimates
from interp.maths.induction import OFFSETS
from interp.results import Result

if TYPE_CHECKING:
    from pandas import DataFrame
    from plotly.graph_objects import Figure


@dataclass(frozen=True, kw_only=True)
class Behaviour:
    """How a head attends on repeated text.

    ``p`` is of the test that it attends more to the places after earlier occurrences than to the same places of text without
    repeats; ``significant`` says whether it is a discovery among all heads. ``peak`` is the distance from the last occurrence that gets
    most attention in every period (1 is the induction target), None where it differs between periods or was not measured.
    """

    stripe: Estimate
    unrepeated: Estimate
    prefix_matching: Estimate
    on_first: Estimate
    p: float
    significant: bool
    peak: int | None


@dataclass(frozen=True, kw_only=True)
class Cause:
    """What the model loses without a head, in nats a token.

    ``second`` is the change of the loss on the tokens that a repeat foretells when this head alone is ablated, ``late_less_early`` that of
    the in-context-learning score. ``peers`` are other heads of its layer that are no candidates, ``peers_second`` the mean change
    without one of them, ``worst_peer`` the greatest; NaN where the layer has no other head. ``p`` is of the test that the head's
    change is greater than its peers', or than 0 where it has none; ``significant`` says whether it is a discovery among the candidates.
    ``restored`` is how far the loss falls when, of all ablated candidates, this one is put back.
    """

    second: Estimate
    late_less_early: Estimate
    peers: tuple[Head, ...]
    peers_second: Estimate
    worst_peer: float
    p: float
    significant: bool
    restored: Estimate


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """Whether a candidate is called an induction head, why, and on what evidence. None stands for what was not measured."""

    head: Head
    called: bool
    reason: str
    behaviour: Behaviour
    mechanism: Mechanism | None
    cause: Cause | None


@dataclass(frozen=True, kw_only=True)
class GroupAblation:
    """What the model loses without several heads at once, in nats a token (see ``Cause``)."""

    heads: tuple[Head, ...]
    second: Estimate
    late_less_early: Estimate


@dataclass(frozen=True, kw_only=True)
class TextLosses:
    """The model's own losses on the texts of the ablations, in nats a token.

    ``second`` is over the tokens that a repeat foretells, ``first`` over those after a token that is new. ``late_less_early`` is the
    in-context-learning score: the loss over the last quarter of a text less that over the first.
    """

    first: Estimate
    second: Estimate
    late_less_early: Estimate


@dataclass(frozen=True, kw_only=True, eq=False)
class InductionResult(Result):
    """The induction scores of every head, the verdict on each candidate, and what the model loses without the heads that are called.

    Estimates are over ``samples`` texts: draws of random tokens, each with every one of ``periods``, or given prompts (``random`` is
    False; ``periods`` then has the length of the block that each prompt repeats, 0 for none). ``stripe`` is the mean attention
    from position i to i - period + 1 over the repeats, ``unrepeated`` the same on text without repeats, ``prefix_matching`` the
    share of the attention off the first token that goes to the tokens after all earlier occurrences, NaN where almost all rests on the
    first token: ``on_first``. ``diagonal`` is TransformerLens' average, over the whole diagonal. ``around`` is the attention at
    ``OFFSETS`` from the last occurrence. ``p`` is of the test of behaviour. ``together`` are the called heads ablated at once,
    ``matched`` as many random heads of the same layers, several draws. ``not_measured`` says what is missing and why.
    """

    kind: ClassVar[str] = "induction_heads"
    schema_version: ClassVar[int] = 1

    random: bool
    periods: tuple[int, ...]
    copies: int
    samples: int
    seed: int
    threshold: float
    rate: float
    stripe: Estimates
    unrepeated: Estimates
    prefix_matching: Estimates
    on_first: Estimates
    diagonal: Float[Tensor, "layer head"]
    previous: Float[Tensor, "layer head"]
    around: Float[Tensor, "layer head offset"]
    stripe_by_period: Float[Tensor, "period layer head"]
    p: Float[Tensor, "layer head"]
    verdicts: tuple[Verdict, ...]
    losses: TextLosses | None
    together: GroupAblation | None
    matched: tuple[GroupAblation, ...]
    not_measured: tuple[str, ...]

    @property
    def called(self) -> tuple[Head, ...]:
        """The heads that are called induction heads, in order of their stripe score."""
        return tuple(verdict.head for verdict in self.verdicts if verdict.called)

    def verdict(self, head: Head) -> Verdict | None:
        """The verdict on a head; None for one that was no candidate."""
        return next((verdict for verdict in self.verdicts if verdict.head == head), None)

    def to_frame(self) -> "DataFrame":
        """One line for each head of the model; columns about ablation and weights are empty for heads that were no candidates."""
        import pandas as pd

        layers, heads = self.diagonal.shape
        lines = [self._line(Head(layer, head)) for layer in range(layers) for head in range(heads)]
        return pd.DataFrame(lines)

    def _line(self, head: Head) -> dict[str, object]:
        cell = head.layer, head.head
        line: dict[str, object] = {"head": str(head), "layer": head.layer, "number": head.head}
        for name in ("stripe", "unrepeated", "prefix_matching", "on_first"):
            found = getattr(self, name).at(*cell)
            line |= {name: found.value, f"{name}_lower": found.lower, f"{name}_upper": found.upper}
        line |= {"diagonal": float(self.diagonal[cell]), "previous_token": float(self.previous[cell])}
        line |= {"p": float(self.p[cell])}
        line |= {f"attention_at_{offset:+d}": float(self.around[cell][i]) for i, offset in enumerate(OFFSETS)}
        verdict = self.verdict(head)
        cause, mechanism = (verdict.cause, verdict.mechanism) if verdict else (None, None)
        partner = mechanism.partner if mechanism else None
        return line | {
            "called": bool(verdict and verdict.called),
            "candidate": verdict is not None,
            "loss_change_nats": cause.second.value if cause else None,
            "peers_loss_change_nats": cause.peers_second.value if cause else None,
            "in_context_change_nats": cause.late_less_early.value if cause else None,
            "restored_nats": cause.restored.value if cause else None,
            "cause_p": cause.p if cause else None,
            "eigenvalue_score": mechanism.eigenvalue_score if mechanism else None,
            "copying": mechanism.copying.value if mechanism else None,
            "partner": str(partner.head) if partner else None,
            "partner_composition": partner.composition if partner else None,
            "partner_z": partner.z if partner else None,
            "reason": verdict.reason if verdict else None,
        }

    def figure(self, what: str = "stripe") -> "Figure":
        """A map over layers and heads of ``stripe``, ``prefix_matching`` or ``on_first``, ``ablation`` bars, or ``shift`` lines."""
        from interp.figures import induction as draw

        if what in ("stripe", "prefix_matching", "on_first"):
            found: Estimates = getattr(self, what)
            called = [(head.layer, head.head) for head in self.called]
            bounds = found.lower.double().numpy(), found.upper.double().numpy()
            return draw.induction_map(found.value.double().numpy(), bounds, called, what)
        if what == "ablation":
            return self._ablation_figure()
        if what == "shift":
            rows = [self.around[verdict.head.layer, verdict.head.head].tolist() for verdict in self.verdicts]
            return draw.shift_lines(rows, [str(verdict.head) for verdict in self.verdicts], OFFSETS)
        raise unknown("figure of induction", what, ("stripe", "prefix_matching", "on_first", "ablation", "shift"))

    def _ablation_figure(self) -> "Figure":
        from interp.figures import induction as draw

        def bar(entry: int, found: Estimate) -> draw.Bar:
            return draw.Bar(entry=entry, value=found.value, lower=found.lower, upper=found.upper)

        causes = [(str(verdict.head), verdict.cause) for verdict in self.verdicts if verdict.cause is not None]
        groups = ((self.together,) if self.together else ()) + self.matched
        labels = [name for name, _ in causes] + [
            f"{'all' if index == 0 else 'random'} {len(group.heads)}" for index, group in enumerate(groups)
        ]
        series = {
            "without it": [bar(index, cause.second) for index, (_, cause) in enumerate(causes)],
            "without another head of its layer": [
                bar(index, cause.peers_second) for index, (_, cause) in enumerate(causes) if cause.peers
            ],
            "without several heads": [bar(len(causes) + index, group.second) for index, group in enumerate(groups)],
        }
        return draw.ablation_bars(labels, {name: bars for name, bars in series.items() if bars})
