"""Statistics of the logit lens in one streamed pass over the vocabulary (nostalgebraist 2020; Belrose et al. 2023, section 2).

For every row (a stream of one layer at one position, already normed) the lens distribution is ``p = softmax(l)``, ``l`` the logits.
Wanted are its best k tokens, its entropy ``H(p) = lse(l) - sum p l``, ``KL(q || p)`` from the model's final distribution ``q`` at that
position, and log-probability and rank of a target. Layers x positions x vocabulary are never held: a chunk of positions, all layers
of each, meets one tile of the vocabulary after another, and a tile of logits stays in the processor's cache while everything is taken
from it. What makes it one pass:

- Logits are kept in bits (times log2 e, put into the streams beforehand), since exp2 is three times as fast as exp.
- The sums of 2^l, 2^l l and 2^l_final l are taken tile by tile and put together at the end. Only a tile whose logits could leave the
  range of fp32 is shifted by its maximum.
- ``KL(q || p) = sum q (l_q - l_p) + lse(l_p) - lse(l_q)``. The final row of a position lies in the same chunk, so its weights 2^l are
  there when a tile needs them, unnormalised; normalisation happens once, at the end.
- The best k tokens lie in the k blocks of tokens with the greatest maxima. Only blocks that may be among them are kept.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import log, log2

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import pad

from interp.errors import NumericsError, UsageError
from interp.maths.ranking import BlockRanking
from interp.maths.unembedding import RowProducts, Unembedding

_BITS = 1 / log(2.0)
_NATS = log(2.0)
_SAFE_BITS = 60.0
"""How far from 0, in bits, the greatest logit of a tile may lie without a shift: sums of 2^60 over any vocabulary stay inside fp32."""
_PADDING = -1e30
"""The logit of columns that fill a last block; finite, so that 2^l l is 0 and not NaN."""


@dataclass(frozen=True, kw_only=True)
class Tiling:
    """How the work is cut: ``rows`` and ``columns`` of a tile of logits, the ``part`` of its rows that the sums take at a time, and the
    ``block`` of tokens that top-k works on.

    The numbers are the same for any tiling (to rounding); the speed is not. A tile should fit the shared cache of the cores, a part of
    it their own caches.
    """

    rows: int = 960
    columns: int = 1024
    block: int = 64
    part: int = 960

    def __post_init__(self) -> None:
        if min(self.rows, self.columns, self.block, self.part) < 1 or self.columns % self.block:
            raise UsageError(f"a tiling needs positive sizes and columns in whole blocks, got {self}")

    @classmethod
    def for_device(cls, kind: str) -> "Tiling":
        """A good tiling for a device type: tiles of 4 MB for a CPU's cache, of 64 MB where launching is the cost."""
        return cls() if kind == "cpu" else cls(rows=2048, columns=8192, part=2048)


@dataclass(frozen=True, kw_only=True, eq=False)
class LensRows:
    """Statistics of each row's distribution over the vocabulary, natural logarithms throughout.

    ``target_rank`` is the number of tokens with a strictly greater logit, so 0 is the top. Among equal logits the lower token id comes
    first in ``top_ids``.
    """

    top_ids: Int[Tensor, "layer pos k"]
    top_log_probs: Float[Tensor, "layer pos k"]
    entropy: Float[Tensor, "layer pos"]
    kl: Float[Tensor, "layer pos"]
    target_log_prob: Float[Tensor, "layer pos"]
    target_rank: Int[Tensor, "layer pos"]


