"""A comparison: two results side by side, where they differ most, and what could not be put side by side."""

import math
from collections.abc import Sequence
from typing import Any

from interp.analyzers.comparison_rows import largest_cells
from interp.figures.comparison import bar_rows, panel_labels
from interp.report.blocks import Axis, Block, Evidence, Finding, Picture, Place, Section, Table, Version
from interp.report.markup import Child, Html, element, join, quoted, token
from interp.report.sections.numbers import brief, part_of, signed
from interp.tokens import visible

_LISTED = 12
_ROOM = 60_000
"""How many cells of one quantity a page has room for."""
KINDS = {
    "logit_lens": "logit lens",
    "residual_story": "residual stream",
    "direct_logit_attribution": "direct logit attribution",
    "attention_patterns": "attention patterns",
    "head_profiles": "head profiles",
    "causal_trace": "causal trace",
}


def build(result: Any, prompt: str, other: str | None = None) -> Section | None:
    """Both sides in words, numbers of each as a whole, the quantities as maps, and the cells that differ most.

    ``prompt`` and ``other`` are the keys of the sides' prompts: what is chosen in one panel is marked in all of them.
    """
    what: str = KINDS.get(result.compared) or result.compared.replace("_", " ")
    lead = (
        f"Two results of one kind ({what}) side by side, and what the second has more than the first. A cell that only one "
        "of them has, or that is about another token in each, has no difference and is left empty. What is chosen in one panel is marked "
        "in all; a token of one prompt that has none beside it is marked in none."
    )
    blocks: list[Block] = [_sides(result), _summaries(result)]
    shown = [quantity for quantity in result.quantities if quantity.difference.numel() <= _ROOM]
    if shown:
        blocks += [_picture(result, shown, (prompt, other or prompt)), _largest(result, prompt)]
    blocks.append(_notes(result, shown))
    return Section(
        name="comparison",
        title=f"{what.capitalize()}: {visible(result.a.name)} and {visible(result.b.name)}",
        label=f"{what.capitalize()}, compared",
        lead=lead,
        place=5,
        blocks=blocks,
        findings=_findings(result),
    )


def _sides(result: Any) -> Table:
    rows: list[list[Child]] = [
        [
            quoted(side.name),
            quoted(side.text) if side.text else "no one prompt",
            quoted(side.provenance.model),
            quoted(side.provenance.created),
        ]
        for side in (result.a, result.b)
    ]
    return Table(columns=("", "prompt", "model", "made at"), rows=rows, caption="What is compared")


def _summaries(result: Any) -> Table:
    rows: list[list[Child]] = []
    for summary in result.summaries:
        texts = [_about(text, value) for text, value in ((summary.a_text, summary.a), (summary.b_text, summary.b))]
        rows.append([summary.name, *texts, _change(summary.difference), summary.unit])
    return Table(
        columns=("", visible(result.a.name), visible(result.b.name), "difference", "unit"),
        rows=rows,
        numeric=frozenset({1, 2, 3}),
        caption="Each result as a whole",
    )


def _picture(result: Any, shown: list[Any], prompts: tuple[str, str]) -> Picture:
    versions = {}
    for quantity in shown:
        maps = len(quantity.columns) > 1 or quantity.a is None
        versions[quantity.title] = Version(
            figure=result.figure(quantity.name),
            x=_columns(result, quantity, prompts) if maps else None,
            y=_rows(
                quantity, range(len(quantity.rows)) if maps else bar_rows(quantity.difference[:, 0].numpy()).tolist()
            ),
        )
    return Picture(
        versions=versions,
        caption=(
            "From left to right: the first result, the second, and the second less the first. The two share one scale of colour; that of "
            "the difference is alike on both sides of 0. Quantities with one number a row are bars, those that differ most."
        ),
        prompt=prompts[0],
    )


def _rows(quantity: Any, order: Sequence[int]) -> Axis:
    """What the rows of a picture stand for: layers where they have some."""
    labels = tuple(quantity.rows[index] for index in order)
    if not quantity.row_layers:
        return Axis(of="row", labels=labels)
    return Axis(of="layer", layers=tuple(quantity.row_layers[index] for index in order), labels=labels)


def _columns(result: Any, quantity: Any, prompts: tuple[str, str]) -> Axis:
    """What the columns of all panels stand for: heads, tokens of both prompts side by side, or what their labels say."""
    panels = 1 if quantity.a is None else 3
    names = panel_labels(quantity.columns, panels)
    if panels > 1:
        sides = (visible(result.a.name), visible(result.b.name), "difference")
        width = len(quantity.columns) + 1
        names = [
            f"{sides[place // width]}: {name}" if place % width < width - 1 else "" for place, name in enumerate(names)
        ]
    labels = tuple(names)
    if quantity.column_heads:
        return Axis(of="head", heads=_in_panels(quantity.column_heads, panels), labels=labels)
    if quantity.column_axis == "token" and len(result.pairs) == len(quantity.columns):
        return Axis(of="pair", prompts=prompts, pairs=_in_panels(result.pairs, panels), labels=labels)
    return Axis(of="column", labels=labels)


