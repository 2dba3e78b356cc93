"""What an induction head does, measured (Elhage et al. 2021; Olsson et al. 2022).

At a token that occurred before, an induction head attends to the token that came next then, and copies it. Of a pattern only a few
numbers for each head are wanted, so that it is met in blocks of queries and summed up at once:

- stripe: the mean attention from position i to i - period + 1 over the repeats of a block. The attention at other distances from
  the same place shows whether it moves with the repeat.
- prefix matching: the attention to the tokens after all earlier occurrences, as a share of what does not rest on the first token.

Losses are in nats a token.
"""

from dataclasses import dataclass

import torch
from einops import rearrange
from jaxtyping import Bool, Float, Int
from torch import Tensor

OFFSETS = (-3, -2, -1, 0, 1, 2, 3)
"""Distances from a token's last occurrence at which attention is measured: 0 is that occurrence, 1 the induction target."""
LEAST_OFF_FIRST = 0.05
"""The least attention off the first token of which a share is taken."""
_NONE = -1


@dataclass(frozen=True, kw_only=True, eq=False)
class Places:
    """For each query the keys of interest, -1 where there is none.

    ``targets`` are the tokens after all earlier occurrences, ``around`` those at ``OFFSETS`` from the occurrence one period back, at
    the repeats only; ``diagonal`` is the key ``period - 1`` back, at every query that has one; ``previous`` the key just before.
    """

    targets: Int[Tensor, "batch query_pos k"]
    around: Int[Tensor, "batch query_pos offset"]
    diagonal: Int[Tensor, "batch query_pos 1"]
    previous: Int[Tensor, "batch query_pos 1"]


@dataclass(frozen=True, kw_only=True, eq=False)
class Masses:
    """Attention of each head, averaged over the queries of each prompt; NaN where a prompt has no such query.

    Over queries with an earlier occurrence: ``on_targets``, and ``off_first``, what goes to keys other than the first. Over
    the repeats of a block: ``around``, by ``OFFSETS``. ``diagonal`` is over all queries that have a key ``period - 1`` back,
    TransformerLens' average, which holds a few queries that repeat nothing. ``previous`` is what goes to the token just before.
    """

    on_targets: Float[Tensor, "batch *head"]
    off_first: Float[Tensor, "batch *head"]
    around: Float[Tensor, "batch *head offset"]
    diagonal: Float[Tensor, "batch *head"]
    previous: Float[Tensor, "batch *head"]

    @property
    def stripe(self) -> Float[Tensor, "batch *head"]:
        """The mean attention from position i to i - period + 1 over the repeats of a block."""
        return self.around[..., OFFSETS.index(1)]


def places(ids: Int[Tensor, "batch pos"], period: int | None, first: int) -> Places:
    """The keys of interest in texts.

    Args:
        ids: the texts.
        period: the length of the block that they repeat; None where they repeat no block.
        first: the position at which the first block starts: 1 behind a begin-of-text token.

    """
    n_pos = ids.shape[1]
    position = torch.arange(n_pos, device=ids.device)
    previous = (position - 1)[:, None].expand(len(ids), -1, -1)
    if period is None:
        around = ids.new_full((*ids.shape, len(OFFSETS)), _NONE)
        return Places(targets=_targets(ids), around=around, diagonal=around[..., :1], previous=previous)
    offsets = torch.tensor(OFFSETS, device=ids.device)
    keys = position[:, None] - period + offsets
    there = (position[:, None] >= first + period) & (keys >= first) & (keys <= position[:, None])
    diagonal = (position - period + 1).clamp(min=_NONE)[:, None]
    return Places(
        targets=_targets(ids),
        around=keys.masked_fill(~there, _NONE).expand(len(ids), -1, -1),
        diagonal=diagonal.expand(len(ids), -1, -1),
        previous=previous,
    )


def mass_sums(
    rows: Float[Tensor, "batch head query_pos key_pos"], places: Places, first_query: int
) -> Float[Tensor, "batch head row"]:
    """What ``masses`` needs of some consecutive queries of a pattern, the first of them at ``first_query``, summed over them.

    Rows that do not sum to one, because a learned sink takes a part, count that part as resting on the first token.
    """
    span = slice(first_query, first_query + rows.shape[2])
    targets, around = places.targets[:, span], places.around[:, span]
    asked = (targets != _NONE).any(-1)
    off_first = (rows.sum(-1) - rows[..., 0]).masked_fill(~asked[:, None], 0.0)
    sums = [
        attention_to(rows, targets).sum((2, 3))[..., None],
        off_first.sum(2)[..., None],
        attention_to(rows, places.diagonal[:, span]).sum(2),
        attention_to(rows, places.previous[:, span]).sum(2),
        attention_to(rows, around).sum(2),
    ]
    return torch.cat(sums, -1)


