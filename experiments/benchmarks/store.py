"""Activations of a corpus into a store: the whole call, and a plain forward of the same batches that is cut behind the last layer."""

import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from experiments.benchmarks import moments
from experiments.benchmarks.config import SEED, Measured
from experiments.benchmarks.harness import Side, check_equal, measure
from experiments.benchmarks.moments import MomentWork
from experiments.benchmarks.rows import Row, timed_row
from experiments.benchmarks.sides import OURS, first
from experiments.benchmarks.tracing import in_words
from interp.runner.model import Model
from interp.scale.collect import collect
from interp.scale.store import ActivationStore

ROW = "store"
KEPT = "every activation kept in memory, none written"
WRITTEN = "every activation kept, then written to one file and synced"


def ours(work: MomentWork, sites: str, folder: Path) -> Side:
    """The whole call, into a new folder each time: planning, forwards, shards, index, checksums, all of it on the disk at the end."""

    def call() -> ActivationStore:
        place = tempfile.mkdtemp(dir=folder)
        return collect(work.model, work.texts, sites, place, batch_tokens=work.batch_tokens)

    def read(store: ActivationStore) -> dict[str, Tensor]:
        rows = store.rows()
        return {name: rows[name] for name in store.sites}

    return Side(row=ROW, name=OURS, call=call, read=read)


def plain(work: MomentWork) -> Side:
    """Hugging Face's forward of the same batches through the last layer's block and no further. It gives no numbers."""
    return replace(moments.plain(work), row=ROW)


def kept(work: MomentWork, layers: list[int]) -> Side:
    """The same forwards with the streams behind some blocks kept by hooks; joined in the order of the texts, without padding."""
    order = sorted(range(len(work.texts)), key=lambda place: len(work.texts[place]))
    back = sorted(range(len(order)), key=lambda place: order[place])

    def call() -> dict[str, Tensor]:
        found: dict[int, list[Tensor]] = {layer: [] for layer in layers}
        handles = [
            work.model.hf.get_submodule(work.model.atlas.blocks[layer].block).register_forward_hook(
                lambda _m, _a, out, layer=layer: found[layer].append(first(out))
            )
            for layer in layers
        ]
        try:
            forward = plain(work).call
            forward()
        finally:
            for handle in handles:
                handle.remove()
        texts = {
            layer: [
                row[real]
                for out, (_, reals) in zip(outs, work.padded, strict=True)
                for row, real in zip(out, reals, strict=True)
            ]
            for layer, outs in found.items()
        }
        return {
            f"blocks.{layer}.hook_resid_post": torch.cat([rows[place] for place in back])
            for layer, rows in texts.items()
        }

    return Side(row=ROW, name=KEPT, call=call, read=lambda tensors: tensors)


def written(work: MomentWork, layers: list[int], folder: Path) -> Side:
    """The least that as many bytes on the disk cost: ``kept``, and the tensors as they are into one file, synced; no index, no checksum."""
    keep = kept(work, layers).call

    def call() -> dict[str, Tensor]:
        found = keep()
        with tempfile.NamedTemporaryFile(dir=folder) as file:
            for tensor in found.values():
                file.write(memoryview(tensor.numpy()).cast("B"))
            file.flush()
            os.fsync(file.fileno())
        return found

    return Side(row=ROW, name=WRITTEN, call=call, read=lambda tensors: tensors)


def rows(model: Model, measured: Measured, goals: Mapping[str, Mapping[str, Any]]) -> Iterator[Row]:
    """One layer's stream, and those of all layers up to it."""
    work, goal = MomentWork.of(model, measured), goals[ROW]
    shortest, longest = measured.lengths
    for layers in ([work.layer], list(range(work.layer + 1))):
        folder = Path(tempfile.mkdtemp(prefix="interp-bench-"))
        try:
            sites = f"resid_post@{','.join(map(str, layers))}"
            mine, baseline = ours(work, sites, folder), plain(work)
            others = [kept(work, layers), written(work, layers, folder)]
            far = max(check_equal(mine, other) for other in others)
            timings = measure([mine, *others], baseline, measured.rounds, seed=SEED)
        finally:
            shutil.rmtree(folder)
        size = work.n_tokens * len(layers) * model.atlas.d_model * model.dtype.itemsize / 1e6
        which = f"layer {work.layer}" if len(layers) == 1 else f"layers 0 to {work.layer}"
        speed = work.n_tokens / timings[mine.key].seconds.median
        note = (
            f"{in_words(torch.get_num_threads())} (and one that writes), {work.n_tokens:,} tokens in {len(work.texts)} texts of {shortest} "
            f"to {longest}, {size:.0f} MB on the disk, synced; {speed:,.0f} tokens a second. The baseline runs the same padded batches "
            f"through block {work.layer} and keeps nothing; a ratio of 1.11 is 0.9 of its throughput."
        )
        yield timed_row(
            ROW,
            f"{goal['title']}, {which} of {model.atlas.n_layers}",
            goal,
            timings,
            (OURS, baseline.key),
            {},
            far,
            note,
        )
