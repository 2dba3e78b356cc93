"""Generation: the tokens the model went on with, one forward pass each, and what the key/value cache took."""

import math
from typing import Any

from interp.figures import token_bars
from interp.report.blocks import Axis, Evidence, Finding, Picture, Section, Table, Version
from interp.report.markup import Child, join, token
from interp.report.sections.numbers import counted, percent
from interp.tokens import visible

_STOPS = {
    "length": "the asked number of tokens was reached",
    "end": "the model ended the text",
    "context": "the context is full",
}


def build(result: Any, prompt: str) -> Section | None:
    """Each generated token with its probability, how long it took, and how the cache grew."""
    lead = (
        "The model writes one [[token]] at a time: the chosen token is put after the prompt and the model runs again. [[Prefill]] reads "
        "the whole prompt at once; keys and values of what was read stay in the [[KV cache]], so that each further step reads one token "
        "only. Probabilities are the model's own, before temperature and filters."
    )
    return Section(
        name="generation",
        title="Generation",
        label="Generation",
        lead=lead,
        place=62,
        blocks=(_picture(result, prompt), _steps(result), _costs(result), _cache(result)),
        findings=_findings(result),
    )


def _picture(result: Any, prompt: str) -> Picture:
    labels = [visible(piece) for piece in result.pieces]
    probability = token_bars(result.log_probs_nats.double().exp().numpy(), labels, unit="probability")
    axis = Axis(of="step", labels=tuple(f"{step} {label}" for step, label in enumerate(labels)))
    figures = {"Probability": probability, "Time": result.figure("time"), "Cache": result.figure("cache")}
    return Picture(
        versions={words: Version(figure=figure, x=axis) for words, figure in figures.items()},
        caption=(
            "Each generated token: its probability when it was chosen, how long the forward took that chose it (the first reads "
            "the whole prompt), and the size of the cache after that."
        ),
        prompt=prompt,
    )


def _steps(result: Any) -> Table:
    logs, entropies = result.log_probs_nats.tolist(), result.entropy_nats.tolist()
    seconds = (result.prefill_seconds, *result.decode_seconds)
    rows: list[list[Child]] = []
    for step, (piece, log, entropy, took) in enumerate(zip(result.pieces, logs, entropies, seconds, strict=True)):
        other = result.runner_up(step)
        beside = "" if other is None else join([token(other[0]), f" {percent(math.exp(other[1]))}"])
        rows.append([str(step), token(piece), percent(math.exp(log)), beside, f"{entropy:.3f}", f"{1000 * took:.1f}"])
    return Table(
        columns=("step", "token", "probability", "likeliest other", "entropy (nats)", "forward (ms)"),
        rows=rows,
        numeric=frozenset({0, 2, 4, 5}),
        caption=counted(len(rows), "generated token"),
        long=True,
    )


def _costs(result: Any) -> Table:
    speed, n_prompt = result.decode_tokens_per_second, len(result.tokens)
    each = sum(result.decode_seconds) / len(result.decode_seconds) if speed is not None else None
    rows: list[list[Child]] = [
        ["choice of tokens", result.sampling.label],
        ["stopped because", _STOPS.get(result.stop_reason) or str(result.stop_reason)],
        [
            f"prefill ({counted(n_prompt, 'token')} at once)",
            f"{1000 * result.prefill_seconds:.1f} ms, {n_prompt / result.prefill_seconds:,.1f} tokens a second",
        ],
        [
            "decoding (one token at a time)",
            "none" if each is None else f"{1000 * each:.1f} ms a token, {speed:,.1f} tokens a second",
        ],
    ]
    return Table(columns=("", "value"), rows=rows, caption="What it took")


def _cache(result: Any) -> Table:
    """The size of the cache as the product that it is, and what sharing keys and values saved."""
    by_formula = sum(group.n_bytes for group in result.cached_layers)
    rows: list[list[Child]] = [["keys and values kept", f"{group.formula} bytes"] for group in result.cached_layers]
    rows.append(["measured", f"{result.cache_bytes:,} bytes for {counted(result.cached_tokens, 'token')}"])
    if by_formula != result.cache_bytes:
        rows.append(["beside keys and values", f"{result.cache_bytes - by_formula:,} bytes"])
    rows.append(["with a key and a value for each query head", f"{result.multi_head_bytes:,} bytes"])
    rows.append(["query heads for each key/value head", sharing(result)])
    return Table(columns=("key/value cache", "value"), rows=rows, caption="What the cache holds at the end")


def sharing(result: Any) -> str:
    """In words, how many query heads share a key/value head and what that saves in the cache."""
    if result.n_kv_heads == result.n_heads:
        return "1: nothing is shared, so nothing is saved"
    shared = f"{result.n_heads} / {result.n_kv_heads} = {result.n_heads / result.n_kv_heads:g}"
    if result.multi_head_bytes == sum(group.n_bytes for group in result.cached_layers):
        return f"{shared}, but this model's code keeps a copy for each query head: nothing is saved in the cache"
    saved = 1 - sum(group.n_bytes for group in result.cached_layers) / result.multi_head_bytes
    return f"{shared}: sharing saves {percent(saved)} of the cache"


def _findings(result: Any) -> tuple[Finding, ...]:
    speed = result.decode_tokens_per_second
    if speed is None:
        return ()
    prefill = len(result.tokens) / result.prefill_seconds
    text = f"Prefill reads {prefill:,.0f} tokens a second, decoding makes {speed:,.0f}; {_growth(result)}."
    return (Finding(text=text, rank=Evidence.HABIT, value=speed, unit="tokens a second"),)


def _growth(result: Any) -> str:
    """What one more token takes in the cache: layers whose window is full keep as much as before."""
    growing = [group for group in result.cached_layers if group.n_tokens >= result.cached_tokens]
    size = sum(group.n_bytes // group.n_tokens for group in growing) / 1e3
    layers = sum(group.n_layers for group in growing)
    every = sum(group.n_layers for group in result.cached_layers)
    if layers == every:
        return f"the KV cache takes {size:,.1f} kB for each token"
    if not layers:
        return "the KV cache no longer grows: the windows of all layers are full"
    return f"the KV cache grows by {size:,.1f} kB a token, in the {layers} of {every} layers whose window is not full"