def _in_panels(places: Sequence[Any], panels: int) -> tuple[Any, ...]:
    """``places`` in each panel, None in the gaps between them."""
    return tuple(place for panel in range(panels) for place in ([None] * bool(panel) + list(places)))


def _largest(result: Any, prompt: str) -> Table:
    """The cells of the first quantity that differ most."""
    found = largest_cells(result, _LISTED, (visible(result.a.name), visible(result.b.name)))
    rows: list[list[Child]] = []
    for cell in found.cells:
        sides = [_about(text, value) for text, value in found.sides_of(cell)]
        bounds = [_bounds(cell)] if found.bounded else []
        rows.append([*found.places_of(cell), *sides, _change(cell.difference), *bounds])
    return Table(
        columns=(*found.places, *found.numbers),
        rows=rows,
        numeric=frozenset(range(len(found.places), len(found.places) + len(found.numbers))),
        caption=f"Where the {found.quantity.title} differs most ({found.quantity.unit})",
        long=True,
        places=[_place(found.quantity, cell, result.pairs) for cell in found.cells],
        prompt=prompt or None,
    )


def _place(quantity: Any, cell: Any, pairs: Sequence[tuple[int, int]]) -> Place:
    """What a cell is about, so that it can be chosen in the table; a name that several rows or columns have names none of them."""
    row, column = (
        names.index(name) if names.count(name) == 1 else None
        for names, name in ((quantity.rows, cell.row), (quantity.columns, cell.column))
    )
    tokens = [first for first, _ in pairs] if quantity.column_axis == "token" else []
    layer, head, pos = (
        values[at] if at is not None and at < len(values) else None
        for values, at in ((quantity.row_layers, row), (quantity.column_heads, column), (tokens, column))
    )
    return Place(token=pos, layer=layer, head=head)


def _notes(result: Any, shown: list[Any]) -> Html:
    left_out = [quantity.title for quantity in result.quantities if quantity not in shown]
    notes = [
        *(f"Aligned: {words}." for words in result.aligned),
        *(f"Not put side by side: {words}." for words in result.not_aligned),
        *(f"Too large for this page, but in the result: {title}." for title in left_out),
    ]
    return element("ul", *(element("li", quoted(note)) for note in notes), class_="notes") if notes else join([])


def _findings(result: Any) -> tuple[Finding, ...]:
    """The first number of both results as a whole, and the cell that differs most."""
    found = []
    if result.summaries:
        found.append(_whole(result, result.summaries[0]))
    cells = result.largest(k=1) if result.quantities else ()
    if cells and cells[0].difference:
        cell, quantity = cells[0], result.quantity()
        values = "" if quantity.a is None else f": {_value(cell.a)} and {_value(cell.b)}"
        bounds = f" ({_bounds(cell)})" if math.isfinite(cell.lower) else ""
        clear = not math.isfinite(cell.lower) or not cell.lower <= 0 <= cell.upper
        column = [f", {quantity.column_axis} ", quoted(cell.column)] if len(quantity.columns) > 1 else []
        where = [f"{quantity.row_axis} ", quoted(cell.row), *column]
        text = join(
            [f"The {quantity.title} differs most at ", *where, f", by {_change(cell.difference)}{bounds}{values}."]
        )
        found.append(
            Finding(
                text=text,
                rank=Evidence.READ,
                strength=part_of(cell.difference, quantity.unit, (cell.a, cell.b)) if clear else 0.0,
                value=cell.difference,
                unit=quantity.unit,
                interval=(cell.lower, cell.upper) if math.isfinite(cell.lower) else None,
                null=0.0,
            )
        )
    return tuple(found)


def _whole(result: Any, summary: Any) -> Finding:
    sides = [
        join([quoted(side.name), " ", *([token(text), " "] if text else []), _value(value)])
        for side, text, value in (
            (result.a, summary.a_text, summary.a),
            (result.b, summary.b_text, summary.b),
        )
    ]
    text = join([f"{summary.name[:1].upper()}{summary.name[1:]}: ", sides[0], ", ", sides[1], "."])
    differs = summary.a_text != summary.b_text
    return Finding(
        text=text,
        rank=Evidence.ANSWER,
        strength=1.0 if differs else 0.5,
        value=summary.difference if math.isfinite(summary.difference) else None,
        unit=summary.unit,
        block=1,
    )


def _about(text: str, value: float) -> Child:
    return join([token(text), " ", _value(value)]) if text else _value(value)


def _value(value: float) -> str:
    return brief(value) if math.isfinite(value) else "none"


def _change(value: float) -> str:
    return signed(value) if math.isfinite(value) else "none"


def _bounds(cell: Any) -> str:
    return f"{signed(cell.lower)} to {signed(cell.upper)}" if math.isfinite(cell.lower) else "none"
