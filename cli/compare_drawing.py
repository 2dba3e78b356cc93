"""What ``interp compare`` prints: the two sides, numbers of each as a whole, the cells that differ most, and what has no counterpart."""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from .output import table

if TYPE_CHECKING:
    from interp.analyzers.comparison import Comparison, Summary

_LISTED = 8


def payload(found: "Sequence[Comparison]") -> dict[str, Any]:
    """Each comparison in short; of a single one the whole result too."""
    whole = {"result": found[0].to_json()} if len(found) == 1 else {"results": [one.to_json() for one in found]}
    return {"comparisons": [_record(one) for one in found], **whole}


def draw(console: Any, found: "Sequence[Comparison]") -> None:
    """One comparison after the other."""
    from interp.tokens import visible

    for one in found:
        for side in (one.a, one.b):
            about = f": {visible(side.text)}" if side.text else ""
            console.print(f"{visible(side.name)} ({visible(side.provenance.model)}){about}", soft_wrap=True)
        console.print(f"{one.compared.replace('_', ' ')} as a whole:", soft_wrap=True)
        console.print(_summaries(one))
        if one.quantities:
            quantity = one.quantity()
            console.print(f"where the {quantity.title} differs most ({quantity.unit}):", soft_wrap=True)
            console.print(_largest(one))
        for words in one.aligned:
            console.print(f"aligned: {words}", soft_wrap=True)
        for words in one.not_aligned:
            console.print(f"not side by side: {words}", soft_wrap=True)


def _record(one: "Comparison") -> dict[str, Any]:
    return {
        "compared": one.compared,
        "a": {"name": one.a.name, "prompt": one.a.text, "model": one.a.provenance.model},
        "b": {"name": one.b.name, "prompt": one.b.text, "model": one.b.provenance.model},
        "aligned": list(one.aligned),
        "not_aligned": list(one.not_aligned),
        "summaries": [vars(summary) | {"difference": summary.difference} for summary in one.summaries],
        "largest": {
            quantity.name: [vars(cell) for cell in one.largest(quantity.name, _LISTED)] for quantity in one.quantities
        },
    }


def _summaries(one: "Comparison") -> Any:
    rows = [_summary(summary) for summary in one.summaries]
    return table(("", one.a.name, one.b.name, "difference", "unit"), rows, right=" >>> ")


def _summary(summary: "Summary") -> list[str]:
    sides = [_side(summary.a_text, summary.a), _side(summary.b_text, summary.b)]
    return [summary.name, *sides, _signed(summary.difference), summary.unit]


def _largest(one: "Comparison") -> Any:
    from interp.analyzers.comparison_rows import largest_cells

    found = largest_cells(one, _LISTED, (one.a.name, one.b.name))
    rows = []
    for cell in found.cells:
        bounds = [f"{_signed(cell.lower)} to {_signed(cell.upper)}"] if found.bounded else []
        sides = [_side(text, value) for text, value in found.sides_of(cell)]
        rows.append([*found.places_of(cell), *sides, _signed(cell.difference), *bounds])
    return table((*found.places, *found.numbers), rows, right=" " * len(found.places) + ">" * len(found.numbers))


def _side(text: str, value: float) -> str:
    from interp.tokens import visible

    number = f"{value:.4g}" if math.isfinite(value) else "-"
    return f"{visible(text)} {number}" if text else number


def _signed(value: float) -> str:
    return f"{value:+.3f}" if math.isfinite(value) else "-"
