"""Generation: the tokens the model went on with, one forward pass each."""

import math
from typing import Any

from interp.figures import token_bars
from interp.report.blocks import Picture, Section, Table, Version
from interp.report.markup import Child, token
from interp.report.sections.numbers import percent
from interp.tokens import visible

_STOPS = {
    "length": "the asked number of tokens was reached",
    "end": "the model ended the text",
    "context": "the context is full",
}


def build(result: Any, prompt: str) -> Section | None:
    """Each generated token with its probability, and what the loop took."""
    logs, entropies = result.log_probs_nats.tolist(), result.entropy_nats.tolist()
    lead = (
        "The model writes one [[token]] at a time: the chosen token is put after the prompt and the model runs again. Keys and "
        "values of earlier tokens are kept in a cache, so that each further step reads one token only. Probabilities are the "
        "model's own, before temperature and filters."
    )
    rows: list[list[Child]] = [
        [str(step), token(piece), str(number), percent(math.exp(log)), f"{log:.3f}".replace("-", "−"), f"{entropy:.3f}"]  # noqa: RUF001
        for step, (piece, number, log, entropy) in enumerate(
            zip(result.pieces, result.ids.tolist(), logs, entropies, strict=True)
        )
    ]
    figure = token_bars(
        result.log_probs_nats.double().exp().numpy(), [visible(piece) for piece in result.pieces], unit="probability"
    )
    picture = Picture(
        versions={"probability": Version(figure=figure)},
        caption="The probability of each token when it was chosen.",
        prompt=prompt,
    )
    steps = Table(
        columns=("step", "token", "id", "probability", "log-probability (nats)", "entropy (nats)"),
        rows=rows,
        numeric=frozenset({0, 2, 3, 4, 5}),
        caption=f"{len(rows)} generated {'token' if len(rows) == 1 else 'tokens'}",
        long=True,
    )
    return Section(
        name="generation",
        title="Generation",
        label="Generation",
        lead=lead,
        place=70,
        blocks=(picture, steps, _costs(result)),
    )


def _costs(result: Any) -> Table:
    speed = result.decode_tokens_per_second
    sampling = "greedy" if result.temperature == 0 else f"temperature {result.temperature:g}"
    filters = [
        f"top-{name} {value:g}" for name, value in (("k", result.top_k), ("p", result.top_p)) if value is not None
    ]
    rows: list[list[Child]] = [
        ["choice of tokens", ", ".join([sampling, *filters])],
        ["stopped because", _STOPS.get(result.stop_reason) or str(result.stop_reason)],
        ["prefill (the whole prompt)", f"{1000 * result.prefill_seconds:.1f} ms"],
        ["decoding", "none" if speed is None else f"{speed:.1f} tokens a second"],
        ["key/value cache", f"{result.cache_bytes / 1e6:.2f} MB for {result.cached_tokens} tokens"],
    ]
    return Table(columns=("", "value"), rows=rows, caption="What it took")
