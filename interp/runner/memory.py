"""What a run will need in memory, estimated before it starts, so that a request that cannot fit is refused in words."""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, TypeVar

import torch

from interp.errors import MemoryLimitError, is_out_of_memory
from interp.models.atlas import Atlas
from interp.models.device import free_memory
from interp.sites import Site

if TYPE_CHECKING:
    from interp.runner.batch import Batch
    from interp.runner.model import Model

T = TypeVar("T")
R = TypeVar("R")

TOKENS_ON_ACCELERATOR = 32_768
"""Positions of a forward beyond which an accelerator gets no faster; one with room for them needs more than a CPU to be busy."""


def site_elements(site: Site, atlas: Atlas, n_rows: int, n_pos: int, n_queries: int) -> int:
    """Numbers in a site's tensor, with ``n_queries`` of ``n_pos`` positions kept."""
    sizes = {
        "batch": n_rows,
        "pos": n_queries,
        "query_pos": n_queries,
        "key_pos": n_pos,
        "head": atlas.n_heads,
        "kv_head": atlas.n_kv_heads,
        "d_head": atlas.d_head,
        "d_model": atlas.d_model,
        "d_mlp": atlas.d_mlp or 0,
        "expert": 64,
        "1": 1,
    }
    count = 1
    for axis in site.info.axes.split():
        count *= sizes[axis]
    return count


def check_memory(
    model: "Model",
    batch: "Batch",
    captured: Sequence[Site],
    columns: Sequence[Sequence[int]] | None,
    needs_logits: bool,
    logit_columns: Sequence[Sequence[int]] | None,
    resumable: bool,
) -> None:
    """Raises MemoryLimitError when captures and logits exceed the free memory of the model's device (or the host's)."""
    atlas, n_rows, n_pos = model.atlas, len(batch.lengths), batch.n_pos
    n_queries = n_pos if columns is None else len(columns[0])
    of_kind = {site.kind: site for site in captured}
    counts = Counter(site.kind for site in captured)
    elements = sum(
        count * site_elements(of_kind[kind], atlas, n_rows, n_pos, n_queries) for kind, count in counts.items()
    )
    if needs_logits:
        elements += n_rows * (n_pos if logit_columns is None else len(logit_columns[0])) * atlas.d_vocab
    if resumable:
        elements += n_rows * n_pos * atlas.n_layers * (atlas.d_model + 2 * atlas.n_kv_heads * atlas.d_head)
    # Layers on several devices keep an equal share each, give or take; the fullest device decides.
    need, free = elements * model.dtype.itemsize // len(model.devices), least_free(model)
    if free is not None and need > free:
        raise MemoryLimitError(
            f"this run would keep {need / 1e9:.1f} GB and {free / 1e9:.1f} GB are free on {model.device}; capture fewer sites, "
            "slice positions=..., ask for logits='last', reduce captures as they are made, or run fewer prompts at once"
        )


def most_tokens(device: torch.device, on_cpu: int) -> int:
    """Positions of a forward that are worth running at once where memory allows it: ``on_cpu`` on a CPU, more elsewhere."""
    return on_cpu if device.type == "cpu" else TOKENS_ON_ACCELERATOR


def least_free(model: "Model") -> int | None:
    """Free bytes on the fullest of the devices that a model computes on; None where it cannot be told."""
    known = [free for device in model.devices if (free := free_memory(device)) is not None]
    return min(known, default=None)


def forward_bytes(model: "Model", n_pos: int) -> int:
    """About what a forward holds at once for each token of a batch ``n_pos`` wide, logits and captures not counted.

    That is a few copies of the stream, the widest tensors of an MLP, keys and values of one layer, and a row of attention.
    """
    atlas = model.atlas
    width = 8 * atlas.d_model + 3 * (atlas.d_mlp or 4 * atlas.d_model) + 6 * atlas.n_heads * atlas.d_head
    return model.dtype.itemsize * (width + atlas.n_heads * n_pos)


def in_halves(
    model: "Model", batch: Sequence[T], work: Callable[[Sequence[T]], R], what: str
) -> Iterator[tuple[Sequence[T], R]]:
    """``work`` on a batch of prompts, or on its halves and theirs where memory runs out, which the model's listener is told.

    ``work`` starts anew on a half, so it must leave nothing behind when it fails. Gives each part with what came of it, in order.
    """
    waiting = [batch]
    while waiting:
        part = waiting.pop(0)
        try:
            found = work(part)
        except (MemoryError, RuntimeError) as error:
            if len(part) < 2 or not is_out_of_memory(error):
                raise
        else:
            yield part, found
            continue
        # Outside the handler, so that the tensors of the failed forward are let go of.
        half = len(part) // 2
        waiting[:0] = [part[:half], part[half:]]
        model.notify(f"{len(part)} {what} at once do not fit in memory; going on with {half}")
