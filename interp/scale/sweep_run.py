"""The course of a sweep: what is finished already, what workers reply, what stops it."""

import datetime
import json
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from interp._version import __version__
from interp.errors import InterpError, ModelError, UsageError
from interp.models.cache import Step
from interp.scale.engine import Engine, Lost
from interp.scale.sweep_batches import Batch, batch_tokens_of, batches_of
from interp.scale.sweep_columns import kinds_of, table_of
from interp.scale.sweep_config import SweepConfig, Task
from interp.scale.sweep_folder import ITEMS, MANIFEST, ROWS, SweepFolder, as_lines
from interp.scale.sweep_manifest import check_same, check_source, checked, new_manifest, provenance_of
from interp.scale.sweep_parts import Part, failure_in, source_of
from interp.scale.sweep_probes import Probes
from interp.scale.sweep_result import SweepResult
from interp.scale.sweep_summary import summarize
from interp.scale.sweep_work import Reply, SweepWork

if TYPE_CHECKING:
    from pyarrow import Table

_NOTES = 5


class SweepRun:
    """One call of ``sweep``: what is to be done, by what, and where it goes."""

    def __init__(
        self,
        config: SweepConfig,
        folder: SweepFolder,
        tasks: Sequence[Task],
        engine: Engine,
        tell: Callable[[str], None],
    ) -> None:
        self.config, self.folder, self.tasks, self.engine, self.tell = config, folder, tasks, engine, tell
        self.manifest: dict[str, Any] = {}
        self._kinds = kinds_of(config)
        self._rows: dict[int, Part | Table] = {}
        self._told: set[str] = set()
        self._hosts: set[str] = set()  # of workers whose files are seen here

    def begin(self) -> None:
        """Reads the manifest of what is to be gone on with, and checks that it is the same sweep; or writes a new one.

        Where the tokens of a batch are left open, they are those that the sweep was begun with.
        """
        if self.folder.has(MANIFEST) and (self.folder.has(ROWS) or self.folder.parts()):
            self.manifest = checked(self.folder.read_json(MANIFEST), self.folder.url)
            if self.config.batch_tokens is None:
                self.config = replace(self.config, batch_tokens=self.manifest["sweep"].get("batch_tokens"))
            check_same(self.manifest, self.folder.read_json_lines(ITEMS), self.config, self.folder.url)
            return
        self.config = replace(self.config, batch_tokens=batch_tokens_of(self.config))
        created = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
        self.manifest = new_manifest(self.config, created, __version__)
        self._write_manifest()  # first: by it the folder is known as a sweep's
        self.folder.write(ITEMS, as_lines(self.config.items))

    def finish(self, progress: Step, *, retry_failed: bool) -> None:
        """Does every task whose rows are not there, and puts all rows into the table. What is found damaged is done again."""
        self._take_up(retry_failed)
        while True:
            self.work(progress)
            damaged = self.folder.compact([self._rows[task.index] for task in self.tasks])
            if not damaged:
                return
            for place in damaged:
                del self._rows[self.tasks[place].index]
            self.tell(f"the rows of {len(damaged):,} finished tasks were damaged and are computed again")

    def reopen(self) -> None:
        """Takes the table apart into the rows of single tasks, without those that failed, so that these are done again."""
        import numpy as np

        tasks, n_failed = {task.index: task for task in self.tasks}, 0
        for table in self.folder.row_groups():
            numbers = np.unique(table["task"].to_numpy(), return_index=True, return_counts=True)
            for index, start, count in zip(*map(np.ndarray.tolist, numbers), strict=True):
                rows, task = table.slice(start, count), tasks[index]
                if rows["error"][0].as_py() is None:
                    self.folder.write_part(task, rows, self.manifest["sources"][task.model], None)
                else:
                    n_failed += 1
        if n_failed:
            self.folder.remove(ROWS)
        else:
            self.tell("no task failed; there is nothing to try again")

    def _take_up(self, retry_failed: bool) -> None:
        """Finds the rows that are there; removes those of other weights or versions, and of failed tasks that are to be tried again."""
        expected = {label: source_of(identity) for label, identity in self.manifest["sources"].items()}
        tasks, other = {task.index: task for task in self.tasks}, 0
        for part in self.folder.parts():
            task = tasks.get(part.index)
            same = task is not None and part.task == task.digest and part.source == expected.get(task.model)
            if same and not (part.failed and retry_failed):
                self._rows[part.index] = part
            else:
                other += not same
                self.folder.remove(part.name)
        if other:
            self.tell(f"the rows of {other:,} tasks are of other weights or versions and are removed")

    def work(self, progress: Step) -> None:
        """Does every task whose rows are not there.

        Raises UsageError, or what the analyzer raised, where the settings are at fault; ModelError for a model that cannot be loaded.
        """
        todo = [task for task in self.tasks if task.index not in self._rows]
        if len(todo) < len(self.tasks):
            self.tell(f"going on: {len(self.tasks) - len(todo):,} of {len(self.tasks):,} tasks are finished already")
        what = self.config.analyzer.name.replace("_", " ")
        progress(what, 0, len(todo))
        try:
            probes = self._probes()
            with closing(self._replies(todo)) as replies:
                for done, (task, reply) in enumerate(replies, 1):
                    probes.add(task, reply.error, None if reply.kind is None else reply.kind.__name__)
                    progress(what, done, len(todo))
        except InterpError:
            if not any(isinstance(rows, Part) and not rows.failed for rows in self._rows.values()):
                self.folder.remove_parts()  # then the folder can be used again
            raise

    def _probes(self) -> Probes:
        """The probes, which know how the first items went that are done already."""
        probes = Probes(self.config)
        for task in probes.wanted(self.tasks):
            rows = self._rows.get(task.index)
            if not isinstance(rows, Part):
                continue
            table = self.folder.read_part(rows) if rows.failed else None
            probes.add(task, *((None, None) if table is None else failure_in(table)))
        return probes

    def result(self, confidence: float) -> SweepResult:
        """The summary of the finished table."""
        config = self.config
        summary = summarize(self.folder, config.analyzer, tuple(config.grid), confidence)
        sources = {label: provenance_of(found, self.manifest) for label, found in self.manifest["sources"].items()}
        if not sources:
            raise ModelError(
                f"no model could be asked in {self.folder.url}; every worker died: {summary.failures[0].reason}"
            )
        return SweepResult(
            provenance=next(iter(sources.values())),
            analyzer=config.analyzer.name,
            folder=self.folder.url,
            sources=sources,
            settings={name: json.dumps(value, ensure_ascii=False) for name, value in config.settings.items()},
            grid={
                name: tuple(json.dumps(value, ensure_ascii=False) for value in values)
                for name, values in config.grid.items()
            },
            n_items=len(config.items),
            n_tasks=len(self.tasks),
            summary=summary,
            words=dict(config.analyzer.measures),
            axis=config.analyzer.axis,
            across=config.analyzer.across,
            confidence=confidence,
        )

    def _replies(self, todo: Sequence[Task]) -> Generator[tuple[Task, Reply]]:
        """Each task with its reply, once it is checked: written where we see it, with the weights and versions of the rest."""
        config = self.config
        work = SweepWork(config.analyzer.name, self.folder.url, batch_tokens_of(config), self._kinds)
        batches = batches_of(config, self.tasks, {task.index for task in todo})
        while batches:
            suspects: list[Batch] = []
            with closing(self.engine.run(work, batches)) as replies:
                for batch, reply in replies:
                    if not isinstance(reply, Lost):
                        yield from self._taken(batch, reply)
                    elif len(batch.tasks) > 1:  # one of them it is; which, is seen when each is alone
                        suspects.append(batch)
                    else:
                        task = batch.tasks[0]
                        self._rows[task.index] = table_of(task, None, reply.reason, self._kinds)
                        yield task, Reply(index=task.index, host="", error=reply.reason)
            batches = [single for batch in suspects for single in batch.alone()]

    def _taken(self, batch: Batch, replies: Sequence[Reply]) -> Iterator[tuple[Task, Reply]]:
        """The replies to a batch, each checked before the next is looked at."""
        tasks = {task.index: task for task in batch.todo}
        for reply in replies:
            if reply.broken is not None:
                raise reply.broken
            task, part = tasks[reply.index], reply.part
            if part is not None and reply.host not in self._hosts and not self.folder.has(part.name):
                raise UsageError(
                    f"what the worker on {reply.host} wrote is not in {self.folder.url}; give a folder that all machines share, or a "
                    "bucket such as s3://bucket/folder"
                )
            if part is not None:
                self._hosts.add(reply.host)
            self._check_source(task, reply)
            self._rows[task.index] = part or table_of(task, None, reply.error, self._kinds)
            yield task, reply

    def _check_source(self, task: Task, reply: Reply) -> None:
        """Holds what a worker computed with against the other workers, and against the manifest of a sweep that goes on."""
        known = self.manifest["sources"].get(task.model)
        if known is None:
            known = self.manifest["sources"][task.model] = dict(reply.identity or {})
            self._write_manifest()
        try:
            difference = check_source(known, dict(reply.identity or {}), task.model, reply.host)
        except ModelError:
            if reply.part is not None:
                self.folder.remove(reply.part.name)
            raise
        self._tell_once(*filter(None, (difference, *reply.notes)))

    def _tell_once(self, *lines: str) -> None:
        """Passes on what workers had to say: each line once, and only the first few."""
        for line in lines:
            if line not in self._told and len(self._told) < _NOTES:
                self._told.add(line)
                self.tell(line if len(self._told) < _NOTES else f"{line} (further notes of single tasks are not shown)")

    def _write_manifest(self) -> None:
        self.folder.write(MANIFEST, (json.dumps(self.manifest, indent=1, ensure_ascii=False) + "\n").encode())
