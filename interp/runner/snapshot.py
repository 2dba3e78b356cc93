"""What a resumable run keeps, how it is recorded, and how its keys and values come back into a forward."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from transformers.cache_utils import Cache, DynamicLayer

from interp.models.atlas import module_at
from interp.models.offload import arriving
from interp.runner.batch import Batch

if TYPE_CHECKING:
    from interp.runner.model import Model


@dataclass(frozen=True, eq=False)
class Snapshot:
    """What a resumable run keeps: the stream entering each block and after the last ([batch pos d_model]), keys and values."""

    batch: Batch
    stream: tuple[Tensor, ...]
    keys_values: tuple[tuple[Tensor, Tensor], ...]
    block_returns: tuple[type, int]  # type and length of a block's output: families differ
    changed_layer: int | None = (
        None  # the highest layer that an intervention of the run itself changed; -1: the embeddings
    )

    @property
    def bytes(self) -> int:
        """Bytes kept."""
        return sum(t.nbytes for t in (*self.stream, *(kv for pair in self.keys_values for kv in pair)))


class Recorder:
    """Collects a snapshot during a forward."""

    def __init__(self, model: "Model") -> None:
        self.model = model
        self.stream: list[Tensor] = []
        self.returns: tuple[type, int] = (tuple, 1)
        self.layers = [_RecordingLayer() for _ in range(model.atlas.n_layers)]

    def arguments(self) -> dict[str, Any]:
        """Arguments of the forward that make it record keys and values."""
        return {"use_cache": True, "past_key_values": Cache(layers=list(self.layers))}

    def hooks(self) -> list[Any]:
        """Registers the hooks that record the stream; they run before a session's, so the stream is the unchanged one."""
        blocks = [module_at(self.model.hf, block.block) for block in self.model.atlas.blocks]
        handles = [
            block.register_forward_pre_hook(self._enter, with_kwargs=True) for block in blocks if block is not None
        ]
        assert blocks[-1] is not None
        return [*handles, blocks[-1].register_forward_hook(self._leave)]

    def _enter(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self.stream.append(arriving(module, args[0] if args else kwargs["hidden_states"]))

    def _leave(self, module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        self.stream.append(output[0] if isinstance(output, tuple) else output)
        self.returns = (tuple, len(output)) if isinstance(output, tuple) else (Tensor, 1)

    def snapshot(self, batch: Batch, changed_layer: int | None) -> Snapshot:
        """What was recorded in a run whose own interventions reach up to ``changed_layer``."""
        keys_values = tuple(layer.pair for layer in self.layers)
        return Snapshot(batch, tuple(self.stream), keys_values, self.returns, changed_layer)


class _RecordingLayer(DynamicLayer):
    """Keeps the keys and values of one forward without copying them."""

    pair: tuple[Tensor, Tensor]

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        self.pair = key_states, value_states
        return self.pair

    def get_seq_length(self) -> int:
        return 0


class PrefixLayer(DynamicLayer):
    """Puts the snapshot's keys and values before ``length`` in front of those being computed; never stores."""

    def __init__(self, pair: tuple[Tensor, Tensor], length: int, prompts: Sequence[int]) -> None:
        super().__init__()
        rows = list(prompts) if pair[0].shape[0] > 1 else [0]
        self.length, self.prefix = length, tuple(kept[rows, :, :length] for kept in pair)

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        n_rows = key_states.shape[0]
        keys, values = (t[:n_rows] if t.shape[0] > 1 else t.expand(n_rows, -1, -1, -1) for t in self.prefix)
        return torch.cat([keys, key_states], -2), torch.cat([values, value_states], -2)

    def get_seq_length(self) -> int:
        return self.length

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        return self.length + query_length, 0
