"""Collecting activations: a corpus streams through the model, and chosen sites of chosen tokens land in the shards of a store."""

import math
import os
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch

from interp.analyzers.sweep import request_key
from interp.corpora import CorpusLike, Documents, longest_window, open_documents
from interp.editing.folder_log import name_of
from interp.editing.stack import applied_edits
from interp.errors import MemoryLimitError, UsageError, unknown
from interp.models.cache import Step
from interp.models.progress import silent
from interp.results import Provenance
from interp.runner.memory import forward_bytes, free_memory, is_out_of_memory, site_elements
from interp.runner.model import Model
from interp.scale.collect_chunks import Chunk, ChunkRun, chunks
from interp.scale.positions import position_filter
from interp.scale.store import ActivationStore, open_store
from interp.scale.store_files import Place, place_of
from interp.scale.store_manifest import (
    MANIFEST,
    Cursor,
    Manifest,
    Origin,
    Record,
    Settings,
    Totals,
    read_manifest,
    read_records,
    resumed,
    write_manifest,
)
from interp.scale.store_rows import Rows
from interp.scale.store_shards import ShardWriter
from interp.sites import Site

DTYPES = ("float32", "float16", "bfloat16")
WHAT = "collecting tokens"

_SHARE_OF_FREE = 0.25
"""Share of the free memory that one forward may take."""
_MOST_TOKENS = {"cpu": 2048}
_MOST_TOKENS_ELSEWHERE = 32_768
"""Positions of a batch beyond which a forward gets no faster."""
_SHARD_BYTES, _CHUNK_BYTES = 1 << 27, 1 << 29
_SHARD_ROWS = (256, 65_536)
_BATCHES_OF_A_CHUNK = 16


def collect(
    model: Model,
    corpus: CorpusLike,
    sites: str | Sequence[str],
    folder: str | os.PathLike[str],
    *,
    positions: str = "all",
    skip_bos: bool = False,
    dtype: str = "auto",
    field: str = "text",
    window: int | None = None,
    max_tokens: int | None = None,
    shard_rows: int | None = None,
    batch_tokens: int | None = None,
    progress: Step | None = None,
) -> ActivationStore:
    """Runs a corpus through the model and writes activations into a store: a row for each kept token, a tensor for each site.

    The forward ends at the last site. Finished shards stay whatever happens; the same call goes on behind them and ends in the same
    bytes as one that was never stopped, on the same machine. Another request, model or corpus is refused with what differs. For that,
    batches are planned from numbers that the first call writes into the store: texts are read in order in chunks, sorted by length
    inside a chunk, and put into batches of at most ``batch_tokens``. Where memory runs out the batch is halved from that chunk on, which
    is written down too. One process at a time writes to a folder.

    Args:
        model: the model; edits that are applied to it belong to the request.
        corpus: a text file (a text each line), a ``.jsonl`` or ``.parquet`` file, "hf:NAME[:split[:field]]" (a Hugging Face dataset,
            streamed), or a list of texts or token ids.
        sites: what to store, such as "resid_post@5" or ["resid_post@5,7", "mlp.post@5"]. Attention patterns are no rows and are refused.
        folder: where the store is, or becomes; a URL that fsspec knows, such as "s3://bucket/store", works as well, without a lock.
        positions: "all", "last", a position, or a slice such as "1:", ":16" or "::4", in each window.
        skip_bos: leave out a begin-of-text token at the start of a window.
        dtype: of the rows: "auto" (the model's own), "float32", "float16" or "bfloat16".
        field: the key or column of a ``.jsonl`` or ``.parquet`` file that holds the text.
        window: tokens that are run together at most; a longer text is cut. By default 1,024, or the context where that is shorter.
        max_tokens: tokens to read at most.
        shard_rows: rows of a shard; by default as many as make about 128 MB.
        batch_tokens: positions of a batch, padding included; by default what fits in a quarter of the free memory, at most 2,048 on a
            CPU and 32,768 elsewhere.
        progress: called with (what, done, total), in tokens; the total is estimated from how much of the corpus was read.

    Returns:
        The finished store, opened.

    Raises:
        UsageError: a bad argument, an unreadable or empty corpus, a folder that holds other work or that another process writes to.
        ModelError: a damaged manifest or record. NumericsError: an activation is NaN or infinite, or too large for the dtype.
        MemoryLimitError: not even one window fits in memory.

    """
    documents = open_documents(corpus, field=field)
    place = place_of(folder if isinstance(folder, str) else Path(folder))
    asked = model.sites.sites(sites)
    _check_sites(asked)
    _check_numbers(model, window=window, max_tokens=max_tokens, shard_rows=shard_rows, batch_tokens=batch_tokens)
    if dtype not in ("auto", *DTYPES):
        raise unknown("dtype", dtype, ("auto", *DTYPES))
    kept = position_filter(model, positions, skip_bos=skip_bos)
    settings: dict[str, Any] = {
        "sites": tuple(site.name for site in asked),
        "dtype": str(model.dtype).removeprefix("torch.") if dtype == "auto" else dtype,
        "positions": positions,
        "skip_bos": skip_bos,
        "window": window or longest_window(model),
        "max_tokens": max_tokens,
        "shard_rows": shard_rows,
        "batch_tokens": batch_tokens,
    }
    with place.writing():
        manifest = _begun(place, model, documents, asked, settings, field)
        run = ChunkRun(model, asked, manifest.settings, kept)
        _Collection(model, documents, place, manifest, run, progress or silent).finish()
    return open_store(place.name)


