"""Random sequences that repeat themselves: only a head that finds the earlier copy can predict the later one."""

import torch
from jaxtyping import Int
from torch import Generator, Tensor

from experiments.induction_emergence.config import BOS, Config


def training_batch(config: Config, generator: Generator) -> Int[Tensor, "batch pos"]:
    """BOS and a random block, over and over; each row has a block length of its own."""
    periods = torch.randint(config.shortest, config.longest + 1, (config.rows, 1), generator=generator)
    blocks = _tokens(config, config.rows, config.longest, generator)
    places = torch.arange(config.length - 1)[None] % periods
    return _behind_bos(blocks.gather(1, places))


def measured_batch(config: Config, period: int) -> Int[Tensor, "batch pos"]:
    """BOS and two copies of a random block of ``period`` tokens; always the same rows for a period."""
    generator = torch.Generator().manual_seed(config.measured_seed + period)
    return _behind_bos(_tokens(config, config.measured_rows, period, generator).repeat(1, 2))


def unrepeated_batch(config: Config) -> Int[Tensor, "batch pos"]:
    """BOS and random tokens, as many as the longest measured row has."""
    generator = torch.Generator().manual_seed(config.measured_seed)
    return _behind_bos(_tokens(config, config.measured_rows, 2 * max(config.periods), generator))


def _tokens(config: Config, rows: int, columns: int, generator: Generator) -> Tensor:
    return torch.randint(BOS + 1, config.vocabulary, (rows, columns), generator=generator)


def _behind_bos(ids: Tensor) -> Tensor:
    return torch.cat([torch.full((len(ids), 1), BOS), ids], 1)
