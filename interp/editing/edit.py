"""An edit as a thing: low-rank changes of MLP output projections, with what they are for and where they came from."""

import math
import os
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from interp.editing import stack
from interp.editing.matrix import output_matrix
from interp.editing.model_export import export_model
from interp.editing.peft_export import export_peft
from interp.errors import UsageError
from interp.prompts import Fact
from interp.results import Result
from interp.runner.model import Model

if TYPE_CHECKING:
    from pandas import DataFrame
    from plotly.graph_objects import Figure


@dataclass(frozen=True, kw_only=True, eq=False)
class LayerEdit:
    """The change of one layer's matrix, ``left @ right`` [d_model d_mlp], fp32: ``left`` is written where a key meets ``right``.

    ``path`` and ``transposed`` say where the weight is and how it is stored (see ``OutputMatrix``); ``base_sha256`` is of its stored
    bytes before any edit, in ``base_dtype``; ``base_norm`` its Frobenius norm then.
    """

    layer: int
    path: str
    transposed: bool
    left: Float[Tensor, "d_model rank"]
    right: Float[Tensor, "rank d_mlp"]
    base_dtype: str
    base_sha256: str
    base_norm: float

    def __post_init__(self) -> None:
        if self.layer < 0:
            raise UsageError(f"the layer of a change is counted from 0, got {self.layer}")
        if self.left.ndim != 2 or self.right.ndim != 2 or self.left.shape[1] != self.right.shape[0]:
            shapes = f"{list(self.left.shape)} and {list(self.right.shape)}"
            raise UsageError(f"left and right of a change must be [d_model rank] and [rank d_mlp], got {shapes}")

    @property
    def rank(self) -> int:
        """The number of columns of ``left``: the most that the rank of the change can be."""
        return self.left.shape[1]

    @property
    def norm(self) -> float:
        """The Frobenius norm of the change, |dW|."""
        left, right = self.left.detach().cpu().double(), self.right.detach().cpu().double()
        return math.sqrt(max(0.0, float(((left.T @ left) * (right @ right.T)).sum())))

    @property
    def relative_norm(self) -> float:
        """|dW| / |W|, W before any edit."""
        return self.norm / self.base_norm if self.base_norm else math.nan


@dataclass(frozen=True, kw_only=True, eq=False)
class ValueCurve:
    """How the value of one fact was found: each step of the optimisation, before its update.

    Where steps without noise may follow (``quiet_steps``), also what the value does without noise; where it was shortened then, last that.

    ``nats`` parts sum to ``loss``: the target's mean negative log-likelihood over the contexts, the divergence of what is to stay (on the
    essence prompt, and where there are any on the overhearers), the decay of delta. ``probability`` is the geometric mean over the
    contexts of the target's probability per token; ``bare_probability`` that of the prompt without a context. ``delta_norm`` and
    ``start_norm`` are |delta| and |v0|. ``stop_reason`` is "steps", "loss" (it fell below its threshold), "likely" (after steps without
    noise) or "enough" (then shortened to what is enough).
    """

    loss_nats: Float[Tensor, " step"]
    target_nats: Float[Tensor, " step"]
    essence_nats: Float[Tensor, " step"]
    decay_nats: Float[Tensor, " step"]
    probability: Float[Tensor, " step"]
    bare_probability: Float[Tensor, " step"]
    delta_norm: Float[Tensor, " step"]
    start_norm: float
    stop_reason: str


