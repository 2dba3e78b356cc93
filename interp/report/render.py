"""Sections as HTML, and the data of their pictures and linked tables for the page's script."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from interp.report.blocks import Axis, Block, LinkedTable, Picture, Section, Table, Version
from interp.report.markup import Html, element, join, prose
from interp.report.pack import Matrices, compact, difference, pack_figure

_SHOWN_DIGITS = 3


@dataclass
class Renderer:
    """Renders blocks one after the other; ``data`` collects what the script needs, in the order of the blocks' numbers."""

    data: list[dict[str, Any]] = field(default_factory=list)
    matrices: Matrices = field(default_factory=Matrices)

    def section(self, section: Section, number: int) -> Html:
        """The section with its heading, lead and blocks."""
        heading = element("h2", element("span", str(number), class_="number"), section.title)
        lead = element("p", prose(section.lead), class_="lead")
        return element("section", heading, lead, *map(self.block, section.blocks), id=section.name)

    def block(self, block: Block) -> Html:
        """One block; pictures and linked tables are filled in by the script."""
        if isinstance(block, Table):
            return table(block)
        if isinstance(block, Picture):
            return self._picture(block)
        if isinstance(block, LinkedTable):
            return self._linked(block)
        return join([block])

    def _picture(self, picture: Picture) -> Html:
        packed = pack_picture(picture, self.matrices)
        number = self._add(packed)
        return element(
            "figure",
            element("div", class_="switch"),
            element(
                "div",
                class_="plot",
                role="img",
                aria_label=picture.caption,
                style=f"min-height:{packed['base']['layout']['height']}px",
            ),
            element("figcaption", picture.caption),
            element("details", element("summary", "The numbers as a table"), element("div", class_="scroll")),
            class_="picture",
            data_block=number,
        )

    def _linked(self, linked: LinkedTable) -> Html:
        number = self._add(pack_linked(linked))
        return element(
            "figure",
            element("p", class_="where", aria_live="polite"),
            element("div", class_="scroll", tabindex=0, role="group", aria_label=linked.caption),
            element("figcaption", linked.caption),
            class_="linked",
            data_block=number,
        )

    def _add(self, data: dict[str, Any]) -> int:
        self.data.append(data)
        return len(self.data) - 1


def table(block: Table) -> Html:
    """A table whose numeric columns are set flush right; long ones scroll."""
    heads = [
        element("th", name, scope="col", class_="num" if index in block.numeric else None)
        for index, name in enumerate(block.columns)
    ]
    rows = [
        element(
            "tr",
            *(element("td", cell, class_="num" if index in block.numeric else None) for index, cell in enumerate(row)),
            data_pos=pos if block.follows else None,
        )
        for pos, row in enumerate(block.rows)
    ]
    caption = [element("caption", block.caption)] if block.caption else []
    body = element("table", *caption, element("thead", element("tr", *heads)), element("tbody", *rows))
    label = block.caption if isinstance(block.caption, str) else "Table"
    return element(
        "div",
        body,
        class_="scroll table long" if block.long else "scroll table",
        tabindex=0,
        role="group",
        aria_label=label,
        data_prompt=block.follows,
    )


def pack_picture(picture: Picture, matrices: Matrices) -> dict[str, Any]:
    """The first version whole, of the others only the differences from it."""
    versions = list(picture.versions.items())
    base = pack_figure(versions[0][1].figure, matrices)
    options = []
    for words, version in versions:
        packed = pack_figure(version.figure, matrices)
        whole = len(packed["data"]) != len(base["data"])
        options.append(
            {"label": words}
            | ({"whole": packed} if whole else {"patch": difference(base, packed)})
            | _extras(version, matrices)
        )
    return {"type": "picture", "prompt": picture.prompt, "base": base, "options": options}


def pack_linked(linked: LinkedTable) -> dict[str, Any]:
    """The cells, with each distinct token once in ``words``."""
    words: dict[str, int] = {}

    def cell(value: int | float | str | Sequence[str]) -> Any:
        if isinstance(value, str | float | int):
            return compact(value, _SHOWN_DIGITS)
        return [words.setdefault(word, len(words)) for word in value]

    cells = [[[[cell(value) for value in row] for row in rows] for rows in layer] for layer in linked.cells]
    return {
        "type": "linked",
        "prompt": linked.prompt,
        "columns": list(linked.columns),
        "layers": list(linked.layers),
        "cells": cells,
        "words": list(words),
    }


def _extras(version: Version, matrices: Matrices) -> dict[str, Any]:
    extras: dict[str, Any] = {}
    if version.follow:
        extras["follow"] = [matrices.compact(properties) for properties in version.follow]
    for name, axis in (("x", version.x), ("y", version.y)):
        if axis is not None:
            extras[name] = _axis(axis)
    return extras


def _axis(axis: Axis) -> dict[str, Any]:
    return {"of": axis.of} | ({"layers": list(axis.layers), "labels": list(axis.labels)} if axis.of == "layer" else {})
