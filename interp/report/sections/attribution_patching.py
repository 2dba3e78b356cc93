"""Attribution patching: the maps of patching, estimated from gradients, and how well the estimates rank."""

from dataclasses import replace
from typing import Any

import numpy as np

from interp.report.blocks import Block, Evidence, Finding, Picture, Section, Table, Version
from interp.report.markup import Child, element
from interp.report.sections import activation_patching
from interp.report.sections.activation_patching_words import amount, bounds, site_name
from interp.report.sections.numbers import interval_of, signed

_LISTED = 60


def build(result: Any, prompt: str) -> Section | None:
    """How well the estimates agree with patches that were run, and then what the estimates are."""
    section = activation_patching.build(result, prompt)
    if section is None:
        return None
    how = (
        "the gradient"
        if result.steps == 1
        else f"gradients at {result.steps} points on the way ([[integrated gradients]])"
    )
    lead = (
        f"[[Patching]], estimated for all places at once: what a patch would change is taken to be the change of the state times {how} of "
        "the metric ([[attribution patching]]). The [[normalised effect]] is 0 where nothing would change and 1 where all of the "
        "difference between the prompts would go with it. An estimate says where to look; a patch that is run says what is there."
    )
    blocks: list[Block] = [element("p", _agreement(result)), *section.blocks]
    if result.checked is not None:
        caption = (
            "Each dot is a patch that was run: its exact change of the metric against the estimated one. On the dotted line they are "
            "equal; the table below lists them."
        )
        picture = Picture(
            versions={"Checked": Version(figure=result.agreement_figure())}, caption=caption, prompt=prompt
        )
        blocks += [picture, _checked(result)]
    return replace(
        section,
        name="attribution-patching",
        title="Attribution patching",
        label="Attribution patching",
        lead=lead,
        place=56,
        blocks=blocks,
        findings=(
            _agreed(result),
            *(replace(item, rank=Evidence.READ) for item in section.findings),
        ),
    )


def _agreed(result: Any) -> Finding:
    """How good the estimates are, which comes before anything that they say; they are read off gradients, not off changes made."""
    if result.checked is None or not np.isfinite(result.correlation.value):
        return Finding(text=_agreement(result), rank=Evidence.READ, strength=1.0)
    found = result.correlation
    return Finding(
        text=_agreement(result),
        rank=Evidence.READ,
        strength=1.0,
        value=found.value,
        unit="rank correlation",
        interval=interval_of(found),
        null=0.0,
    )


def _agreement(result: Any) -> str:
    if result.checked is None:
        return "No patch was run to check the estimates, so nothing is known of how good they are."
    found = result.correlation
    of_all = f"{result.n_checked:,} of {result.checked.n_cells:,} patches"
    if not np.isfinite(found.value):
        return f"The estimates could not be compared with the {of_all} that were run: their changes do not vary."
    return (
        f"Over {of_all} that were run, the estimated and the exact change have a rank correlation of {amount(found.value, 2)}"
        f"{bounds(found)}; 1 is the same order."
    )


def _checked(result: Any) -> Table:
    """The checked patches, those that change most first."""
    frame = result.checked_frame()
    frame = frame.reindex(frame["exact"].abs().sort_values(ascending=False, kind="stable").index)
    rows: list[list[Child]] = []
    for line in frame.head(_LISTED).to_dict("records"):
        name = f"L{line['layer']}" + (
            "" if line["head"] != line["head"] or line["head"] is None else f"H{int(line['head'])}"
        )
        place = line["position"]
        rows.append(
            [
                site_name(line["site"]),
                name,
                "all" if place is None or place != place else str(int(place)),
                str(line["pair"]),
                signed(line["estimated"]),
                signed(line["exact"]),
            ]
        )
    unit = f" ({result.metric_unit})" if result.metric_unit else ""
    return Table(
        columns=("site", "patch", "position", "pair", f"estimated change{unit}", f"exact change{unit}"),
        rows=rows,
        numeric=frozenset({2, 3, 4, 5}),
        caption=f"Estimated and exact changes, the greatest first{f', {_LISTED} of {len(frame)}' if len(frame) > _LISTED else ''}",
        long=True,
    )
