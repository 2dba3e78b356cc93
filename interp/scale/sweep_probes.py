"""Whether it is the settings that fail, or single items."""

import json
from collections.abc import Iterable

import interp.errors
from interp.errors import InterpError, UsageError
from interp.scale.sweep_config import SweepConfig, Task

_PROBES = 3


class Probes:
    """Tells settings that are at fault from items that are: where the first items of a point of the grid all fail alike.

    Errors of ours are alike if they say the same, for they name what of an item is wrong; others if they are of one kind.
    """

    def __init__(self, config: SweepConfig) -> None:
        self._wanted = min(_PROBES, len(config.items))
        self._single = config.n_tasks == 1
        self._seen: dict[str, list[str]] = {}

    def wanted(self, tasks: Iterable[Task]) -> list[Task]:
        """Those of the tasks that tell something."""
        told = self._wanted > 1 or self._single
        return [task for task in tasks if task.item_index < self._wanted] if told else []

    def add(self, task: Task, error: str | None, kind: str | None) -> None:
        """Takes in how a task went: the reason and the name of the error's class where it failed.

        Raises that kind of error, where it is one of ours, once it is clear that all items would fail.
        """
        if not self.wanted([task]):
            return
        found = getattr(interp.errors, kind or "", None)
        ours = found if isinstance(found, type) and issubclass(found, InterpError) else None
        seen = self._seen.setdefault(json.dumps([task.model, task.point], sort_keys=True), [])
        seen.append(str(error) if ours else str(kind))
        if kind is None or len(seen) < self._wanted or len(set(seen)) > 1:
            return
        items = "the only item" if self._single else f"each of the first {self._wanted} items"
        where = "".join(f", {name} = {value}" for name, value in task.point.items())
        message = f"the sweep stopped, for {items} failed alike ({task.model}{where}): {error}"
        raise (ours or UsageError)(message)
