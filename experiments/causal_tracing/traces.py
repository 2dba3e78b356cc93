"""The trace of each fact, kept in a file so that a run that was stopped goes on."""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path

from experiments.causal_tracing.config import Config
from experiments.causal_tracing.facts import KnownFact, first_token
from interp.analyzers.causal_trace import causal_trace
from interp.analyzers.causal_trace_result import CausalTraceResult
from interp.runner.model import Model

_OF_THE_WHOLE = ("facts", "asked_at_once")
"""Settings that do not change the trace of one fact."""


def traced(
    model: Model, fact: KnownFact, config: Config, folder: Path, say: Callable[[str], None] = lambda line: None
) -> CausalTraceResult:
    """The trace of a fact, or what an earlier run with the same settings, weights and fact has left in ``folder``."""
    path = folder / f"{fact.number:04d}-{_digest(model, fact, config)}.safetensors"
    if path.is_file():
        return CausalTraceResult.load(path)
    folder.mkdir(parents=True, exist_ok=True)
    result = causal_trace(
        model,
        fact.prompt,
        fact.subject,
        first_token(model, fact),
        noise=config.noise,
        samples=config.samples,
        window=config.window,
        kinds=config.kinds,
        seed=config.seed + fact.number,
        checkpoint=path.with_suffix(".part"),
    )
    result.save(path)
    total = result.total_effect()
    say(
        f"{fact.prompt}{fact.answer}: {result.clean_probability:.3f} clean, {result.corrupted().value:.3f} corrupted "
        f"(total effect {total.value:.3f}, {total.lower:.3f} to {total.upper:.3f})"
    )
    return result


def _digest(model: Model, fact: KnownFact, config: Config) -> str:
    """What the trace depends on, as the name of its file."""
    settings = {name: value for name, value in config.to_json().items() if name not in _OF_THE_WHOLE}
    weights = model.source.weights_sha256 if model.source else model.name
    whole = json.dumps([settings, weights, fact.prompt, fact.subject, fact.answer], sort_keys=True)
    return hashlib.sha256(whole.encode()).hexdigest()[:12]
