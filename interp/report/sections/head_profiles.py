"""Head profiles: what each head does over a set of prompts, and which heads that gives a name."""

from typing import Any

import numpy as np

from interp.figures.head_profiles import profile_map
from interp.report.blocks import Axis, Evidence, Finding, Line, LinkedTable, Picture, Section, Table, Version
from interp.report.markup import Child
from interp.report.sections.numbers import interval_of, percent

_LABELS = {
    "previous_token": "Previous token",
    "current_token": "Current token",
    "first_token": "First token",
    "local_window": "Local window",
    "duplicate_tokens": "Duplicates",
    "induction_targets": "Induction targets",
    "punctuation": "Punctuation",
    "entropy_nats": "Entropy",
    "entropy_normalised": "Normalised entropy",
    "mean_distance": "Mean distance",
    "explained_by_position": "Explained by position",
}
_FEWEST_SINKS = 3
_SHOWN = 12


def build(result: Any, prompt: str) -> Section | None:
    """A map of heads for each measure, the profile of the selected head, and the named heads with their evidence."""
    texts = "the texts that come with interp" if result.default_prompts else "the prompts given"
    lead = (
        f"What each [[attention head]] looks at, averaged over {len(result.lengths)} prompts ({texts}). A head is named only where its "
        "attention to one kind of token lies above its [[null]]: weights dealt to the visible tokens at random for measures "
        "of place, the same places in shuffled text for measures of content. An induction head candidate looks where an induction "
        "head would; whether it does the work takes an ablation."
    )
    return Section(
        name="head-profiles",
        title="Head profiles",
        label="Head profiles",
        lead=lead,
        place=65,
        blocks=(_maps(result, prompt), _profile(result, prompt), _evidence(result)),
        findings=_findings(result),
    )


def label(name: str) -> str:
    """A measure in words."""
    return _LABELS.get(name, f"{name.removeprefix('back_')} tokens back")


def _maps(result: Any, prompt: str) -> Picture:
    names = [[[] for _ in range(result.p.shape[2])] for _ in result.layers]
    for found in result.named_heads():
        names[result.layers.index(found.head.layer)][found.head.head].append(found.head_class)
    classes = [["; ".join(cell) for cell in row] for row in names]
    heads = Axis(of="head", heads=tuple(range(result.p.shape[2])))
    layers = Axis(of="layer", layers=result.layers, labels=tuple(str(layer) for layer in result.layers))
    versions = {}
    for index, measure in enumerate(result.measures):
        values = result.value.value[index].numpy()
        if np.isfinite(values).any():
            title = label(measure.name)
            figure = profile_map(
                values, result.null.value[index].numpy(), result.layers, title=title, unit=measure.unit, names=classes
            )
            versions[title] = Version(figure=figure, x=heads, y=layers)
    return Picture(
        versions=versions,
        caption="Every head, layers upwards. Shares of attention run from 0 to 1. A missing cell could not be measured.",
        prompt=prompt,
    )


def _profile(result: Any, prompt: str) -> LinkedTable:
    rows = range(len(result.layers))
    lines = [
        Line(
            cells=(
                label(measure.name),
                result.value.value[index].float().numpy(),
                result.value.lower[index].float().numpy(),
                result.value.upper[index].float().numpy(),
                result.null.value[index].float().numpy(),
                measure.unit,
            ),
            rows=tuple(rows),
        )
        for index, measure in enumerate(result.measures)
        if bool(result.value.value[index].isfinite().any())
    ]
    return LinkedTable(
        columns=("measure", "value", "lower", "upper", "null", "unit"),
        lines=lines,
        layers=result.layers,
        caption=f"The selected head; lower and upper bound a {result.confidence:.0%} interval over prompts.",
        prompt=prompt,
        by="head",
    )


def _evidence(result: Any) -> Table:
    """The named heads; of a class with many members the clearest."""
    lines: list[list[Child]] = []
    counts: dict[str, int] = {}
    for found in result.named_heads():
        counts[found.head_class] = counts.get(found.head_class, 0) + 1
        if counts[found.head_class] <= _SHOWN:
            interval = f"{found.value.lower:.3f} to {found.value.upper:.3f}"
            lines.append(
                [
                    found.head_class,
                    str(found.head),
                    f"{found.value.value:.3f}",
                    interval,
                    f"{found.null.value:.3f}",
                    f"{found.p:.1e}",
                    str(found.value.n),
                ]
            )
    margins = {measure.margin for measure in result.measures if measure.margin is not None}
    beyond = " or ".join(f"{margin:g}" for margin in sorted(margins))
    summary = ", ".join(f"{name}: {count}" for name, count in counts.items()) or "none"
    return Table(
        columns=("class", "head", "value", f"{result.confidence:.0%} interval", "null", "p", "prompts"),
        rows=lines,
        numeric=frozenset({2, 3, 4, 5, 6}),
        caption=(
            f"Named heads ({summary}), up to {_SHOWN} a class. p tests that the value exceeds its null by more than the margin ({beyond} "
            f"of attention); false-discovery rate {result.rate:g} over all heads and classes."
        ),
        long=True,
    )


def _findings(result: Any) -> tuple[Finding, ...]:
    found = []
    named = result.named_heads()
    sinks = result.value.value[[item.name for item in result.measures].index("first_token")]
    over = int((sinks > 0.5).sum())
    if over >= _FEWEST_SINKS:
        found.append(
            Finding(
                text=f"{over} of {sinks.numel()} heads put over half of their attention on the first token.",
                rank=Evidence.HABIT,
                strength=over / sinks.numel(),
                value=over / sinks.numel(),
                unit="share of heads",
            )
        )
    for wanted, words, null in (
        ("previous_token", "the previous token", "with its weights dealt out at random"),
        ("duplicate_tokens", "earlier copies of the current token", "at the same places of shuffled text"),
        ("induction_targets", "what followed the current token before", "at the same places of shuffled text"),
    ):
        best = next((item for item in named if item.measure == wanted), None)
        if best is not None:
            share, chance = percent(best.value.value), percent(best.null.value)
            found.append(
                Finding(
                    text=f"{best.head} gives {share} of its attention to {words}, and {chance} {null}.",
                    rank=Evidence.HABIT,
                    strength=max(0.0, best.value.value - best.null.value),
                    value=best.value.value,
                    unit="share of attention",
                    interval=interval_of(best.value),
                    null=best.null.value,
                )
            )
    return tuple(found)
