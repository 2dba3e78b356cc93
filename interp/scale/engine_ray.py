"""Workers on a Ray cluster: actors that Ray places, each with its own model, and with a GPU of its own where there are any.

An actor gets a unit once it is alive, and the next when it has replied: no more than one unit an actor is on its way, and Ray's object
store holds nothing but units and replies. When an actor or its node is lost, its unit goes to the next that is free, and another actor
is asked for, which Ray starts where and when there is room. Nothing about the use of Ray is reported to anyone.
"""

import os
import re
import socket
import time
from collections import Counter, deque
from collections.abc import Callable, Generator, Iterable, Iterator
from itertools import islice
from typing import TYPE_CHECKING, Any

from interp.errors import InterpError, UsageError
from interp.scale.engine import Engine, Lost, Make

if TYPE_CHECKING:
    from ray import ObjectRef

_TRIES = 3
"""Workers that a unit may kill before it counts as lost."""
_PATIENCE_SECONDS = 120.0
"""How long nothing may happen with no worker alive before that is said; it is said again after twice as long, and so on."""
_ANSWER_SECONDS = 10.0
_ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",  # an actor without a GPU sees none, as Ray will do anyway
    "RAY_DEDUP_LOGS": "0",
}


class OnRay(Engine):
    """Actors on a Ray cluster: the one at ``address`` ("auto", "ray://host:10001", "host:6379"), or one made on this machine.

    A cluster that this process is connected to already is used as it is. ``workers`` is by default what the cluster has room for.
    ``gpus`` is how many GPUs each worker gets; None: one where the cluster has any. Raises UsageError where Ray is not installed.
    """

    name = "ray"

    def __init__(
        self, *, workers: int | None = None, threads: int = 1, address: str | None = None, gpus: float | None = None
    ) -> None:
        super().__init__(workers=workers or 1, threads=threads)
        self.asked, self.address, self.gpus = workers, address, gpus
        os.environ.update({name: os.environ.get(name, value) for name, value in _ENVIRONMENT.items()})
        try:
            import ray
        except ImportError as error:
            raise UsageError("--engine ray needs Ray; install it with: pip install 'interp[ray]'") from error
        self._ray: Any = ray

    def run(self, make: Make, units: Iterable[Any]) -> Generator[tuple[Any, Any]]:
        """Yields each unit with its reply, in the order in which they end. A cluster made here is ended with the work.

        On a cluster that is busy it waits, and says so. Raises UsageError where the address does not answer, or where the cluster is too
        small for a worker, InterpError where Ray fails.
        """
        ours = not self._ray.is_initialized()
        if ours:
            self._connect()
        crew = _Crew(self._ray, make, self._resources(), self.threads, self.tell)
        try:
            yield from crew.run(self.workers, units)
        finally:
            crew.dismiss()
            if ours:
                self._ray.shutdown()

    def _connect(self) -> None:
        import logging

        options: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
        if self.address is None:
            options |= {
                "include_dashboard": False,
                "num_cpus": self.asked * self.threads if self.asked else None,
            }
        try:
            _check_answers(self.address)
            self._ray.init(address=self.address or "local", **options)
        except (OSError, ValueError, RuntimeError) as error:
            where = self.address or "this machine"
            raise UsageError(
                f"no Ray cluster answers at {where} ({_first_line(error)}); give 'auto' or the address that ray start told"
            ) from error

    def _resources(self) -> dict[str, float]:
        """What each worker takes; sets ``workers`` to what there is room for where nothing was asked."""
        total = self._ray.cluster_resources()
        gpus = self.gpus if self.gpus is not None else float(total.get("GPU", 0) > 0)
        need = {"CPU": float(self.threads), **({"GPU": gpus} if gpus else {})}
        room = min(int(total.get(name, 0) // amount) for name, amount in need.items())
        if room < 1:
            has = ", ".join(f"{total.get(name, 0):g} {name}" for name in need)
            wants = ", ".join(f"{amount:g} {name}" for name, amount in need.items())
            raise UsageError(f"each worker takes {wants} and the whole Ray cluster has {has}; use fewer threads")
        self.workers = self.asked or room
        return need


def _check_answers(address: str | None) -> None:
    """Raises OSError where nothing listens at ``host:port``, which Ray itself would try to reach for many minutes."""
    match = re.fullmatch(r"(?:ray://)?([^/:]+):(\d+)", address or "")
    if match:
        socket.create_connection((match[1], int(match[2])), timeout=_ANSWER_SECONDS).close()


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:200]


class _Actor:
    """A worker: makes its model with its first unit and keeps it."""

    def __init__(self, make: Make, threads: int) -> None:
        import torch

        torch.set_num_threads(threads)
        self._make, self._work = make, None

    def ready(self) -> None:
        """Replies once the actor has a place and lives."""

    def do(self, unit: Any) -> Any:
        """The reply to a unit."""
        if self._work is None:
            self._work = self._make(0)  # of this machine's GPUs Ray shows it its own alone
        return self._work(unit)


class _Crew:
    """The actors of one run, and which unit each is at."""

    def __init__(
        self, ray: Any, make: Make, resources: dict[str, float], threads: int, tell: Callable[[str], None]
    ) -> None:
        self._ray, self._make, self._threads, self._tell = ray, make, threads, tell
        self._kind = ray.remote(_Actor).options(
            num_cpus=resources["CPU"], num_gpus=resources.get("GPU", 0), max_restarts=0
        )
        self._at: dict[ObjectRef, tuple[Any, list[Any]]] = {}  # what is awaited: its actor, and its unit if it has one
        self._idle: list[Any] = []
        self._tries: Counter[int] = Counter()  # by the id of a unit that is not done
        self._waiting: deque[Any] = deque()
        self._rest: Iterator[Any] = iter(())

    def run(self, workers: int, units: Iterable[Any]) -> Iterator[tuple[Any, Any]]:
        """Yields units with their replies until there is none left. A unit is made when an actor is free for it."""
        from ray.exceptions import (
            NodeDiedError,
            OutOfMemoryError,
            RayActorError,
            RayError,
            RayTaskError,
            WorkerCrashedError,
        )

        self._rest = iter(units)
        self._waiting.extend(islice(self._rest, workers))
        self._hire(len(self._waiting))
        alive_at, stillborn, patience = time.monotonic(), 0, _PATIENCE_SECONDS
        while self._waiting or any(held for _, held in self._at.values()):
            done, _ = self._ray.wait(list(self._at), num_returns=1, timeout=5.0)
            if not done and not self._any_alive() and time.monotonic() - alive_at > patience:
                self._tell(f"the Ray cluster had no room for a worker in {patience:,.0f} seconds; waiting until it has")
                patience *= 2
            for reference in done:
                actor, held = self._at.pop(reference)
                alive_at, patience = time.monotonic(), _PATIENCE_SECONDS
                try:
                    reply = self._ray.get(reference)
                except (RayActorError, NodeDiedError, WorkerCrashedError, OutOfMemoryError) as error:
                    self._ray.kill(actor)  # where it is only out of reach, so that a unit is never at two places
                    stillborn = 0 if held else stillborn + 1
                    if stillborn > _TRIES * workers:
                        raise InterpError(f"workers cannot start on the Ray cluster: {_first_line(error)}") from error
                    self._hire(1)
                    yield from self._again_or_lost(held)
                except RayTaskError as error:
                    raise error.cause from error
                except RayError as error:
                    raise InterpError(f"Ray failed: {_first_line(error)}; what is finished is kept") from error
                else:
                    stillborn = 0
                    self._idle.append(actor)
                    self._give()  # before the reply is looked at
                    for unit in held:
                        self._tries.pop(id(unit), None)
                        yield unit, reply
                self._give()

    def _again_or_lost(self, held: list[Any]) -> Iterator[tuple[Any, Lost]]:
        """Puts back the unit of a worker that died, or yields it as lost."""
        for unit in held:
            self._tries[id(unit)] += 1
            if self._tries[id(unit)] < _TRIES:
                self._waiting.appendleft(unit)
            else:
                del self._tries[id(unit)]
                yield unit, Lost(f"the worker died each of the {_TRIES} times that it was tried")

    def dismiss(self) -> None:
        """Ends the actors, at work or not."""
        for actor in [*self._idle, *(actor for actor, _ in self._at.values())]:
            self._ray.kill(actor)

    def _hire(self, count: int) -> None:
        for _ in range(count):
            actor = self._kind.remote(self._make, self._threads)
            self._at[actor.ready.remote()] = (actor, [])

    def _give(self) -> None:
        while self._idle:
            self._waiting.extend(islice(self._rest, 0 if self._waiting else 1))
            if not self._waiting:
                return
            actor, unit = self._idle.pop(), self._waiting.popleft()
            self._at[actor.do.remote(unit)] = (actor, [unit])

    def _any_alive(self) -> bool:
        return bool(self._idle) or any(held for _, held in self._at.values())
