"""A sweep: what was run, means over its items, and what failed."""

from collections import Counter
from collections.abc import Iterator
from typing import Any

import numpy as np

from interp.report.blocks import Block, Evidence, Finding, Picture, Section, Table, Version
from interp.report.markup import Child, element, quoted
from interp.report.sections.numbers import brief, counted, interval_of

_FAILURES_SHOWN = 50
_LINKED = {
    "logit_lens": "[[logit lens]]",
    "residual_story": "story of the [[residual stream]]",
    "attention_patterns": "[[attention patterns|attention pattern]]",
    "head_profiles": "profile of every [[attention head]]",
    "induction_heads": "search for [[induction heads|induction head]]",
    "causal_trace": "causal trace, with the [[indirect effect]] of every state",
    "direct_logit_attribution": "[[direct logit attribution]]",
    "ablation": "[[ablation]]",
    "activation_patching": "activation [[patching]]",
    "attribution_patching": "[[attribution patching]]",
    "path_patching": "[[path patching]]",
    "edit": "one edit, measured before and after by [[efficacy]], [[generalisation]], [[specificity]] and others",
}
_MEANS_SHOWN = 60


def build(result: Any, prompt: str) -> Section:
    """Pictures of the means over items, tables of the greatest means, of what was run and of what failed."""
    summary = result.summary
    name = result.analyzer.replace("_", " ")
    ran = _LINKED.get(result.analyzer, name)
    lead = (
        f"What holds over many items? {_asked(result)}, each by itself: {ran}. Shown are means over items: a measure is first averaged "
        "within an item, over the rows of a group, so that every item counts once. Intervals are Student's t over items "
        f"({result.confidence:.0%})."
    )
    blocks: list[Block] = []
    if summary.n_failed:
        text = f"{summary.n_failed:,} of {result.n_tasks:,} tasks failed and are in no mean; the reasons stand below."
        blocks.append(element("p", text, class_="notice"))
    blocks += [*_pictures(result, prompt), *_peaks(result), _about(result), *_failures(summary)]
    return Section(
        name="sweep",
        title=f"Sweep: {name}",
        label="Sweep",
        lead=lead,
        place=15,
        blocks=blocks,
        findings=_findings(result),
    )


def _asked(result: Any) -> str:
    parts = [counted(result.n_items, "item")]
    if len(result.sources) > 1:
        parts.append(counted(len(result.sources), "model"))
    points = int(np.prod([len(values) for values in result.grid.values()])) if result.grid else 1
    if points > 1:
        parts.append(f"{points} choices of {', '.join(result.grid)}")
    total = f", {result.n_tasks:,} tasks in all" if len(parts) > 1 else ""
    return f"{', '.join(parts)}{total}"


def _pictures(result: Any, prompt: str) -> Iterator[Picture]:
    """One picture a measure; of maps one version for each."""
    if not result.summary.cells:
        return
    for measure in result.summary.measures:
        words = result.words[measure]
        versions = {name or words: Version(figure=figure) for name, figure in result.pictures(measure).items()}
        yield Picture(versions=versions, caption=f"The mean over items: {words}", prompt=prompt)


def _peaks(result: Any) -> Iterator[Table]:
    """For each line or map of the first measure, where its mean is greatest."""
    rows: list[list[Child]] = [
        [
            quoted(name or result.analyzer),
            quoted(", ".join(map(str, place))),
            brief(mean.value),
            f"{brief(mean.lower)} to {brief(mean.upper)}" if np.isfinite(mean.lower) else "",
            f"{mean.n:,}",
        ]
        for name, place, mean in result.peaks()
    ]
    if rows:
        axes = result.axis if result.across is None else f"{result.axis}, {result.across}"
        more = f" (the first {_MEANS_SHOWN} of {len(rows)})" if len(rows) > _MEANS_SHOWN else ""
        yield Table(
            columns=("", axes, "mean", f"{result.confidence:.0%} interval", "items"),
            rows=rows[:_MEANS_SHOWN],
            numeric=frozenset({2, 3, 4}),
            caption=f"Where the mean is greatest: {result.words[result.summary.measures[0]]}{more}",
            long=True,
        )


def _about(result: Any) -> Table:
    rows: list[list[Child]] = [["rows", f"{result.summary.n_rows:,} of {result.n_done:,} tasks"]]
    rows += [["model", quoted(f"{label} {source.weights_sha256 or ''}")] for label, source in result.sources.items()]
    for name, value in sorted(result.settings.items()):
        rows.append([quoted(name), quoted(value)])
    for name, values in sorted(result.grid.items()):
        rows.append([quoted(name), quoted(", ".join(values))])
    return Table(
        columns=("", ""), rows=rows, caption="What was run: models with the SHA-256 of their weights, settings"
    )


def _failures(summary: Any) -> Iterator[Table]:
    if not summary.failures:
        return
    counts = Counter(one.reason for one in summary.failures)
    if len(counts) < len(summary.failures):
        common: list[list[Child]] = [[f"{count:,}", quoted(reason)] for reason, count in counts.most_common(10)]
        yield Table(
            columns=("tasks", "why"), rows=common, numeric=frozenset({0}), caption="The commonest reasons of failures"
        )
    shown = summary.failures[:_FAILURES_SHOWN]
    rows: list[list[Child]] = [
        [str(one.item), quoted(one.what), quoted(one.where), quoted(one.reason)] for one in shown
    ]
    more = f"; the first {_FAILURES_SHOWN} of {summary.n_failed:,}" if summary.n_failed > len(shown) else ""
    yield Table(
        columns=("item", "what", "where", "why"),
        rows=rows,
        numeric=frozenset({0}),
        caption=f"Tasks that failed{more}",
        long=True,
    )


def _findings(result: Any) -> tuple[Finding, ...]:
    done = f"{result.n_done:,} of {result.n_tasks:,} tasks gave {counted(result.summary.n_rows, 'row')}"
    found = [
        Finding(
            text=f"{result.analyzer.replace('_', ' ')}: {done}.",
            rank=Evidence.CHECK,
            strength=result.n_done / max(1, result.n_tasks),
            value=float(result.n_done),
            unit="tasks",
        )
    ]
    peaks = list(result.peaks())
    if peaks:
        name, place, mean = max(peaks, key=lambda peak: peak[2].value)
        axes = (result.axis,) if result.across is None else (result.axis, result.across)
        where = ", ".join(f"{axis} {value}" for axis, value in zip(axes, place, strict=True))
        interval = f" ({brief(mean.lower)} to {brief(mean.upper)})" if np.isfinite(mean.lower) else ""
        what = f"{result.words[result.summary.measures[0]]} is greatest at {where}{f' ({name})' if name else ''}"
        text = f"Over {mean.n:,} items {what}: {brief(mean.value)}{interval}."
        unit = result.words[result.summary.measures[0]]
        found.append(Finding(text=text, rank=Evidence.READ, value=mean.value, unit=unit, interval=interval_of(mean)))
    return tuple(found)
