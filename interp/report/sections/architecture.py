"""What the model is made of: its sizes, and every tensor with what it does."""

from typing import Any

from interp.figures.architecture import part_bars
from interp.report.blocks import Axis, Picture, Section, Table, Version
from interp.report.markup import Child, element, join
from interp.report.sections.shapes import product
from interp.sites import name_layers
from interp.tokens import visible


def build(result: Any, prompt: str) -> Section | None:
    """Parameters by part, the sizes, and the tensors, those that do the same in several layers as one row."""
    lead = (
        f"{result.parameters:,} learned numbers in {len(result.tensors):,} tensors are all that the model has: {_sizes(result)}. "
        "The bars show where they are."
    )
    parts = result.parts()
    version = Version(figure=part_bars(parts), y=Axis(of="part", labels=tuple(parts)))
    picture = Picture(versions={"parameters": version}, caption="Parameters of each part of the model.", prompt=prompt)
    return Section(
        name="tensors",
        title="The tensors of the model",
        label="Tensors",
        lead=lead,
        place=88,
        blocks=(picture, _tensors(result)),
    )


def _sizes(result: Any) -> str:
    kv = "" if result.n_kv_heads == result.n_heads else f" ({result.n_kv_heads} of keys and values)"
    words = [
        f"{result.n_layers} [[layers|layer]] on a [[residual stream]] {result.d_model:,} wide",
        f"{result.n_heads} [[heads|attention head]] of width {result.d_head}{kv} in each",
    ]
    if result.d_mlp is not None:
        words.append(f"[[MLPs|MLP]] with {result.d_mlp:,} hidden units")
    if any(result.n_experts):
        words.append(f"{max(result.n_experts)} [[experts|expert]] in {sum(map(bool, result.n_experts))} of the layers")
    words.append(f"a vocabulary of {result.d_vocab:,}")
    return ", ".join(words)


def _tensors(result: Any) -> Table:
    groups = result.groups()
    rows: list[list[Child]] = []
    for group in groups:
        _, star, inside = group.pattern.partition("*.")
        name = element("code", visible(inside if star else group.pattern), style="white-space:nowrap")
        rows.append([name, name_layers(group.layers), product(group.shape), f"{group.parameters:,}", group.role])
    caption: list[Child] = [f"Every tensor: {result.parameters:,} parameters, {result.bytes:,} bytes in memory."]
    if stem := next((stem for stem, star, _ in (group.pattern.partition("*.") for group in groups) if star), ""):
        caption += [" Names in the layers start with ", element("code", visible(f"{stem}N"))]
    return Table(
        columns=("tensor", "layers", "shape of each", "parameters, together", "what it does"),
        rows=rows,
        numeric=frozenset({3}),
        caption=join(caption),
    )
