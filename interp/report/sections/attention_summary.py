"""Attention, layer by layer: who reads whom, and the shapes, groups and masks it works in."""

from typing import Any

import numpy as np

from interp.figures.attention_summary import weights_heatmap
from interp.heads import Head
from interp.report.arrays import Words
from interp.report.blocks import Axis, Cells, Evidence, Finding, Line, LinkedTable, Picture, Section, Table, Version
from interp.report.markup import Child, join, token
from interp.report.sections.numbers import percent
from interp.report.sections.shapes import product
from interp.sites import name_layers

_SWITCH = {"Read by later tokens": "received", "Weight on the first token": "first"}
_ROOM = 40_000
"""How many of the keys most read a page of 1 MB has room for."""
_EDGES = 8
_SITES = {
    "attn.q": ("queries", "token, head, width"),
    "attn.k": ("keys", "token, key/value head, width"),
    "attn.v": ("values", "token, key/value head, width"),
    "attn.pattern": ("pattern", "head, query, key"),
    "attn.z": ("what the heads read", "token, head, width"),
}


def build(result: Any, prompt: str) -> Section | None:
    """A map of what is read, the keys of the selected token, the strongest reads, and the shapes of one layer."""
    heads, kv_heads = len(result.kv_heads), len(set(result.kv_heads))
    sets = "one set" if kv_heads == 1 else f"{kv_heads} sets"
    words = "[[keys and values|query, key and value]]"
    shared = f" that share {sets} of {words} ([[GQA|grouped-query attention]])"
    own = f" with their own {words}"
    lead = (
        f"In each [[layer]] {heads} [[attention heads|attention head]]{shared if kv_heads < heads else own} let a token read from itself "
        f"and the tokens before it, no later one (the [[causal mask]]{_sliding(result)}). The map shows which tokens are read by later "
        "ones; a bright first column is an [[attention sink]]."
    )
    return Section(
        name="attention-summary",
        title="Attention: who reads whom",
        label="Who reads whom",
        lead=lead,
        place=27,
        blocks=(_map(result, prompt), _keys(result, prompt), _edges(result), _shapes(result), _masks(result)),
        findings=_findings(result),
    )


def _sliding(result: Any) -> str:
    """What is said of layers that see only so far back."""
    sliding = sum(window is not None for window in result.windows)
    where = "all" if sliding == len(result.windows) else str(sliding)
    return f", with a [[sliding window]] in {where} of the {len(result.windows)} layers" if sliding else ""


def _rows(result: Any) -> tuple[int, ...]:
    return tuple(range(len(result.windows)))


def _map(result: Any, prompt: str) -> Picture:
    layers = _rows(result)
    names = tuple(map(str, layers))
    axis = Axis(of="layer", layers=layers, labels=names)
    versions = {}
    for words, measure in _SWITCH.items():
        values = getattr(result, measure).double().numpy().round(2)
        figure = weights_heatmap(values, result.tokens.labels, measure)
        versions[words] = Version(figure=figure, x=Axis(of="token"), y=axis, cells=Cells(rows=names, link="at"))
    return Picture(
        versions=versions,
        caption="Means over the heads of a layer; layers upwards, the colour over the square root. The last token has no later one.",
        prompt=prompt,
    )


