"""What a causal trace shows: whether the corruption lowered the answer, and at which tokens and layers most of it comes back.

Nothing is claimed where the corruption did not measurably lower the answer: then there is nothing to bring back.
"""

from collections.abc import Collection
from dataclasses import dataclass

from interp.analyzers.causal_trace_result import CausalTraceResult
from interp.maths.estimates import Estimate
from interp.maths.tracing import window_layers


@dataclass(frozen=True, kw_only=True)
class Site:
    """The layer at which restoring one token brings back most, and how much.

    ``layers`` are those restored together: the layer itself, or the window around it. ``restored`` is the probability of the answer,
    ``effect`` its difference from the corrupted run's.
    """

    kind: str
    position: int
    layer: int
    layers: tuple[int, ...]
    restored: Estimate
    effect: Estimate

    @property
    def clear(self) -> bool:
        """Whether the effect is told apart from 0: its interval lies above it. Of one sample, which has none, the value does."""
        return above_zero(self.effect)


def above_zero(estimate: Estimate) -> bool:
    """Whether an effect is told apart from 0 on the upper side, by its interval or, where it has none, by its value."""
    bound = estimate.value if estimate.lower != estimate.lower else estimate.lower
    return bound > 0


def lowered(result: CausalTraceResult) -> bool:
    """Whether corrupting the subject lowered the probability of the answer, as far as the samples tell."""
    return above_zero(result.total_effect())


def best_layers(result: CausalTraceResult, kind: str, positions: Collection[int] | None = None) -> list[Site]:
    """For each of ``positions`` (None: the subject's first token and all after it) its best layer, the greatest effect first.

    Tokens before the subject are left out because restoring them changes nothing. A token without a measured cell is left out.
    """
    if positions is None:
        positions = range(min(result.subject_positions), len(result.prompt))
    effects, restored = result.indirect_effect(kind), result.restored(kind)
    sites = []
    for position in positions:
        column = effects.value[:, position]
        if column.isnan().all():
            continue
        layer = int(column.nan_to_num(nan=-float("inf")).argmax())
        together = window_layers(layer, result.window, result.n_layers) if kind in ("mlp", "attn") else (layer,)
        sites.append(
            Site(
                kind=kind,
                position=position,
                layer=layer,
                layers=tuple(together),
                restored=restored.at(layer, position),
                effect=effects.at(layer, position),
            )
        )
    return sorted(sites, key=lambda site: -site.effect.value)


def half_back_from(result: CausalTraceResult, kind: str, position: int) -> int | None:
    """The first layer from which on, to the last, restoring one token always brings back at least half of what was lost."""
    total = result.total_effect().value
    enough = (result.indirect_effect(kind).value[:, position] >= total / 2).tolist()
    first = len(enough)
    while first > 0 and enough[first - 1]:
        first -= 1
    return first if first < len(enough) else None
