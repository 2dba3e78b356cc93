"""The rows of a causal trace: what is restored in each cell, as changes to the corrupted run."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from interp.analyzers.entries import streams_after
from interp.analyzers.sweep import Part
from interp.interventions import Patch
from interp.maths.tracing import window_layers
from interp.runner.model import Model
from interp.runner.run import Run
from interp.sites import Site

WRITERS = {"mlp": "mlp_out", "attn": "attn_out"}
"""The sites whose windows are restored."""
SEVERED = {"resid-mlp-severed": "mlp_out", "resid-attn-severed": "attn_out"}
"""The sites that are held at their corrupted value after the restored stream."""


@dataclass(frozen=True, eq=False)
class Cells:
    """One part of the sweep with the cells that it measures.

    ``layers[i]`` are the layers whose cells have the numbers of the part's i-th row of each sample: windows cut to the same
    layers are run once.
    """

    kind: str
    position: int
    layers: tuple[tuple[int, ...], ...]
    part: Part


_Changes = tuple[list[tuple[int, ...]], list[int], list[list[Patch]]]
"""Of each row: the layers whose cells it gives, the first layer that it changes, and its changes."""


class Restorer:
    """Makes the rows that restore states of ``clean`` in the ``corrupted`` run, one prompt there a sample.

    ``clean`` holds ``resid_post``, ``mlp_out`` and ``attn_out``, as far as the kinds need them; ``corrupted`` the outputs that
    are held at their corrupted value.
    """

    def __init__(self, model: Model, clean: Run, corrupted: Run, width: int) -> None:
        self._model, self._clean, self._corrupted, self._width = model, clean, corrupted, width
        self._n_layers, self._n_samples = model.atlas.n_layers, len(corrupted.tokens)
        self._entered: dict[str, tuple[Tensor, ...]] = {}

    def parts(self, kinds: Sequence[str], first: int, n_pos: int) -> Iterator[Cells]:
        """The parts for the kinds, at the positions from ``first`` up to ``n_pos - 1``, the first whose logits are read.

        Left out are cells whose value is known because they reach no logit that is read: what the last block writes at an earlier
        position.
        """
        for kind in kinds:
            for position in range(first, n_pos):
                cells = self._cells(kind, position, reaches_last=position == n_pos - 1)
                if cells.layers:
                    yield cells

    def _cells(self, kind: str, position: int, *, reaches_last: bool) -> Cells:
        layers, starts, changes = self._windows(kind, position) if kind in WRITERS else self._streams(kind, position)
        chosen = [i for i, start in enumerate(starts) if reaches_last or start < self._n_layers - 1]
        rows = [changes[i] for i in chosen for _ in range(self._n_samples)]
        prompts = list(range(self._n_samples)) * len(chosen)
        part = Part(name=f"{kind} {position}", rows=rows, prompts=prompts)
        return Cells(kind, position, tuple(layers[i] for i in chosen), part)

    def _streams(self, kind: str, position: int) -> _Changes:
        """A stream restored, and where the kind is severed what is written later at the position kept as in the corrupted run."""
        layers = range(self._n_layers)
        changes = [[self._restored("resid_post", layer, position)] for layer in layers]
        if kind in SEVERED:
            held = [self._held(SEVERED[kind], layer, position) for layer in layers]
            changes = [[*change, *held[layer + 1 :]] for layer, change in enumerate(changes)]
        return [(layer,) for layer in layers], list(layers), changes

    def _windows(self, kind: str, position: int) -> _Changes:
        """What the layers of a window write restored.

        The first enters as the stream that then leaves its block, so that the block need not run.
        """
        windows: dict[range, list[int]] = {}
        for layer in range(self._n_layers):
            windows.setdefault(window_layers(layer, self._width, self._n_layers), []).append(layer)
        restored = [self._restored(WRITERS[kind], layer, position) for layer in range(self._n_layers)]
        columns = slice(position, position + 1)
        entered = [
            Patch(Site("resid_post", layer).name, stream[:, columns], positions=position, by_prompt=True)
            for layer, stream in enumerate(self._streams_after(WRITERS[kind]))
        ]
        changes = [[entered[window.start], *restored[window.start + 1 : window.stop]] for window in windows]
        return [tuple(same) for same in windows.values()], [window.start for window in windows], changes

    def _restored(self, kind: str, layer: int, position: int) -> Patch:
        site = Site(kind, layer).name
        return Patch(site, self._clean.cache[site][0, position], positions=position)

    def _held(self, kind: str, layer: int, position: int) -> Patch:
        site = Site(kind, layer).name
        value = self._corrupted.cache[site][:, position : position + 1]
        return Patch(site, value, positions=position, by_prompt=True)

    def _streams_after(self, kind: str) -> tuple[Tensor, ...]:
        if kind not in self._entered:
            layers = range(self._n_layers)
            clean = torch.stack([self._clean.cache[Site(kind, layer).name] for layer in layers])
            shared = clean.expand(-1, self._n_samples, -1, -1)
            self._entered[kind] = streams_after(self._model, self._corrupted, kind, shared)
        return self._entered[kind]


def clean_sites(kinds: Sequence[str]) -> tuple[str, ...]:
    """What the clean run must capture to restore these kinds."""
    streams = ("resid_post",) if any(kind not in WRITERS for kind in kinds) else ()
    return (*streams, *(WRITERS[kind] for kind in kinds if kind in WRITERS))


def corrupted_sites(kinds: Sequence[str]) -> tuple[str, ...]:
    """What the corrupted run must capture for these kinds."""
    return tuple(SEVERED[kind] for kind in kinds if kind in SEVERED)


def filled(
    cells: Sequence[Cells],
    found: Mapping[str, Float[Tensor, "row metric"]],
    corrupted: Float[Tensor, "sample metric"],
    kinds: Sequence[str],
    n_layers: int,
    n_pos: int,
) -> Float[Tensor, "metric kind layer pos sample"]:
    """The numbers of the sweep in their cells. A cell that was not run holds the corrupted value, which it cannot change."""
    samples, n_metrics = corrupted.shape
    out = corrupted.T[:, None, None, None].repeat(1, len(kinds), n_layers, n_pos, 1)
    for item in cells:
        values = found[item.part.name].reshape(len(item.layers), samples, n_metrics)
        for row, same in zip(values, item.layers, strict=True):
            for layer in same:
                out[:, kinds.index(item.kind), layer, item.position] = row.T
    return out
