"""Times several ways of doing the same work, interleaved in one process, after checking that they compute the same numbers."""

import random
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from statistics import median, quantiles
from typing import Any

import torch
from torch import Tensor

TOLERANCE = 1e-4
"""Greatest distance between two vectors that should be equal, over the norm of the reference vector (fp32)."""


class Disagreement(Exception):
    """Two sides that should compute the same numbers do not."""


PEER_FAULTS = (ImportError, RuntimeError, ValueError, AttributeError, KeyError, TypeError, IndexError, Disagreement)
"""What a peer may fail with and become a row with a reason; ours must not fail."""


@dataclass(frozen=True, kw_only=True)
class Side:
    """One way of doing a row's work: ``call`` does it and is timed, ``read`` takes the numbers to compare out of what it returned.

    A side that does a part of the work says with ``scale`` how many such parts the whole is; its seconds are multiplied by it.
    """

    row: str
    name: str
    call: Callable[[], Any]
    read: Callable[[Any], Mapping[str, Tensor]]
    every: int = 1
    scale: float = 1.0

    @property
    def key(self) -> tuple[str, str]:
        """Row and name."""
        return self.row, self.name


@dataclass(frozen=True, kw_only=True)
class Spread:
    """A median with the quartiles around it."""

    median: float
    lower: float
    upper: float
    n: int

    @classmethod
    def of(cls, values: Sequence[float]) -> "Spread":
        """The spread of some measurements."""
        if len(values) < 2:
            return cls(median=values[0], lower=values[0], upper=values[0], n=len(values))
        lower, _, upper = quantiles(values, n=4, method="inclusive")
        return cls(median=median(values), lower=lower, upper=upper, n=len(values))


@dataclass(frozen=True, kw_only=True)
class Timing:
    """Seconds of one side, and its ratio to the baseline of the same round."""

    seconds: Spread
    ratio: Spread


def distance(value: Tensor, reference: Tensor) -> float:
    """The greatest distance of two vectors (last axis) over the reference's norm. Unequal shapes are infinitely far apart."""
    if value.shape != reference.shape:
        return float("inf")
    value, reference = value.detach().double(), reference.detach().double()
    norms = reference.norm(dim=-1).clamp(min=torch.finfo(torch.float32).tiny)
    return float(((value - reference).norm(dim=-1) / norms).max())


def difference(value: Tensor, reference: Tensor) -> float:
    """The greatest difference of two numbers, in their own unit. Unequal shapes are infinitely far apart."""
    if value.shape != reference.shape:
        return float("inf")
    return float((value.detach().double() - reference.detach().double()).abs().max())


def check_equal(
    side: Side,
    reference: Side,
    tolerance: float = TOLERANCE,
    apart: Callable[[Tensor, Tensor], float] = distance,
) -> float:
    """How far ``apart`` what two sides compute is at most; raises Disagreement beyond the tolerance or with nothing to compare."""
    ours, theirs = side.read(side.call()), reference.read(reference.call())
    shared = [name for name in ours if name in theirs]
    if not shared:
        raise Disagreement(f"{side.name} and {reference.name} have nothing in common in row {side.row}")
    far = {name: apart(ours[name], theirs[name]) for name in shared}
    worst = max(far, key=lambda name: far[name])
    if not far[worst] <= tolerance:
        raise Disagreement(f"{side.row}: {worst} of {side.name} is {far[worst]:.1e} from {reference.name}'s")
    return far[worst]


def timed_check(
    side: Side, reference: Side, tolerance: float, apart: Callable[[Tensor, Tensor], float]
) -> tuple[float, float]:
    """``check_equal``, and the seconds of the one call of the reference that it takes."""
    start = time.perf_counter()
    done = reference.call()
    took = time.perf_counter() - start
    return check_equal(side, replace(reference, call=lambda: done), tolerance, apart), took


def measure(
    sides: Sequence[Side], baseline: Side, rounds: int, *, seed: int, warm_up: int = 1
) -> dict[tuple[str, str], Timing]:
    """Times every side and the baseline in each round, in an order shuffled with ``seed``."""
    for side in (baseline, *sides):
        for _ in range(warm_up):
            side.call()
    order = random.Random(seed)
    seconds: dict[tuple[str, str], list[float]] = {side.key: [] for side in (baseline, *sides)}
    ratios: dict[tuple[str, str], list[float]] = {side.key: [] for side in (baseline, *sides)}
    for turn in range(rounds):
        present = [baseline, *(side for side in sides if turn % side.every == 0)]
        order.shuffle(present)
        took = {side.key: clock(side.call) * side.scale for side in present}
        for key, value in took.items():
            seconds[key].append(value)
            ratios[key].append(value / took[baseline.key])
    return {key: Timing(seconds=Spread.of(seconds[key]), ratio=Spread.of(ratios[key])) for key in seconds}


@contextmanager
def threads(number: int) -> Iterator[None]:
    """Torch's number of threads while the block runs; the one before is restored."""
    before = torch.get_num_threads()
    torch.set_num_threads(number)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def clock(call: Callable[[], Any]) -> float:
    """Seconds of one call, what it returned let go of afterwards."""
    start = time.perf_counter()
    kept = call()
    took = time.perf_counter() - start
    del kept
    return took
