"""What the detector says of a checkpoint, and whether that is right by what is known of the model without it."""

from collections.abc import Sequence
from dataclasses import dataclass

import interp
from experiments.induction_emergence.config import Config
from experiments.induction_emergence.measure import second_loss
from experiments.induction_emergence.store import Trained
from interp.heads import Head


@dataclass(frozen=True, kw_only=True)
class Finding:
    """The detector on one checkpoint.

    ``found`` are the heads that it calls induction heads, ``candidates`` those that attend like one. ``loss`` is the loss on second
    copies in nats a token, ``loss_without`` the same without the found heads and ``loss_without_others`` without all other heads of
    the last layer instead, by ``measure.second_loss``, which knows nothing of the detector. ``right`` is ``is_right``.
    """

    layers: int
    seed: int
    step: int
    found: tuple[str, ...]
    candidates: tuple[str, ...]
    loss: float
    loss_without: float
    loss_without_others: float
    right: bool


def detect(config: Config, trained: Trained, step: int) -> Finding:
    """Loads a kept checkpoint as a user would and looks for induction heads in it."""
    model = interp.load(str(trained.checkpoint(step)), device="cpu", dtype="float32", offline=True)
    result = interp.induction_heads(model, periods=config.periods, seeds=config.detector_seeds)
    heads = result.called
    last = model.atlas.n_layers - 1
    others = [Head(last, head) for head in range(model.atlas.n_heads) if Head(last, head) not in heads]
    loss = trained.at(step).second_loss
    without = second_loss(model, config, heads)
    floor = trained.at(config.before).second_loss
    after = trained.layers > 1 and step > config.before
    return Finding(
        layers=trained.layers,
        seed=trained.seed,
        step=step,
        found=tuple(map(str, heads)),
        candidates=tuple(str(verdict.head) for verdict in result.verdicts),
        loss=loss,
        loss_without=without,
        loss_without_others=second_loss(model, config, others),
        right=is_right(heads, after=after, undone=(without - loss) / (floor - loss) if after else 0.0),
    )


def is_right(heads: Sequence[Head], *, after: bool, undone: float) -> bool:
    """Whether the found heads are the truth.

    In a one-layer model and before the phase change there is none. After it there are some, none of them in the first layer, which
    no head comes before, and without them most of what was learnt since is ``undone``: at least half of it.
    """
    if not after:
        return not heads
    return bool(heads) and all(head.layer > 0 for head in heads) and undone >= 0.5


def findings(config: Config, models: Sequence[Trained]) -> tuple[Finding, ...]:
    """The detector on every model, before the phase change and at the end."""
    return tuple(detect(config, trained, step) for trained in models for step in (config.before, config.steps))
