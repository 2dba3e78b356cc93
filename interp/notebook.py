"""How a result shows itself in a notebook: title, key numbers, the head of its table and its figure, as inert HTML.

The fragment holds no script and asks for nothing, so it is the same in a trusted notebook, in one that is not, and in a page made
from it. Every text is escaped, with its invisible characters written out.
"""

import math
from collections.abc import Iterable, Iterator
from dataclasses import fields
from html import escape
from typing import TYPE_CHECKING, Any

from interp.errors import InterpError
from interp.maths.estimates import Estimate
from interp.tokens import Tokens, visible

if TYPE_CHECKING:
    from pandas import DataFrame

_ROWS, _COLUMNS, _FACTS = 5, 9, 10
_LONGEST = 160

_SMALL = "margin:2px 0 8px;font-size:11px;opacity:0.7"
_CELL = "padding:2px 10px 2px 0;text-align:left;border:0"


def fragment(result: Any) -> str:
    """The HTML of a result: ``kind``, ``provenance``, ``to_frame`` and ``figure`` are all that is asked of it."""
    title = f"{result.kind.replace('_', ' ')} · {_shown(result.provenance.model)}"
    facts = "".join(_row("td", fact) for fact in list(_facts(result))[:_FACTS])
    numbers = f'<table style="border-collapse:collapse;font-size:12px">{facts}</table>' if facts else ""
    head = f'<p style="margin:0 0 6px;font-weight:600">{title}</p>'
    return f'<div style="font-family:system-ui,sans-serif">{head}{numbers}{_table(result)}{_figure(result)}</div>'


def _facts(result: Any) -> Iterator[tuple[str, str]]:
    """The fields that are one number, one text or the prompt."""
    for field in fields(result):
        value = getattr(result, field.name)
        name = field.name.replace("_", " ")
        if isinstance(value, Tokens):
            yield name, f"{value.text} ({len(value)} tokens)"
        elif isinstance(value, Estimate):
            bounds = "" if math.isnan(value.lower) else f" ({_number(value.lower)} to {_number(value.upper)})"
            yield name, f"{_number(value.value)}{bounds}"
        elif isinstance(value, bool | str):
            yield name, str(value)
        elif isinstance(value, int | float):
            yield name, _number(value)


def _table(result: Any) -> str:
    """The first lines of the table, and how many there are."""
    try:
        frame: DataFrame = result.to_frame()
    except UnicodeEncodeError:  # half of a surrogate pair, which pandas' strings may refuse
        return f'<p style="{_SMALL}">No table: a text in it is not valid Unicode.</p>'
    shown = frame.iloc[:_ROWS, :_COLUMNS]
    heads = _row("th", shown.columns)
    lines = "".join(_row("td", map(_cell, values)) for values in shown.itertuples(index=False))
    cut = f" and {len(frame.columns)} columns" if len(frame.columns) > _COLUMNS else ""
    note = (
        f"The first {len(shown)} of {len(frame):,} rows{cut}: .to_frame() has all."
        if len(frame) > len(shown) or cut
        else ""
    )
    style = "border-collapse:collapse;font-size:12px;margin-top:8px"
    table = f'<table style="{style}"><thead>{heads}</thead><tbody>{lines}</tbody></table>'
    return table + (f'<p style="{_SMALL}">{note}</p>' if note else "")


def _row(tag: str, cells: Iterable[str]) -> str:
    written = "".join(f'<{tag} style="{_CELL}">{_shown(cell)}</{tag}>' for cell in cells)
    return f"<tr>{written}</tr>"


def _figure(result: Any) -> str:
    """The figure as SVG; in words where there is none, or none that can be drawn without a script."""
    from interp.figures.static import static

    try:
        drawn = static(result.figure())
    except InterpError as error:
        return f'<p style="{_SMALL}">No figure: {_shown(str(error))}</p>'
    later = ".figure() gives it as a plotly figure to look at and change."
    if not drawn:
        return f'<p style="{_SMALL}">The figure needs a script: {later}</p>'
    return f'{drawn}<p style="{_SMALL}">{later}</p>'


def _shown(text: object) -> str:
    words = visible(str(text)) if str(text) else ""
    return escape(words if len(words) <= _LONGEST else words[: _LONGEST - 1] + "…")


def _cell(value: object) -> str:
    return _number(value) if isinstance(value, int | float) and not isinstance(value, bool) else str(value)


def _number(value: float | int) -> str:
    if isinstance(value, float) and not math.isfinite(value):
        return "none" if math.isnan(value) else str(value)
    return f"{value:.4g}" if isinstance(value, float) else f"{value:,}"
