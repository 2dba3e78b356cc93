"""Means over tokens, with intervals from drawing whole texts anew: tokens of one text are not independent."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from experiments.lens_depth.config import Config
from experiments.lens_depth.readings import Readings
from interp.maths.estimates import Estimate, Estimates
from interp.maths.statistics import bootstrap_estimates

GROUPS = ("all", "sure", "unsure", "frequent", "rare")
PAIRS = (("unsure", "sure"), ("rare", "frequent"))
"""Groups whose mean depths are held against each other: the first less the second."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Depths:
    """Estimates over texts. Of each depth: agreement, the same with another position, KL to the final distribution, entropy, the mean of
    log10(1 + rank) of the next token. Of each group of tokens: its mean settling depth, and the share that is settled at each depth.
    """

    agrees: Estimates
    agrees_elsewhere: Estimates
    kl_nats: Estimates
    entropy_nats: Estimates
    log_rank: Estimates
    depth: dict[str, Estimate]
    settled: dict[str, Estimates]
    later: dict[tuple[str, str], Estimate]
    counts: dict[str, int]


def depths(found: Readings, config: Config) -> Depths:
    """All statistics of the readings."""
    generator = torch.Generator().manual_seed(config.seed)

    def mean(values: Float[Tensor, "sample layer pos"], tokens: Tensor) -> Estimates:
        """The mean over the tokens of a group, all texts together."""
        parts = torch.stack([(values * tokens[:, None]).sum(-1), tokens[:, None].sum(-1).expand(values.shape[:2])], -1)
        return bootstrap_estimates(parts.double(), _ratio, generator, draws=config.draws)

    groups = members(found, config)
    everyone = groups["all"]
    settled = found.settled
    reached = torch.arange(found.agrees.shape[1])[None, :, None] >= settled[:, None]
    return Depths(
        agrees=mean(found.agrees.double(), everyone),
        agrees_elsewhere=mean(found.agrees_elsewhere.double(), everyone),
        kl_nats=mean(found.kl_nats.double(), everyone),
        entropy_nats=mean(found.entropy_nats.double(), everyone),
        log_rank=mean((1 + found.next_rank.double()).log10(), everyone),
        depth={name: mean(settled[:, None].double(), group).at(0) for name, group in groups.items()},
        settled={name: mean(reached.double(), group) for name, group in groups.items()},
        later={pair: _later(settled, groups, pair, generator, config.draws) for pair in PAIRS},
        counts={name: int(group.sum()) for name, group in groups.items()},
    )


def members(found: Readings, config: Config) -> dict[str, Float[Tensor, "sample pos"]]:
    """1 for each token of a group, else 0."""
    chosen = {
        "all": torch.ones_like(found.frequent),
        "sure": found.final_prob >= config.sure,
        "unsure": found.final_prob < config.unsure,
        "frequent": found.frequent,
        "rare": ~found.frequent,
    }
    return {name: chosen[name].double() for name in GROUPS}


def _later(
    settled: Tensor, groups: dict[str, Tensor], pair: tuple[str, str], generator: torch.Generator, draws: int
) -> Estimate:
    """How many layers later the tokens of the first group settle, the texts drawn for both together."""
    sums = [torch.stack([(settled * groups[name]).sum(1), groups[name].sum(1)], -1) for name in pair]
    parts = torch.stack(sums, 1).double()  # text, group, (sum, number)
    found = bootstrap_estimates(parts, lambda drawn: _ratio(drawn).diff(dim=0).neg(), generator, draws=draws)
    return found.at(0)


def _ratio(parts: Tensor) -> Tensor:
    total = parts.sum(0)
    return total[..., 0] / total[..., 1]
