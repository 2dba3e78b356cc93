"""Decoding choices: what greedy, temperatures, top-k and top-p each leave of the next-token distribution."""

import math
from typing import Any

from interp.report.blocks import Axis, Evidence, Finding, Picture, Section, Table, Version
from interp.report.markup import Child, join
from interp.report.sections.numbers import percent
from interp.tokens import visible


def build(result: Any, prompt: str) -> Section | None:
    """The likeliest tokens under each choice, and how many tokens and how much entropy each leaves."""
    lead = (
        "[[Decoding]] picks the next token from these probabilities: [[greedy|greedy decoding]] takes the likeliest; otherwise one is "
        "drawn, after a [[temperature]] has sharpened (below 1) or flattened (above 1) them and [[top-k]] or [[top-p]] has cut off "
        "the unlikely rest."
    )
    labels = tuple(visible(piece) for piece in result.pieces)
    picture = Picture(
        versions={
            "probability": Version(figure=result.figure(), y=Axis(of="next token", labels=(*labels, "all others")))
        },
        caption="The probability with which each token would be drawn, choice by choice; blank where it cannot be.",
        prompt=prompt,
    )
    rows: list[list[Child]] = [
        [choice.label, f"{kept:,}", percent(mass), percent(first), f"{entropy:.3f}", f"{math.exp(entropy):,.1f}"]
        for choice, kept, mass, first, entropy in zip(
            result.choices,
            result.n_kept.tolist(),
            result.kept_mass.tolist(),
            result.probs[:, 0].tolist(),
            result.entropy_nats.tolist(),
            strict=True,
        )
    ]
    table = Table(
        columns=("choice", "tokens left", "their own share", "likeliest", "entropy (nats)", "as if equal"),
        rows=rows,
        numeric=frozenset({1, 2, 3, 4, 5}),
        caption=(
            f"What each choice leaves of the {result.d_vocab:,} tokens: how many, the probability that the model itself gives these, the "
            "chance of the likeliest, the entropy, and how many equally likely tokens would be as undecided"
        ),
    )
    return Section(
        name="decoding-choices",
        title="Decoding: choosing from the distribution",
        label="Decoding",
        lead=lead,
        place=61,
        blocks=(picture, table),
        findings=_findings(result),
    )


def _findings(result: Any) -> tuple[Finding, ...]:
    """What the tightest top-p leaves."""
    filters = [index for index, choice in enumerate(result.choices) if choice.temperature and choice.top_p is not None]
    if not filters:
        return ()
    index = min(filters, key=lambda one: result.choices[one].top_p)
    left, kept = f"{int(result.n_kept[index]):,} of {result.d_vocab:,} tokens", percent(float(result.kept_mass[index]))
    text = join([f"Drawing with {result.choices[index].label} leaves {left}, which hold {kept} of the probability."])
    return (Finding(text=text, rank=Evidence.HABIT, value=float(result.n_kept[index]), unit="tokens", block=1),)
