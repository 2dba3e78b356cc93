"""Which tasks of a sweep share a forward: prompts of like length, cut from the configuration alone.

Numbers depend in their last bits on what runs side by side. So batches know nothing of workers, of memory, of the order of the items,
or of what is finished already: a batch of which a part is done runs whole, and only what is missing is written.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from interp.scale.sweep_config import SweepConfig, Task

BATCH_TOKENS = 1024
"""Tokens that share a forward on a CPU at most, padding included, where nothing is said."""
MOST_TASKS = 32
"""Tasks of a batch of so many tokens at most, in larger ones as many more: what is lost when a worker is, and what is waited for before
progress is told."""
_CHARACTERS_A_TOKEN = 3
"""A low guess, so that a batch seldom holds more tokens than are wanted. The worker, which has the tokenizer, cuts exactly."""


@dataclass(frozen=True)
class Batch:
    """Tasks that run side by side, and the numbers of those whose rows are wanted."""

    tasks: tuple[Task, ...]
    wanted: frozenset[int]

    @property
    def todo(self) -> tuple[Task, ...]:
        """The tasks whose rows are wanted."""
        return tuple(task for task in self.tasks if task.index in self.wanted)

    def alone(self) -> "Iterator[Batch]":
        """What is wanted of it, one task at a time."""
        return (Batch((task,), frozenset([task.index])) for task in self.todo)


def batch_tokens_of(config: SweepConfig) -> int:
    """Tokens that share a forward at most: what was asked for, else 1,024 on a CPU and 32,768 where every model has an accelerator.

    So it follows from the kind of the machine. What a worker has too little memory for, it cuts (see ``sweep_together``).
    """
    if config.batch_tokens is not None:
        return config.batch_tokens
    from interp.models.device import takes_accelerator
    from interp.runner.memory import TOKENS_ON_ACCELERATOR

    fast = bool(config.gpus) or all(takes_accelerator(spec.device) for spec in config.models.values())
    return TOKENS_ON_ACCELERATOR if fast else BATCH_TOKENS


def batches_of(config: SweepConfig, tasks: Sequence[Task], wanted: Collection[int]) -> list[Batch]:
    """The batches with a task that is wanted, in the order of their first tasks; single tasks where the analyzer takes one at a time."""
    if config.analyzer.together is None:
        return [Batch((task,), frozenset([task.index])) for task in tasks if task.index in wanted]
    found: list[Batch] = []
    budget = batch_tokens_of(config)
    for _, group in groupby(tasks, key=lambda task: (task.model, repr(task.point))):
        for cut in _cut(sorted(group, key=_place), budget):
            own = frozenset(task.index for task in cut if task.index in wanted)
            found += [Batch(tuple(cut), own)] if own else []
    return sorted(found, key=lambda batch: min(task.index for task in batch.tasks))


def _cut(tasks: Sequence[Task], batch_tokens: int) -> Iterator[list[Task]]:
    """Tasks in order of their length, in pieces that hold about ``batch_tokens`` tokens or fewer."""
    held: list[Task] = []
    most = MOST_TASKS * max(1, batch_tokens // BATCH_TOKENS)
    for task in tasks:
        tokens = _length(task.item) // _CHARACTERS_A_TOKEN + 1
        if held and (len(held) == most or tokens * (len(held) + 1) > batch_tokens):
            yield held
            held = []
        held.append(task)
    if held:
        yield held


def _place(task: Task) -> tuple[int, str]:
    """Where a task stands among others: by its length, then by what it is."""
    return _length(task.item), task.digest


def _length(value: Any) -> int:
    """About how many characters the texts of an item have; a token id counts like a word's."""
    if isinstance(value, str):
        return len(value)
    if isinstance(value, Mapping):
        return sum(map(_length, value.values()))
    if isinstance(value, list | tuple):
        return sum(map(_length, value))
    return _CHARACTERS_A_TOKEN
