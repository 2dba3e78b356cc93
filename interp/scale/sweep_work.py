"""What a worker of a sweep does: load the tasks' model, run the analyzer on them, write the rows of each, say how it went."""

import gc
import platform
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from interp.errors import InterpError, is_out_of_memory
from interp.models.progress import silent
from interp.scale.sweep_analyzers import analyzer_named
from interp.scale.sweep_batches import Batch
from interp.scale.sweep_columns import table_of
from interp.scale.sweep_config import ModelSpec, Task
from interp.scale.sweep_folder import SweepFolder
from interp.scale.sweep_parts import Part
from interp.scale.sweep_together import Outcome, TogetherRun

_LONGEST_REASON = 500


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
    """Makes a worker of the sweep whose rows go to ``folder``; ``kinds`` are the types of the columns that say what a task is.

    Of a batch at most ``batch_tokens`` tokens share a forward.
    """

    analyzer: str
    folder: str
    batch_tokens: int
    kinds: Mapping[str, str] = field(default_factory=dict)

    def __call__(self, number: int) -> "_Worker":
        """The worker with this number on its machine."""
        return _Worker(self, number)


class _Worker:
    """Holds one model at a time."""

    def __init__(self, work: SweepWork, number: int) -> None:
        self._analyzer, self._folder, self._number = analyzer_named(work.analyzer), SweepFolder(work.folder), number
        self._kinds, self._batch_tokens = work.kinds, work.batch_tokens
        self._spec: ModelSpec | None = None
        self._run: TogetherRun | None = None
        self._identity: dict[str, Any] = {}
        self._notes: list[str] = []

    def __call__(self, batch: Batch) -> tuple[Reply, ...]:
        host = platform.node()
        try:
            run = self._loaded(batch.tasks[0].spec)
        except InterpError as error:
            return (Reply(index=batch.todo[0].index, host=host, broken=error),)
        self._notes.clear()
        return tuple(
            self._reply(task, outcome, host)
            for task, outcome in run.outcomes(batch.tasks)
            if task.index in batch.wanted
        )

    def _reply(self, task: Task, outcome: Outcome, host: str) -> Reply:
        """Writes what came of a task, unless memory ran out, and says so; notes go with the next reply."""
        fault = outcome if isinstance(outcome, BaseException) else None
        frame = None if isinstance(outcome, BaseException) else outcome
        error, kind = (None, None) if fault is None else (reason_of(fault), type(fault))
        part = None
        if fault is None or not is_out_of_memory(fault):
            table = table_of(task, frame, error, self._kinds)
            part = self._folder.write_part(task, table, self._identity, None if kind is None else kind.__name__)
        notes = tuple(self._notes)
        self._notes.clear()
        return Reply(
            index=task.index, host=host, part=part, error=error, kind=kind, identity=self._identity, notes=notes
        )

    def _loaded(self, spec: ModelSpec) -> TogetherRun:
        if self._run is not None and spec == self._spec:
            return self._run
        from interp.runner.model import load
        from interp.scale.hardware import hardware_of, own_gpu

        self._run = None  # before the next is loaded, so that two are never held
        gc.collect()
        model = load(
            spec.name,
            device=own_gpu(spec.device, self._number) if spec.device_map is None else "auto",
            dtype=spec.dtype,
            revision=spec.revision,
            offline=spec.offline,
            device_map=spec.device_map,
            max_memory=spec.limits(),
            offload_folder=spec.offload_folder,
            progress=silent,
            notify=self._notes.append,
        )
        self._spec, self._run = spec, TogetherRun(self._analyzer, model, self._batch_tokens)
        self._identity = {
            **asdict(replace(model.provenance(command=""), created="")),
            "device": model.device.type,
            "hardware": hardware_of(model),
        }
        return self._run


def reason_of(fault: BaseException) -> str:
    """An error as one line: its message, with its class where it is none of our own."""
    message = " ".join(str(fault).split())[:_LONGEST_REASON]
    return message if isinstance(fault, InterpError) and message else f"{type(fault).__name__}: {message}"
