"""How likely a model finds given answers after given prompts, and what it would say itself: many prompts in few forwards.

The answers of a prompt share its forward: one row for each way in which the tokens of an answer go on, so that a prompt whose answers
are of one token each is one row. Rows run beside others of about their length.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from jaxtyping import Float, Int
from torch import Tensor

from interp.analyzers.answers import Answer, continued
from interp.errors import NumericsError
from interp.runner.memory import in_halves
from interp.runner.model import Model
from interp.tokens import Tokens

TOKENS_AT_ONCE = 2048
"""Tokens, padding included, of the rows that run in one forward."""
_PADDING_AT_ONCE = 16
"""Tokens of padding that cost about what another forward does."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Probe:
    """A prompt, and the answers that are scored after it: none where only the model's own answer is read."""

    prompt: Tokens
    answers: tuple[Answer, ...] = ()


@dataclass(frozen=True, kw_only=True, eq=False)
class Heard:
    """What a model makes of one probe.

    ``nats[i]`` is the mean of -ln p over the tokens of answer i, each with those before it given; ``choices[i]`` what ranks first in the
    place of each of them. ``log_probs`` are those of the next token after the prompt.
    """

    nats: tuple[float, ...]
    choices: tuple[tuple[int, ...], ...]
    log_probs: Float[Tensor, " d_vocab"]

    @property
    def top(self) -> int:
        """The token that ranks first after the prompt."""
        return int(self.log_probs.argmax())


@dataclass(frozen=True, kw_only=True, eq=False)
class _Row:
    """The prompt of a probe and the tokens of an answer, all but its last: what one row of a forward holds."""

    probe: int
    tokens: Tokens
    forced: tuple[int, ...]


def hear(model: Model, probes: Sequence[Probe]) -> tuple[Heard, ...]:
    """Runs the probes and reads what the model makes of them.

    Equal probes of equal neighbours give equal numbers: the same call on the same weights is the same to the last bit.
    Raises UsageError for a prompt that does not fit the context with its answer, NumericsError where the logits hold NaN.
    """
    found: list[dict[tuple[int, ...], Tensor]] = [{} for _ in probes]  # by the tokens of an answer that were given
    for whole in _batches([row for index, probe in enumerate(probes) for row in _rows(model, index, probe)]):
        for rows, log_probs in in_halves(model, whole, partial(_read, model), "prompts"):
            for row, part in zip(rows, log_probs, strict=True):
                found[row.probe][row.forced] = part
    return tuple(map(_heard, probes, found))


def _read(model: Model, rows: Sequence[_Row]) -> Float[Tensor, "row pos d_vocab"]:
    """The log-probabilities at the positions of each row that are read, in nats."""
    n_read = len(rows[0].forced) + 1
    output = model.run([row.tokens for row in rows], logits=list(range(-n_read, 0)))
    assert output.logits is not None, "logits were asked for"
    log_probs = output.logits.float().log_softmax(-1)
    if not bool(log_probs.isfinite().all()):
        raise NumericsError(
            f"the logits of {model.name} hold NaN or infinity, so no answer can be scored; check the weights and the edit"
        )
    return log_probs


def _rows(model: Model, index: int, probe: Probe) -> Iterator[_Row]:
    """A row for each way in which answers go on; answers whose tokens begin alike share one."""
    by_forced = {answer.ids[:-1]: answer for answer in probe.answers}
    if not by_forced:
        yield _Row(probe=index, tokens=probe.prompt, forced=())
    for forced, answer in by_forced.items():
        if not any(other != forced and other[: len(forced)] == forced for other in by_forced):
            yield _Row(probe=index, tokens=continued(model, probe.prompt, answer), forced=forced)


def _batches(rows: Sequence[_Row]) -> Iterator[list[_Row]]:
    """Rows that are read at as many positions, the longest first, with little padding."""
    batch: list[_Row] = []
    padding = 0
    for row in sorted(rows, key=lambda row: (len(row.forced), -len(row.tokens))):
        if batch:
            longest = len(batch[0].tokens)
            padding += longest - len(row.tokens)
            full = (len(batch) + 1) * longest > TOKENS_AT_ONCE
            if full or padding > _PADDING_AT_ONCE or len(row.forced) != len(batch[0].forced):
                yield batch
                batch, padding = [], 0
        batch.append(row)
    if batch:
        yield batch


def _heard(probe: Probe, rows: dict[tuple[int, ...], Tensor]) -> Heard:
    nats, choices = [], []
    for answer in probe.answers:
        forced = answer.ids[:-1]
        part = next(part for whole, part in rows.items() if whole[: len(forced)] == forced)[: len(answer.ids)]
        nats.append(-float(_picked(part, torch.tensor(answer.ids, device=part.device)).double().mean()))
        choices.append(tuple(part.argmax(-1).tolist()))
    return Heard(nats=tuple(nats), choices=tuple(choices), log_probs=next(iter(rows.values()))[0].clone())


def _picked(log_probs: Float[Tensor, "pos d_vocab"], ids: Int[Tensor, " pos"]) -> Float[Tensor, " pos"]:
    return log_probs.gather(-1, ids[:, None])[:, 0]
