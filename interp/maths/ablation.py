"""What ablation needs beside a model: means by place, which text stands in for which, and the loss of a text from its logits."""

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Generator, Tensor

_POSITIONS_AT_ONCE = 256
"""Positions of one row whose logits are held a second time, in fp32."""


class PlaceMeans:
    """The mean of a site at the first position, and over all later ones, of texts that are met one after another.

    The first position is apart because the first token of a text gets a stream unlike any other: its share of a mean over all
    positions would shift every later position by something that never occurs there.
    """

    def __init__(self) -> None:
        self._first: Tensor | None = None
        self._later: Tensor | None = None
        self._n_texts, self._n_later = 0, 0

    def update(self, sums: Float[Tensor, "2 ..."], n_pos: int) -> None:
        """Adds a text of ``n_pos`` tokens, from its ``place_sums``."""
        parts = sums.detach().cpu().double()
        self._first = parts[0] if self._first is None else self._first + parts[0]
        self._later = parts[1] if self._later is None else self._later + parts[1]
        self._n_texts, self._n_later = self._n_texts + 1, self._n_later + n_pos - 1

    def result(self, n_pos: int) -> Float[Tensor, "pos ..."]:
        """The mean that stands at each of ``n_pos`` positions. There must have been a text as long as two tokens if n_pos is."""
        assert self._first is not None, "there was a text"
        assert self._later is not None, "there was a text"
        assert n_pos == 1 or self._n_later, "no text had a second token"
        first, later = self._first / self._n_texts, self._later / max(self._n_later, 1)
        return torch.cat([first[None], later[None].expand(n_pos - 1, *later.shape)])


def place_sums(values: Float[Tensor, "1 pos ..."]) -> Float[Tensor, "2 ..."]:
    """Of one text: what stands at the first position, and the sum over all later ones."""
    return torch.stack([values[0, 0].float(), values[0, 1:].float().sum(0)])


def drawn_sources(
    lengths: Sequence[int], pool: Sequence[int], samples: int, generator: Generator, *, same: bool
) -> list[tuple[int, ...]]:
    """For each text, ``samples`` texts of the pool at random, each at least as long as the text itself; () where there is none.

    Draws are independent, so that one text can be drawn twice. With ``same`` the pool is the texts themselves and none is its own
    source.
    """
    found = []
    for index, length in enumerate(lengths):
        able = [place for place, size in enumerate(pool) if size >= length and not (same and place == index)]
        drawn = torch.randint(len(able), (samples,), generator=generator).tolist() if able else []
        found.append(tuple(able[place] for place in drawn))
    return found


def mean_losses(
    logits: Float[Tensor, "batch pos d_vocab"], ids: Int[Tensor, " pos"], scored_from: int = 1
) -> Float[Tensor, " batch"]:
    """The mean of -ln p over the tokens of a text from ``scored_from`` on, in nats a token, for each row of its logits.

    Goes over a few positions of a row at a time, so that the logits are not held again.
    """
    n_pos = len(ids)
    sums = []
    for row in logits:
        total = torch.zeros((), dtype=torch.float32, device=row.device)
        for start in range(scored_from - 1, n_pos - 1, _POSITIONS_AT_ONCE):
            stop = min(start + _POSITIONS_AT_ONCE, n_pos - 1)
            part, wanted = row[start:stop].float(), ids[start + 1 : stop + 1]
            total = total + (part.logsumexp(-1) - part.gather(-1, wanted[:, None])[:, 0]).sum()
        sums.append(total)
    return torch.stack(sums) / (n_pos - scored_from)
