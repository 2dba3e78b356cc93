"""Induction heads: the map of all heads' scores, what ablation changes, and the evidence of each verdict."""

from typing import Any

import numpy as np

from interp.report.blocks import Axis, Block, Evidence, Finding, Line, LinkedTable, Picture, Section, Table, Version
from interp.report.markup import Child
from interp.report.sections.numbers import counted, interval_of, percent, signed, told_from

_MAPS = {
    "Stripe score": "stripe",
    "Prefix matching": "prefix_matching",
    "First token": "on_first",
}


def build(result: Any, prompt: str) -> Section | None:
    """The map, the ablations, the shift of attention, and a line of evidence for each candidate."""
    lead = (
        "An [[induction head]] finds the last time the current token stood in the text, attends to the token that came next, and "
        "raises that token's [[logit]]. It is looked for on random tokens that are repeated, where nothing else helps. A head is "
        "called one only if it attends that way, measured by [[stripe score]] and [[prefix matching]], and if the model "
        "predicts repeats worse without it than without other heads of its layer ([[ablation]])."
    )
    blocks: list[Block] = [_map(result, prompt), _selected(result, prompt)]
    if result.verdicts:
        if np.isfinite(result.around.numpy()).any():
            blocks.append(_shift(result, prompt))
        blocks.append(_evidence(result))
        if any(verdict.cause is not None for verdict in result.verdicts):
            blocks += [_ablations(result, prompt), _losses(result)]
        blocks.append(_reasons(result))
    else:
        blocks.append("No head attends like an induction head on these texts.")
    blocks += [f"Not measured: {reason}" for reason in result.not_measured]
    return Section(
        name="induction",
        title="Induction heads",
        label="Induction",
        lead=lead,
        place=37,
        blocks=blocks,
        findings=_findings(result),
    )


def _texts(result: Any) -> str:
    if not result.random:
        return counted(result.samples, "given prompt")
    periods = ", ".join(str(period) for period in result.periods)
    return f"{result.samples} draws of random tokens, in blocks of {periods}, each block {result.copies} times"


def _map(result: Any, prompt: str) -> Picture:
    layers, heads = result.diagonal.shape
    x = Axis(of="head", heads=tuple(range(heads)))
    y = Axis(of="layer", layers=tuple(range(layers)), labels=tuple(str(layer) for layer in range(layers)))
    versions = {
        words: Version(figure=result.figure(what), x=x, y=y)
        for words, what in _MAPS.items()
        if np.isfinite(getattr(result, what).value.numpy()).any()
    }
    caption = (
        f"Layers upwards, heads from left to right; frames mark the heads that are called. Means over {_texts(result)}; the "
        "95% interval over them stands in each cell's text. A cell without colour could not be measured: nearly all of that "
        "head's attention rests on the first token."
    )
    return Picture(versions=versions, caption=caption, prompt=prompt)


def _ablations(result: Any, prompt: str) -> Picture:
    caption = (
        "Change of the loss on tokens that the repeat foretells when a head's output is replaced by its mean over random text: each "
        "candidate, beside other heads of its layer, then all called heads at once, beside as many random heads of the same layers. "
        "Whiskers are 95% intervals."
    )
    return Picture(versions={"Ablations": Version(figure=result.figure("ablation"))}, caption=caption, prompt=prompt)


def _shift(result: Any, prompt: str) -> Picture:
    caption = "Mean attention of each candidate around the last occurrence of the token. An induction head peaks at +1 whatever the period."
    return Picture(versions={"Shift": Version(figure=result.figure("shift"))}, caption=caption, prompt=prompt)


def _selected(result: Any, prompt: str) -> LinkedTable:
    """The scores of the selected head, with what the same places get on text without repeats."""
    layers = result.diagonal.shape[0]
    names = {"stripe score": "stripe", "prefix matching": "prefix_matching", "on the first token": "on_first"}
    lines = [
        Line(
            cells=(words, *(_matrix(getattr(found, side)) for side in ("value", "lower", "upper"))), rows=range(layers)
        )
        for words, found in {
            **{words: getattr(result, name) for words, name in names.items()},
            "stripe score without repeats": result.unrepeated,
        }.items()
        if np.isfinite(found.value.numpy()).any()
    ]
    return LinkedTable(
        columns=("score", "value", "lower", "upper"),
        lines=lines,
        layers=tuple(range(layers)),
        caption="The selected head; lower and upper bound the 95% interval over draws or prompts.",
        prompt=prompt,
        by="head",
    )


def _matrix(values: Any) -> np.ndarray:
    return values.float().numpy()