class _Collection:
    """One call's work on a store."""

    def __init__(
        self, model: Model, documents: Documents, place: Place, manifest: Manifest, run: ChunkRun, progress: Step
    ) -> None:
        self._model, self._documents, self._place, self._run = model, documents, place, run
        self._manifest, self._progress = manifest, progress
        self._records = read_records(place)
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

    def _enlist(self) -> None:
        """Writes this run into the manifest, and says where it differs from the one before."""
        self._told, own = True, self._model.provenance()
        if self._records:
            kept = sum(record.rows for record in self._records.values())
            self._model.notify(
                f"going on behind {len(self._records):,} finished shards of {self._place.name} ({kept:,} rows)"
            )
        if self._manifest.runs:
            apart = _other_machine(self._manifest.runs[-1], own)
            if apart:
                self._model.notify(f"going on with {apart}: numbers may differ in the last bits from an unbroken run")
        self._note(replace(self._manifest, runs=(*self._manifest.runs, own)))

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
                    behind = replace(chunk.start, row=row + take)
                    writer.put(number, Rows.joined([*held, rows.part(slice(0, take))]), behind)
                    held, n_held, rows, row, number = [], 0, rows.part(slice(take, None)), row + take, number + 1
                    if number in self._records:
                        return
                if len(rows):
                    held.append(rows)
                    n_held += len(rows)
            end = start if last is None else replace(last.start, row=self._run.n_rows(last))
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
            self._place.remove(MANIFEST)
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
        rows = sum(self._records[shard].rows for shard in range(shards))
        self._note(replace(self._manifest, complete=Totals(shards=shards, rows=rows, texts=texts, tokens=tokens)))


def _check_sites(sites: Sequence[Site]) -> None:
    for site in sites:
        if "query_pos" in site.info.axes:
            raise UsageError(
                f"{site.name} has no row of one size a token, so it cannot be stored; leave it out, or look at it with attention_patterns"
            )


def _check_numbers(model: Model, **given: int | None) -> None:
    for name, value in given.items():
        if value is not None and value < 1:
            raise UsageError(f"{name} is {value}; give 1 or more")
    window, context = given["window"], model.atlas.n_ctx
    if window is not None and context is not None and window > context:
        raise UsageError(f"window is {window}, the model's context is {context}; give {context} or fewer")


def _begun(
    place: Place, model: Model, documents: Documents, sites: Sequence[Site], settings: dict[str, Any], field: str
) -> Manifest:
    """The manifest in the folder, where it is of this request; else a new one. Raises UsageError where the folder holds other things."""
    key = request_key(model)
    origin = Origin(
        weights_sha256=str(key["weights"]),
        model_dtype=str(model.dtype).removeprefix("torch."),
        attention=str(key["attention"]),
        edits=tuple(name_of(edit) for edit in applied_edits(model)),
        corpus=documents.name,
        corpus_sha256=documents.whole_sha256(),
        field=field,
    )
    old = read_manifest(place)
    if old is not None:
        return resumed(place, old, settings, origin)
    others = sorted(name for name in place.names() if not name.startswith("."))
    if others:
        raise UsageError(f"{place.name} holds other files ({others[0]}); choose an empty folder")
    return Manifest(settings=_planned(model, sites, settings), origin=origin, n_layers=model.atlas.n_layers)


def _planned(model: Model, sites: Sequence[Site], asked: dict[str, Any]) -> Settings:
    """The settings with what was left open: how large shards, batches and chunks are."""
    elements = sum(site_elements(site, model.atlas, 1, 1, 1) for site in sites)
    row_bytes = elements * getattr(torch, asked["dtype"]).itemsize
    least, most = _SHARD_ROWS
    shard_rows = asked["shard_rows"] or min(most, max(least, 1 << int(math.log2(max(1, _SHARD_BYTES // row_bytes)))))
    batch_tokens = asked["batch_tokens"] or _batch_tokens(model, asked["window"], elements * model.dtype.itemsize)
    chunk_tokens = max(batch_tokens, min(_BATCHES_OF_A_CHUNK * batch_tokens, _CHUNK_BYTES // row_bytes))
    return Settings(**{**asked, "shard_rows": shard_rows, "batch_tokens": batch_tokens, "chunk_tokens": chunk_tokens})


def _batch_tokens(model: Model, window: int, captured: int) -> int:
    """Positions of a batch that fit in a share of the free memory, with ``captured`` bytes kept of each; a power of two."""
    most, free = _MOST_TOKENS.get(model.device.type, _MOST_TOKENS_ELSEWHERE), free_memory(model.device)
    fit = most if free is None else int(_SHARE_OF_FREE * free / (forward_bytes(model, window) + captured))
    return 1 << int(math.log2(max(window, min(most, fit))))


def _other_machine(before: Provenance, now: Provenance) -> str:
    """What of a run's surroundings is not as before, in words; empty where all is."""
    old, new = asdict(before), asdict(now)
    apart = [f"{name} {new[name]} (before: {old[name]})" for name in ("device", "threads") if old[name] != new[name]]
    libraries = ("torch", "transformers")
    versions = [(name, before.versions.get(name), now.versions.get(name)) for name in libraries]
    return ", ".join([*apart, *(f"{name} {new} (before: {old})" for name, old, new in versions if old != new)])
