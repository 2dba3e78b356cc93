"""From the last stream to logits: final norm, unembedding, the family's transform, and why only differences matter."""

import math
from typing import Any

from interp.report.blocks import Axis, Picture, Section, Table, Version
from interp.report.markup import Child, join, token
from interp.report.sections.numbers import brief, percent, plain, signed


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
    def version(*, shifted: bool) -> Version:
        start = result.bin_start + (result.shift if shifted else 0.0)
        edges = [start + index * result.bin_width for index in range(len(result.bin_counts))]
        axis = Axis(of="logit", labels=tuple(f"from {plain(edge, 1)}" for edge in edges))
        return Version(figure=result.figure(shifted=shifted), x=axis)

    moved = f"All logits {signed(result.shift, 0)}"
    return Picture(
        versions={"Logits": version(shifted=False), moved: version(shifted=True)},
        caption="How many tokens of the vocabulary have which logit, and where the likeliest next token is.",
        prompt=prompt,
    )


def _differences(result: Any) -> Table:
    """Logits and their distance from the best, and the same probabilities from logits that are all greater by a constant."""
    transformed = result.scale != 1.0 or result.softcap is not None
    columns = ["token", *(["dot product"] if transformed else []), "logit", "behind the best", "probability"]
    columns += [f"logit {signed(result.shift, 0)}", "its probability"]
    rows: list[list[Child]] = []
    best = float(result.top_logits[0])
    numbers = (result.top_projections, result.top_logits, result.top_probs, result.shifted_probs)
    for piece, projection, logit, prob, shifted in zip(result.pieces, *(one.tolist() for one in numbers), strict=True):
        start = [token(piece), *([plain(projection)] if transformed else [])]
        moved = [plain(logit + result.shift), percent(shifted)]
        rows.append([*start, plain(logit), f"{best - logit:.3f}", percent(prob), *moved])
    return Table(
        columns=columns,
        rows=rows,
        numeric=frozenset(range(1, len(columns))),
        caption=f"Only distances count: a token d behind the best is e^d times less likely.{_beside(result)}",
    )


def _beside(result: Any) -> str:
    """The first two tokens as an example."""
    if len(result.pieces) < 2:
        return ""
    gap = float(result.top_logits[0] - result.top_logits[1])
    return f" The second here: e^{gap:.3f} = {brief(math.exp(gap))} times."


def _softmax(result: Any) -> Table:
    """The steps from the stream to the probability of the best token, each with its number."""
    best, total = float(result.top_logits[0]), result.log_sum_exp
    rows: list[list[Child]] = [["length of the last token's stream", brief(result.stream_norm)]]
    if result.norm_divisor is not None:
        rows.append(["divided in the final norm by", brief(result.norm_divisor)])
        rows.append(["length after the final norm, with its weights", brief(result.normed_norm)])
    rows += [
        ["mean of all logits, and their standard deviation", f"{plain(result.logit_mean)}, {result.logit_std:.3f}"],
        ["ln of the sum of e^logit over the vocabulary", plain(total)],
        [
            join(["softmax: the probability of ", token(result.pieces[0])]),
            f"e^({plain(best)} − {plain(total)}) = {percent(math.exp(best - total))}",  # noqa: RUF001
        ],
        [
            f"greatest change of any probability with {signed(result.shift, 0)}",
            f"{result.shift_difference:.2g}" if result.shift_difference else "0",
        ],
    ]
    return Table(columns=("step", "value"), rows=rows, numeric=frozenset({1}), caption="The same in numbers")