def masses(sums: Float[Tensor, "batch *head row"], places: Places) -> Masses:
    """Means over queries from the ``mass_sums`` of all blocks added up."""
    axes = (-1, *[1] * (sums.dim() - 2))
    asked = (places.targets != _NONE).any(-1).sum(1).reshape(axes)
    repeated = (places.around != _NONE).sum(1).reshape(*axes, len(OFFSETS))
    on_diagonal, with_previous = (
        (keys[..., 0] != _NONE).sum(1).reshape(axes) for keys in (places.diagonal, places.previous)
    )
    return Masses(
        on_targets=sums[..., 0] / asked,
        off_first=sums[..., 1] / asked,
        diagonal=sums[..., 2] / on_diagonal,
        previous=sums[..., 3] / with_previous,
        around=sums[..., 4:] / repeated,
    )


def attention_to(
    rows: Float[Tensor, "batch head query_pos key_pos"], keys: Int[Tensor, "batch query_pos k"]
) -> Float[Tensor, "batch head query_pos k"]:
    """The attention of each query to each of its ``keys``, 0 for -1."""
    index = keys.clamp(min=0)[:, None].expand(-1, rows.shape[1], -1, -1)
    return rows.gather(-1, index).masked_fill((keys == _NONE)[:, None], 0.0)


def prefix_matching(on_targets: Float[Tensor, "*batch"], off_first: Float[Tensor, "*batch"]) -> Float[Tensor, "*batch"]:
    """The share of the attention off the first token that goes to induction targets: 1 for a perfect head.

    Olsson et al. take the attention to the targets itself. A head that can find no target rests on the first token, and often keeps
    a part of its attention there when it finds one; dividing by the rest corrects for that. NaN where no more than
    ``LEAST_OFF_FIRST`` is off the first token: the share of next to nothing says nothing.
    """
    return (on_targets / off_first).masked_fill(off_first < LEAST_OFF_FIRST, float("nan"))


def token_losses(
    logits: Float[Tensor, "batch pos d_vocab"], ids: Int[Tensor, "batch pos"]
) -> Float[Tensor, "batch pos-1"]:
    """-ln p of each next token, in nats: one fewer than there are tokens."""
    return -logits[:, :-1].float().log_softmax(-1).gather(-1, ids[:, 1:, None])[..., 0]


@dataclass(frozen=True, kw_only=True, eq=False)
class Losses:
    """Mean losses of each prompt in nats a token: of the tokens that an earlier occurrence foretells (``second``), of those after a
    token that is new (``first``), and the in-context-learning score: ``late`` less ``early``, the last quarter and the first.

    NaN where a prompt has no such token.
    """

    first: Float[Tensor, " batch"]
    second: Float[Tensor, " batch"]
    late_less_early: Float[Tensor, " batch"]


def losses(ids: Int[Tensor, "batch pos"], by_token: Float[Tensor, "batch pos-1"], places: Places) -> Losses:
    """Means of ``token_losses`` over the parts of each text.

    In a text of repeated blocks, ``second`` is every token of the repeats but the first of each, which nothing foretells; that one
    counts as ``first``, as do those of the first block.
    """
    foretold, new = predictions(ids, places)
    quarter = max(1, by_token.shape[1] // 4)
    return Losses(
        first=_mean_where(by_token, new),
        second=_mean_where(by_token, foretold),
        late_less_early=by_token[:, -quarter:].mean(1) - by_token[:, :quarter].mean(1),
    )


def predictions(
    ids: Int[Tensor, "batch pos"], places: Places
) -> tuple[Bool[Tensor, "batch pos-1"], Bool[Tensor, "batch pos-1"]]:
    """Which next tokens some earlier occurrence foretells, and which come after a token that is new."""
    targets = places.targets[:, :-1]
    there = targets != _NONE
    followed_by = rearrange(
        ids.gather(1, rearrange(targets.clamp(min=0), "b q k -> b (q k)")), "b (q k) -> b q k", k=targets.shape[2]
    )
    return (there & (followed_by == ids[:, 1:, None])).any(-1), ~there.any(-1)


def _mean_where(values: Float[Tensor, "batch pos"], mask: Bool[Tensor, "batch pos"]) -> Float[Tensor, " batch"]:
    return values.masked_fill(~mask, 0.0).sum(1) / mask.sum(1)


def _targets(ids: Int[Tensor, "batch pos"]) -> Int[Tensor, "batch pos k"]:
    """The positions right after earlier occurrences of each position's token, -1 where there are no more."""
    found = [_followers(row) for row in ids.tolist()]
    width = max((len(keys) for row in found for keys in row), default=0)
    padded = [[[*keys, *[_NONE] * (width - len(keys))] for keys in row] for row in found]
    return torch.tensor(padded, dtype=torch.long, device=ids.device).reshape(*ids.shape, width)


def _followers(text: list[int]) -> list[list[int]]:
    seen: dict[int, list[int]] = {}
    found = []
    for position, token in enumerate(text):
        found.append(list(seen.get(token, ())))
        seen.setdefault(token, []).append(position + 1)
    return found
