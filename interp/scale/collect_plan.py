"""What a collection is begun with: the manifest in the folder, or a new one whose sizes are chosen from the memory that is free now."""

import math
from collections.abc import Sequence
from typing import Any

import torch

from interp.analyzers.sweep import request_key
from interp.corpora import Documents
from interp.editing.folder_log import name_of
from interp.editing.stack import applied_edits
from interp.errors import UsageError
from interp.runner.memory import forward_bytes, least_free, most_tokens, site_elements
from interp.runner.model import Model
from interp.scale.store_files import Place
from interp.scale.store_manifest import MANIFEST, Manifest, Origin, Settings, read_manifest, resumed
from interp.sites import Site

_SHARE_OF_FREE = 0.25
"""Share of the free memory that one forward may take."""
_MOST_TOKENS = 2048
"""Positions of a batch beyond which a forward on a CPU gets no faster."""
_SHARD_BYTES = 1 << 27
_SHARD_ROWS = (256, 65_536)
_SHARD_TOKENS = 1 << 20
"""Tokens of a shard at most, however few rows are kept of them: they are what is lost when it is stopped half-way."""


def check_sites(sites: Sequence[Site]) -> None:
    """Raises UsageError for a site that gives no row of one size a token."""
    for site in sites:
        if "query_pos" in site.info.axes:
            raise UsageError(
                f"{site.name} has no row of one size a token, so it cannot be stored; leave it out, or look at it with attention_patterns"
            )


def check_numbers(model: Model, **given: int | None) -> None:
    """Raises UsageError for a number below 1, and for a window that is longer than the context."""
    for name, value in given.items():
        if value is not None and value < 1:
            raise UsageError(f"{name} is {value}; give 1 or more")
    window, context = given["window"], model.atlas.n_ctx
    if window is not None and context is not None and window > context:
        raise UsageError(f"window is {window}, the model's context is {context}; give {context} or fewer")


def check_place(place: Place) -> None:
    """Raises UsageError for a folder with other things in it than a store; nothing there is changed."""
    others = sorted(name for name in place.names() if not name.startswith("."))
    if others and MANIFEST not in others:
        raise UsageError(f"{place.name} holds other files ({others[0]}); choose an empty folder")


def begun(
    place: Place,
    model: Model,
    documents: Documents,
    sites: Sequence[Site],
    settings: dict[str, Any],
    field: str,
    threads: int,
) -> Manifest:
    """The manifest in the folder, where it is of this request; else a new one, with ``threads`` where none were asked for.

    Raises UsageError where the folder holds other things.
    """
    origin = origin_of(model, documents, field)
    old = read_manifest(place)
    if old is not None:
        return resumed(place, old, settings, origin)
    check_place(place)
    return Manifest(settings=_planned(model, sites, settings, threads), origin=origin, n_layers=model.atlas.n_layers)


def origin_of(model: Model, documents: Documents, field: str) -> Origin:
    """What the rows are of."""
    return Origin(
        **identity_of(model),
        corpus=documents.name,
        corpus_sha256=documents.whole_sha256(),
        field=field,
    )


def identity_of(model: Model) -> dict[str, Any]:
    """The fields of an origin that are of the model."""
    key = request_key(model)
    return {
        "weights_sha256": str(key["weights"]),
        "model_dtype": str(model.dtype).removeprefix("torch."),
        "attention": str(key["attention"]),
        "edits": tuple(name_of(edit) for edit in applied_edits(model)),
    }


def _planned(model: Model, sites: Sequence[Site], asked: dict[str, Any], threads: int) -> Settings:
    """The settings with what was left open: how large shards and batches are."""
    elements = sum(site_elements(site, model.atlas, 1, 1, 1) for site in sites)
    row_bytes = elements * getattr(torch, asked["dtype"]).itemsize
    least, most = _SHARD_ROWS
    shard_rows = asked["shard_rows"] or min(most, max(least, 1 << int(math.log2(max(1, _SHARD_BYTES // row_bytes)))))
    batch_tokens = asked["batch_tokens"] or _batch_tokens(model, asked["window"], elements * model.dtype.itemsize)
    sizes = {"shard_rows": shard_rows, "shard_tokens": _SHARD_TOKENS, "batch_tokens": batch_tokens}
    return Settings(**{**asked, **sizes, "threads": asked["threads"] or threads})


def _batch_tokens(model: Model, window: int, captured: int) -> int:
    """Positions of a batch that fit in a share of the free memory, with ``captured`` bytes kept of each; a power of two."""
    most, free = most_tokens(model.device, _MOST_TOKENS), least_free(model)
    fit = most if free is None else int(_SHARE_OF_FREE * free / (forward_bytes(model, window) + captured))
    return 1 << int(math.log2(max(window, min(most, fit))))
