"""Composition of many heads: which heads read what which earlier heads wrote."""

from typing import Any

from interp.figures.head_circuits import composition_map
from interp.report.blocks import Evidence, Finding, Picture, Section, Table, Version
from interp.report.markup import Child, element

_NAMES = {"q": "queries", "k": "keys", "v": "values"}
_LISTED = 20


def build(result: Any, prompt: str) -> Section | None:
    """Every reader with every writer, and the strongest pairs."""
    names = _NAMES[result.through]
    lead = (
        f"[[Composition]] through {names}: how much of what each head writes lies in the directions that the {names} of a later head read, "
        "from the weights alone. Strong pairs are candidates for circuits; whether a prompt uses them, a run has to show."
    )
    if result.distance:
        lead += f" The layers that rotate are taken with the key {result.distance} positions before the query."
    writers = [f"L{layer}H{head}" for layer in range(result.n_layers) for head in range(result.n_heads)]
    readers = [str(reader) for reader in result.readers]
    figure = composition_map(
        result.composition.double().numpy(), result.z.double().numpy(), readers, writers, result.through
    )
    caption = (
        f"Random matrices give {result.shape_mean:.3f}; hovering shows standard deviations above a random rotation "
        "of what is written."
    )
    pairs = _pairs(result, writers)
    return Section(
        name=f"composition-{result.through}",
        title=f"{result.through.upper()}-composition of heads",
        label=f"{result.through.upper()}-composition",
        lead=lead,
        place=67,
        blocks=(
            Picture(versions={"All heads": Version(figure=figure)}, caption=caption, prompt=prompt),
            _table(result, pairs),
            element("p", element("strong", "Left out: "), "; ".join(result.left_out) + "."),
        ),
        findings=_findings(result, pairs),
    )


def _pairs(result: Any, writers: list[str]) -> list[tuple[str, str, float, float, float]]:
    """Reader, writer, composition, standard deviations above the null and above the reader's other partners, strongest first."""
    values = result.composition.nan_to_num(nan=-1.0).flatten()
    order = values.argsort(descending=True, stable=True)[:_LISTED].tolist()
    z, peers = result.z.flatten(), result.peer_z.flatten()
    count = len(writers)
    return [
        (str(result.readers[i // count]), writers[i % count], float(values[i]), float(z[i]), float(peers[i]))
        for i in order
        if float(values[i]) >= 0
    ]


def _table(result: Any, pairs: list[tuple[str, str, float, float, float]]) -> Table:
    rows: list[list[Child]] = [[r, w, f"{value:.3f}", f"{z:+.0f}", f"{peer:+.1f}"] for r, w, value, z, peer in pairs]
    columns = ("reader", "writer", "composition", "sd above rotation", "sd above its other writers")
    return Table(columns=columns, rows=rows, numeric=frozenset({2, 3, 4}), caption="The strongest pairs.", long=True)


def _findings(result: Any, pairs: list[tuple[str, str, float, float, float]]) -> tuple[Finding, ...]:
    if not pairs:
        return ()
    reader, writer, value, *_ = pairs[0]
    text = (
        f"The strongest {result.through.upper()}-composition: {reader} reads {writer} "
        f"({value:.2f}, random matrices {result.shape_mean:.2f})."
    )
    null = float(result.shape_mean)
    return (
        Finding(text=text, rank=Evidence.READ, strength=min(1.0, value), value=value, unit="composition", null=null),
    )
