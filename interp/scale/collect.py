"""Collecting activations: a corpus streams through the model, and chosen sites of chosen tokens land in the shards of a store."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from interp.corpora import CorpusLike, longest_window, open_documents
from interp.errors import InterpError, unknown
from interp.models.cache import Step
from interp.models.progress import silent
from interp.runner.model import Model
from interp.scale.collect_plan import begun, check_numbers, check_place, check_sites
from interp.scale.collect_run import Collection
from interp.scale.collect_work import check_spread
from interp.scale.engine import Engine, ThisProcess
from interp.scale.engines import engine_of
from interp.scale.positions import position_filter, words_of
from interp.scale.store import ActivationStore, open_store
from interp.scale.store_files import place_of

DTYPES = ("float32", "float16", "bfloat16")


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
    engine: str | Engine = "embedded",
    workers: int | None = None,
    address: str | None = None,
    threads: int | None = None,
    progress: Step | None = None,
) -> ActivationStore:
    """Runs a corpus through the model and writes activations into a store: a row for each kept token, a tensor for each site.

    The forward ends at the last site. Finished shards stay whatever happens; the same call does the missing ones and ends in the same
    bytes as one that was never stopped, on the same kind of machine, with any engine and any number of workers. Another request, model
    or corpus is refused with what differs. For that, a shard is a piece of work by itself, cut from the corpus by numbers that the first
    call writes into the store: as many whole windows as fit into ``shard_rows``, sorted by length, in batches of at most
    ``batch_tokens``. Where memory runs out the batches of a shard are halved, which is written down too. One call at a time writes to a
    folder; its workers write their shards themselves, and only records come back.

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
        shard_rows: rows of a shard at most; by default as many as make about 128 MB. A window is never split: one with more is a shard.
        batch_tokens: positions of a batch, padding included; by default what fits in a quarter of the free memory, at most 2,048 on a
            CPU and 32,768 elsewhere.
        engine: "embedded" (this process, or ``workers`` processes beside it), "ray", or an ``Engine``.
        workers: how many shards are computed at once, each by a model of its own; by default one, on Ray what the cluster has room for.
        address: of a Ray cluster; without one a cluster is made on this machine.
        threads: of each worker, on which the last bits of numbers depend. By default torch's own number, and 1 where ``workers`` or an
            engine is asked for; a store that goes on keeps its number.
        progress: called with (what, done, total), in tokens; the total is estimated from how much of the corpus was read.

    Returns:
        The finished store, opened.

    Raises:
        UsageError: a bad argument, an unreadable or empty corpus, a folder that holds other work or that another process writes to, a
            model that other processes cannot load.
        ModelError: a damaged manifest or record, a worker with other weights.
        NumericsError: an activation is NaN or infinite, or too large for the dtype.
        MemoryLimitError: not even one window fits in memory.

    """
    documents = open_documents(corpus, field=field)
    place = place_of(folder if isinstance(folder, str) else Path(folder))
    asked = model.sites.sites(sites)
    check_sites(asked)
    check_numbers(model, window=window, max_tokens=max_tokens, shard_rows=shard_rows, batch_tokens=batch_tokens)
    runner = _engine(model, engine, workers, address, threads)
    plain = engine == "embedded" and workers is None
    if dtype not in ("auto", *DTYPES):
        raise unknown("dtype", dtype, ("auto", *DTYPES))
    kept = position_filter(model, positions, skip_bos=skip_bos)
    settings: dict[str, Any] = {
        "sites": tuple(site.name for site in asked),
        "dtype": str(model.dtype).removeprefix("torch.") if dtype == "auto" else dtype,
        "positions": words_of(positions),
        "skip_bos": skip_bos,
        "window": window or longest_window(model),
        "max_tokens": max_tokens,
        "shard_rows": shard_rows,
        "batch_tokens": batch_tokens,
        "threads": threads if isinstance(engine, str) else runner.threads,
    }
    check_place(place)  # before anything is changed there
    with place.writing():
        manifest = begun(
            place, model, documents, asked, settings, field, torch.get_num_threads() if plain else runner.threads
        )
        runner.threads = manifest.settings.threads
        work = Collection(model, documents, place, manifest, kept, runner, progress or silent)
        try:
            work.finish()
        except InterpError:
            work.take_back()
            raise
    return open_store(place.name)


def _engine(
    model: Model, engine: str | Engine, workers: int | None, address: str | None, threads: int | None
) -> Engine:
    """The engine that is asked for. Raises UsageError for one that there is not, and for a model that its workers cannot load."""
    if isinstance(engine, Engine):
        found = engine
    else:
        gpus = 0.0 if model.device.type == "cpu" else None
        threads = 1 if threads is None else threads
        found = engine_of(engine, workers=workers, threads=threads, address=address, gpus=gpus)
    if not isinstance(found, ThisProcess):
        check_spread(model)
    found.tell = model.notify
    return found
