"""Worker processes on this machine, by ``concurrent.futures``. They are spawned, so each has its own torch and its own model."""

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from itertools import islice
from typing import Any

from interp.scale.engine import Engine, Lost, Make

_THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS")
_DIED = "its worker process died twice, the second time with nothing else at work (was it out of memory?)"


class Processes(Engine):
    """Several processes, each with its own model. One that dies is replaced, and its unit is done again."""

    name = "embedded"

    def run(self, make: Make, units: Iterable[Any]) -> Generator[tuple[Any, Any]]:
        """Yields each unit with its reply, in the order in which they end.

        Of units that were at work when a process died each is done again by itself, so that the one that kills is known.
        """
        rest = iter(units)
        while suspects := (yield from self._pool(make, rest, self.workers)):
            for unit in suspects:
                if (yield from self._pool(make, iter([unit]), 1)):
                    yield unit, Lost(_DIED)

    def _pool(self, make: Make, units: Iterator[Any], workers: int) -> Generator[tuple[Any, Any], None, list[Any]]:
        """Runs units until they are through; returns those that were at work when a process died, with the rest left in ``units``."""
        context = multiprocessing.get_context("spawn")
        stop, number = context.Event(), context.Value("i", 0)
        starting = (make, self.threads, stop, number)
        pool = ProcessPoolExecutor(workers, mp_context=context, initializer=_start, initargs=starting)
        running: dict[Future[Any], Any] = {}
        held: list[Any] = []  # units without a reply; of a pool that broke all of them are to be done again

        def begin(count: int) -> None:
            for unit in islice(units, count):
                held.append(unit)
                running[pool.submit(_work, unit)] = unit

        try:
            begin(workers)
            while running:
                for future in wait(running, return_when=FIRST_COMPLETED).done:
                    reply = future.result()
                    unit = running.pop(future)
                    held.remove(unit)
                    yield unit, reply
                    begin(1)
        except BrokenProcessPool:
            return held
        finally:
            stop.set()
            pool.shutdown(cancel_futures=True)
        return []


@dataclass
class _Worker:
    """What this process holds, if it is a worker."""

    make: Make | None = None
    number: int = 0
    threads: int = 1
    stop: Any = None
    work: Callable[[Any], Any] | None = None


_WORKER = _Worker()


def _start(make: Make, threads: int, stop: Any, counter: Any) -> None:
    """Runs first in each worker. Interrupts are left to the process that started it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    for name in _THREADS:
        os.environ[name] = str(threads)
    with counter.get_lock():
        _WORKER.number = counter.value
        counter.value += 1
    _WORKER.make, _WORKER.threads, _WORKER.stop = make, threads, stop


def _end_with_parent() -> None:
    """Ends this process when the one that started it is gone, also by SIGKILL: no one would ask it for anything."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def stopping() -> bool:
    """Whether the work was stopped, in a worker process. Work that takes long asks this now and then, and gives up."""
    return _WORKER.stop is not None and _WORKER.stop.is_set()


def _work(unit: Any) -> Any:
    """The reply to one unit; nothing once the work was stopped."""
    if _WORKER.work is None:
        import torch

        assert _WORKER.make is not None, "the pool starts each worker"
        # The variables are read no more where torch was imported with what was unpickled.
        torch.set_num_threads(_WORKER.threads)
        _WORKER.work = _WORKER.make(_WORKER.number)
    return None if _WORKER.stop.is_set() else _WORKER.work(unit)
