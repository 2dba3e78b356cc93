"""The lens row: statistics of every layer and position against the unembedding's matrix products alone, and the memory it needs.

``python -m experiments.benchmarks.lens LAYERS POSITIONS D_MODEL D_VOCAB THREADS`` prints the extra memory in MB.
"""

import gc
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import psutil
import torch
from torch import Tensor

from experiments.benchmarks.harness import Side, clock
from interp.maths.lens import LensRows, lens_statistics
from interp.maths.unembedding import RowProducts, Unembedding
from interp.runner.model import Model

ROWS, COLUMNS, BLOCK = 960, 1024, 64
"""The tile that the least work is measured in: that of the lens on a CPU."""
CHECKED = 8
"""Positions whose numbers are compared with the written-out formulas."""


def normed_streams(model: Model, ids: Tensor) -> Tensor:
    """The streams of one prompt after the final norm, [layer pos d_model]."""
    run = model.run(ids[0], capture="resid_post", logits=False)
    return model.final_norm(run.cache.stack("resid_post")[:, 0])


def lens_sides(normed: Tensor, unembedding: Unembedding, targets: Tensor, ours: str) -> tuple[Side, Side, Side]:
    """Ours, the fastest of the plain matrix products (the baseline), and the formulas written out."""

    def read(rows: LensRows) -> dict[str, Tensor]:
        return {
            "top log-probabilities": rows.top_log_probs[:, :CHECKED],
            "entropy": rows.entropy[:, :CHECKED],
            "KL": rows.kl[:-1, :CHECKED],  # the last is zero, and has no norm to compare with
            "target log-probability": rows.target_log_prob[:, :CHECKED],
            "target rank": rows.target_rank[:, :CHECKED].double(),
        }

    side = Side(row="lens", name=ours, call=lambda: lens_statistics(normed, unembedding, targets, k=5), read=read)
    trials = _fastest(list(_products(normed[:, :64], unembedding.weight)))
    products = list(_products(normed, unembedding.weight))[trials.index(min(trials))]
    baseline = Side(row="lens", name="matrix products", call=products, read=lambda _: {})
    formulas = Side(
        row="lens",
        name="formulas",
        call=lambda: _formulas(normed[:, :CHECKED], unembedding, targets[:CHECKED]),
        read=lambda numbers: numbers,
    )
    return side, baseline, formulas


def least_sides(normed: Tensor, unembedding: Unembedding) -> Iterator[Side]:
    """The products as ours multiplies (in oneDNN where that is the faster), and these with the least that any lens does with a tile.

    The least is to raise to a power, to sum that and to take the maxima of blocks. Entropy, divergence and rank need more.
    """
    rows = normed.transpose(0, 1).reshape(-1, normed.shape[-1])
    tiles = unembedding.weight.split(COLUMNS)

    def products() -> None:
        for part in rows.split(ROWS):
            multiply = RowProducts(part)
            for tile in tiles:
                multiply(tile)

    def least() -> None:
        powers = torch.empty(ROWS * COLUMNS)
        for part in rows.split(ROWS):
            multiply = RowProducts(part)
            for tile in tiles:
                logits = multiply(tile)
                raised = torch.exp2(logits, out=powers[: logits.numel()].view_as(logits))
                raised.sum(1)
                logits[:, : logits.shape[1] // BLOCK * BLOCK].unflatten(1, (-1, BLOCK)).amax(2)

    yield Side(row="lens", name="the products as ours multiplies", call=products, read=lambda _: {})
    yield Side(row="lens", name="these with one power, one sum and maxima", call=least, read=lambda _: {})


def _fastest(calls: Sequence[Callable[[], Any]]) -> list[float]:
    """The least time of each; in turns, so that a slow spell of the machine strikes all of them."""
    return [min(times) for times in zip(*([clock(call) for call in calls] for _ in range(5)), strict=True)]


def _products(normed: Tensor, weight: Tensor) -> Iterator[Callable[[], None]]:
    """The unembedding of all rows in several tilings, each into one buffer used again and again."""
    rows = normed.transpose(0, 1).reshape(-1, normed.shape[-1])

    def tiled(height: int, width: int) -> Callable[[], None]:
        buffer = torch.empty(height * width)

        def run() -> None:
            for part in rows.split(height):
                for tile in weight.split(width):
                    out = buffer[: len(part) * len(tile)].view(len(part), len(tile))
                    torch.mm(part, tile.T, out=out)

        return run

    def transposed(height: int, width: int) -> Callable[[], None]:
        buffer = torch.empty(height * width)

        def run() -> None:
            for part in rows.split(height):
                for tile in weight.split(width):
                    torch.mm(tile, part.T, out=buffer[: len(part) * len(tile)].view(len(tile), len(part)))

        return run

    yield transposed(960, 1024)
    for height in (480, 960):
        for width in (1024, 2048, 4096):
            yield tiled(height, width)
    yield tiled(512, len(weight))


def _formulas(normed: Tensor, unembedding: Unembedding, targets: Tensor) -> dict[str, Tensor]:
    logits = unembedding.logits(normed).double()
    log_p = logits.log_softmax(-1)
    p = log_p.exp()
    at = targets[None, :, None].expand(len(normed), -1, 1)
    target = log_p.gather(-1, at)
    return {
        "top log-probabilities": log_p.topk(5).values,
        "entropy": -(p * log_p).sum(-1),
        "KL": (p[-1] * (log_p[-1] - log_p)).sum(-1)[:-1],
        "target log-probability": target[..., 0],
        "target rank": (log_p > target).sum(-1).double(),
    }


def extra_memory(normed: Tensor, unembedding: Unembedding, targets: Tensor) -> float:
    """The greatest resident memory during a pass over what there was before it, in MB, sampled every millisecond."""
    lens_statistics(normed[:, :1], unembedding, targets[:1], k=5)  # threads and buffers that come once
    gc.collect()
    process, done = psutil.Process(), threading.Event()
    before = peak = process.memory_info().rss

    def watch() -> None:
        nonlocal peak
        while not done.wait(0.001):
            peak = max(peak, process.memory_info().rss)

    watcher = threading.Thread(target=watch)
    watcher.start()
    lens_statistics(normed, unembedding, targets, k=5)
    done.set()
    watcher.join()
    return (peak - before) / 1e6


def main(arguments: list[str]) -> None:
    """Prints the extra memory for random streams of the given sizes."""
    n_layers, n_pos, d_model, d_vocab, threads = map(int, arguments)
    torch.set_num_threads(threads)
    generator = torch.Generator().manual_seed(0)
    normed = torch.randn(n_layers, n_pos, d_model, generator=generator)
    unembedding = Unembedding(weight=torch.randn(d_vocab, d_model, generator=generator) * 0.1)
    targets = torch.randint(d_vocab, (n_pos,), generator=generator)
    with torch.no_grad():
        print(extra_memory(normed, unembedding, targets))


if __name__ == "__main__":
    main(sys.argv[1:])
