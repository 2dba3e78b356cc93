"""The course of a collection: which shards are missing, what workers reply, what is written down about it."""

from collections import deque
from collections.abc import Iterator
from contextlib import closing
from dataclasses import asdict, replace

from interp.corpora import Documents, tell_skipped
from interp.errors import InterpError, MemoryLimitError, UsageError
from interp.models.cache import Step
from interp.results import Provenance
from interp.runner.model import Model
from interp.scale.collect_shards import Shard, ShardPlan
from interp.scale.collect_work import ShardReply, ShardTask, ShardWork, workers_of
from interp.scale.engine import Engine, Lost, Make, ThisProcess
from interp.scale.hardware import hardware_of
from interp.scale.positions import PositionFilter
from interp.scale.store_files import Place
from interp.scale.store_manifest import MANIFEST, Manifest, Totals, read_records, record_name, write_manifest

WHAT = "collecting tokens"


class Collection:
    """One call's work on a store."""

    def __init__(
        self,
        model: Model,
        documents: Documents,
        place: Place,
        manifest: Manifest,
        kept: PositionFilter,
        engine: Engine,
        progress: Step,
    ) -> None:
        self._model, self._documents, self._place, self._kept = model, documents, place, kept
        self._manifest, self._engine, self._progress = manifest, engine, progress
        self._records = read_records(place, manifest)
        self._plan = ShardPlan(model, documents, manifest.settings, kept, self._records)
        self._tasks = _Tasks(self, iter(self._plan))
        self._done = sum(record.next.tokens - record.start.tokens for record in self._records.values())
        self._at_work: dict[int, int] = {}
        self._total: int | None = None
        self._hosts: set[str] = set()

    def finish(self) -> None:
        """Computes every shard that is missing, up to the end of the corpus."""
        done = self._manifest.complete
        if done is not None and all(shard in self._records for shard in range(done.shards)):
            self._model.notify(f"{self._place.name} is finished; there was nothing to do")
            return
        self._begin()
        if self._tasks.any_left():
            with closing(self._engine.run(self._make(), self._tasks)) as replies:
                for task, reply in replies:
                    self._take(task, reply)
        self._complete()

    def take_back(self) -> None:
        """Removes the manifest of a store that has no shard, so that a call that failed leaves nothing to go on with.

        Not in a bucket, where it may be another writer's.
        """
        names = self._place.names()
        if not self._place.shared and MANIFEST in names and not any(name.startswith("shard-") for name in names):
            self._place.remove(MANIFEST)

    def task(self, shard: Shard) -> ShardTask:
        """The task of a shard that is begun now."""
        limit = self._manifest.settings.max_tokens
        self._total = round(shard.next.tokens / shard.share) if shard.share else None
        if limit is not None:
            self._total = limit if self._total is None else min(limit, self._total)
        return ShardTask(shard=shard, batch_tokens=self._manifest.batch_tokens(shard.number))

    def _make(self) -> Make:
        settings = self._manifest.settings
        about = (self._place, self._manifest.key, settings.sites, settings.dtype, self._kept)
        if isinstance(self._engine, ThisProcess):
            return lambda number: ShardWork(self._model, *about, ran=self._ran)
        return workers_of(self._model, *about)

    def _begin(self) -> None:
        """Writes the manifest, with this run in it, and says where it goes on."""
        if self._records:
            kept = sum(record.rows for record in self._records.values())
            self._model.notify(
                f"going on behind {len(self._records):,} finished shards of {self._place.name} ({kept:,} rows)"
            )
        own = replace(self._model.provenance(), threads=self._manifest.settings.threads)
        self._enlist(own, hardware_of(self._model))
        self._progress(WHAT, self._done, None)

    def _enlist(self, run: Provenance, hardware: str) -> None:
        """Writes a run into the manifest, and says where it differs from the one before."""
        if self._manifest.runs:
            apart = _other_machine(self._manifest.runs[-1], run)
            before = self._manifest.hardware[-1] if self._manifest.hardware else hardware
            if hardware != before:
                apart = ", ".join(filter(None, [apart, f"the processor {hardware} (before: {before})"]))
            if apart:
                self._model.notify(f"going on with {apart}: numbers may differ in the last bits from an unbroken run")
        runs, hardwares = (*self._manifest.runs, run), (*self._manifest.hardware, hardware)
        self._note(replace(self._manifest, runs=runs, hardware=hardwares))

    def _ran(self, shard: int, tokens: int) -> None:
        self._at_work[shard] = tokens
        self._progress(WHAT, self._done + sum(self._at_work.values()), self._total)

    def _take(self, task: ShardTask, reply: ShardReply | Lost) -> None:
        """Notes what came of a shard; one that was too large for the memory is given out again, in smaller batches."""
        number = task.shard.number
        if isinstance(reply, Lost):
            raise InterpError(
                f"shard {number} could not be computed: {reply.reason}; what is finished is kept, and the same command goes on. Where "
                "memory is short, use fewer workers, or a smaller batch_tokens in a new folder"
            )
        if reply.short_of_memory is not None:
            self._at_work.pop(number, None)
            self._halve(task, reply.short_of_memory)
            return
        record = reply.record
        assert record is not None, "a reply has one of the two"
        if reply.host not in self._hosts and record_name(number) not in self._place.names():
            raise UsageError(
                f"what the worker on {reply.host} wrote is not in {self._place.name}; give a folder that all machines share, or a bucket "
                "such as s3://bucket/folder"
            )
        self._records[number] = record
        if reply.host not in self._hosts:
            self._hosts.add(reply.host)
            if _other_machine(self._manifest.runs[-1], reply.run) or reply.hardware != self._manifest.hardware[-1]:
                self._enlist(reply.run, reply.hardware)
        self._at_work.pop(number, None)
        self._done += task.shard.n_tokens
        if not isinstance(self._engine, ThisProcess):
            self._progress(WHAT, self._done, self._total)

    def _halve(self, task: ShardTask, cause: str) -> None:
        """Makes the batches of a shard smaller, and of all that are not begun; that is written down before anything is run again."""
        shard, budget = task.shard, task.batch_tokens
        longest = max(len(part.ids) for part in shard.parts)
        if budget < longest:  # then the longest has been alone in its batch
            raise MemoryLimitError(
                f"a forward of one text of up to {longest} tokens does not fit in memory ({cause}); use a shorter window, a smaller "
                "model or dtype='bfloat16'"
            )
        later = max(self._tasks.newest, *self._records, shard.number) + 1
        smaller = (*self._manifest.smaller, (shard.number, shard.number, budget // 2), (later, None, budget // 2))
        self._note(replace(self._manifest, smaller=smaller))
        self._model.notify(f"out of memory with {budget:,} tokens a batch; going on with {budget // 2:,}")
        self._tasks.again(replace(task, batch_tokens=budget // 2))

    def _note(self, manifest: Manifest) -> None:
        self._manifest = manifest
        write_manifest(self._place, manifest)

    def _complete(self) -> None:
        shards, end = self._plan.n_shards, self._plan.end
        if not shards:
            raise UsageError(
                f"positions {self._manifest.settings.positions!r} keep no token of {self._documents.name}; choose others"
                if end.tokens
                else f"there is no text in {self._documents.name}; give a corpus with at least one"
            )
        self._progress(WHAT, end.tokens, end.tokens)
        tell_skipped(self._model, self._documents)
        rows = sum(self._records[shard].rows for shard in range(shards))
        self._note(
            replace(self._manifest, complete=Totals(shards=shards, rows=rows, texts=end.texts, tokens=end.tokens))
        )


class _Tasks(Iterator[ShardTask]):
    """The tasks that an engine takes one by one: first those to be done again, then the next of the plan, which is made when it is taken.

    It may end and then have one more, where the last shard at work is to be done again.
    """

    def __init__(self, collection: Collection, shards: Iterator[Shard]) -> None:
        self._collection, self._shards = collection, shards
        self._waiting: deque[ShardTask] = deque()
        self.newest = -1

    def again(self, task: ShardTask) -> None:
        """Gives a task out once more."""
        self._waiting.append(task)

    def any_left(self) -> bool:
        """Whether there is a task; the first one is made."""
        if not self._waiting:
            self._waiting.extend(task for task in [next(self, None)] if task is not None)
        return bool(self._waiting)

    def __next__(self) -> ShardTask:
        if self._waiting:
            return self._waiting.popleft()
        shard = next(self._shards)
        self.newest = max(self.newest, shard.number)
        return self._collection.task(shard)


def _other_machine(before: Provenance, now: Provenance) -> str:
    """What of a run's surroundings is not as before, in words; empty where all is."""
    old, new = asdict(before), asdict(now)
    for run in (old, new):
        run["device"] = str(run["device"]).partition(":")[0]  # not which of several GPUs
    apart = [f"{name} {new[name]} (before: {old[name]})" for name in ("device", "threads") if old[name] != new[name]]
    libraries = ("torch", "transformers")
    versions = [(name, before.versions.get(name), now.versions.get(name)) for name in libraries]
    return ", ".join([*apart, *(f"{name} {new} (before: {old})" for name, old, new in versions if old != new)])
