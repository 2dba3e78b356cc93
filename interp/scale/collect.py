"""Collecting activations: a corpus streams through the model, and chosen sites of chosen tokens land in the shards of a store."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from interp.corpora import CorpusLike, longest_window, open_documents
from interp.errors import InterpError, unknown
from interp.models.cache import Step
from interp.models.progress import silent
from interp.runner.model import Model
from interp.scale.collect_chunks import ChunkRun
from interp.scale.collect_plan import begun, check_numbers, check_place, check_sites
from interp.scale.collect_work import Collection
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
    check_sites(asked)
    check_numbers(model, window=window, max_tokens=max_tokens, shard_rows=shard_rows, batch_tokens=batch_tokens)
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
    }
    check_place(place)  # before anything is changed there
    with place.writing():
        manifest = begun(place, model, documents, asked, settings, field)
        run = ChunkRun(model, asked, manifest.settings, kept)
        work = Collection(model, documents, place, manifest, run, progress or silent)
        try:
            work.finish()
        except InterpError:
            work.take_back()
            raise
    return open_store(place.name)
