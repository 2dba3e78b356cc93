"""Suffixes of prompts, re-executed again and again from one layer on, with gradients.

Optimising an activation at one (layer, position) changes later layers and later positions only. The suffixes of several prompts, from
that position on, run side by side although they begin at different positions: the keys and values before them come from a resumable
run, padded on the left so that all suffixes start in one column, with the padding masked and each row told its own positions.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn
from transformers.cache_utils import Cache, DynamicLayer

from interp.errors import UsageError
from interp.models.atlas import module_at
from interp.models.offload import execution_device
from interp.runner.forward import forward
from interp.runner.last_block import only_at
from interp.runner.memory import least_free
from interp.runner.packed import PackedLinears, packed_bytes
from interp.runner.passing import passing_over
from interp.runner.session import Session

if TYPE_CHECKING:
    from interp.runner.run import Run

OFTEN = 12
"""Calls from which on packing the weights pays: it takes as long as seven of them save."""
Place = Literal["mlp", "block"]
"""Where a change is added: to what the MLP's output projection gives, or to the residual stream that leaves the block."""


class Suffixes:
    """The prompts of a resumable run from ``positions[i]`` on, through the blocks after ``layer``.

    ``start`` [batch d_model] is the value at those positions that a change is added to: the output of the MLP's output projection
    (``place="mlp"``) or the stream that leaves the block (``place="block"``). ``columns[i]`` are the positions of prompt i whose
    logits are wanted. ``calls`` is how often they will be asked for: where it is often, weights are packed for it first, if a quarter of
    the memory that is free holds them.

    Raises UsageError for a run that is not resumable and for positions outside the prompts.
    """

    def __init__(
        self,
        run: "Run",
        layer: int,
        positions: Sequence[int],
        columns: Sequence[Sequence[int]],
        place: Place = "mlp",
        *,
        calls: int = 1,
    ) -> None:
        if run.snapshot is None:
            raise UsageError("this run cannot be resumed; make it with model.run(..., resumable=True)")
        lengths = run.snapshot.batch.lengths
        if len(positions) != len(lengths) or any(not 0 <= p < n for p, n in zip(positions, lengths, strict=False)):
            raise UsageError(f"positions {list(positions)} do not fit prompts of {list(lengths)} tokens")
        if any(min(wanted) < p for wanted, p in zip(columns, positions, strict=True)):
            raise UsageError("logits before a suffix are not re-executed; take them from the run itself")
        self.model, self.layer = run.model, layer
        self._positions = list(positions)
        device = run.snapshot.batch.ids.device
        self._width = max(length - first for length, first in zip(lengths, positions, strict=True))
        self._longest = max(positions)
        last = torch.tensor([length - 1 for length in lengths], device=device)[:, None]
        self._places = torch.tensor(self._positions, device=device)[:, None] + torch.arange(self._width, device=device)
        inside = self._places.minimum(last)
        rows = torch.arange(len(lengths), device=device)[:, None]
        self._ids = run.snapshot.batch.ids[rows, inside]
        # Everything about the changed value is computed where its layer is; what enters the next one moves there by itself.
        self._device = execution_device(self._module(run.model.atlas.blocks[layer].o))
        stream = run.snapshot.stream[layer + 1]
        self._stream = stream[rows.to(stream.device), inside.to(stream.device)].to(self._device)
        self._columns = [[c - p for c in wanted] for wanted, p in zip(columns, positions, strict=True)]
        self._returns = run.snapshot.block_returns
        self._keys_values = [_AlignedLayer(pair, self._positions, self._longest) for pair in run.snapshot.keys_values]
        self._packed = self._pack() if calls >= OFTEN else PackedLinears((), 0)
        self._post, self._scale = self._update_of(place)
        with torch.no_grad():
            self.start = self._values(run) if place == "mlp" else self._stream[:, 0]
            self._settled = self._post(self.start) if self._post is not None else self.start

    @property
    def following(self) -> Float[Tensor, "batch _ d_model"]:
        """The stream after ``layer`` at the positions that follow those of ``start``, as it is without a change; padded at the end."""
        return self._stream[:, 1:]

    def logits(
        self, delta: Float[Tensor, "... d_model"], noise: Float[Tensor, "batch _ d_model"] | None = None
    ) -> Float[Tensor, "_ d_vocab"]:
        """Logits when ``delta`` is added to ``start``, differentiable with respect to it: those at the columns of the first prompt, then
        of the second, and so on.

        ``noise`` is added to the stream at the ``following`` positions.
        """
        with torch.enable_grad():
            changed = self.start + delta
            update = (changed if self._post is None else self._post(changed)) - self._settled
            first = self._stream[:, 0] + self._scale * update
            following = self.following if noise is None else self.following + noise
            entering = torch.cat([first[:, None], following], 1)
        model = self.model
        session = Session(visits={}, n_rows=len(entering), n_pos=self._width, offset=self._longest, gradients=True)
        with passing_over(model, self.layer + 1, self._returns), self._packed.applied():
            output = forward(
                model.hf,
                self._ids,
                session,
                unembed=model.atlas.unembed,
                before=lambda: [self._enter(entering), *only_at(model, session, self._columns), self._narrow()],
                **self._arguments(),
            )
        return output.logits[0]

    def _pack(self) -> PackedLinears:
        atlas = self.model.atlas
        after = [self._module(block.block) for block in atlas.blocks[self.layer + 1 :]]
        modules = [*(module for block in after for module in block.modules()), self._module(atlas.unembed)]
        free = least_free(self.model)
        if free is not None and packed_bytes(modules) > free // 4:
            modules = []
        return PackedLinears(modules, self._ids.numel())

    def _update_of(self, place: Place) -> tuple[nn.Module | None, float]:
        """The norm between the value and the stream, where there is one, and the factor of the update."""
        block = self.model.atlas.blocks[self.layer]
        if place == "block":
            return None, 1.0
        return (None if block.ln2_post is None else self._module(block.ln2_post)), block.mlp_scale

    def _values(self, run: "Run") -> Float[Tensor, "batch d_model"]:
        keys = run.cache[f"mlp.post@{self.layer}"]
        module = self._module(self.model.atlas.blocks[self.layer].down or "")
        return module(keys[torch.arange(len(keys)), self._positions]).to(self._device)

    def _module(self, path: str) -> nn.Module:
        module = module_at(self.model.hf, path)
        assert module is not None, f"the atlas holds {path!r}"
        return module

    def _narrow(self) -> Any:
        """Registers the hook that leaves only the wanted columns of each row to be unembedded, and returns its handle."""
        rows = [row for row, columns in enumerate(self._columns) for _ in columns]
        places = [column for columns in self._columns for column in columns]

        def hook(module: nn.Module, args: tuple[Any, ...]) -> Any:
            return (args[0][rows, places][None], *args[1:])

        return self._module(self.model.atlas.unembed).register_forward_pre_hook(hook)

    def _arguments(self) -> dict[str, Any]:
        arguments: dict[str, Any] = {"use_cache": False}
        if self._longest:
            arguments = {"use_cache": True, "past_key_values": Cache(layers=list(self._keys_values))}
        if len(set(self._positions)) > 1:
            key = torch.arange(self._longest + self._width, device=self._ids.device)
            missing = self._longest - self._places[:, :1]
            arguments["attention_mask"] = (key >= missing).long()
        if self.model.takes_position_ids:
            arguments["position_ids"] = self._places
        return arguments

    def _enter(self, entering: Float[Tensor, "batch pos d_model"]) -> Any:
        """Registers the hook that gives the stream to the first block that runs, and returns its handle."""
        model, layer = self.model, self.layer + 1
        path = model.atlas.blocks[layer].block if layer < model.atlas.n_layers else model.final_path
        module = self._module(path)

        def hook(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
            return ((entering, *args[1:]), kwargs) if args else (args, {**kwargs, "hidden_states": entering})

        return module.register_forward_pre_hook(hook, with_kwargs=True)


class _AlignedLayer(DynamicLayer):
    """Puts each row's keys and values from before its suffix in front of those being computed, ending in one column; never stores."""

    def __init__(self, pair: tuple[Tensor, Tensor], lengths: Sequence[int], longest: int) -> None:
        super().__init__()
        self.length = longest
        keys, values = (
            kept if kept.shape[0] == len(lengths) else kept.expand(len(lengths), -1, -1, -1) for kept in pair
        )
        self.prefix = tuple(
            torch.stack([_left_padded(row[:, :length], longest) for row, length in zip(kept, lengths, strict=True)])
            for kept in (keys, values)
        )

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        keys, values = self.prefix
        return torch.cat([keys, key_states], -2), torch.cat([values, value_states], -2)

    def get_seq_length(self) -> int:
        return self.length

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        return self.length + query_length, 0


def _left_padded(kept: Tensor, length: int) -> Tensor:
    return nn.functional.pad(kept, (0, 0, length - kept.shape[-2], 0))
