"""Provenance: what is needed to make the same page again."""

from collections.abc import Sequence
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
    """What all results share, and what differs from one group of them to another."""
    groups = _groups(results)
    texts = [{name: _text(name, origins) for name in _NAMES} for _, origins in groups]
    differing = [name for name in _NAMES if len({own[name] for own in texts}) > 1]
    shared: list[list[Child]] = [
        [words, _cell(name, texts[0][name])] for name, words in _NAMES.items() if name not in differing
    ]
    tables = [Table(columns=("", "all results"), rows=shared, caption="Where the figures come from")] if shared else []
    if differing:
        rows: list[list[Child]] = [
            [", ".join(kinds).replace("_", " "), *(_cell(name, own[name]) for name in differing)]
            for (kinds, _), own in zip(groups, texts, strict=True)
        ]
        columns = ("results", *(_NAMES[name] for name in differing))
        tables.append(Table(columns=columns, rows=rows, caption="What differs between them"))
    lead = (
        "Everything on this page was computed from the model and settings below, and can be computed again with them."
    )
    return Section(name="provenance", title="Provenance", label="Provenance", lead=lead, place=90, blocks=tables)


def _groups(results: Sequence[Result]) -> list[tuple[list[str], list[Provenance]]]:
    """The kinds of results that come from the same model and settings, whenever they were made, with their provenances."""
    groups: dict[tuple[str, ...], tuple[list[str], list[Provenance]]] = {}
    for result in results:
        for origin in _all_of(result):
            same = tuple(_text(name, [origin]) for name in _NAMES if name != "created")
            kinds, origins = groups.setdefault(same, ([], []))
            origins.append(origin)
            if result.kind not in kinds:
                kinds.append(result.kind)
    return list(groups.values())


def _all_of(result: Any) -> list[Provenance]:
    """Where a result comes from; of a comparison, both of its sides."""
    sides = [getattr(result, side).provenance for side in ("a", "b")] if result.kind == "comparison" else []
    return sides or [result.provenance]


def _text(name: str, origins: Sequence[Provenance]) -> str:
    """A field of provenances that are alike but for their times: of these the first and the last."""
    values = sorted({origin.created for origin in origins}) if name == "created" else [getattr(origins[0], name)]
    if isinstance(values[0], dict):
        return ", ".join(f"{package} {version}" for package, version in sorted(values[0].items()))
    return " to ".join(dict.fromkeys("not set" if value is None else str(value) for value in (values[0], values[-1])))


def _cell(name: str, text: str) -> Child:
    return element("code", quoted(text)) if name in ("weights_sha256", "command") else quoted(text)
