"""Path patching: which heads tell a later head, or the logits, what the prompts differ in."""

from typing import Any

import numpy as np

from interp.report.blocks import Axis, Block, Evidence, Finding, Picture, Section, Table, Version
from interp.report.markup import Child, join
from interp.report.sections.activation_patching_words import METRICS, bounds, interval, prompt_pairs, share
from interp.report.sections.numbers import interval_of, signed

_LISTED = 15


def build(result: Any, prompt: str) -> Section | None:
    """A map of the senders, the strongest of them, and the prompts."""
    run = "clean" if result.direction == "noising" else "corrupted"
    other = "corrupted" if run == "clean" else "clean"
    lead = (
        f"[[Path patching]] asks what one [[attention head]] tells {_receiver(result)} directly. In the {run} run, what a head puts out is "
        f"taken from the {other} run, but only on its way to {_receiver(result)}; all other heads keep what they were. The "
        "[[normalised effect]] is 0 where a path carries nothing of the difference between the prompts and 1 where it carries all."
    )
    measured = bool(result.effects().value.isfinite().any())
    blocks: list[Block] = [_map(result, prompt)] if measured else []
    blocks += [_strongest(result), prompt_pairs(result, f", with the {_metric(result)} after each")]
    return Section(
        name="path-patching",
        title=f"Path patching to {result.receiver}",
        label="Path patching",
        lead=lead,
        place=57,
        blocks=blocks,
        findings=_findings(result, measured=measured),
    )


def _receiver(result: Any) -> str:
    if not result.receivers:
        return "the logits"
    shared = sorted({str(head) for receiver in result.receivers for head in receiver.shared_with})
    also = f" (with {', '.join(shared)}, which share keys and values)" if shared else ""
    return f"{result.receiver}{also}"


def _metric(result: Any) -> str:
    return METRICS.get(str(result.metric), str(result.metric).replace("_", " "))


def _map(result: Any, prompt: str) -> Picture:
    layers, heads = result.patched.shape[1:]
    version = Version(
        figure=result.figure(),
        x=Axis(of="head", heads=tuple(range(heads))),
        y=Axis(of="layer", layers=tuple(range(layers)), labels=tuple(str(layer) for layer in range(layers))),
    )
    caption = f"The share of the {_metric(result)} that goes with each head's path to {_receiver(result)}."
    if result.receivers:
        caption += " Squares mark the receiving heads."
    return Picture(
        versions={"Senders": version}, caption=f"{caption} A head without a cell sends nothing there.", prompt=prompt
    )


def _strongest(result: Any) -> Table:
    several = result.n_pairs > 1
    rows: list[list[Child]] = [
        [
            str(sent.head),
            signed(sent.effect.value) if np.isfinite(sent.effect.value) else "not measured",
            *([interval(sent.effect)] if several else []),
            signed(sent.change.value),
            *([interval(sent.change)] if several else []),
        ]
        for sent in result.strongest(_LISTED)
    ]
    bounded = [f"{result.confidence:.0%} interval"] if several else []
    change = f"change{f' ({result.metric_unit})' if result.metric_unit else ''}"
    columns = ("sender", "effect", *bounded, change, *bounded)
    return Table(
        columns=columns,
        rows=rows,
        numeric=frozenset(range(1, len(columns))),
        caption=f"The senders whose paths change the {_metric(result)} most, up to {_LISTED}",
        long=True,
    )


def _findings(result: Any, *, measured: bool) -> tuple[Finding, ...]:
    if not result.senders:
        return ()
    best = result.strongest(1)[0]
    change = f"changes the {_metric(result)} by {signed(best.change.value)}{bounds(best.change, 3)}"
    part = f", {share(best.effect)} of the difference between the prompts" if measured else ""
    text = join(
        [f"Of {len(result.senders)} heads, {best.head} tells {_receiver(result)} most: its path {change}{part}."]
    )
    effect = best.effect.value if measured else 0.0
    return (
        Finding(
            text=text,
            rank=Evidence.CAUSED,
            strength=min(1.0, abs(effect)),
            value=best.change.value,
            unit=_metric(result),
            interval=interval_of(best.change),
            null=0.0,
        ),
    )
