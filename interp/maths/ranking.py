"""The best few of many, exactly and in a fixed order, without sorting everything."""

import torch
from jaxtyping import Float, Int
from torch import Tensor


def top_lowest_first(
    values: Float[Tensor, "row d_vocab"], k: int
) -> tuple[Float[Tensor, "row k"], Int[Tensor, "row k"]]:
    """The ``k`` greatest of each row, best first, with their columns; among equal values the lower column comes first.

    ``torch.topk`` leaves the order of equal values open, so rows where it matters are sorted stably instead.
    """
    width = values.shape[1]
    best, columns = values.topk(min(k + 1, width))
    tied = (best[:, 1:] == best[:, :-1]).any(1)
    if bool(tied.any()):
        order = values[tied].sort(descending=True, stable=True)
        best[tied], columns[tied] = order.values[:, : best.shape[1]], order.indices[:, : best.shape[1]]
    return best[:, :k], columns[:, :k]


class BlockRanking:
    """The best ``k`` tokens of each row, from tiles of logits that come in order of the token id and are gone afterwards.

    A token among the best k lies in one of the k blocks with the greatest maxima (of equal blocks the earlier ones). So each tile is
    reduced to the maxima of its blocks, and a block's logits are kept only while it is among the best k so far. The bar is raised
    whenever the number of tiles seen has doubled: about ``k log2(tiles)`` blocks a row are kept.
    """

    def __init__(self, n_rows: int, d_vocab: int, k: int, block: int, device: torch.device) -> None:
        self.k, self.block = k, block
        n_blocks = -(-d_vocab // block)
        self.n_best = min(k, n_blocks)
        self.maxima = torch.full((n_rows, n_blocks), -torch.inf, device=device)
        self.slots = torch.zeros((n_rows, n_blocks), dtype=torch.int64, device=device)
        self.bar = self.maxima[:, :1].clone()
        self.pool = torch.empty((n_rows * self.n_best, block), device=device)
        self.n_kept = self.n_seen = self.n_tiles = 0

    def update(self, logits: Float[Tensor, "row d_vocab"]) -> Float[Tensor, "row ..."]:
        """Takes the next tile (whole blocks) and returns the maximum of each block, [row block]."""
        blocks = logits.view(logits.shape[0], -1, self.block)
        n_blocks = blocks.shape[1]
        first, stop = self.n_seen, self.n_seen + n_blocks
        maxima = self.maxima[:, first:stop]
        torch.amax(blocks, 2, out=maxima)
        self.n_seen, self.n_tiles = stop, self.n_tiles + 1
        if stop >= self.n_best and self.n_tiles & (self.n_tiles - 1) == 0:
            self.bar = self.maxima[:, :stop].topk(self.n_best).values[:, -1:]
        chosen = (maxima >= self.bar).flatten().nonzero()[:, 0]
        if len(chosen):
            self._keep(blocks.flatten(0, 1), chosen)
            kept = torch.arange(self.n_kept - len(chosen), self.n_kept, device=chosen.device)
            self.slots[chosen // n_blocks, chosen % n_blocks + first] = kept
        return maxima

    def _keep(self, blocks: Float[Tensor, "row d_vocab"], chosen: Int[Tensor, " k"]) -> None:
        stop = self.n_kept + len(chosen)
        if stop > len(self.pool):
            grown = self.pool.new_empty(max(2 * len(self.pool), stop), self.block)
            grown[: self.n_kept] = self.pool[: self.n_kept]
            self.pool = grown
        torch.index_select(blocks, 0, chosen, out=self.pool[self.n_kept : stop])
        self.n_kept = stop

    def greatest(self) -> Float[Tensor, " row"]:
        """Each row's greatest logit; NaN if any is."""
        return self.maxima.amax(1)

    def best(self) -> tuple[Float[Tensor, "row k"], Int[Tensor, "row k"]]:
        """The best k logits of each row and their token ids."""
        chosen = top_lowest_first(self.maxima, self.n_best)[1].sort(1).values
        candidates = self.pool[self.slots.gather(1, chosen)].flatten(1)
        values, columns = top_lowest_first(candidates, self.k)
        ids = chosen.gather(1, columns // self.block) * self.block + columns % self.block
        return values, ids
