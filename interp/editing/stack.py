"""Edits in a model's weights: several at once, undone in any order, the bytes from before coming back exactly.

For each model that holds edits its matrices are kept as they were, and the edits in the order in which they were applied. Every change
computes the matrices anew from what was kept, W = base + sum of left @ right, so nothing drifts. It is computed on the CPU, in float32
at least, and rounded once: the same bytes come out whatever device the model is on.

A change that is stopped in the middle, by an error or by Ctrl-C, leaves the model as it was before the call.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

import torch
from jaxtyping import Float
from torch import Tensor, nn

from interp.editing.matrix import OutputMatrix, output_matrix, sha256_of
from interp.errors import ModelError, NumericsError, UsageError
from interp.models.offload import execution_device
from interp.runner.model import Model
from interp.sites import read_layer

if TYPE_CHECKING:
    from interp.editing.edit import Edit, LayerEdit


@dataclass(frozen=True, kw_only=True, eq=False)
class _Kept:
    """A matrix as it was stored before any edit, on the CPU, and the hash of what was last written in its place."""

    base: Tensor
    base_sha256: str
    written_sha256: str


@dataclass(frozen=True, kw_only=True, eq=False)
class _State:
    """The edits in a model, in the order of their application, and what was kept of each layer that they touch."""

    edits: "tuple[Edit, ...]" = ()
    kept: dict[int, _Kept] = field(default_factory=dict)


@dataclass(kw_only=True, eq=False)
class _Stack:
    """``state`` is replaced as a whole when a change is done; until then ``unfinished`` holds the matrices to put back."""

    state: _State = field(default_factory=_State)
    unfinished: tuple[_State, dict[int, Tensor]] | None = None


_STACKS: WeakKeyDictionary[nn.Module, _Stack] = WeakKeyDictionary()
"""By the Hugging Face model; gone with it."""


def apply(model: Model, edit: "Edit", *, other_base: bool = False) -> None:
    """Writes an edit into the weights, on top of those that are there.

    Parameters stay the same objects, with their device, dtype and ``requires_grad``; a weight that is offloaded is changed where it is
    kept, and no file of the model is written to. ``other_base`` allows a model with other base weights.
    Raises UsageError where this Edit is applied already or does not fit the layers, ModelError for another base model and where the
    weights were changed by others since the last edit, NumericsError where the result is NaN or infinite. The model is then as before.
    """
    _add(model, (edit,), other_base)


def undo(model: Model, edit: "Edit | None" = None) -> None:
    """Takes an edit back, by default the last one. The weights are then what the other edits alone make of the base, bit for bit.

    Raises UsageError where it is not applied, ModelError where the weights were changed by others since the last edit.
    """
    edits = applied_edits(model)
    if not edits:
        raise UsageError(f"no edit is applied to {model.name}; apply one with edit.apply(model)")
    taken = edits[-1] if edit is None else edit
    if taken not in edits:
        raise UsageError(f"this edit is not applied to {model.name}; {len(edits)} others are, see applied_edits(model)")
    _change(model, tuple(other for other in edits if other is not taken))


def restore(model: Model) -> None:
    """Takes all edits back, also where the weights of their layers were changed by others: the kept bytes are written over them."""
    _change(model, (), check=False)


def applied_edits(model: Model) -> "tuple[Edit, ...]":
    """The edits in the weights, the first that was applied first."""
    return _stack(model).state.edits


@contextmanager
def applied(model: Model, *edits: "Edit", other_base: bool = False) -> Iterator[None]:
    """The model with these edits inside the block; they are taken back when it ends, whatever is raised. Blocks can be nested.

    Raises like ``apply``.
    """
    before = applied_edits(model)
    try:
        _add(model, edits, other_base)
        yield
    finally:
        try:
            _keep_only(model, before, edits)
        except KeyboardInterrupt:  # an impatient second Ctrl-C must not leave the edits in
            _keep_only(model, before, edits)
            raise


def base_sha256(model: Model, layer: int) -> str:
    """The SHA-256 of a layer's matrix as it was stored before any edit; negative layers count from the end."""
    kept = _kept(model, layer)
    return sha256_of(output_matrix(model, layer).stored) if kept is None else kept.base_sha256


def base_values(model: Model, layer: int) -> Float[Tensor, "d_model d_mlp"]:
    """A copy of a layer's matrix as it was before any edit, on the matrix's device; negative layers count from the end."""
    kept, matrix = _kept(model, layer), output_matrix(model, layer)
    stored = matrix.stored.clone() if kept is None else kept.base.to(execution_device(matrix.module), copy=True)
    return stored.T if matrix.transposed else stored


def check_base(model: Model, edit: "Edit", *, other_base: bool = False) -> None:
    """Raises UsageError where an edit does not fit the model's layers, ModelError where it was made for other base weights."""
    for change in edit.layers:
        shape, found = (len(change.left), change.right.shape[1]), output_matrix(model, change.layer).shape
        if found != shape:
            raise UsageError(
                f"the edit changes a matrix of {shape[0]} x {shape[1]} in layer {change.layer}, that of {model.name} is "
                f"{found[0]} x {found[1]}; apply it to the model it was made for, {edit.provenance.model}"
            )
    for change in () if other_base else edit.layers:
        own = base_sha256(model, change.layer)
        if own != change.base_sha256:
            dtype = str(output_matrix(model, change.layer).weight.dtype).removeprefix("torch.")
            formats = (
                "" if dtype == change.base_dtype else f" (the edit's in {change.base_dtype}, the model's in {dtype})"
            )
            raise ModelError(
                f"the edit was made for other weights: layer {change.layer} of {edit.provenance.model} had SHA-256 "
                f"{change.base_sha256}, that of {model.name} has {own}{formats}; load the edit's model, or say other_base=True"
            )


