"""The loss of each token of the prompt: where the model was surprised."""

import math
from typing import Any

from interp.report.blocks import Axis, Finding, Picture, Section, Table, Version
from interp.report.markup import Child, join, token
from interp.report.sections.numbers import percent


def build(result: Any, prompt: str) -> Section | None:
    """The loss of each token, the mean and the perplexity, and the most surprising tokens with what was expected instead."""
    lead = (
        "A [[token]]'s [[loss]] is minus the [[log-probability]] that the model gave it before it came: large where the text surprised "
        f"the model. The mean over this prompt is {result.mean_loss_nats:.3f} nats a token, a [[perplexity]] of "
        f"{result.perplexity:,.1f}. The first token has no loss: nothing stands before it."
    )
    picture = Picture(
        versions={"loss": Version(figure=result.figure(), x=Axis(of="token"))},
        caption="The loss of each token; the mark is the entropy of what was expected there, the loss that the model reckoned with.",
        prompt=prompt,
    )
    return Section(
        name="token-losses",
        title="The loss of each token",
        label="Losses",
        lead=lead,
        place=64,
        blocks=(picture, _table(result)),
        findings=(_finding(result),),
    )


def _table(result: Any) -> Table:
    rows: list[list[Child]] = []
    for position in result.most_surprising():
        index = position - 1
        loss = float(result.losses_nats[index])
        expected = result.vocabulary[str(int(result.top_ids[index, 0]))]
        rows.append(
            [
                str(position),
                token(result.tokens.pieces[position]),
                f"{loss:.3f}",
                percent(math.exp(-loss)),
                str(int(result.ranks[index])),
                join([token(expected), f" {percent(math.exp(float(result.top_log_probs_nats[index, 0])))}"]),
            ]
        )
    return Table(
        columns=("position", "token", "loss (nats)", "probability", "rank", "expected instead"),
        rows=rows,
        numeric=frozenset({0, 2, 3, 4}),
        caption="The most surprising tokens" if len(rows) > 1 else "The token that was foretold",
    )


def _finding(result: Any) -> Finding:
    position = result.most_surprising(1)[0]
    loss = float(result.losses_nats[position - 1])
    text = join(
        [
            "The most surprising token of the prompt is ",
            token(result.tokens.pieces[position]),
            f" at position {position}, with a loss of {loss:.1f} nats (probability {percent(math.exp(-loss))}); the perplexity of the "
            f"prompt is {result.perplexity:,.1f}.",
        ]
    )
    return Finding(text=text, rank=45)
