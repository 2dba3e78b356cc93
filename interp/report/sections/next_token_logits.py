"""From the last stream to logits: final norm, unembedding, the family's transform, and why only differences matter."""

import math
from typing import Any

from interp.report.blocks import Axis, Picture, Section, Table, Version
from interp.report.markup import Child, join, token
from interp.report.sections.numbers import brief, percent, signed


def build(result: Any, prompt: str) -> Section | None:
    """Where the logits of the vocabulary lie, and that a constant added to all of them changes no probability."""
    count = int(result.bin_counts.sum())
    norm = (
        f"The [[final norm]] brings the stream of the last token from length {brief(result.stream_norm)} to "
        f"{brief(result.normed_norm)}, and the"
        if result.norm_divisor is not None
        else "The"
    )
    lead = (
        f"{norm} [[unembedding]] compares it with one vector for each of the {count:,} tokens of the vocabulary: the "
        f"dot products are the [[logits|logit]]{_transformed(result)}. Only their differences matter: with {result.shift:g} added "
        "to every logit, every probability stays as it is."
    )
    return Section(
        name="next-token-logits",
        title="From the stream to logits",
        label="Logits",
        lead=lead,
        place=59,
        blocks=(_picture(result, prompt), _differences(result), _softmax(result)),
    )


def _transformed(result: Any) -> str:
    scaled = f", times {result.scale:g}" if result.scale != 1.0 else ""
    capped = f", bent to stay within ±{result.softcap:g} by a [[softcap]]" if result.softcap is not None else ""
    return scaled + capped


def _picture(result: Any, prompt: str) -> Picture:
    labels = [f"from {result.bin_start + index * result.bin_width:.1f}" for index in range(len(result.bin_counts))]
    moved = [f"from {result.bin_start + result.shift + index * result.bin_width:.1f}" for index in range(len(labels))]
    return Picture(
        versions={
            "Logits": Version(figure=result.figure(), x=Axis(of="logit", labels=tuple(labels))),
            f"All logits {signed(result.shift, 0)}": Version(
                figure=result.figure(shifted=True), x=Axis(of="logit", labels=tuple(moved))
            ),
        },
        caption="How many tokens of the vocabulary have which logit, and where the likeliest next tokens are.",
        prompt=prompt,
    )


def _differences(result: Any) -> Table:
    """Logits with and without the constant, and the same probabilities from both."""
    transformed = result.scale != 1.0 or result.softcap is not None
    columns = ["token", *(["dot product"] if transformed else []), "logit", f"logit {signed(result.shift, 0)}"]
    columns += ["less the best", "e to that", "probability", f"probability with {signed(result.shift, 0)}"]
    rows: list[list[Child]] = []
    best = float(result.top_logits[0])
    numbers = (result.top_projections, result.top_logits, result.top_probs, result.shifted_probs)
    for piece, projection, logit, prob, shifted in zip(result.pieces, *(one.tolist() for one in numbers), strict=True):
        rows.append(
            [
                token(piece),
                *([signed(projection)] if transformed else []),
                signed(logit),
                signed(logit + result.shift),
                signed(logit - best),
                f"{math.exp(logit - best):.3g}",
                percent(prob),
                percent(shifted),
            ]
        )
    return Table(
        columns=columns,
        rows=rows,
        numeric=frozenset(range(1, len(columns))),
        caption="Differences decide: e to the difference is how likely a token is beside the best one",
    )


def _softmax(result: Any) -> Table:
    """The steps from the stream to the probability of the best token, each with its number."""
    best, total = float(result.top_logits[0]), result.log_sum_exp
    rows: list[list[Child]] = [["length of the last token's stream", brief(result.stream_norm)]]
    if result.norm_divisor is not None:
        rows.append(["divided in the final norm by", brief(result.norm_divisor)])
        rows.append(["length after the final norm, with its weights", brief(result.normed_norm)])
    rows += [
        ["mean of all logits, and their standard deviation", f"{signed(result.logit_mean)}, {result.logit_std:.3f}"],
        ["ln of the sum of e^logit over the vocabulary", signed(total)],
        [
            join(["softmax: the probability of ", token(result.pieces[0])]),
            f"e^({signed(best)} − {signed(total)}) = {percent(math.exp(best - total))}",  # noqa: RUF001
        ],
        [
            f"greatest change of any probability with {signed(result.shift, 0)}",
            f"{result.shift_difference:.2g}" if result.shift_difference else "0",
        ],
    ]
    return Table(columns=("step", "value"), rows=rows, numeric=frozenset({1}), caption="The same in numbers")
