"""The figures of the experiment by name, and its tables."""

from collections.abc import Mapping, Sequence

from experiments.rome.many import Together
from experiments.rome.singles import Singles

_ROWS = (
    ("ES, %", "efficacy_score"),
    ("PS, %", "paraphrase_score"),
    ("NS, %", "neighbourhood_score"),
    ("argmax of the edited prompt, %", "prompt_argmax"),
    ("argmax of the paraphrase, %", "paraphrase_argmax"),
    ("EM", "efficacy_magnitude"),
    ("PM", "paraphrase_magnitude"),
    ("NM", "neighbourhood_magnitude"),
    ("neighbours that keep their argmax, %", "neighbours_kept"),
    ("KL on neighbours, nats", "neighbour_kl"),
    ("generation entropy, bits x 100", "generation_entropy"),
)

_GOALS = {
    "efficacy_score": "100",
    "paraphrase_score": "≥ 95",
    "neighbourhood_score": "within 1 of before",
    "paraphrase_argmax": "≥ 35",
    "neighbours_kept": "≥ 95",
}
"""What `rome` is to reach."""
_WORST_GOAL = "≤ 1.05x"


def values(singles: Mapping[str, Singles], many: Sequence[Together]) -> dict[str, float]:
    """The figures that are held against what is expected."""
    found: dict[str, float] = {}
    for method, scores in singles.items():
        found |= {
            f"{method}_score": scores.harmonic(),
            f"{method}_efficacy": scores.mean("efficacy_score"),
            f"{method}_paraphrase": scores.mean("paraphrase_score"),
            f"{method}_neighbourhood_lost": scores.mean("neighbourhood_score", "before")
            - scores.mean("neighbourhood_score"),
            f"{method}_prompt_argmax": scores.mean("prompt_argmax"),
            f"{method}_paraphrase_argmax": scores.mean("paraphrase_argmax"),
            f"{method}_kept": scores.mean("neighbours_kept"),
            f"{method}_worst_perplexity": scores.worst,
        }
    for together in many:
        name = "sequence" if together.how.endswith("rome") else "batch"
        found[f"{name}_{together.edits}_holding"] = together.holding
        found[f"{name}_{together.edits}_perplexity"] = together.perplexity_ratio
    return found


def single_lines(singles: Mapping[str, Singles]) -> list[str]:
    """Single edits: a column for each method."""
    methods = list(singles)
    first = singles[methods[0]]
    lines = [f"| | before | {' | '.join(methods)} | goal |", "| --- |" + " ---: |" * (len(methods) + 2)]
    lines.append(
        f"| S | {first.harmonic('before'):.1f} | "
        + " | ".join(f"{one.harmonic():.1f}" for one in singles.values())
        + " | |"
    )
    for title, name in _ROWS:
        digits = 3 if name == "neighbour_kl" else 1
        before = f"{first.mean(name, 'before'):.{digits}f}" if name in first.before else ""
        cells = [_cell(one.mean(name), digits) for one in singles.values()]
        lines.append(f"| {title} | {before} | {' | '.join(cells)} | {_GOALS.get(name, '')} |")
    base = first.perplexity
    means = [f"{base * one.mean('perplexity_ratio'):.2f}" for one in singles.values()]
    worst = [f"{base * one.worst:.2f} ({one.worst:.3f}x)" for one in singles.values()]
    lines.append(f"| perplexity of held-out text, mean over edits | {base:.2f} | {' | '.join(means)} | |")
    lines.append(f"| the same after the worst edit | {base:.2f} | {' | '.join(worst)} | {_WORST_GOAL} |")
    lines.append(
        "| change of the weights, mean of the norm over W's | | "
        + " | ".join(f"{float(one.drift.mean()):.3f}" for one in singles.values())
        + " | |"
    )
    lines.append(
        "| seconds an edit, median | | "
        + " | ".join(f"{float(one.seconds.median()):.1f}" for one in singles.values())
        + " | |"
    )
    return lines


def many_lines(many: Sequence[Together]) -> list[str]:
    """Many edits: a line for each number of them."""
    lines = [
        "| | edits | still hold (argmax), % | ES, % | PS, % | NS before → after, % | neighbours kept, % | perplexity | drift |",
        "| --- |" + " ---: |" * 8,
    ]
    for one in many:
        lines.append(
            f"| {one.how} | {one.edits} | {one.holding:.1f} | {one.efficacy:.1f} | {one.paraphrase:.1f} | "
            f"{one.neighbourhood_before:.1f} → {one.neighbourhood:.1f} | {one.kept:.1f} | {one.perplexity_ratio:.3f}x | {one.drift:.3f} |"
        )
    return lines


def _cell(value: float, digits: int) -> str:
    return "" if value != value else f"{value:.{digits}f}"