def _keys(result: Any, prompt: str) -> LinkedTable:
    layers, n_pos = _rows(result), len(result.tokens)
    texts = {-1: "–"} | {pos: f"{label} ({pos})" for pos, label in enumerate(result.tokens.labels)}  # noqa: RUF001
    held = result.top_keys.shape[2]
    shown = max(1, min(held, _ROOM // (2 * len(layers) * n_pos)))
    lines = [
        Line(cells=("the first token", "", np.round(result.first.double().numpy(), 2)), rows=layers),
        Line(cells=("itself", "", np.round(result.own.double().numpy(), 2)), rows=layers),
    ]
    for rank in range(shown):
        words = Words(result.top_keys[..., rank].numpy(), texts)
        cells = (
            "most read in between" if not rank else "then",
            words,
            result.top_weights[..., rank].double().numpy().round(2),
        )
        lines.append(Line(cells=cells, rows=layers))
    return LinkedTable(
        columns=("the selected token reads", "", "mean weight of the heads"),
        lines=lines,
        layers=layers,
        caption="What the selected token reads in the selected layer; of the tokens in between, those that get most.",
        prompt=prompt,
    )


def _strongest(result: Any) -> list[int]:
    """The layers with an edge, the strongest first."""
    order = result.edge_weights.argsort(descending=True, stable=True).tolist()
    return [layer for layer in order if int(result.edge_heads[layer]) >= 0]


def _edges(result: Any) -> Table:
    pieces = result.tokens.pieces
    rows: list[list[Child]] = []
    for layer in _strongest(result)[:_EDGES]:
        query, key = int(result.edge_queries[layer]), int(result.edge_keys[layer])
        head = str(Head(layer, int(result.edge_heads[layer])))
        reader, read = ([token(pieces[place]), f" {place}"] for place in (query, key))
        rows.append([head, join(reader), join(read), f"{float(result.edge_weights[layer]):.3f}"])
    return Table(
        columns=("head", "at the token", "reads", "weight"),
        rows=rows,
        numeric=frozenset({3}),
        caption="The strongest single reads, one a layer; reading the first token or oneself is left out",
    )


def _shapes(result: Any) -> Table:
    shapes = result.shapes
    rows: list[list[Child]] = [
        [words, product(shapes[kind]), axes] for kind, (words, axes) in _SITES.items() if kind in shapes
    ]
    return Table(columns=("", "shape", "axes"), rows=rows, caption="The shapes of one layer in this run")


def _masks(result: Any) -> Table:
    rows: list[list[Child]] = []
    for window in dict.fromkeys(result.windows):
        layers = [layer for layer, own in enumerate(result.windows) if own == window]
        seen = "everything before it" if window is None else f"the last {window:,} tokens, its own place included"
        reach = max(int(result.reach[layer]) for layer in layers)
        rows.append([name_layers(layers), "causal" if window is None else "causal, sliding window", seen, f"{reach:,}"])
    return Table(
        columns=("layers", "mask", "a token sees", "furthest read in this run (tokens back)"),
        rows=rows,
        numeric=frozenset({3}),
        caption=f"Masks, and groups: {_groups(result)}",
    )


def _groups(result: Any) -> str:
    heads, kv_heads = len(result.kv_heads), len(set(result.kv_heads))
    if kv_heads == heads:
        return f"each of the {heads} heads has its own keys and values"
    if kv_heads == 1:
        return f"all {heads} heads read one set of keys and values"
    return f"{heads} heads in {kv_heads} groups of {heads // kv_heads}, each with one set of keys and values"


def _findings(result: Any) -> tuple[Finding, ...]:
    found = []
    if len(result.tokens) > 2:
        share = float(result.first[:, 1:].mean())
        text = f"On average the heads put {percent(share)} of their weight on the first token."
        found.append(
            Finding(
                text=text,
                rank=Evidence.HABIT,
                strength=share,
                value=share,
                unit="share of attention",
                null=_even(result),
            )
        )
    if strongest := _strongest(result):
        layer, weight = strongest[0], float(result.edge_weights[strongest[0]])
        query, key = int(result.edge_queries[layer]), int(result.edge_keys[layer])
        pieces = result.tokens.pieces
        head = Head(layer, int(result.edge_heads[layer]))
        text = join(
            [
                f"The strongest read, other than of the first token and of a token by itself, is that of head {head}: at ",
                token(pieces[query]),
                " it puts ",
                percent(weight),
                " of its weight on ",
                token(pieces[key]),
                f", {query - key} back.",
            ]
        )
        found.append(
            Finding(
                text=text,
                rank=Evidence.HABIT,
                strength=weight,
                value=weight,
                unit="share of attention",
                null=1 / min(query + 1, result.windows[layer] or query + 1),
                block=2,
            )
        )
    return tuple(found)


def _even(result: Any) -> float:
    """What the first token would get if every token but the first read all that it sees alike."""
    seen = [
        1 / (pos + 1) if window is None or pos < window else 0.0
        for window in result.windows
        for pos in range(1, len(result.tokens))
    ]
    return sum(seen) / len(seen)