@dataclass(frozen=True, kw_only=True, eq=False)
class Edit(Result):
    """Facts written into a model, as low-rank changes of a few matrices.

    ``layer_source`` says how the layers were chosen: "given", "table" (measured before, stored with interp) or "sweep" (measured on
    this model in this call). ``settings`` are those of the method, ``moments`` one line for each second moment that was used.
    ``curves`` has one entry a fact.
    """

    kind: ClassVar[str] = "edit"
    schema_version: ClassVar[int] = 1

    facts: tuple[Fact, ...]
    method: str
    layers: tuple[LayerEdit, ...]
    layer_source: str
    settings: dict[str, int | float | str | bool | None]
    moments: tuple[str, ...]
    curves: tuple[ValueCurve, ...]
    seconds: float

    def apply(self, model: Model, *, other_base: bool = False) -> None:
        """Writes the edit into the model's weights, on top of the edits that are there.

        ``other_base`` allows a model with other base weights of the same shapes. Raises UsageError where this edit is applied already or
        does not fit the model's layers, ModelError for another base model and where other code changed the weights since the last edit,
        NumericsError where the result is NaN or infinite. The model is then as it was before the call.
        """
        stack.apply(model, self, other_base=other_base)

    def undo(self, model: Model) -> None:
        """Takes the edit back, whatever was applied after it; without edits the weights are the bytes from before the first.

        Raises UsageError where it is not applied, ModelError where other code changed the weights since the last edit.
        """
        stack.undo(model, self)

    def applied(self, model: Model, *, other_base: bool = False) -> AbstractContextManager[None]:
        """The model with the edit inside a ``with`` block, and as before it afterwards, whatever is raised. Blocks can be nested.

        Raises like ``apply``.
        """
        return stack.applied(model, self, other_base=other_base)

    def check(self, model: Model, other_base: bool = False) -> None:
        """Holds the edit against a model's weights from before any edit.

        Raises UsageError where it does not fit the model's layers, ModelError (with both hashes) where a layer that it changes had other
        weights, which ``other_base`` allows.
        """
        stack.check_base(model, self, other_base=other_base)

    def rebased(self, model: Model) -> "Edit":
        """The same change as an edit of another model, whose weights it then asks for. Raises UsageError where it does not fit."""
        self.check(model, other_base=True)
        return replace(self, layers=tuple(_rebased(change, model) for change in self.layers))

    def export_peft(self, folder: str | os.PathLike[str]) -> None:
        """Writes the edit as a LoRA adapter that ``peft.PeftModel.from_pretrained(base, folder)`` reads, all of it or nothing.

        Raises UsageError where ``folder`` exists and is not empty, or cannot be written.
        """
        export_peft(self, folder)

    def export_model(self, folder: str | os.PathLike[str], model: Model | None = None) -> None:
        """Writes the model with the edit as a folder of safetensors with its tokenizer, all of it or nothing.

        Edits that are applied to ``model`` are in it too; without a model the base is loaded by its name in the provenance, in the dtype
        of the edit. Raises UsageError where ``folder`` exists and is not empty, or cannot be written, and like ``apply``.
        """
        export_model(self, folder, model)

    def to_frame(self) -> "DataFrame":
        """One row a layer: the rank of its change, |dW|, |W| before any edit, their ratio, and the module."""
        import pandas as pd

        return pd.DataFrame(
            {
                "layer": [change.layer for change in self.layers],
                "rank": [change.rank for change in self.layers],
                "update_norm": [change.norm for change in self.layers],
                "base_norm": [change.base_norm for change in self.layers],
                "relative_norm": [change.relative_norm for change in self.layers],
                "path": [change.path for change in self.layers],
            }
        )

    def figure(self) -> "Figure":
        """The probability of each target and the losses while its value was optimised; without curves the norms of the changes."""
        from interp.figures.edit import Curve, relative_norms, value_curves

        if not self.curves:
            return relative_norms(
                [change.layer for change in self.layers], [change.relative_norm for change in self.layers]
            )
        return value_curves(
            [
                Curve(
                    label=f"{fact.prompt}{fact.target}",
                    probability=curve.probability.double().numpy(),
                    bare_probability=curve.bare_probability.double().numpy(),
                    loss=curve.loss_nats.double().numpy(),
                    target=curve.target_nats.double().numpy(),
                    essence=curve.essence_nats.double().numpy(),
                    decay=curve.decay_nats.double().numpy(),
                )
                for fact, curve in zip(self.facts, self.curves, strict=True)
            ]
        )


def _rebased(change: LayerEdit, model: Model) -> LayerEdit:
    matrix, values = output_matrix(model, change.layer), stack.base_values(model, change.layer)
    return replace(
        change,
        path=matrix.path,
        transposed=matrix.transposed,
        base_dtype=str(values.dtype).removeprefix("torch."),
        base_sha256=stack.base_sha256(model, change.layer),
        base_norm=float(torch.linalg.matrix_norm(values.float())),
    )
