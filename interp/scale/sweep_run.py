"""The course of a sweep: what is finished already, what workers reply, what stops it."""

import datetime
import json
from collections.abc import Callable, Generator, Sequence
from contextlib import closing
from typing import Any

from interp._version import __version__
from interp.errors import InterpError, ModelError, UsageError
from interp.models.cache import Step
from interp.scale.engine import Engine, Lost
from interp.scale.sweep_config import SweepConfig, Task
from interp.scale.sweep_folder import ITEMS, MANIFEST, ROWS, SweepFolder, as_lines, part_name
from interp.scale.sweep_manifest import check_same, check_source, checked, new_manifest, provenance_of
from interp.scale.sweep_result import SweepResult
from interp.scale.sweep_summary import summarize
from interp.scale.sweep_work import Reply, SweepWork, write_rows

_PROBES = 3
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
        self._told: set[str] = set()

    def begin(self) -> None:
        """Reads the manifest of what is to be gone on with, and checks that it is the same sweep; or writes a new one."""
        if self.folder.has(MANIFEST) and (self.folder.has(ROWS) or self.folder.parts()):
            self.manifest = checked(self.folder.read_json(MANIFEST), self.folder.url)
            check_same(self.manifest, self.folder.read_json_lines(ITEMS), self.config, self.folder.url)
            return
        created = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
        self.manifest = new_manifest(self.config, created, __version__)
        self.folder.write(ITEMS, as_lines(self.config.items))
        self._write_manifest()

    def work(self, progress: Step) -> None:
        """Does every task whose rows are not there.

        Raises UsageError, or what the analyzer raised, where the settings are at fault; ModelError for a model that cannot be loaded.
        """
        there = self.folder.parts()
        todo = [task for task in self.tasks if there.get(task.index) != task.digest]
        worked = len(todo) < len(self.tasks)
        if worked:
            self.tell(f"going on: {len(self.tasks) - len(todo):,} of {len(self.tasks):,} tasks are finished already")
        what = self.config.analyzer.name.replace("_", " ")
        progress(what, 0, len(todo))
        probes = Probes(self.config)
        try:
            with closing(self._replies(todo)) as replies:
                for done, (task, reply) in enumerate(replies, 1):
                    worked = worked or reply.error is None
                    probes.add(task, reply)
                    progress(what, done, len(todo))
        except InterpError:
            if not worked:  # then the folder can be used again
                self.folder.remove_parts()
            raise

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
        hosts: set[str] = set()
        work = SweepWork(self.config.analyzer.name, self.folder.url)
        with closing(self.engine.run(work, todo)) as replies:
            for task, reply in replies:
                if isinstance(reply, Lost):
                    write_rows(self.folder, task, None, reply.reason)
                    yield task, Reply(index=task.index, host="", error=reply.reason)
                    continue
                if reply.broken is not None:
                    raise reply.broken
                if reply.host not in hosts and not self.folder.has(part_name(task.index, task.digest)):
                    raise UsageError(
                        f"what the worker on {reply.host} wrote is not in {self.folder.url}; give a folder that all machines share, or a "
                        "bucket such as s3://bucket/folder"
                    )
                hosts.add(reply.host)
                self._check_source(task, reply)
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
            self.folder.remove(part_name(task.index, task.digest))
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


class Probes:
    """Tells settings that are at fault from items that are: where the first items of a point of the grid all fail alike.

    Errors of ours are alike if they say the same, for they name what of an item is wrong; others if they are of one kind.
    """

    def __init__(self, config: SweepConfig) -> None:
        self._wanted = min(_PROBES, len(config.items))
        self._single = config.n_tasks == 1
        self._seen: dict[str, list[str]] = {}

    def add(self, task: Task, reply: Reply) -> None:
        """Takes in one reply. Raises the kind of error that the analyzer raised once it is clear that all items would fail."""
        if task.item_index >= self._wanted or (self._wanted == 1 and not self._single):
            return
        ours = reply.kind is not None and issubclass(reply.kind, InterpError)
        seen = self._seen.setdefault(json.dumps([task.model, task.point], sort_keys=True), [])
        seen.append(reply.error or "" if ours else str(reply.kind))
        if reply.kind is None or len(seen) < self._wanted or len(set(seen)) > 1:
            return
        items = "the only item" if self._single else f"each of the first {self._wanted} items"
        where = "".join(f", {name} = {value}" for name, value in task.point.items())
        message = f"the sweep stopped, for {items} failed alike ({task.model}{where}): {reply.error}"
        raise reply.kind(message) if issubclass(reply.kind, InterpError) else UsageError(message)
