"""The least that a row's work costs: sides that do nothing beside what cannot be left out."""

from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch import Tensor

from experiments.benchmarks.config import PEER_EVERY
from experiments.benchmarks.harness import Side
from experiments.benchmarks.sides import Work, first


def least(work: Work) -> Iterator[Side]:
    """Both."""
    yield kept_bytes(work)
    yield same_layers(work)


def same_layers(work: Work) -> Side:
    """The least that any restart costs: the blocks from its layer on, called by hand, and the unembedding of the last position."""
    model, hf = work.model, work.model.hf
    blocks = [hf.get_submodule(block.block) for block in model.atlas.blocks[work.start :]]
    entered: list[tuple[tuple[Any, ...], dict[str, Any]]] = []
    handle = blocks[0].register_forward_pre_hook(
        lambda _m, given, named: entered.append((given, named)), with_kwargs=True
    )
    try:
        hf(work.ids, use_cache=False)
    finally:
        handle.remove()
    (stream, *given), named = entered[0]
    head = hf.get_output_embeddings()

    def call() -> Tensor:
        running = stream
        for block in blocks:
            running = first(block(running, *given, **named))
        return head(model.final_norm(running[:, -1]))

    return Side(
        row="restart",
        name="the same layers called by hand",
        call=call,
        read=lambda out: {"last": out},
        every=PEER_EVERY,
    )


def kept_bytes(work: Work) -> Side:
    """The least that any cache of everything costs: a plain forward of which as many bytes stay, with nothing more computed.

    What modules take and return is held by hooks that do nothing else. Bytes that a cache holds beyond these (patterns, normalised
    streams) are written with zeros, a tensor for each layer.
    """
    hf, ids = work.model.hf, work.ids
    head = hf.get_output_embeddings()
    leaves = [module for module in hf.modules() if not list(module.children()) and module is not head]

    def kept_forward() -> tuple[Any, list[Any]]:
        kept: list[Any] = []
        handles = [leaf.register_forward_hook(lambda _m, given, out: kept.append((given, out))) for leaf in leaves]
        try:
            return hf(ids, use_cache=False), kept
        finally:
            for handle in handles:
                handle.remove()

    beyond = max(
        0,
        work.model.run(work.prompts, capture="all").cache.bytes
        - held_bytes(value for given, out in kept_forward()[1] for value in (*given, out)),
    )

    def call() -> Any:
        output, kept = kept_forward()
        written = [torch.zeros(beyond // work.n_layers, dtype=torch.uint8) for _ in range(work.n_layers)]
        return output, kept, written

    return Side(
        row="everything",
        name="plain forward, as many bytes kept",
        call=call,
        read=lambda out: {"logits": out[0].logits},
        every=PEER_EVERY,
    )


def held_bytes(values: Iterable[Any]) -> int:
    """Bytes that the tensors among some values hold, shared storage once."""
    tensors = [value for value in values if isinstance(value, Tensor)]
    return sum({t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in tensors}.values())
