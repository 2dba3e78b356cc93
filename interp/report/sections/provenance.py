"""Provenance: what is needed to make the same page again."""

from collections.abc import Sequence
from dataclasses import fields
from typing import Any

from interp.report.blocks import Section, Table
from interp.report.markup import Child, element, quoted
from interp.results import Provenance, Result

_NAMES = {
    "model": "model",
    "weights_sha256": "SHA-256 of the weights",
    "architecture": "architecture",
    "dtype": "number format",
    "device": "device",
    "threads": "threads",
    "attention": "attention implementation",
    "seed": "seed",
    "command": "command",
    "created": "made at",
    "versions": "versions",
}


def build(results: Sequence[Result]) -> Section:
    """One column for each distinct provenance among the results, under the kinds it belongs to."""
    columns: list[tuple[Provenance, list[str]]] = []
    for result in results:
        for provenance in _all_of(result):
            same = next((kinds for known, kinds in columns if known == provenance), None)
            if same is None:
                columns.append((provenance, [result.kind]))
            elif result.kind not in same:
                same.append(result.kind)
    known = {field.name for field in fields(Provenance)}
    rows: list[list[Child]] = [
        [words, *(_value(name, getattr(provenance, name)) for provenance, _ in columns)]
        for name, words in _NAMES.items()
        if name in known
    ]
    heads = [", ".join(kinds).replace("_", " ") for _, kinds in columns]
    lead = (
        "Everything on this page was computed from the model and settings below, and can be computed again with them."
    )
    return Section(
        name="provenance",
        title="Provenance",
        label="Provenance",
        lead=lead,
        place=90,
        blocks=(Table(columns=("", *heads), rows=rows, caption="Where the figures come from"),),
    )


def _all_of(result: Any) -> list[Provenance]:
    """Where a result comes from; of a comparison, both of its sides."""
    sides = [getattr(result, side).provenance for side in ("a", "b")] if result.kind == "comparison" else []
    return sides or [result.provenance]


def _value(name: str, value: object) -> Child:
    if value is None:
        return "not set"
    if isinstance(value, dict):
        return quoted(", ".join(f"{package} {version}" for package, version in sorted(value.items())))
    text = quoted(str(value))
    return element("code", text) if name in ("weights_sha256", "command") else text