def lens_statistics(
    normed: Float[Tensor, "layer pos d_model"],
    unembedding: Unembedding,
    targets: Int[Tensor, " pos"],
    *,
    k: int = 5,
    final: Float[Tensor, "pos d_model"] | None = None,
    tiling: Tiling | None = None,
) -> LensRows:
    """Top-k, entropy, KL to the final distribution, log-probability and rank of a target, for every layer and position.

    ``normed`` are streams after the final norm. ``final`` is the normed stream that the model itself unembeds, by default the last
    layer of ``normed``; its KL to itself is exactly 0. ``targets`` holds one token id for each position. Matrix products run in the
    dtype of the weight, statistics in fp32.

    Raises:
        UsageError: k or a target is out of range.
        NumericsError: a logit is NaN or infinite; the message names the first layer and position.

    """
    d_vocab = unembedding.weight.shape[0]
    _check(targets, k, d_vocab)
    tiling = tiling or Tiling.for_device(normed.device.type)
    streams = normed if final is None else torch.cat([normed, final[None].to(normed)])
    n_streams, n_pos, _ = streams.shape
    step = max(1, tiling.rows // n_streams)
    parts = []
    for start in range(0, n_pos, step):
        chunk = _Chunk(streams[:, start : start + step], unembedding, targets[start : start + step], k, tiling)
        chunk.scan()
        parts.append(chunk.result(start))
    return _join(parts, normed.shape[0])


def _check(targets: Int[Tensor, " pos"], k: int, d_vocab: int) -> None:
    if not 1 <= k <= d_vocab:
        raise UsageError(f"top_k is {k}; valid: 1 to {d_vocab}, the size of the vocabulary")
    if targets.numel() and not 0 <= int(targets.min()) <= int(targets.max()) < d_vocab:
        bad = int(targets.min()) if int(targets.min()) < 0 else int(targets.max())
        raise UsageError(f"the target id {bad} is out of range; valid: 0 to {d_vocab - 1}")


def _join(parts: Sequence[LensRows], n_layers: int) -> LensRows:
    names = LensRows.__dataclass_fields__
    return LensRows(**{name: torch.cat([getattr(part, name) for part in parts], 1)[:n_layers] for name in names})


class _Chunk:
    """The running statistics of a chunk of positions. Rows are position by position, the layers of each together, the final one last."""

    def __init__(
        self,
        streams: Float[Tensor, "layer pos d_model"],
        unembedding: Unembedding,
        targets: Int[Tensor, " pos"],
        k: int,
        tiling: Tiling,
    ) -> None:
        self.n_layers, self.n_pos, d_model = streams.shape
        self.n_rows = self.n_layers * self.n_pos
        self.unembedding, self.tiling = unembedding, tiling
        self.d_vocab = unembedding.weight.shape[0]
        softcap = unembedding.softcap
        self.factor = unembedding.scale * _BITS if softcap is None else unembedding.scale / softcap
        x = streams.transpose(0, 1).reshape(self.n_rows, d_model).to(unembedding.weight.dtype)
        self.exact = x.dtype == torch.float32
        self.products = RowProducts(x * self.factor if self.exact else x)
        self.targets = targets.tolist()
        self.ranking = BlockRanking(self.n_rows, self.d_vocab, k, tiling.block, streams.device)
        n_tiles = -(-self.d_vocab // tiling.columns)
        self.reference, self.mass, self.moment, self.cross, self.above = torch.zeros(
            (5, n_tiles, self.n_rows), device=streams.device
        )
        self.part = min(self.n_pos, max(1, tiling.part // self.n_layers))
        width = min(tiling.columns, -(-self.d_vocab // tiling.block) * tiling.block)
        self.weights = torch.empty(self.part * self.n_layers * width, device=streams.device)
        own = torch.arange(self.n_pos, device=streams.device).repeat_interleave(self.n_layers)
        self.target = self._bits(unembedding.rows(targets.to(streams.device))).gather(1, own[:, None])

    def scan(self) -> None:
        """Meets every tile of the vocabulary once."""
        for tile, start in enumerate(range(0, self.d_vocab, self.tiling.columns)):
            stop = min(start + self.tiling.columns, self.d_vocab)
            logits = self._bits(self.unembedding.rows(slice(start, stop)))
            spare = -(stop - start) % self.tiling.block
            logits = pad(logits, (0, spare), value=_PADDING) if spare else logits
            self._place_targets(logits, start, stop)
            shifted = self._shift(tile, self.ranking.update(logits))
            for first in range(0, self.n_pos, self.part):
                rows = slice(first * self.n_layers, min(first + self.part, self.n_pos) * self.n_layers)
                self._accumulate(tile, rows, logits[rows], shifted=shifted)

    def _shift(self, tile: int, maxima: Float[Tensor, "row ..."]) -> bool:
        """Notes by how much each row of a tile is shifted, from the maxima of its blocks; whether any is."""
        low, high = torch.stack(maxima.aminmax()).tolist()
        if low >= -_SAFE_BITS and high <= _SAFE_BITS:  # then no row's maximum is far off either
            return False
        greatest = maxima.amax(1)
        self.reference[tile] = torch.where(greatest.abs() > _SAFE_BITS, greatest, 0.0)
        return bool(self.reference[tile].any())

    def _bits(self, rows: Unembedding) -> Float[Tensor, "row d_vocab"]:
        """Logits in bits, with the transform of ``Unembedding.logits``."""
        if self.exact:
            logits = self.products(rows.weight, None if rows.bias is None else rows.bias * self.factor)
        else:
            # The product is rounded as the model rounds it; only then does fp32 begin.
            product = self.products(rows.weight)
            logits = (product if rows.bias is None else product + rows.bias).float().mul_(self.factor)
        return logits if rows.softcap is None else logits.tanh_().mul_(rows.softcap * _BITS)

    def _place_targets(self, logits: Float[Tensor, "row d_vocab"], start: int, stop: int) -> None:
        """Gives the targets the logits they are ranked by: a product of another shape may round otherwise."""
        here = [(pos, token - start) for pos, token in enumerate(self.targets) if start <= token < stop]
        for pos, column in here:
            rows = slice(pos * self.n_layers, (pos + 1) * self.n_layers)
            logits[rows, column] = self.target[rows, 0]

    def _final(self, values: Float[Tensor, "*batch row"]) -> Float[Tensor, "*batch row"]:
        """For each row the value of its position's final row."""
        last = values.unflatten(-1, (self.n_pos, self.n_layers))[..., -1:]
        return last.expand(*last.shape[:-1], self.n_layers).flatten(-2)

    def _accumulate(self, tile: int, rows: slice, logits: Float[Tensor, "row d_vocab"], *, shifted: bool) -> None:
        """The sums of one tile over some rows. ``weights`` is scratch: 2^l, then 2^l l, then whether l beats the target's."""
        weights = self.weights[: logits.numel()].view_as(logits)
        if shifted:
            torch.sub(logits, self.reference[tile, rows, None], out=weights).exp2_()
        else:
            torch.exp2(logits, out=weights)
        torch.sum(weights, 1, out=self.mass[tile, rows])
        by_pos = (-1, self.n_layers, logits.shape[1])
        final = weights.view(by_pos)[:, -1:]
        torch.bmm(final, logits.view(by_pos).transpose(1, 2), out=self.cross[tile, rows].view(-1, 1, self.n_layers))
        torch.sum(weights.mul_(logits), 1, out=self.moment[tile, rows])
        torch.sum(torch.gt(logits, self.target[rows], out=weights), 1, out=self.above[tile, rows])

    def result(self, offset: int) -> LensRows:
        """The statistics in nats, [layer pos]; ``offset`` is the first position, for the error message."""
        self._check_finite(offset)
        reference = self.reference.amax(0)
        share = torch.exp2(self.reference - reference)
        mass, moment = (self.mass * share).sum(0), (self.moment * share).sum(0)
        cross = (self.cross * self._final(share)).sum(0)
        lse = reference + mass.log2()
        kl = (self._final(cross) - cross) / self._final(mass) + lse - self._final(lse)
        values, ids = self.ranking.best()
        return LensRows(
            top_ids=self._by_layer(ids),
            top_log_probs=self._by_layer((values - lse[:, None]) * _NATS),
            entropy=self._by_layer(((lse - moment / mass) * _NATS).clamp(0.0, log2(self.d_vocab) * _NATS)),
            kl=self._by_layer((kl * _NATS).clamp(min=0.0)),  # rounding can leave -1e-6
            target_log_prob=self._by_layer((self.target[:, 0] - lse) * _NATS),
            target_rank=self._by_layer(self.above.sum(0).long()),
        )

    def _by_layer(self, rows: Tensor) -> Tensor:
        return rows.unflatten(0, (self.n_pos, self.n_layers)).transpose(0, 1)

    def _check_finite(self, offset: int) -> None:
        total = (self.mass + self.moment + self.cross).sum(0) + self.target[:, 0] + self.ranking.greatest()
        bad = (~torch.isfinite(total)).nonzero()
        if bad.numel():
            pos, layer = divmod(int(bad[0]), self.n_layers)
            raise NumericsError(
                f"the lens at row {layer}, position {offset + pos} has NaN or infinite logits, so nothing can be ranked; "
                "check the weights or load the model with dtype='float32'"
            )
