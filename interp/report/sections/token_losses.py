"""The loss of each token of the prompt: where the model was surprised."""

import math
from typing import Any

from interp.report.blocks import Axis, Evidence, Finding, Picture, Section, Table, Version
from interp.report.markup import Child, join, token
from interp.report.sections.numbers import percent


def build(result: Any, prompt: str) -> Section | None:
    """The loss of each token, the mean and the perplexity, and the most surprising tokens with what was expected instead."""
    lead = (
        "A [[token]]'s [[loss]] is minus the [[log-probability]] that the model gave it before it came: large where the text surprised "
        f"the model. The mean over this prompt{_template(result)} is {result.mean_loss_nats:.3f} nats a token, a [[perplexity]] of "
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
        blocks=(picture, *_table(result)),
        findings=(_finding(result),),
    )


def _table(result: Any) -> tuple[Table, ...]:
    """The tokens with the greatest losses among those that the model did not think likeliest; none if there is no such token."""
    rows: list[list[Child]] = []
    for position in result.most_surprising():
        index = position - 1
        loss, rank = float(result.losses_nats[index]), int(result.ranks[index])
        expected = result.vocabulary[str(int(result.top_ids[index, 0]))]
        if rank > 0:
            likely = percent(math.exp(float(result.top_log_probs_nats[index, 0])))
            own = [token(result.tokens.pieces[position]), f"{loss:.3f}", percent(math.exp(-loss)), str(rank)]
            rows.append([str(position), *own, join([token(expected), f" {likely}"])])
    columns = ("position", "token", "loss (nats)", "probability", "rank", "expected instead")
    caption = "The most surprising tokens"
    return (Table(columns=columns, rows=rows, numeric=frozenset({0, 2, 3, 4}), caption=caption),) if rows else ()


def _finding(result: Any) -> Finding:
    position = result.most_surprising(1)[0]
    loss = float(result.losses_nats[position - 1])
    text = join(
        [
            f"The most surprising token of the prompt{_template(result)} is ",
            token(result.tokens.pieces[position]),
            f" at position {position}, with a loss of {loss:.1f} nats (probability {percent(math.exp(-loss))}); the perplexity of the "
            f"prompt is {result.perplexity:,.1f}.",
        ]
    )
    return Finding(
        text=text,
        rank=Evidence.HABIT,
        strength=1 - math.exp(-loss),
        value=loss,
        unit="nats",
        null=float(result.entropy_nats[position - 1]),
    )


def _template(result: Any) -> str:
    """What is said where the tokens of a chat template count as well."""
    return ", the tokens of its chat template included," if result.templated else ""
