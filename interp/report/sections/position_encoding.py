"""Positions: how the model tells one place from another, and what that does to a query and a key by distance."""

import math
from typing import Any

from interp.figures.position_encoding import distance_curves, wavelength_bars
from interp.report.blocks import Axis, Block, Evidence, Finding, Picture, Section, Table, Version
from interp.report.markup import Child
from interp.report.sections.numbers import brief, plain
from interp.sites import name_layers


def build(result: Any, prompt: str) -> Section | None:
    """One curve over the distance, the wavelengths of a rotation, and which layers use what."""
    blocks: list[Block] = [_layers(result)]
    if picture := _picture(result, prompt):
        blocks.insert(0, picture)
    return Section(
        name="positions",
        title="Positions",
        label="Positions",
        lead=_lead(result),
        place=25,
        blocks=blocks,
        findings=_findings(result),
    )


def _lead(result: Any) -> str:
    if any(rotation.angles is not None for rotation in result.rotations):
        return f"Positions enter by rotation ([[RoPE]]): {_turning(result)}. {_nearness(result)}"
    if result.rotations:
        return "Positions enter by rotation ([[RoPE]]) inside the model's own attention, where it cannot be looked at on its own."
    if result.alibi_slopes is not None:
        return (
            "Positions enter as a penalty on distance ([[ALiBi]]): each head's score loses a fixed amount for each token between query and "
            "key, before the [[softmax]]."
        )
    if result.learned_cosine is not None:
        return (
            f"Positions enter as a learned vector ([[position embedding]]) added to each token's [[embedding]]: one for each of "
            f"{len(result.learned_norms):,} places. The curve shows how alike the vectors of two places are."
        )
    return "No position enters anywhere: the model tells order only by what each token can see, the tokens before it."


def _turning(result: Any) -> str:
    """What each rotation does, and in which layers."""
    known = [rotation for rotation in result.rotations if rotation.angles is not None]
    layers = len(result.schemes)
    clauses = []
    for rotation in known:
        angles = rotation.angles.tolist()
        own = len(rotation.layers)
        where = f"all {layers} layers" if own == layers else f"{own} of {layers} layers"
        if len(result.rotations) > 1:
            where = _in_layers(rotation)
        clauses.append(
            f"{where} {'turns' if own == 1 and len(result.rotations) > 1 else 'turn'} {len(angles)} pairs of coordinates of each query and "
            f"key, the fastest once in {brief(math.tau / angles[0])} tokens, the slowest once in {brief(math.tau / angles[-1])}"
        )
    return "; ".join(clauses)


def _in_layers(rotation: Any) -> str:
    return f"layer{'s'[: len(rotation.layers) != 1]} {name_layers(rotation.layers)}"


def _nearness(result: Any) -> str:
    """That near tokens match better, where every measured rotation says so."""
    depends = "The product of a query and a key then depends on their distance"
    kept = [rotation.kept for rotation in result.rotations if rotation.kept is not None]
    if kept and all(bool((curve.diff() < 0).all()) for curve in kept):
        return f"{depends}, and the turning by itself makes near tokens match better than far ones."
    return f"{depends}; the curve shows what the turning by itself leaves of it."


def _picture(result: Any, prompt: str) -> Picture | None:
    curves = {name: curve.double().numpy() for name, curve in result.curves.items()}
    if not curves:
        return None
    labels = tuple(str(distance) for distance in result.distances.tolist())
    figure = distance_curves(curves, result.distances.numpy(), unit=result.unit)
    versions = {"By distance": Version(figure=figure, x=Axis(of="distance", labels=labels))}
    turning = [rotation for rotation in result.rotations if rotation.angles is not None]
    for rotation in turning:
        pairs = tuple(str(pair) for pair in range(len(rotation.angles)))
        words = "Tokens for a full turn" + (f", layers {name_layers(rotation.layers)}" if len(turning) > 1 else "")
        versions[words] = Version(figure=wavelength_bars(rotation.angles.numpy()), x=Axis(of="pair", labels=pairs))
    return Picture(versions=versions, caption=_caption(result), prompt=prompt)


def _caption(result: Any) -> str:
    if result.rotations:
        return (
            "What the rotation alone leaves of q·k when query and key are the same vector, averaged over directions: the mean of "
            "cos(distance · angle) over the coordinates of a head. What a head does with it depends on its own weights."
        )
    if result.alibi_slopes is not None:
        return "What is added to a score by distance, one line for each head."
    return "The mean cosine of the vectors of all places that lie so far apart."


def _layers(result: Any) -> Table:
    far = _far(result)
    rows: list[list[Child]] = []
    for rotation in result.rotations:
        turned = (
            "not known" if rotation.angles is None else f"{2 * len(rotation.angles)} of {result.d_head} coordinates"
        )
        kept = ["–", "–"] if rotation.kept is None else [f"{rotation.kept[at]:.3f}" for at in (0, far)]  # noqa: RUF001
        rows.append([name_layers(rotation.layers), "rotation", turned, *kept])
    for scheme, words in (("alibi", "penalty on distance"), ("learned", "learned vectors"), ("none", "none")):
        layers = [layer for layer, own in enumerate(result.schemes) if own == scheme]
        if layers:
            rows.append([name_layers(layers), words, "–", "–", "–"])  # noqa: RUF001
    return Table(
        columns=("layers", "positions enter by", "turned", "kept at distance 1", f"at {int(result.distances[far])}"),
        rows=rows,
        numeric=frozenset({3, 4}),
        caption="How positions enter each layer",
    )


def _far(result: Any) -> int:
    """The place of a distance of about 100 tokens."""
    return int((result.distances - 100).abs().argmin())


def _findings(result: Any) -> tuple[Finding, ...]:
    known = [rotation for rotation in result.rotations if rotation.kept is not None]
    if not known:
        return ()
    far = _far(result)
    told = []
    for rotation in known:
        where = f" in {_in_layers(rotation)}" if len(result.rotations) > 1 else ""
        near, left = (plain(float(rotation.kept[at]), 2) for at in (0, far))
        told.append(f"{near} at distance 1 and {left} at distance {int(result.distances[far])}{where}")
    text = f"Of the product of an equal query and key the rotation of positions alone leaves {'; '.join(told)}."
    value = float(known[0].kept[far])
    unit = f"of the product kept at distance {int(result.distances[far])}"
    return (Finding(text=text, rank=Evidence.HABIT, value=value, unit=unit, null=1.0),)
