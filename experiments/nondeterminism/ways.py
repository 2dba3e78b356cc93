"""Ways to compute the logits of one prompt that agree on paper: batch, padding, threads, attention implementation."""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from experiments.benchmarks.harness import threads
from experiments.nondeterminism.config import Config
from interp.runner.model import Model

ALONE, AGAIN, STEPWISE = "alone", "alone, again", "token by token"


@dataclass(frozen=True, kw_only=True)
class Way:
    """The prompt's row in its batch: one of ``copies`` equal rows, or beside a longer prompt, itself padded on a side; and how it runs.

    ``stepwise`` gives the model one token after another, with a KV cache, as text is generated.
    """

    name: str
    copies: int = 1
    padded: str = ""
    stepwise: bool = False
    threads: int = 1
    attention: str = "sdpa"


def ways_of(config: Config) -> tuple[Way, ...]:
    """All ways, the first the one that the others of its dtype are held against."""
    return (
        Way(name=ALONE),
        Way(name=AGAIN),
        *(Way(name=f"batch of {copies}", copies=copies) for copies in config.copies),
        Way(name="padded right", padded="right"),
        Way(name="padded left", padded="left"),
        Way(name=STEPWISE, stepwise=True),
        Way(name=f"{config.threads} threads", threads=config.threads),
        Way(name="eager attention", attention="eager"),
    )


def logits(model: Model, ids: Sequence[int], way: Way, longer: Sequence[int]) -> Float[Tensor, "pos d_vocab"]:
    """The logits of the prompt's own tokens; ``longer`` is the prompt that it is padded beside."""
    with ExitStack() as stack:
        stack.enter_context(threads(way.threads))
        stack.enter_context(attention(model, way.attention))
        if way.stepwise:
            return _stepwise(model, ids)
        if way.padded == "left":
            return _padded_left(model, ids, longer)
        beside = [list(longer)] if way.padded else [list(ids)] * (way.copies - 1)
        found = model.run([list(ids), *beside]).logits
        assert found is not None, "logits were asked for"
        return found[0, : len(ids)]


@torch.no_grad()
def _stepwise(model: Model, ids: Sequence[int]) -> Float[Tensor, "pos d_vocab"]:
    cache, rows = None, []
    for index in ids:
        out = model.hf(torch.tensor([[index]]), past_key_values=cache, use_cache=True)
        cache = out.past_key_values
        rows.append(out.logits[0, 0])
    return torch.stack(rows)


@torch.no_grad()
def _padded_left(model: Model, ids: Sequence[int], longer: Sequence[int]) -> Float[Tensor, "pos d_vocab"]:
    """As text is generated in batches: a mask over the padding, and positions that begin after it."""
    n_padding = len(longer) - len(ids)
    rows = torch.tensor([[ids[0]] * n_padding + list(ids), list(longer)])
    mask = torch.ones_like(rows)
    mask[0, :n_padding] = 0
    positions = (mask.cumsum(1) - 1).clamp(min=0)
    return model.hf(rows, attention_mask=mask, position_ids=positions).logits[0, n_padding:]


@contextmanager
def attention(model: Model, name: str) -> Iterator[None]:
    """The model with this attention implementation."""
    before = model.hf.config._attn_implementation
    model.hf.set_attn_implementation(name)
    try:
        yield
    finally:
        model.hf.set_attn_implementation(before)
