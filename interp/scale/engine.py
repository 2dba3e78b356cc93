"""Where units of work run: behind one method, so that the same work runs in this process, in others, or on a cluster.

An engine starts workers, gives each one unit at a time, and yields what comes back. Which worker gets which unit is left to
``concurrent.futures`` or Ray. A worker is made once: ``make(number)`` loads what it needs, and what it returns is called with each
unit. ``make``, units and replies are pickled where they go to another process, so they are small: work that has much to say writes it
to files itself. Every worker computes with the same number of threads, on which the last bits of a sum depend.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Iterable
from dataclasses import dataclass
from typing import Any, ClassVar, TypeAlias

from interp.errors import UsageError

Make: TypeAlias = Callable[[int], Callable[[Any], Any]]
"""Makes a worker out of its number on its machine, from 0."""


@dataclass(frozen=True)
class Lost:
    """In place of a reply: the worker died of this unit, each time it was tried."""

    reason: str


class Engine(ABC):
    """Runs units of work; ``workers`` of them at once, on ``threads`` threads each. ``tell`` is called with what it has to say."""

    name: ClassVar[str]

    def __init__(self, *, workers: int = 1, threads: int = 1) -> None:
        for what, number in (("workers", workers), ("threads", threads)):
            if number < 1:
                raise UsageError(f"{what} is {number}; give 1 or more")
        self.workers, self.threads = workers, threads
        self.tell: Callable[[str], None] = _ignore

    @abstractmethod
    def run(self, make: Make, units: Iterable[Any]) -> Generator[tuple[Any, Any]]:
        """Yields each unit with its reply, in the order in which they end; ``Lost`` for one that kills every worker it is given to.

        What a worker raises is raised here. When the iterator is closed, or an interrupt is raised in it, nothing further is started
        and the workers end.
        """


class ThisProcess(Engine):
    """One unit after the other, here."""

    name = "embedded"

    def run(self, make: Make, units: Iterable[Any]) -> Generator[tuple[Any, Any]]:
        """Yields each unit with its reply, in the order of the units. Torch's number of threads is put back afterwards."""
        import torch

        before = torch.get_num_threads()
        torch.set_num_threads(self.threads)
        try:
            work = make(0)
            for unit in units:
                yield unit, work(unit)
        finally:
            torch.set_num_threads(before)


def _ignore(message: str) -> None:
    """Where no one listens, nothing is said."""
