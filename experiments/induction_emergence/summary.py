"""The figures of the experiment from curves and findings, held against what is expected."""

import math
from collections.abc import Sequence
from itertools import pairwise
from statistics import mean

from experiments.induction_emergence.config import Config
from experiments.induction_emergence.measure import Measures
from experiments.induction_emergence.store import Trained
from experiments.induction_emergence.verdicts import Finding


def chance(config: Config) -> float:
    """The loss in nats of an even guess over the tokens that can come."""
    return math.log(config.vocabulary - 1)


def change_step(curve: Sequence[Measures]) -> int:
    """The step of the phase change: the end of the interval between checkpoints in which the loss on second copies falls most."""
    falls = [before.second_loss - after.second_loss for before, after in pairwise(curve)]
    return curve[falls.index(max(falls)) + 1].step


def stripe_step(curve: Sequence[Measures]) -> int:
    """The first checkpoint at which the best stripe score is half of its highest."""
    half = max(measures.best_stripe for measures in curve) / 2
    return next(measures.step for measures in curve if measures.best_stripe >= half)


def values(config: Config, models: Sequence[Trained], findings: Sequence[Finding]) -> dict[str, float]:
    """Every figure by name, each the mean over the seeds unless its description says otherwise."""
    one = [trained for trained in models if trained.layers == 1]
    two = [trained for trained in models if trained.layers == 2]
    after = [finding for finding in findings if finding.layers == 2 and finding.step == config.steps]
    ends_one, ends_two = ([trained.curve[-1] for trained in group] for group in (one, two))
    befores = [trained.at(config.before) for trained in two]
    changes, stripes = ([step(trained.curve) for trained in two] for step in (change_step, stripe_step))
    return {
        "one_layer_second_loss": mean(end.second_loss for end in ends_one),
        "two_layer_second_loss": mean(end.second_loss for end in ends_two),
        "two_layer_second_loss_before": mean(start.second_loss for start in befores),
        "two_layer_first_loss": mean(end.first_loss for end in ends_two),
        "one_layer_best_stripe": max(measures.best_stripe for trained in one for measures in trained.curve),
        "two_layer_best_stripe": mean(end.best_stripe for end in ends_two),
        "two_layer_best_stripe_before": max(start.best_stripe for start in befores),
        "two_layer_first_layer_stripe": max(max(end.stripe[0]) for end in ends_two),
        "two_layer_previous": mean(max(end.previous[0]) for end in ends_two),
        "change_step": mean(changes),
        "stripe_behind_loss": max(abs(a - b) for a, b in zip(changes, stripes, strict=True)),
        "loss_without_found": mean(finding.loss_without for finding in after),
        "loss_without_others": max(finding.loss_without_others for finding in after),
        "right_verdicts": mean(finding.right for finding in findings),
    }
