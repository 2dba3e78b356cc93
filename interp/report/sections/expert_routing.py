"""Experts: which of them each token passes, and with which weights."""

from typing import Any

from interp.figures.expert_routing import share_heatmap
from interp.report.blocks import Axis, Evidence, Finding, Line, LinkedTable, Picture, Section, Version
from interp.report.sections.numbers import counted, percent


def build(result: Any, prompt: str) -> Section | None:
    """The load of the experts in each layer, and the choice of the selected token."""
    experts, chosen = result.scores.shape[2], result.chosen.shape[2]
    lead = (
        f"In {counted(len(result.layers), 'layer')} {experts} [[experts|expert]] stand in place of one [[MLP]]: a router scores them for "
        f"each token, and the token passes {chosen} of the {experts}, each with a weight{_shared(result)}. The map shows how the prompt's "
        "weights spread over those that are chosen from."
    )
    return Section(
        name="experts",
        title="Experts and their weights",
        label="Experts",
        lead=lead,
        place=28,
        blocks=(_map(result, prompt), _choices(result, prompt)),
        findings=_findings(result),
    )


def _shared(result: Any) -> str:
    """What is said of an expert that the router does not choose."""
    if not result.shared_layers:
        return ""
    where = "" if result.shared_layers == result.layers else f" of {counted(len(result.shared_layers), 'layer')}"
    return f", and beside them the shared expert{where}, which every token passes and no router chooses"


def _map(result: Any, prompt: str) -> Picture:
    labels = tuple(map(str, result.layers))
    version = Version(
        figure=share_heatmap(result.share.double().numpy().round(3), result.layers),
        x=Axis(of="expert", labels=tuple(map(str, range(result.scores.shape[2])))),
        y=Axis(of="layer", layers=result.layers, labels=labels),
    )
    even = percent(1 / result.scores.shape[2])
    return Picture(
        versions={"share": version},
        caption=f"The part of all weights of the prompt that each expert gets; an even load would be {even} each.",
        prompt=prompt,
    )


def _choices(result: Any, prompt: str) -> LinkedTable:
    rows = tuple(range(len(result.layers)))
    lines = [
        Line(
            cells=(
                "heaviest" if not choice else "then",
                result.chosen[..., choice].double().numpy(),
                result.weights[..., choice].double().numpy().round(3),
            ),
            rows=rows,
        )
        for choice in range(result.chosen.shape[2])
    ]
    return LinkedTable(
        columns=("", "expert", "weight"),
        lines=lines,
        layers=result.layers,
        caption="The experts that the selected token passes in the selected layer.",
        prompt=prompt,
    )


def _findings(result: Any) -> tuple[Finding, ...]:
    share = result.share
    place = int(share.argmax())
    row, expert = divmod(place, share.shape[1])
    text = (
        f"The busiest expert is number {expert} of layer {result.layers[row]}: it gets {percent(float(share[row, expert]))} of that "
        f"layer's weights, where an even load would be {percent(1 / share.shape[1])}."
    )
    most, even = float(share[row, expert]), 1 / share.shape[1]
    return (
        Finding(
            text=text,
            rank=Evidence.HABIT,
            strength=max(0.0, (most - even) / (1 - even)) if even < 1 else 0.0,
            value=most,
            unit="share of weights",
            null=even,
        ),
    )
