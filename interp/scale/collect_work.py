"""What a worker of a collection does: run a shard's windows through the model, write its files, say in a record how it went."""

import platform
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from interp.editing.stack import applied_edits, apply
from interp.errors import ModelError, UsageError, is_out_of_memory
from interp.models.offload import is_dispatched
from interp.results import Provenance
from interp.runner.model import Model, load
from interp.scale.collect_plan import identity_of
from interp.scale.collect_rows import RowBuffers, ShardRows, Span
from interp.scale.collect_shards import Shard
from interp.scale.engine_processes import stopping
from interp.scale.hardware import hardware_of, own_gpu
from interp.scale.positions import PositionFilter
from interp.scale.store_files import Place, place_of
from interp.scale.store_manifest import Record
from interp.scale.store_shards import ShardFiles

if TYPE_CHECKING:
    from interp.editing.edit import Edit

Ran = Callable[[int, int], None]
"""Told after each batch: the number of the shard, and how many of its tokens are done."""


@dataclass(frozen=True, kw_only=True)
class ShardTask:
    """A shard to be computed, in batches of at most so many positions."""

    shard: Shard
    batch_tokens: int


@dataclass(frozen=True, kw_only=True)
class ShardReply:
    """What came of it: the record of the shard, which is in place, or why memory did not suffice. And who computed it, on what."""

    host: str
    run: Provenance
    hardware: str
    record: Record | None = None
    short_of_memory: str | None = None


class Stopped(Exception):
    """The work was stopped; nothing of the shard at hand is kept."""


class ShardWork:
    """Computes shards of the store at ``place`` with one model."""

    def __init__(
        self,
        model: Model,
        place: Place,
        key: str,
        sites: Sequence[str],
        dtype: str,
        kept: PositionFilter,
        ran: Ran | None = None,
    ) -> None:
        self._model, self._place, self._key, self._kept = model, place, key, kept
        self._sites = model.sites.sites(sites)
        self._buffers = RowBuffers(getattr(torch, dtype))
        self._ran = ran or _ignore
        self._run, self._hardware = model.provenance(), hardware_of(model)

    def __call__(self, task: ShardTask) -> ShardReply:
        try:
            return self._reply(record=self._written(task))
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
            cause = error.__class__.__name__
        # Outside the handler, so that the tensors of the failed forward are let go of.
        if self._model.device.type == "cuda":
            torch.cuda.empty_cache()
        return self._reply(short_of_memory=cause)

    def _written(self, task: ShardTask) -> Record:
        shard = task.shard
        rows = ShardRows(self._model, self._sites, self._kept, shard, self._buffers)
        told = shard.n_tokens - sum(len(part.ids) for part in shard.parts)
        self._ran(shard.number, told)
        with ShardFiles(self._place, self._key, shard.number) as files:

            def batch_done(spans: Sequence[Span], tokens: int) -> None:
                nonlocal told
                told += tokens
                files.put(self._buffers.tensors, [(span.start, span.stop) for span in spans])
                self._ran(shard.number, told)
                if stopping():
                    raise Stopped

            rows.run(task.batch_tokens, batch_done)
            return files.finish(self._buffers.tensors, rows.columns, shard.start, shard.next)

    def _reply(self, **found: Any) -> ShardReply:
        return ShardReply(host=platform.node(), run=self._run, hardware=self._hardware, **found)


@dataclass(frozen=True, kw_only=True)
class ShardWorkers:
    """Makes a worker in another process: loads the model anew, with its edits, and holds it against the one that was asked for."""

    name: str
    revision: str | None
    device: str
    dtype: str
    edits: "tuple[Edit, ...]"
    identity: dict[str, Any]
    place: str
    key: str
    sites: tuple[str, ...]
    rows_dtype: str
    kept: PositionFilter

    def __call__(self, number: int) -> ShardWork:
        """The worker with this number on its machine."""
        device = own_gpu(self.device, number)
        model = load(self.name, device=device, dtype=self.dtype, revision=self.revision)
        for edit in self.edits:
            apply(model, edit)
        found = identity_of(model)
        for name, value in self.identity.items():
            if found[name] != value:
                raise ModelError(
                    f"the model of the worker on {platform.node()} has {name} {found[name]}, the one asked for {value}; put the same "
                    "files in place there"
                )
        return ShardWork(model, place_of(self.place), self.key, self.sites, self.rows_dtype, self.kept)


def check_spread(model: Model) -> None:
    """Raises UsageError for a model that other processes cannot load."""
    if model.source is None:
        raise UsageError(
            "this model was made in memory, so other processes cannot load it; save it with model.hf.save_pretrained(folder) and load that "
            "folder, or leave out workers and engine"
        )
    if is_dispatched(model.hf):
        raise UsageError(
            "a model with a device map runs in this process alone; leave out workers and engine, or load it on one device"
        )


def workers_of(
    model: Model, place: Place, key: str, sites: tuple[str, ...], dtype: str, kept: PositionFilter
) -> ShardWorkers:
    """How other processes make a worker for this model."""
    source = model.source
    assert source is not None, "check_spread saw to it"
    here = Path(source.name).exists()  # a file or a folder; processes may begin elsewhere
    return ShardWorkers(
        name=str(Path(source.name).absolute()) if here else source.name,
        revision=None if here else source.revision,
        device=model.device.type,
        dtype=str(model.dtype).removeprefix("torch."),
        edits=applied_edits(model),
        identity=identity_of(model),
        place=place.name if place.shared else str(Path(place.name).absolute()),
        key=key,
        sites=sites,
        rows_dtype=dtype,
        kept=kept,
    )


def _ignore(shard: int, tokens: int) -> None:
    """Where no one counts."""
