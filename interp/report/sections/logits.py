"""Logits, probabilities and the chosen token: the end of the forward pass."""

from typing import Any

from interp.figures import logits_bar
from interp.report.blocks import Evidence, Finding, Picture, Section, Table, Version
from interp.report.markup import Child, join, token
from interp.report.sections.numbers import percent
from interp.tokens import visible


def build(result: Any, prompt: str) -> Section | None:
    """The most likely next tokens with logit and probability, and which was chosen, from a residual story."""
    ids, logits, probs = result.final_ids.tolist(), result.final_logits.tolist(), result.final_probs.tolist()
    pieces = [result.vocabulary[str(number)] for number in ids]
    chosen = ids.index(result.chosen_id) if result.chosen_id in ids else None
    figure = logits_bar(
        result.final_probs.double().numpy(),
        result.final_logits.double().numpy(),
        [visible(piece) for piece in pieces],
        chosen=chosen,
    )
    rows: list[list[Child]] = [
        [str(rank), token(piece), str(number), f"{logit:.3f}", percent(prob), "chosen" if rank == chosen else ""]
        for rank, (piece, number, logit, prob) in enumerate(zip(pieces, ids, logits, probs, strict=True))
    ]
    lead = (
        "After the last layer the [[unembedding]] turns the stream of the last token into one number for each token of the "
        "vocabulary, its [[logit]]. Only differences between logits matter; the [[softmax]] makes them probabilities, and "
        "the likeliest token is chosen unless sampling was asked for."
    )
    picture = Picture(
        versions={"probability": Version(figure=figure)},
        caption=f"The {len(ids)} likeliest next tokens; together they hold {percent(sum(probs))} of the probability.",
        prompt=prompt,
    )
    table = Table(
        columns=("rank", "token", "id", "logit", "probability", ""),
        rows=rows,
        numeric=frozenset({0, 2, 3, 4}),
        caption="Logits and probabilities after the last token",
    )
    answer = join(["The likeliest next token is ", token(pieces[0]), f" with probability {percent(probs[0])}"])
    if len(ids) > 1:
        answer = join([answer, "; next comes ", token(pieces[1]), f" with {percent(probs[1])}"])
    return Section(
        name="logits",
        title="Logits, probabilities and the chosen token",
        label="Next token",
        lead=lead,
        place=60,
        blocks=(picture, table),
        findings=(
            Finding(
                text=join([answer, "."]), rank=Evidence.ANSWER, strength=probs[0], value=probs[0], unit="probability"
            ),
        ),
    )
