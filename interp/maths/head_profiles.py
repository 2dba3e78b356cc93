"""What one head's attention does, read row by row: which kinds of keys its mass goes to, how spread it is and how far back it looks.

Row q of a pattern is ``p(q, k)``, k = 0 .. q. A measure of a kind of keys is the mass ``sum_k p(q, k)`` over the keys of that kind,
averaged over the queries that have such a key. So that no two kinds share the first position, where most heads park attention that
they have no use for (Xiao et al. 2023, "Efficient Streaming Language Models with Attention Sinks"), every kind but ``first_token``
counts keys from position 1 on:

- ``previous_token``, ``back_2`` ..: the key 1, 2, .. before the query.
- ``current_token``: the query's own.  ``first_token``: position 0, for queries after it.
- ``duplicate_tokens``: earlier keys with the query's token.
- ``induction_targets``: keys before the query whose predecessor has the query's token (Olsson et al. 2022).
- ``punctuation``: earlier keys that are punctuation.  ``local_window``: the query's own key and those just before it.

``entropy_nats`` is that of the row over its sum, ``entropy_normalised`` over the logarithm of the number of visible keys,
``mean_distance`` is ``sum_k p(q, k) (q - k)`` over the row's sum. Rows sum to less than one only where a model has a learned sink.
"""

import torch
from einops import einsum
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn.functional import pad

CONTENT = ("duplicate_tokens", "induction_targets", "punctuation")
SHAPE = ("entropy_nats", "entropy_normalised", "mean_distance")
EXPLAINED = "explained_by_position"


def position_names(n_back: int) -> tuple[str, ...]:
    """The measures of keys that stand at a place, in the order of ``row_measures``."""
    back = tuple(f"back_{offset}" for offset in range(2, n_back + 1))
    return ("previous_token", *back, "current_token", "first_token", "local_window")


def row_names(n_back: int) -> tuple[str, ...]:
    """The names of what ``row_measures`` gives for a row; the last two, the row's sum and sum of squares, serve other formulas."""
    return (*position_names(n_back), *CONTENT, *SHAPE, "row_sum", "row_squares")


def visible_keys(n_pos: int, window: int | None) -> Int[Tensor, " pos"]:
    """How many keys each query sees: all up to its own, in a sliding-window layer the last ``window`` of them."""
    seen = torch.arange(1, n_pos + 1)
    return seen if window is None else seen.clamp(max=window)


def content_targets(
    ids: Int[Tensor, "batch pos"], punctuation: Bool[Tensor, "batch pos"], window: int | None
) -> Bool[Tensor, "batch 3 query_pos key_pos"]:
    """Which keys are duplicates, induction targets and punctuation (the order of ``CONTENT``), after position 0 and before the query."""
    n_pos = ids.shape[1]
    place = torch.arange(n_pos, device=ids.device)
    distance = place[:, None] - place[None]
    inside = (distance > 0) & (place[None] > 0)
    if window is not None:
        inside &= distance < window
    same = ids[:, :, None] == ids[:, None, :]
    after = pad(same, (1, 0))[..., :-1]
    return torch.stack([same, after, punctuation[:, None].expand_as(same)], 1) & inside


def row_measures(
    rows: Float[Tensor, "batch head query_pos key_pos"],
    targets: Bool[Tensor, "batch 3 query_pos key_pos"],
    first_query: int,
    *,
    n_back: int,
    local: int,
    window: int | None,
) -> Float[Tensor, "batch head query_pos measure"]:
    """Every measure of some consecutive rows of a pattern, in the order of ``row_names``; NaN where a row has no such key.

    ``targets`` are the content targets of these rows, ``local`` the number of keys in the local window.
    """
    rows = rows.float()
    n_query, n_key = rows.shape[2:]
    query = torch.arange(first_query, first_query + n_query, device=rows.device)
    seen = query + 1 if window is None else (query + 1).clamp(max=window)
    reach = max(n_back, local - 1)
    keys = query[:, None] - torch.arange(reach + 1, device=rows.device)[None]
    back = rows.gather(-1, keys.clamp(min=0).expand(*rows.shape[:2], -1, -1))
    # Key 0 is left to the first-token measure, and a key behind the layer's window is not there at all.
    back = back.masked_fill(~(keys > 0) | (query[:, None] - keys >= seen[:, None]), float("nan"))
    first = rows[..., 0].masked_fill((query == 0) | (query >= seen), float("nan"))
    in_window = back[..., :local].sum(-1)  # NaN unless all of its keys are there
    if window is not None and local >= window:
        in_window = torch.full_like(in_window, float("nan"))
    mass = einsum(
        rows,
        targets.to(rows),
        "batch head query_pos key_pos, batch measure query_pos key_pos -> batch head query_pos measure",
    )
    content = mass.masked_fill(~targets.any(-1).transpose(1, 2)[:, None], float("nan"))
    total = rows.sum(-1)
    entropy = torch.where(total > 0, -torch.xlogy(rows, rows).sum(-1) / total + total.log(), torch.nan)
    distance = query - (rows @ torch.arange(n_key, device=rows.device, dtype=rows.dtype)) / total
    shape = torch.stack([entropy, entropy / seen.log(), distance], -1).masked_fill((query == 0)[:, None], float("nan"))
    parts = [back[..., 1 : n_back + 1], back[..., :1], first[..., None], in_window[..., None], content, shape]
    return torch.cat([*parts, total[..., None], rows.square().sum(-1, keepdim=True)], -1)


