"""What a checkpoint does on repeated sequences, through interp's runner: losses, and two scores of every head."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import torch
from jaxtyping import Float, Int
from torch import Tensor

from experiments.induction_emergence.config import Config
from experiments.induction_emergence.data import measured_batch, unrepeated_batch
from interp.heads import Head
from interp.interventions import MeanAblate
from interp.runner.model import Model
from interp.runner.plan import Capture
from interp.sites import Site


@dataclass(frozen=True, kw_only=True)
class Measures:
    """One checkpoint.

    Losses are in nats a token: ``first_loss`` over the first copy of each block, ``second_loss`` over the second without its first
    token, which nothing foretells. Scores are by layer and head: ``stripe`` is the mean attention to the token ``period - 1`` back
    from the second copy, ``previous`` to the token before, over the same queries (Olsson et al. 2022).
    """

    step: int
    first_loss: float
    second_loss: float
    stripe: tuple[tuple[float, ...], ...]
    previous: tuple[tuple[float, ...], ...]

    @property
    def best_stripe(self) -> float:
        """The highest stripe score of any head."""
        return max(map(max, self.stripe))


def scores(
    pattern: Float[Tensor, "batch head query_pos key_pos"], site: Site, period: int
) -> Float[Tensor, "batch head 2"]:
    """Stripe and previous-token score of each prompt and head, in place of its pattern."""
    stripe = pattern.diagonal(1 - period, -2, -1)[..., 2:]  # the queries 1 + period and on
    previous = pattern.diagonal(-1, -2, -1)[..., period:]
    return torch.stack([stripe.mean(-1), previous.mean(-1)], -1)


def measure(model: Model, config: Config, step: int) -> Measures:
    """Measures a checkpoint on all of ``config.periods``, each weighing the same."""
    losses, found = [], []
    for period in config.periods:
        ids = measured_batch(config, period)
        run = model.run(list(ids), capture=Capture("attn.pattern", reduce=partial(scores, period=period)))
        layers = [run.cache[f"attn.pattern@{layer}"].mean(0) for layer in range(model.atlas.n_layers)]
        losses.append(copy_losses(run.logits, ids, period))
        found.append(torch.stack(layers))
    first, second = torch.stack(losses).mean(0).tolist()
    stripe, previous = torch.stack(found).mean(0).unbind(-1)
    return Measures(
        step=step,
        first_loss=first,
        second_loss=second,
        stripe=_rows(stripe),
        previous=_rows(previous),
    )


def second_loss(model: Model, config: Config, without: Sequence[Head] = ()) -> float:
    """The loss on the second copies, in nats a token, with what some heads write replaced by its mean over text without repeats."""
    layers = sorted({head.layer for head in without})
    run = model.run(list(unrepeated_batch(config)), capture=[f"attn.z@{layer}" for layer in layers], logits=False)
    means = {head: run.cache[f"attn.z@{head.layer}"][:, 1:, head.head].mean((0, 1)) for head in without}
    changes = [MeanAblate(f"attn.z@{head.layer}", mean, heads=head.head) for head, mean in means.items()]
    losses = []
    for period in config.periods:
        ids = measured_batch(config, period)
        losses.append(copy_losses(model.run(list(ids), interventions=changes).logits, ids, period)[1])
    return torch.stack(losses).mean().item()


def copy_losses(logits: Tensor | None, ids: Int[Tensor, "batch pos"], period: int) -> Float[Tensor, "2"]:
    """Mean loss in nats over the first copy and over the second, whose first token is left out."""
    assert logits is not None
    losses = torch.nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1), ids[:, 1:].flatten(), reduction="none")
    by_target = losses.view(len(ids), -1)
    return torch.stack([by_target[:, :period].mean(), by_target[:, period + 1 :].mean()])


def _rows(values: Tensor) -> tuple[tuple[float, ...], ...]:
    return tuple(tuple(row) for row in values.tolist())
