"""Sections as HTML, and the data of their pictures and linked tables for the page's script."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from interp.report.arrays import Arrays, Words
from interp.report.blocks import Axis, Block, HeadMosaic, Line, LinkedTable, Picture, Section, Table, Version
from interp.report.findings import anchored
from interp.report.markup import Html, element, join, prose
from interp.report.pack import difference, pack_figure, pack_properties


@dataclass
class Renderer:
    """Renders blocks one after the other; ``data`` collects what the script needs, in the order of the blocks' numbers."""

    data: list[dict[str, Any]] = field(default_factory=list)
    arrays: Arrays = field(default_factory=Arrays)
    blobs: list[bytes] = field(default_factory=list)
    """Bytes that the script reads only when their block comes into view, in the order of their numbers."""

    def section(self, section: Section, number: int) -> Html:
        """The section with its heading, lead and blocks."""
        heading = element("h2", element("span", str(number), class_="number"), section.title)
        lead = element("p", prose(section.lead), class_="lead")
        anchors = anchored(section)
        blocks: list[Html] = []
        for index, block in enumerate(section.blocks):
            if index in anchors:
                blocks.append(element("span", id=anchors[index], class_="anchor"))
            blocks.append(self.block(block))
        return element("section", heading, lead, *blocks, id=section.name)

    def block(self, block: Block) -> Html:
        """One block; pictures and linked tables are filled in by the script."""
        if isinstance(block, Table):
            return table(block)
        if isinstance(block, Picture):
            return self._picture(block)
        if isinstance(block, LinkedTable):
            return self._linked(block)
        if isinstance(block, HeadMosaic):
            return self._mosaic(block)
        return join([block])

    def _picture(self, picture: Picture) -> Html:
        packed = pack_picture(picture, self.arrays)
        number = self._add(packed)
        return element(
            "figure",
            element("div", class_="switch"),
            _plot(picture.caption, packed["base"]["layout"]["height"]),
            element("figcaption", picture.caption),
            _numbers("The numbers as a table"),
            class_="picture",
            data_block=number,
        )

    def _linked(self, linked: LinkedTable) -> Html:
        number = self._add(pack_linked(linked, self.arrays))
        return element(
            "figure",
            element("p", class_="where"),
            element("div", class_="scroll", tabindex=0, role="group", aria_label=linked.caption),
            element("figcaption", linked.caption),
            class_="linked",
            data_block=number,
        )

    def _mosaic(self, mosaic: HeadMosaic) -> Html:
        packed, blob = pack_mosaic(mosaic, self.arrays)
        number = self._add(packed | {"blob": len(self.blobs)})
        self.blobs.append(blob)
        label = "All heads; arrow keys choose one"
        canvas = element("canvas", tabindex=0, role="group", aria_label=label, width=0, height=0)
        detail = _plot("The pattern of the selected head", packed["detail"]["layout"]["height"])
        strip = element(
            "div", class_="strip", data_prompt=mosaic.prompt, role="group", aria_label="What the query looks at"
        )
        return element(
            "figure",
            element("div", class_="switch"),
            element("p", class_="where", aria_live="polite"),
            element(
                "div",
                element("div", canvas, class_="mosaic"),
                element("div", strip, detail, class_="one"),
                class_="beside",
            ),
            element("figcaption", mosaic.caption),
            _numbers("All heads as a table"),
            _numbers("The selected head's pattern as a table"),
            class_="heads",
            data_block=number,
        )

    def _add(self, data: dict[str, Any]) -> int:
        self.data.append(data)
        return len(self.data) - 1


def _plot(label: str, height: int) -> Html:
    """Where the script draws a picture; with the focus on it, keys move what is selected."""
    return element("div", class_="plot", role="img", aria_label=label, tabindex=0, style=f"min-height:{height}px")


def _numbers(summary: str) -> Html:
    """Where the script writes a picture's table once it is opened."""
    box = element("div", class_="scroll", tabindex=0, role="group", aria_label=summary)
    return element("details", element("summary", summary), box)


def table(block: Table) -> Html:
    """A table; the columns to set flush right are named in its class once, because a long prompt has many rows."""
    heads = [element("th", name, scope="col") for name in block.columns]
    if block.places and len(block.places) != len(block.rows):
        raise ValueError(f"{len(block.places)} places were given for {len(block.rows)} rows")
    chosen = [{"data_pos": place.token, "data_layer": place.layer, "data_head": place.head} for place in block.places]
    rows = [
        element("tr", *(element("td", cell) for cell in row), **place)
        for row, place in zip(block.rows, chosen or [{}] * len(block.rows), strict=True)
    ]
    caption = [element("caption", block.caption)] if block.caption else []
    right = " ".join(f"num{index}" for index in sorted(block.numeric)) or None
    body = element("table", *caption, element("thead", element("tr", *heads)), element("tbody", *rows), class_=right)
    label = block.caption if isinstance(block.caption, str) else "Table"
    return element(
        "div",
        body,
        class_="scroll table long" if block.long else "scroll table",
        tabindex=0,
        role="group",
        aria_label=label,
        data_prompt=block.follows,
        data_of=block.prompt,
    )


