"""Many edits: what still holds after each so many, the perplexity, and how far the weights have moved."""

from typing import Any

import numpy as np

from interp.editing.edit_sequence_result import MEASURES
from interp.figures.edit_effect import course_lines
from interp.report.blocks import Block, Evidence, Finding, Picture, Section, Table, Version
from interp.report.markup import Child, element, quoted, token
from interp.report.sections.edit_words import METHODS, layers_told
from interp.report.sections.numbers import brief, interval_of

_NAMES = {"argmax": "target is the first choice", "preferred": "target is likelier than the true object"}
_STOPS = {
    "end": "all facts were edited",
    "drift": "the drift passed its limit",
    "perplexity": "the perplexity passed its limit",
}
_SHOWN = 50
"""Facts on the page; the saved result holds all."""


def build(result: Any, prompt: str) -> Section | None:
    """Shares, perplexity and drift over the number of facts edited."""
    batches = "one after another" if result.batch == 1 else f"{result.batch} at a time"
    lead = (
        f"Do edits last? {result.n_edited} facts were edited {batches}, by {METHODS.get(result.method, result.method)}, in "
        f"{layers_told(result.layers)}, each on the model with those before it. Every so often all facts edited so far were asked again. "
        "[[Drift|drift]] says how far the weights have moved."
    )
    blocks: list[Block] = [_courses(result, prompt), _checks(result)]
    if result.warnings:
        blocks.insert(0, element("p", *_sentences(result.warnings), class_="notice"))
    blocks.append(_facts(result))
    return Section(
        name="edit-sequence",
        title="Many edits",
        label="Many edits",
        lead=lead,
        place=87,
        blocks=blocks,
        findings=_findings(result),
    )


def _sentences(lines: Any) -> list[Child]:
    return [part for line in lines for part in (quoted(line), " ")]


def _courses(result: Any, prompt: str) -> Picture:
    frame, labels = result.to_frame(), [str(count) for count in result.checked.tolist()]
    shares = {
        _NAMES[name]: frame[f"hold_{name}_percent"].to_numpy(dtype=float)
        for name in MEASURES
        if frame[f"hold_{name}_percent"].notna().any()
    }
    drifts = {f"layer {layer}": frame[f"weight_drift_L{layer}"].to_numpy(dtype=float) for layer in result.layers}
    shared = {"labels": labels, "title": "facts edited"}
    versions = {}
    if shares:
        versions["What holds"] = Version(figure=course_lines(shares, "facts that hold (%)", top=102.0, **shared))
    if result.perplexity is not None:
        perplexity = {"perplexity": result.perplexity.double().numpy()}
        versions["Perplexity"] = Version(figure=course_lines(perplexity, "perplexity", **shared))
    if drifts:
        versions["Drift"] = Version(figure=course_lines(drifts, "|dW| / |W|", **shared))
    caption = (
        "At each check, of the facts edited by then: the share whose target comes first. The perplexity is of "
        f"{result.n_texts} held-out texts; the drift of all edits together."
    )
    return Picture(versions=versions, caption=caption, prompt=prompt)


def _checks(result: Any) -> Table:
    rows: list[list[Child]] = []
    for check, count in enumerate(result.checked.tolist()):
        held = result.holding("argmax", check)
        perplexity = "" if result.perplexity is None else brief(float(result.perplexity[check]))
        rows.append([str(count), *_held(held), perplexity, _drift(result, count)])
    columns = ("facts edited", "hold (%)", f"{result.confidence:.0%} interval", "perplexity", "greatest |dW| / |W|")
    return Table(
        columns=columns,
        rows=rows,
        numeric=frozenset(range(5)),
        caption=f"The checks; it ended because {_STOPS.get(result.stop_reason, result.stop_reason)}",
        long=True,
    )


def _held(estimate: Any) -> tuple[str, str]:
    if estimate is None:
        return "", ""
    bounded = np.isfinite(estimate.lower)
    return f"{100 * estimate.value:.0f}", f"{100 * estimate.lower:.0f} to {100 * estimate.upper:.0f}" if bounded else ""


def _drift(result: Any, count: int) -> str:
    """The greatest drift of a layer when ``count`` facts were edited."""
    done = int(np.searchsorted(np.cumsum([len(edit.facts) for edit in result.edits]), count, side="right"))
    return f"{float(result.drift[done - 1].max()):.2%}" if done else "0%"


def _facts(result: Any) -> Table:
    last = result.accuracy[-1].tolist()
    rows: list[list[Child]] = [
        [str(number), quoted(fact.prompt), token(fact.target), _state(accuracy)]
        for number, (fact, accuracy) in enumerate(zip(result.facts, last, strict=True), 1)
    ]
    shown = f"; the first {_SHOWN} of {len(rows)}" if len(rows) > _SHOWN else ""
    return Table(
        columns=("", "prompt", "target", "at the last check"),
        rows=rows[:_SHOWN],
        numeric=frozenset({0}),
        caption=f"The facts in the order of their edits{shown}",
        long=True,
    )


def _state(accuracy: float) -> str:
    if accuracy != accuracy:
        return "not edited"
    return "holds" if accuracy == 1 else "lost"


def _findings(result: Any) -> tuple[Finding, ...]:
    held, ratio = result.holding("argmax"), result.perplexity_ratio
    if held is None:
        return ()
    text = f"After {result.n_edited} edited facts {held.value:.0%} of them hold"
    if np.isfinite(held.lower):
        text += f" ({result.confidence:.0%} interval {held.lower:.0%} to {held.upper:.0%})"
    if ratio is not None:
        text += f"; the perplexity of held-out text is {ratio:.2f} times that before"
    return (
        Finding(
            text=f"{text}.",
            rank=Evidence.ANSWER,
            strength=held.value,
            value=held.value,
            unit="share of facts",
            interval=interval_of(held),
        ),
    )