def _add(model: Model, edits: "tuple[Edit, ...]", other_base: bool) -> None:
    there = applied_edits(model)
    for index, edit in enumerate(edits):
        if edit in there or edit in edits[:index]:
            raise UsageError(
                f"this edit is applied to {model.name} already; undo it first, or load its file anew to apply it twice"
            )
        check_base(model, edit, other_base=other_base)
    _change(model, there + edits)


def _keep_only(model: Model, before: "tuple[Edit, ...]", edits: "tuple[Edit, ...]") -> None:
    """Takes those of ``edits`` back that are there and were not ``before``."""
    there = applied_edits(model)
    left = tuple(edit for edit in there if edit in before or edit not in edits)
    if left != there:
        _change(model, left)


def _change(model: Model, edits: "tuple[Edit, ...]", *, check: bool = True) -> None:
    """Writes the matrices that ``edits`` make where they differ from those of the edits that are there."""
    stack = _stack(model)
    before = stack.state
    old, new = _by_layer(before.edits), _by_layer(edits)
    kept, previous = dict(before.kept), dict[int, Tensor]()
    stack.unfinished = (before, previous)
    try:
        for layer in sorted(
            layer for layer in old.keys() | new.keys() if not check or old.get(layer) != new.get(layer)
        ):
            matrix = output_matrix(model, layer)
            found = _checked(matrix, kept.get(layer), model) if check else kept[layer]
            edited = _edited(found.base, new.get(layer, ()), matrix)
            previous[layer] = matrix.stored.clone()
            _write(matrix, edited)
            kept[layer] = _Kept(base=found.base, base_sha256=found.base_sha256, written_sha256=sha256_of(edited))
        stack.state = _State(edits=edits, kept={layer: found for layer, found in kept.items() if layer in new})
    finally:
        _settle(model, stack)


def _settle(model: Model, stack: _Stack) -> None:
    """Puts back what a change wrote that was not finished; if this is stopped too, the next call does it."""
    if stack.unfinished is not None and stack.unfinished[0] is stack.state:
        for layer, stored in stack.unfinished[1].items():
            _write(output_matrix(model, layer), stored)
    stack.unfinished = None


def _stack(model: Model) -> _Stack:
    stack = _STACKS.setdefault(model.hf, _Stack())
    _settle(model, stack)
    return stack


def _kept(model: Model, layer: int) -> _Kept | None:
    return _stack(model).state.kept.get(read_layer(layer, model.atlas.n_layers))


def _by_layer(edits: "tuple[Edit, ...]") -> "dict[int, tuple[LayerEdit, ...]]":
    changes: dict[int, tuple[LayerEdit, ...]] = {}
    for edit in edits:
        for change in edit.layers:
            changes[change.layer] = (*changes.get(change.layer, ()), change)
    return changes


def _checked(matrix: OutputMatrix, kept: _Kept | None, model: Model) -> _Kept:
    """What is kept of a matrix, made now if this is its first edit. Raises ModelError where it is not what was last written."""
    now = sha256_of(matrix.stored)
    if kept is None:
        base = matrix.stored.to("cpu", copy=True, memory_format=torch.contiguous_format)
        return _Kept(base=base, base_sha256=now, written_sha256=now)
    if now != kept.written_sha256:
        raise ModelError(
            f"the weight of {matrix.path} is not what the last edit wrote (SHA-256 {now}, not {kept.written_sha256}): other code "
            "changed it; put that back, or interp.editing.stack.restore(model) writes the weights from before the first edit"
        )
    return kept


def _edited(base: Tensor, changes: "tuple[LayerEdit, ...]", matrix: OutputMatrix) -> Tensor:
    """The matrix as it is to be stored: the base itself where there is no change."""
    if not changes:
        return base
    edited = edited_matrix(base, changes, transposed=matrix.transposed)
    if not edited.isfinite().all():
        raise NumericsError(
            f"the edit makes NaN or infinite weights in layer {matrix.layer} in {str(base.dtype).removeprefix('torch.')}; "
            "make it again, or load the model in float32 or bfloat16"
        )
    return edited


def edited_matrix(base: Tensor, changes: "tuple[LayerEdit, ...]", *, transposed: bool) -> Tensor:
    """``base`` with low-rank changes added in their order, in float32 at least, then rounded to its dtype; stored as ``base`` is."""
    precise = torch.promote_types(base.dtype, torch.float32)
    values = base.to(precise, copy=True)
    target = values.T if transposed else values
    for change in changes:
        target += change.left.detach().to("cpu", precise) @ change.right.detach().to("cpu", precise)
    return values.to(base.dtype)


def _write(matrix: OutputMatrix, stored: Tensor) -> None:
    matrix.write(stored)
