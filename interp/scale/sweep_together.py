"""A batch of tasks through a model: prompts side by side within a budget of tokens, halved where memory runs out, alone where one fails."""

import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, TypeAlias

from interp.errors import InterpError, is_out_of_memory
from interp.scale.sweep_analyzers import SweepAnalyzer, read_field
from interp.scale.sweep_config import Task

if TYPE_CHECKING:
    from pandas import DataFrame

    from interp.runner.model import Model

FAULTS = (InterpError, ArithmeticError, AttributeError, LookupError, MemoryError, RuntimeError, TypeError, ValueError)
"""What can be wrong with one item and not with the next. Everything else ends the sweep: an interrupt, an import that fails."""
_SHARE_OF_FREE = 0.25
"""Share of the free memory that one forward may take."""

Outcome: TypeAlias = "DataFrame | BaseException"


class TogetherRun:
    """Runs tasks of one model, prompts of like length in one forward of at most ``batch_tokens`` positions, padding included."""

    def __init__(self, analyzer: SweepAnalyzer, model: "Model", batch_tokens: int) -> None:
        self._analyzer, self._model, self._budget = analyzer, model, batch_tokens
        self._checked = False

    def outcomes(self, tasks: Sequence[Task]) -> Iterator[tuple[Task, Outcome]]:
        """Each task with its table, or with the fault that the analyzer raised for it."""
        from interp.runner.batch import by_length

        lengths: dict[int, int] = {}
        if len(tasks) > 1:
            self._fit_memory()
            lengths = {task.index: length for task in tasks if (length := self._length(task))}
        shared = [task for task in tasks if task.index in lengths]
        yield from ((task, self._alone(task)) for task in tasks if task.index not in lengths)
        for places in by_length([lengths[task.index] for task in shared], self._budget):
            yield from self._shared([shared[place] for place in places], lengths)

    def _shared(self, batch: list[Task], lengths: dict[int, int]) -> Iterator[tuple[Task, Outcome]]:
        """The outcomes of a batch, or of its halves and theirs where memory runs out."""
        waiting = [batch]
        while waiting:
            part = waiting.pop(0)
            size = len(part) * max(lengths[task.index] for task in part)
            if len(part) == 1:
                yield part[0], self._alone(part[0])
            elif size > self._budget:
                waiting[:0] = _halves(part)
            elif (found := self._forward(part, size)) is not None:
                yield from zip(part, found, strict=True)
            else:
                waiting[:0] = _halves(part) if size > self._budget else [[task] for task in part]

    def _forward(self, part: Sequence[Task], size: int) -> "list[DataFrame] | None":
        """The tables of tasks from one forward; None where it fails. Where memory is short, the budget is halved, too."""
        import torch

        try:
            return self._analyzer.run_together(self._model, [task.item for task in part], part[0].settings)
        except FAULTS as fault:
            if not is_out_of_memory(fault):
                return None  # of one of them: alone it is known which
        self._budget = size // 2
        if self._model.device.type == "cuda":
            torch.cuda.empty_cache()
        self._model.notify(f"out of memory with {size:,} tokens a batch; going on with {self._budget:,}")
        return None

    def _alone(self, task: Task) -> Outcome:
        try:
            return self._analyzer.run(self._model, task.item, task.settings, task.seed)
        except FAULTS as fault:
            return fault.with_traceback(None)  # which would hold on to tensors

    def _length(self, task: Task) -> int | None:
        """Tokens of the task's prompt; None where they cannot be told, which the analyzer says better."""
        try:
            return len(self._model.tokens(read_field("prompt", task.item["prompt"])))
        except FAULTS:
            return None

    def _fit_memory(self) -> None:
        """Makes the budget smaller, once, where less memory is free than a forward of so many positions takes."""
        if self._checked:
            return
        from interp.runner.memory import forward_bytes, least_free

        self._checked, atlas = True, self._model.atlas
        kept = self._model.dtype.itemsize * (2 * atlas.n_layers * atlas.d_model + 2 * atlas.d_vocab)
        free = least_free(self._model)
        fit = self._budget if free is None else int(_SHARE_OF_FREE * free / (forward_bytes(self._model, 256) + kept))
        if fit < self._budget:
            self._budget = 1 << int(math.log2(max(1, fit)))
            self._model.notify(f"free memory is enough for {self._budget:,} tokens a batch")


def _halves(part: list[Task]) -> list[list[Task]]:
    half = len(part) // 2
    return [part[:half], part[half:]]