def offset_sums(
    rows: Float[Tensor, "batch head query_pos key_pos"], first_query: int
) -> Float[Tensor, "batch head distance"]:
    """``sum_q p(q, q - d)`` over some consecutive rows for every distance d, keys from position 1 on; NaN rows count nothing."""
    n_query, n_key = rows.shape[2:]
    kept = rows.float().nan_to_num(nan=0.0)
    kept = torch.cat([torch.zeros_like(kept[..., :1]), kept[..., 1:]], -1)
    # Rows shifted against each other so that equal distances stand in one column: row i starts i places later in memory.
    width = n_query + n_key
    flat = pad(pad(kept, (n_query, 0)).flatten(2), (0, n_query))
    aligned = flat.unflatten(2, (n_query, width + 1))[..., 1 : 1 + n_key].sum(2)
    last = first_query + n_query - 1
    return pad(aligned[..., : last + 1].flip(-1), (0, n_key - last - 1))


def prompt_means(
    rows: Float[Tensor, "batch head query_pos measure"], lengths: Int[Tensor, " batch"]
) -> Float[Tensor, "batch head measure"]:
    """The mean of each measure over the queries of a prompt that have it; NaN where none has."""
    real = torch.arange(rows.shape[2], device=rows.device)[None] < lengths[:, None].to(rows.device)
    return rows.masked_fill(~real[:, None, :, None], float("nan")).nanmean(2)


def permuted_keys(
    row_sum: Float[Tensor, "batch head query_pos"],
    lengths: Int[Tensor, " batch"],
    *,
    n_back: int,
    local: int,
    window: int | None,
) -> Float[Tensor, "batch head measure"]:
    """What the measures of place and shape come to when each row's weights are dealt to its visible keys at random, exactly.

    A set of m of a row's n visible keys then gets m / n of its mass, and the mean distance is that of the visible keys. The entropy is
    that of equal weights, the greatest there is. In the order of ``row_names`` without its last two; NaN for measures of content.
    """
    n_pos = row_sum.shape[2]
    query, seen = torch.arange(n_pos), visible_keys(n_pos, window)
    shares = []
    for offset in (*range(1, n_back + 1), 0):
        there = (query > offset) & (offset < seen)
        shares.append(torch.where(there, 1 / seen, torch.nan))
    shares.append(torch.where((query > 0) & (query < seen), 1 / seen, torch.nan))
    fits = (query >= local) & (local < (window or local + 1))
    shares.append(torch.where(fits, local / seen, torch.nan))
    mass = row_sum[..., None] * torch.stack(shares, -1).to(row_sum)
    even = torch.stack([seen.log(), torch.ones(n_pos), (seen - 1) / 2], -1).masked_fill(
        (query == 0)[:, None], float("nan")
    )
    content = mass.new_full((*row_sum.shape, len(CONTENT)), float("nan"))
    rows = torch.cat([mass, content, even.to(row_sum).expand(*row_sum.shape, len(SHAPE))], -1)
    return prompt_means(rows, lengths)


def explained_by_position(
    first: Float[Tensor, "sample head query_pos"],
    sums: Float[Tensor, "sample head distance"],
    squares: Float[Tensor, "sample head"],
    spread: Float[Tensor, "sample head"],
    lengths: Int[Tensor, " sample"],
) -> Float[Tensor, "sample head"]:
    """How much of each prompt's pattern is explained by where the keys stand, judged by the other prompts.

    The prediction for a prompt knows positions only: ``p(q, 0) = f(q)`` for the first position and ``p(q, k) = g(q - k)`` for all
    others, with f and g the means over the *other* prompts (over their queries too, for g). What comes out is

        1 - sum_(q, k) (p - prediction)^2 / sum_(q, k) (p - row's mean)^2        (queries after the first),

    1 where the pattern is the same function of position in every prompt, about 0 where position tells no more than even attention, and
    below 0 where it misleads. At a query or distance that no other prompt reaches, the value at the farthest that one does.
    ``first`` is ``p(q, 0)``, ``sums`` are ``offset_sums`` of queries after the first, ``squares`` is ``sum p^2`` and ``spread`` the
    denominator. No pattern is needed: predictions are constant on each distance. NaN for a single prompt and for a head whose
    attention is even in itself.
    """
    n_samples, _, n_pos = first.shape
    first, sums, squares, spread = first.double(), sums.double(), squares.double(), spread.double()
    place = torch.arange(n_pos)
    there = ((place > 0) & (place < lengths[:, None])).double()[:, None]
    pairs = (lengths[:, None] - 1 - place).clamp(min=0).double()[:, None]
    first = first.nan_to_num(nan=0.0) * there
    f = _others(first, there)
    g = _others(sums, pairs)
    products = (first * f).sum(-1) + (sums * g).sum(-1)
    predicted = (there * f.square()).sum(-1) + (pairs * g.square()).sum(-1)
    residual = squares - 2 * products + predicted
    enough = (spread > 1e-6 * lengths[:, None]) & (n_samples > 1)
    return torch.where(enough, 1 - residual / spread, torch.nan)


def _others(
    sums: Float[Tensor, "sample head distance"], counts: Float[Tensor, "sample #head distance"]
) -> Float[Tensor, "sample head distance"]:
    """Each place's mean over the other samples; where none is, that of the last place before it that has one."""
    rest_sums, rest_counts = sums.sum(0) - sums, counts.sum(0) - counts
    known = rest_counts > 0
    places = torch.arange(sums.shape[-1]).expand_as(rest_counts)
    last = torch.where(known, places, 0).cummax(-1).values
    mean = torch.where(known, rest_sums / rest_counts.clamp(min=1), 0.0)
    return mean.gather(-1, last.expand_as(mean))
