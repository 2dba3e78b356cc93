"""The scores of edits on cases, before and after, and what they changed besides."""

from typing import Any

from interp.editing.edit_metrics import METRICS
from interp.editing.evaluation_result import SCORES, meaning_of, unit_of
from interp.editing.evaluation_tables import BYSTANDERS
from interp.figures.edit_effect import score_bars
from interp.report.blocks import Block, Evidence, Finding, Picture, Section, Table, Version
from interp.report.markup import Child, join, quoted, token
from interp.report.sections.edit_words import METHODS, number_of
from interp.report.sections.numbers import brief

_SHOWN = 30
"""Rows of side effects and of cases on the page; the saved result holds all."""


def build(result: Any, prompt: str) -> Section | None:
    """The scores as bars and as a table, the cases, and the prompts that should have kept their answer."""
    count = len(result.cases)
    cases = "one case" if count == 1 else f"{count} cases"
    made = (
        f"edited by {METHODS.get(result.method, result.method)}"
        if result.n_edits
        else "of the model as it is, not edited"
    )
    lead = (
        f"How good is the edit? These are scores of {cases}, {made}: [[efficacy]] at the edited prompts, [[generalisation]] at their "
        "paraphrases, [[specificity]] at neighbours; S is the harmonic mean of the three. Each is a mean over the prompts of a case, then "
        "over cases."
    )
    blocks: list[Block] = [_bars(result, prompt), _scores(result)]
    if result.n_edits:
        blocks += _side_effects(result)
    blocks.append(_cases(result))
    return Section(
        name="edit-scores",
        title="Scores of the edit",
        label="Edit scores",
        lead=lead,
        place=86,
        blocks=blocks,
        findings=_findings(result),
    )


def _estimates(result: Any) -> dict[str, tuple[Any, Any]]:
    """Each score that was measured in at least one state."""
    pairs = {name: (result.estimate(name, "before"), result.estimate(name, "after")) for name in SCORES}
    return {name: pair for name, pair in pairs.items() if any(found is not None for found in pair)}


def _bars(result: Any, prompt: str) -> Picture:
    rows = [
        (_name(name), _bounds(before), _bounds(after))
        for name, (before, after) in _estimates(result).items()
        if name == "score" or (name in METRICS and METRICS[name].unit == "%")
    ]
    caption = f"Scores in per cent, before and after. {_intervals(result)}"
    return Picture(versions={"Scores": Version(figure=score_bars(rows, "per cent"))}, caption=caption, prompt=prompt)


def _intervals(result: Any) -> str:
    return f"Intervals are {result.confidence:.0%}: Student's t over cases, for S and for the perplexity after one edit from the bootstrap."


def _name(name: str) -> str:
    return "S" if name == "score" else name.replace("_", " ")


def _bounds(estimate: Any) -> tuple[float, float, float] | None:
    return None if estimate is None else (estimate.value, estimate.lower, estimate.upper)


def _scores(result: Any) -> Table:
    rows: list[list[Child]] = []
    for name, (before, after) in _estimates(result).items():
        shown = after if after is not None else before
        rows.append(
            [_name(name), _told(before), _told(after), _spread(shown), unit_of(name), str(shown.n), meaning_of(name)]
        )
    for layer in result.layers if result.n_edits else ():
        drift = result.weight_drift(layer)
        what = "how far the layer's matrix was moved, of its own norm"
        rows.append(
            [f"drift, layer {layer}", "0", brief(drift.value), _spread(drift), "|dW| / |W|", str(drift.n), what]
        )
    return Table(
        columns=("score", "before", "after", f"{result.confidence:.0%} interval", "unit", "n", "what it is"),
        rows=rows,
        numeric=frozenset({1, 2, 3}),
        caption="All that was measured; the interval is of the last state",
        long=True,
    )


def _told(estimate: Any) -> str:
    return "" if estimate is None else _number(estimate.value)


def _number(value: float) -> str:
    return brief(value).replace("-", "−")  # noqa: RUF001


def _spread(estimate: Any) -> str:
    return "" if estimate.lower != estimate.lower else f"{_number(estimate.lower)} to {_number(estimate.upper)}"


def _side_effects(result: Any) -> list[Block]:
    """The prompts that an edit should leave and whose first choice it changed."""
    asked = _bystanders(result)
    if not asked:
        return []
    changed = result.side_effects().to_dict("records")
    rows: list[list[Child]] = [
        [
            row["role"],
            quoted(row["prompt"]),
            join([token(row["old_answer"]), " ", number_of(row["old_probability"])]),
            join([token(row["new_answer"]), " ", number_of(row["new_probability"])]),
            brief(row["kl_nats"]),
        ]
        for row in changed[:_SHOWN]
    ]
    shown = f"; the {len(rows)} of the greatest divergence" if len(rows) < len(changed) else ""
    return [
        Table(
            columns=("kind", "prompt", "before", "after", "KL (nats)"),
            rows=rows,
            numeric=frozenset({4}),
            caption=f"Side effects: {len(changed)} of {asked} prompts that should stay changed their first choice{shown}",
            long=True,
        )
    ]


def _bystanders(result: Any) -> int:
    return sum(len(result.asked[role].texts) for role in BYSTANDERS if role in result.asked)


def _cases(result: Any) -> Table:
    rows: list[list[Child]] = [
        [quoted(case.fact.prompt), quoted(case.fact.subject), token(case.true), token(case.fact.target)]
        for case in result.cases[:_SHOWN]
    ]
    shown = f"the first {len(rows)} of " if len(rows) < len(result.cases) else ""
    return Table(
        columns=("prompt", "subject", "true object", "new object"),
        rows=rows,
        caption=f"The cases: {shown}{len(result.cases)}",
        long=True,
    )


def _findings(result: Any) -> tuple[Finding, ...]:
    """The scores of the paper, then how many prompts changed that should not have."""
    told = []
    for name, letters in (
        ("score", "S"),
        ("efficacy_score", "ES"),
        ("paraphrase_score", "PS"),
        ("neighbourhood_score", "NS"),
    ):
        before, after = result.estimate(name, "before"), result.estimate(name, "after")
        if before is not None and after is not None:
            told.append(f"{letters} {brief(before.value)} → {brief(after.value)}")
        elif before is not None:
            told.append(f"{letters} {brief(before.value)}")
    if not told:
        return ()
    count = len(result.cases)
    over = "one case" if count == 1 else f"{count} cases"
    state = "before → after the edit" if result.n_edits else "not edited"
    found = [Finding(text=f"Of {over}, {state}: {', '.join(told)} (per cent).", rank=Evidence.ANSWER, strength=1.0)]
    asked = _bystanders(result)
    if result.n_edits and asked:
        changed = len(result.side_effects())
        found.append(
            Finding(
                text=f"{changed} of {asked} prompts that should stay changed their first choice.",
                rank=Evidence.ANSWER,
                strength=changed / asked,
                value=changed / asked,
                unit="share of prompts",
            )
        )
    return tuple(found)
