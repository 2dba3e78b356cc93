"""The figures of the experiment by name."""

from experiments.causal_tracing.averages import Averages
from interp.maths.tracing import LAST, LAST_SUBJECT, PLACES


def values(found: Averages) -> dict[str, float]:
    """Means over facts. Layers are those of the greatest average indirect effect at the place."""
    figures = {
        "facts": float(found.total.n),
        "clean_probability": found.clean.value,
        "corrupted_probability": found.corrupted.value,
        "total_effect": found.total.value,
    }
    for kind in found.effects:
        for name, place in (("last_subject", LAST_SUBJECT), ("last", LAST)):
            layer, effect = found.peak(kind, place)
            figures |= {f"{kind}_{name}": effect.value, f"{kind}_{name}_layer": float(layer)}
        figures[f"{kind}_elsewhere"] = max(
            found.peak(kind, place)[1].value for place in PLACES if place not in (LAST, LAST_SUBJECT)
        )
    return figures


def lines(found: Averages) -> list[str]:
    """For every kind and place the greatest average indirect effect, with its interval and layer, as lines of a Markdown table."""
    head = "| place | " + " | ".join(found.effects) + " |"
    body = [
        f"| {place} | " + " | ".join(_cell(found, kind, place) for kind in found.effects) + " |" for place in PLACES
    ]
    return [head, "| --- |" + " --- |" * len(found.effects), *body]


def _cell(found: Averages, kind: str, place: str) -> str:
    layer, effect = found.peak(kind, place)
    if effect.n == 0:
        return "-"
    return f"{effect.value:.3f} ({effect.lower:.3f} to {effect.upper:.3f}), layer {layer}"
