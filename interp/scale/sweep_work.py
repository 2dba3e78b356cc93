"""What a worker of a sweep does: load the task's model, run the analyzer on one item, write the rows, say how it went."""

import gc
import platform
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any

from interp.errors import InterpError
from interp.models.progress import silent
from interp.scale.sweep_analyzers import analyzer_named
from interp.scale.sweep_columns import table_of
from interp.scale.sweep_config import ModelSpec, Task
from interp.scale.sweep_folder import SweepFolder
from interp.scale.sweep_parts import Part

if TYPE_CHECKING:
    from interp.runner.model import Model

# What can be wrong with one item and not with the next. Everything else ends the sweep: an interrupt, an import that fails.
_FAULTS = (InterpError, ArithmeticError, AttributeError, LookupError, MemoryError, RuntimeError, TypeError, ValueError)
_LONGEST_REASON = 500
BASE_COLUMNS = ("task", "item", "model", "seed", "error")
"""The first columns of every row; ``error`` is None where the analyzer succeeded."""


@dataclass(frozen=True, kw_only=True)
class Reply:
    """What came of a task: the number of rows, or why the analyzer failed, and with what ``kind`` of error.

    ``part`` is the file of its rows; None where memory ran out, which may go better another time. ``identity`` is what the numbers
    depend on beside the task, ``notes`` what the analyzer had to say. ``broken`` is a fault of the model and not of the item: nothing
    was written.
    """

    index: int
    host: str
    part: Part | None = None
    error: str | None = None
    kind: type[BaseException] | None = None
    broken: InterpError | None = None
    identity: Mapping[str, Any] | None = None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class SweepWork:
    """Makes a worker of the sweep whose rows go to ``folder``; ``kinds`` are the types of the columns that say what a task is."""

    analyzer: str
    folder: str
    kinds: Mapping[str, str] = field(default_factory=dict)

    def __call__(self, number: int) -> "_Worker":
        """The worker with this number on its machine."""
        return _Worker(self, number)


class _Worker:
    """Holds one model at a time."""

    def __init__(self, work: SweepWork, number: int) -> None:
        self._analyzer, self._folder, self._number = analyzer_named(work.analyzer), SweepFolder(work.folder), number
        self._kinds = work.kinds
        self._spec: ModelSpec | None = None
        self._model: Model | None = None
        self._identity: dict[str, Any] = {}
        self._notes: list[str] = []

    def __call__(self, task: Task) -> Reply:
        from interp.runner.memory import is_out_of_memory

        host = platform.node()
        try:
            model = self._load(task.spec)
        except InterpError as error:
            return Reply(index=task.index, host=host, broken=error)
        frame, error, kind = None, None, None
        self._notes.clear()
        try:
            frame = self._analyzer.run(model, task.item, task.settings, task.seed)
        except _FAULTS as fault:
            error, kind = reason_of(fault), type(fault)
            if is_out_of_memory(fault):
                return Reply(index=task.index, host=host, error=error, kind=kind, identity=self._identity)
        table = table_of(task, frame, error, self._kinds)
        part = self._folder.write_part(task, table, self._identity, None if kind is None else kind.__name__)
        return Reply(
            index=task.index,
            host=host,
            part=part,
            error=error,
            kind=kind,
            identity=self._identity,
            notes=tuple(self._notes),
        )

    def _load(self, spec: ModelSpec) -> "Model":
        if self._model is not None and spec == self._spec:
            return self._model
        from interp.runner.model import load
        from interp.scale.hardware import hardware_of, own_gpu

        self._model = None  # before the next is loaded, so that two are never held
        gc.collect()
        device = own_gpu(spec.device, self._number)
        model = load(
            spec.name,
            device=device,
            dtype=spec.dtype,
            revision=spec.revision,
            offline=spec.offline,
            progress=silent,
            notify=self._notes.append,
        )
        self._spec, self._model = spec, model
        self._identity = {
            **asdict(replace(model.provenance(command=""), created="")),
            "device": model.device.type,
            "hardware": hardware_of(model),
        }
        return model


def reason_of(fault: BaseException) -> str:
    """An error as one line: its message, with its class where it is none of our own."""
    message = " ".join(str(fault).split())[:_LONGEST_REASON]
    return message if isinstance(fault, InterpError) and message else f"{type(fault).__name__}: {message}"