def pack_picture(picture: Picture, arrays: Arrays) -> dict[str, Any]:
    """The first version whole, of the others only the differences from it."""
    versions = list(picture.versions.items())
    base = pack_figure(versions[0][1], arrays)
    options = []
    for words, version in versions:
        packed = pack_figure(version, arrays)
        whole = _types(packed) != _types(base)
        options.append(
            {"label": words}
            | ({"whole": packed} if whole else {"patch": difference(base, packed)})
            | _extras(version, arrays)
        )
    start = {} if picture.start is None else {"start": list(picture.start)}
    return {"type": "picture", "prompt": picture.prompt, "base": base, "options": options} | start


def _types(packed: dict[str, Any]) -> list[str]:
    """The types of the traces: plotly takes the differences between traces of one type only."""
    return [trace["type"] for trace in packed["data"]]


def pack_mosaic(mosaic: HeadMosaic, arrays: Arrays) -> tuple[dict[str, Any], bytes]:
    """What the script must know of a mosaic, and its bytes: patterns, then norms in 255ths of the greatest of each head.

    Patterns go key by key (the queries that see key 0, then those that see key 1, ...): neighbours are then more alike.
    """
    described: dict[str, Any] = {
        "type": "heads",
        "prompt": mosaic.prompt,
        "layers": list(mosaic.layers),
        "heads": list(mosaic.heads),
        "kv": list(mosaic.kv_heads),
        "step": mosaic.step,
        "windows": list(mosaic.windows),
        "start": list(mosaic.start),
        "detail": pack_figure(Version(figure=mosaic.detail), arrays),
        "scores": [
            {"label": score.label, "least": score.least_first} | arrays.reference(score.values.astype(np.float64))
            for score in mosaic.scores
        ],
    }
    binary = mosaic.codes[..., _key_by_key(mosaic.codes.shape[2])].tobytes()
    if mosaic.norms is not None:
        greatest = mosaic.norms.max(axis=2)
        described["norms"] = arrays.reference(greatest.astype(np.float64))
        parts = mosaic.norms / np.where(greatest > 0, greatest, 1.0)[..., None]
        binary += np.round(parts * 255).astype(np.uint8).tobytes()
    return described, binary


def _key_by_key(pairs: int) -> np.ndarray:
    """Which pair, counted query by query, comes at each place when they are counted key by key."""
    n_pos = int(np.sqrt(2 * pairs))
    keys, queries = np.triu_indices(n_pos)
    return queries * (queries + 1) // 2 + keys


def pack_linked(linked: LinkedTable, arrays: Arrays) -> dict[str, Any]:
    """The lines, with references to arrays in place of what differs from cell to cell."""
    return {
        "type": "linked",
        "prompt": linked.prompt,
        "by": linked.by,
        "columns": list(linked.columns),
        "layers": list(linked.layers),
        "lines": [_line(line, arrays) for line in linked.lines],
    }


def _line(line: Line, arrays: Arrays) -> dict[str, Any]:
    cells = []
    for cell in line.cells:
        if isinstance(cell, str):
            cells.append(cell)
        else:
            cells.append(arrays.words(cell) if isinstance(cell, Words) else arrays.reference(cell))
    return {"cells": cells, "rows": list(line.rows)}


def _extras(version: Version, arrays: Arrays) -> dict[str, Any]:
    extras: dict[str, Any] = {}
    if version.follow:
        extras["follow"] = [pack_properties(properties, arrays) for properties in version.follow]
    for name, axis in (("x", version.x), ("y", version.y)):
        if axis is not None:
            extras[name] = _axis(axis)
    return extras


def _axis(axis: Axis) -> dict[str, Any]:
    if axis.of == "token":
        return {"of": axis.of}
    labels = axis.labels or tuple(map(str, axis.heads))
    if axis.of == "pair":
        return {"of": axis.of, "labels": list(labels), "prompts": list(axis.prompts), "pairs": list(axis.pairs)}
    return {"of": axis.of, "layers": list(axis.layers), "labels": list(labels), "heads": list(axis.heads)}
