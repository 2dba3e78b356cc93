"""Sweeps: many small changes to a run, each read by a few metrics, through exact resuming. Memory is bounded, work can be stopped."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from interp.analyzers.metrics import Metric
from interp.checkpoint import Checkpoint
from interp.errors import MemoryLimitError, NumericsError
from interp.interventions import Intervention
from interp.models.cache import Step
from interp.models.offload import named_weights
from interp.runner.memory import forward_bytes, least_free, most_tokens
from interp.runner.model import Model
from interp.runner.resume import DEFAULT_TOKEN_BUDGET
from interp.runner.run import Run

_SHARE_OF_FREE = 0.5
"""Share of the free memory that one resumed forward may take."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Part:
    """Rows of a sweep that belong together, such as all layers at one position, and the name under which their numbers are kept.

    ``rows`` are the interventions of each row, ``prompts`` the prompt of the run that each changes. ``start`` is as in ``resume``.
    """

    name: str
    rows: Sequence[Sequence[Intervention]]
    prompts: Sequence[int]
    start: tuple[int, int] | None = None


def sweep(
    run: Run,
    parts: Sequence[Part],
    metrics: Sequence[Metric],
    *,
    what: str,
    progress: Step,
    kept: Checkpoint,
    token_budget: int | None = None,
) -> dict[str, Float[Tensor, "row metric"]]:
    """The metrics of every row of every part, by the part's name; on the CPU in at least fp32.

    Parts that ``kept`` holds are taken from there. ``token_budget`` bounds rows x positions computed at once; by default it is what
    fits in half of the free memory, at most 4,096. Raises NumericsError when a metric is NaN.
    """
    total = sum(len(part.rows) for part in parts)
    budget = token_budget or tokens_at_once(run)
    positions = sorted({position for metric in metrics for position in metric.positions})
    wanted = "last" if positions == [-1] else positions
    found: dict[str, Tensor] = {}
    done = 0
    progress(what, done, total)
    for part in parts:
        known = kept.get(part.name)
        if known is None:

            def finished(n_rows: int) -> None:
                nonlocal done
                done += n_rows
                progress(what, done, total)

            resumed = run.resume(
                part.rows,
                prompts=part.prompts,
                start=part.start,
                logits=wanted,
                token_budget=budget,
                read=partial(_read, metrics, positions),
                progress=finished,
            )
            assert resumed.values is not None or not part.rows, "logits were asked for"
            known = torch.zeros(0, len(metrics)) if resumed.values is None else resumed.values.cpu()
            if known.isnan().any():
                raise NumericsError("the logits of a patched run hold NaN; check the weights, or use dtype='float32'")
            kept.put(part.name, known)
        else:
            done += len(part.rows)
            progress(what, done, total)
        found[part.name] = known
    return found


def read_metrics(run: Run, metrics: Sequence[Metric]) -> Float[Tensor, "batch metric"]:
    """The metrics of the run itself, unchanged; its logits at the metrics' positions must be there."""
    positions = sorted({position for metric in metrics for position in metric.positions})
    assert run.logits is not None, "the run needs the logits at the metrics' positions"
    assert run.logits.shape[1] == len(positions), f"the run's logits are not those at {positions}"
    values = _read(metrics, positions, run.logits, range(len(run.tokens))).cpu()
    if values.isnan().any():
        raise NumericsError("the model's logits hold NaN or infinity; check the weights, or use dtype='float32'")
    return values


def _read(metrics: Sequence[Metric], positions: Sequence[int], logits: Tensor, prompts: Sequence[int]) -> Tensor:
    """Each metric of some rows, from the logits at ``positions``."""
    scores = []
    for metric in metrics:
        columns = [positions.index(position) for position in metric.positions]
        every = columns == list(range(len(positions)))  # then no copy of so many numbers
        scores.append(metric.score(logits if every else logits[:, columns], prompts).float())
    return torch.stack(scores, -1)


def tokens_at_once(run: Run) -> int:
    """Rows x positions of one resumed forward that fit in the memory that is free now: on a CPU at most 4,096, elsewhere 32,768.

    Beside what a forward holds for each token there is a row of logits for each row. Raises MemoryLimitError where not even one row
    fits.
    """
    model, n_pos = run.model, max(len(tokens) for tokens in run.tokens)
    a_row = n_pos * forward_bytes(model, n_pos) + 3 * 4 * model.atlas.d_vocab
    free = least_free(model)
    if free is None:
        return DEFAULT_TOKEN_BUDGET
    rows = int(_SHARE_OF_FREE * free / a_row)
    if rows < 1:
        raise MemoryLimitError(
            f"one row of {n_pos} tokens needs about {a_row / 1e9:.1f} GB and {free / 1e9:.1f} GB are free on {model.device}; "
            "use a shorter prompt, a smaller model or dtype='bfloat16'"
        )
    return min(most_tokens(model.device, DEFAULT_TOKEN_BUDGET), rows * n_pos)


def request_key(model: Model, **settings: Any) -> Mapping[str, Any]:
    """What a piece of work is, for its checkpoint: the weights, how they compute, and the settings."""
    return {
        "weights": model.source.weights_sha256 if model.source else _fingerprint(model),
        "dtype": str(model.dtype),
        "device": str(model.device),
        "attention": model.hf.config._attn_implementation,
        **settings,
    }


def _fingerprint(model: Model) -> str:
    """The SHA-256 of all parameters of a model made in memory."""
    found = hashlib.sha256()
    for name, values in named_weights(model.hf):
        found.update(name.encode())
        found.update(values.cpu().contiguous().view(torch.uint8).numpy().tobytes())
    return found.hexdigest()
