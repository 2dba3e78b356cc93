"""What it costs that the kernel hands out fresh memory for every large capture, page by page.

``python -m experiments.benchmarks.faults MODEL TOKENS ROUNDS THREADS`` prints the ratio of a run that captures everything to the plain
forward, median of the rounds. With ``KEPT`` in its environment glibc keeps freed memory, so that the next run finds its pages in place.
"""

import sys

import torch

from experiments.benchmarks.config import SEED
from experiments.benchmarks.harness import measure
from experiments.benchmarks.sides import Work, ours, plain, random_ids
from interp.runner.model import load

KEPT = {"MALLOC_MMAP_THRESHOLD_": str(1 << 30), "MALLOC_TRIM_THRESHOLD_": str(8 << 30)}
"""glibc's malloc takes no memory straight from the kernel below 1 GB and gives none back below 8 GB; others ignore it."""


def ratio(name: str, tokens: int, rounds: int, threads: int) -> float:
    """Everything captured over the plain forward."""
    torch.set_num_threads(threads)
    model = load(name, device="cpu", dtype="float32")
    work = Work(model=model, ids=random_ids(model, 1, tokens, SEED), stop=1, start=1)
    side = next(side for side in ours(work) if side.row == "everything")
    baseline = plain(work)
    with torch.no_grad():
        return measure([side], baseline, rounds, seed=SEED)[side.key].ratio.median


def main(arguments: list[str]) -> None:
    """Prints the ratio."""
    name, *numbers = arguments
    print(ratio(name, *map(int, numbers)))


if __name__ == "__main__":
    main(sys.argv[1:])
