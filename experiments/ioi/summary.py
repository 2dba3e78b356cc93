"""The figures of the experiment by name, and the heads as a table."""

from experiments.ioi.heads import Heads, Swept


def values(found: Heads, k: int) -> dict[str, float]:
    """Logit differences are means over pairs; effects are shares of clean - corrupted."""
    return {
        "pairs": float(found.n_pairs),
        "clean_difference": found.clean,
        "corrupted_difference": found.corrupted,
        "strongest_effect": float(found.exact.values.abs().max()),
        "gradient_overlap": float(found.overlap(found.gradient, k)),
        "integrated_overlap": float(found.overlap(found.integrated, k)),
        "gradient_correlation": found.correlation(found.gradient),
        "integrated_correlation": found.correlation(found.integrated),
        "gradient_speed": found.exact.seconds / found.gradient.seconds,
    }


def lines(found: Heads, k: int) -> list[str]:
    """The strongest heads of each sweep side by side, as lines of a Markdown table. Bold: not among the exact sweep's."""
    sweeps = (found.exact, found.gradient, found.integrated)
    known = set(found.exact.top(k))
    body = []
    for rank in range(min(k, found.exact.values.numel())):
        cells = []
        for swept in sweeps:
            head = swept.top(k)[rank]
            name = str(head) if head in known else f"**{head}**"
            cells.append(f"{name} {_effect(swept, head.layer, head.head)}")
        body.append(f"| {rank + 1} | " + " | ".join(cells) + " |")
    return ["| | " + " | ".join(swept.name for swept in sweeps) + " |", "| --- |" + " --- |" * len(sweeps), *body]


def _effect(swept: Swept, layer: int, head: int) -> str:
    effect = swept.effects.at(layer, head)
    return f"{effect.value:+.3f} ({effect.lower:+.3f} to {effect.upper:+.3f})"
