"""The work of a collection: chunk after chunk through the model, rows into shards, until no shard is missing."""

from dataclasses import asdict, replace

import torch

from interp.corpora import Documents, tell_skipped
from interp.errors import MemoryLimitError, UsageError
from interp.models.cache import Step
from interp.results import Provenance
from interp.runner.memory import is_out_of_memory
from interp.runner.model import Model
from interp.scale.collect_chunks import Chunk, ChunkRun, chunks
from interp.scale.hardware import hardware_of
from interp.scale.store_files import Place
from interp.scale.store_manifest import MANIFEST, Cursor, Manifest, Record, Totals, read_records, write_manifest
from interp.scale.store_rows import Rows
from interp.scale.store_shards import ShardWriter

WHAT = "collecting tokens"


class Collection:
    """One call's work on a store."""

    def __init__(
        self, model: Model, documents: Documents, place: Place, manifest: Manifest, run: ChunkRun, progress: Step
    ) -> None:
        self._model, self._documents, self._place, self._run = model, documents, place, run
        self._manifest, self._progress = manifest, progress
        self._records = read_records(place, manifest)
        self._told = False

    def finish(self) -> None:
        """Fills every gap in the shards, up to the end of the corpus."""
        while True:
            gap = next(number for number in range(len(self._records) + 1) if number not in self._records)
            done = self._manifest.complete
            if done is not None and gap >= done.shards:
                if not self._told:
                    self._model.notify(f"{self._place.name} is finished; there was nothing to do")
                return
            if not self._told:
                self._enlist()
            self._fill(gap)

    def take_back(self) -> None:
        """Removes the manifest of a store that has no shard, so that a call that failed leaves nothing to go on with.

        Not in a bucket, where it may be another writer's.
        """
        if not self._place.shared and not self._records and MANIFEST in self._place.names():
            self._place.remove(MANIFEST)

    def _enlist(self) -> None:
        """Writes this run into the manifest, and says where it differs from the one before."""
        self._told, own, hardware = True, self._model.provenance(), hardware_of(self._model)
        if self._records:
            kept = sum(record.rows for record in self._records.values())
            self._model.notify(
                f"going on behind {len(self._records):,} finished shards of {self._place.name} ({kept:,} rows)"
            )
        if self._manifest.runs:
            before = self._manifest.hardware[-1] if self._manifest.hardware else hardware
            apart = _other_machine(self._manifest.runs[-1], own)
            if hardware != before:
                apart = ", ".join(filter(None, [apart, f"the processor {hardware} (before: {before})"]))
            if apart:
                self._model.notify(f"going on with {apart}: numbers may differ in the last bits from an unbroken run")
        hardwares = (*self._manifest.hardware, hardware)
        self._note(replace(self._manifest, runs=(*self._manifest.runs, own), hardware=hardwares))

    def _fill(self, gap: int) -> None:
        """Writes shards from number ``gap`` on, until one that is there or the end."""
        start = self._records[gap - 1].next if gap else Cursor()
        held: list[Rows] = []
        n_held, number, last = 0, gap, None
        size = self._manifest.settings.shard_rows
        with ShardWriter(self._place, self._manifest.key, self._keep) as writer:
            for chunk in chunks(self._model, self._documents, self._manifest.settings, start):
                last = chunk
                skip = start.row if chunk.start.chunk == start.chunk else 0
                rows = self._rows(chunk, skip)
                row = skip
                while n_held + len(rows) >= size:
                    take = size - n_held
                    behind = chunk.at(row + take)
                    writer.put(number, Rows.joined([*held, rows.part(slice(0, take))]), behind)
                    held, n_held, rows, row, number = [], 0, rows.part(slice(take, None)), row + take, number + 1
                    if number in self._records:
                        return
                if len(rows):
                    held.append(rows)
                    n_held += len(rows)
            end = start if last is None else last.at(self._run.n_rows(last))
            if held:
                writer.put(number, Rows.joined(held), end)
                number += 1
        self._complete(number, last, start)

    def _rows(self, chunk: Chunk, skip: int) -> Rows:
        """The chunk's rows, in smaller batches where memory runs out."""
        done = chunk.start.tokens
        share = chunk.windows[-1].document.share
        limit = self._manifest.settings.max_tokens
        total = round((done + chunk.n_tokens) / share) if share else None
        if limit is not None:
            total = limit if total is None else min(limit, total)

        while True:
            budget, at = self._manifest.batch_tokens(chunk.start.chunk), done

            def ran(tokens: int) -> None:
                nonlocal at
                at += tokens
                self._progress(WHAT, at, total)

            try:
                return self._run.rows(chunk, skip, budget, ran)
            except (MemoryError, RuntimeError) as error:
                if not is_out_of_memory(error):
                    raise
                cause = error.__class__.__name__
            # Outside the handler, so that the tensors of the failed forward are let go of.
            self._halve(chunk, budget, cause)

    def _halve(self, chunk: Chunk, budget: int, cause: str) -> None:
        longest = max(len(window.ids) for window in chunk.windows)
        if budget < longest:  # then the longest has been alone in its batch
            raise MemoryLimitError(
                f"a forward of one text of up to {longest} tokens does not fit in memory ({cause}); use a shorter window, a smaller "
                "model or dtype='bfloat16'"
            )
        if self._model.device.type == "cuda":
            torch.cuda.empty_cache()
        smaller = (*self._manifest.smaller, (chunk.start.chunk, budget // 2))
        self._note(replace(self._manifest, smaller=smaller))
        self._model.notify(f"out of memory with {budget:,} tokens a batch; going on with {budget // 2:,}")

    def _keep(self, record: Record) -> None:
        self._records[record.shard] = record

    def _note(self, manifest: Manifest) -> None:
        self._manifest = manifest
        write_manifest(self._place, manifest)

    def _complete(self, shards: int, last: Chunk | None, start: Cursor) -> None:
        if not shards:
            raise UsageError(
                f"there is no text in {self._documents.name}; give a corpus with at least one"
                if last is None
                else f"positions {self._manifest.settings.positions!r} keep no token of {self._documents.name}; choose others"
            )
        texts, tokens = (
            (start.texts, start.tokens)
            if last is None
            else (last.start.texts + last.n_texts, last.start.tokens + last.n_tokens)
        )
        tell_skipped(self._model, self._documents)
        rows = sum(self._records[shard].rows for shard in range(shards))
        self._note(replace(self._manifest, complete=Totals(shards=shards, rows=rows, texts=texts, tokens=tokens)))


def _other_machine(before: Provenance, now: Provenance) -> str:
    """What of a run's surroundings is not as before, in words; empty where all is."""
    old, new = asdict(before), asdict(now)
    apart = [f"{name} {new[name]} (before: {old[name]})" for name in ("device", "threads") if old[name] != new[name]]
    libraries = ("torch", "transformers")
    versions = [(name, before.versions.get(name), now.versions.get(name)) for name in libraries]
    return ", ".join([*apart, *(f"{name} {new} (before: {old})" for name, old, new in versions if old != new)])