def _evidence(result: Any) -> Table:
    rows: list[list[Child]] = []
    for verdict in result.verdicts:
        seen, weights = verdict.behaviour, verdict.mechanism
        partner = weights.partner if weights else None
        rows.append(
            [
                str(verdict.head),
                "called" if verdict.called else "not called",
                _spread(seen.stripe),
                _spread(seen.prefix_matching),
                percent(seen.on_first.value),
                _text(seen.p, ".1g"),
                _signed(weights.eigenvalue_score) if weights else "",
                f"{partner.head} {partner.composition:.2f} ({partner.place} of {partner.of})" if partner else "",
            ]
        )
    return Table(
        columns=("head", "verdict", "stripe", "prefix matching", "on first", "p", "copying", "partner (place)"),
        rows=rows,
        numeric=frozenset({2, 3, 4, 5, 6}),
        caption=(
            "What each candidate attends to and what its weights say. ± is half the 95% interval. Copying is the eigenvalue score of the "
            "head's OV circuit, from -1 to 1; the partner is the previous-token head that its keys read most, with its place by "
            "K-composition among all earlier heads."
        ),
    )


def _losses(result: Any) -> Table:
    rows: list[list[Child]] = [
        [
            str(verdict.head),
            _spread(verdict.cause.second, sign=True),
            _signed(verdict.cause.peers_second.value),
            _signed(verdict.cause.worst_peer),
            _text(verdict.cause.p, ".1g"),
            _spread(verdict.cause.late_less_early, sign=True),
            _spread(verdict.cause.restored, sign=True),
        ]
        for verdict in result.verdicts
        if verdict.cause is not None
    ]
    return Table(
        columns=("head", "loss without it", "without a peer", "at most", "p", "in-context score", "put back"),
        rows=rows,
        numeric=frozenset(range(1, 7)),
        caption=(
            "What the model loses on repeated tokens, in nats a token: without the head, without another head of its layer (mean, most), "
            "the change of the in-context-learning score, and what is won back when, of all ablated candidates, this one is put back."
        ),
    )


def _reasons(result: Any) -> Table:
    return Table(
        columns=("head", "why"),
        rows=[[str(verdict.head), verdict.reason] for verdict in result.verdicts],
        caption="Each verdict in words",
    )


def _findings(result: Any) -> tuple[Finding, ...]:
    if result.losses is None:
        best = int(np.nanargmax(np.nan_to_num(result.stripe.value.numpy())))
        layer, head = divmod(best, result.diagonal.shape[1])
        value, null = float(result.stripe.value[layer, head]), float(result.unrepeated.value[layer, head])
        if not np.isfinite(value):
            return ()
        text = f"L{layer}H{head} has the highest stripe score, {value:.2f} (on text without repeats {null:.2f}); not tested by ablation."
        return (
            Finding(
                text=text, rank=Evidence.HABIT, strength=max(0.0, value - null), value=value, unit="score", null=null
            ),
        )
    called = result.called
    if not called:
        tested = len(result.verdicts)
        return (
            Finding(
                text=f"No induction head: {tested} of the heads attend like one, none is confirmed by ablation.",
                rank=Evidence.CAUSED,
            ),
        )
    together, them = result.together, "it" if len(called) == 1 else "them"
    others = [group.second.value for group in result.matched]
    names = ", ".join(str(head) for head in called[:4]) + (" and others" if len(called) > 4 else "")
    beside = f"; without as many random heads of the same layers by {signed(max(others), 2)} at most" if others else ""
    text = (
        f"{counted(len(called), 'induction head')} ({names}): without {them} the loss on repeated tokens, "
        f"{result.losses.second.value:.2f} nats, changes by {signed(together.second.value, 2)}{beside}."
    )
    own = together.second
    share = min(1.0, abs(own.value) / max(result.losses.second.value + abs(own.value), 1e-9))
    return (
        Finding(
            text=text,
            rank=Evidence.CAUSED,
            strength=share if told_from(own, 0.0) else 0.0,
            value=own.value,
            unit="nats a token",
            interval=interval_of(own),
            null=max(others) if others else None,
        ),
    )


def _spread(estimate: Any, *, sign: bool = False) -> str:
    if not np.isfinite(estimate.value):
        return "not measured"
    value = signed(estimate.value, 2) if sign else f"{estimate.value:.2f}"
    half = (estimate.upper - estimate.lower) / 2
    return value if not np.isfinite(half) else f"{value} ± {half:.2f}"


def _signed(value: float) -> str:
    return signed(value, 2) if np.isfinite(value) else ""


def _text(value: float, form: str) -> str:
    return f"{value:{form}}" if np.isfinite(value) else ""
