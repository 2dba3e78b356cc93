"""Turns the changes that a method found into an ``Edit``."""

from collections.abc import Mapping

import torch

from interp.editing.edit import Edit, LayerEdit, ValueCurve
from interp.editing.matrix import output_matrix
from interp.editing.settings import EditSettings
from interp.editing.stack import base_sha256, base_values
from interp.errors import NumericsError
from interp.maths.rank_one import LowRank
from interp.prompts import Fact
from interp.runner.model import Model


class EditMaker:
    """What all edits of one call have in common: model, facts, method, settings, and where layers and second moments came from."""

    def __init__(
        self,
        model: Model,
        facts: tuple[Fact, ...],
        method: str,
        settings: EditSettings,
        layer_source: str,
        moments: tuple[str, ...],
    ) -> None:
        self.model, self.method, self.settings = model, method, settings
        self._facts, self._source, self._moments = facts, layer_source, moments

    def edit(self, changes: Mapping[int, LowRank], curves: tuple[ValueCurve, ...] = (), seconds: float = 0.0) -> Edit:
        """The changes by layer as an edit. Raises NumericsError where one is not finite."""
        return Edit(
            provenance=self.model.provenance(),
            facts=self._facts,
            method=self.method,
            layers=tuple(self._layer(layer, change) for layer, change in sorted(changes.items())),
            layer_source=self._source,
            settings=self.settings.plain(),
            moments=self._moments,
            curves=curves,
            seconds=seconds,
        )

    def _layer(self, layer: int, change: LowRank) -> LayerEdit:
        if not bool(torch.isfinite(change.left).all() and torch.isfinite(change.right).all()):
            raise NumericsError(f"the change of layer {layer} holds NaN or infinity; the model is as it was")
        matrix = output_matrix(self.model, layer)
        return LayerEdit(
            layer=layer,
            path=matrix.path,
            transposed=matrix.transposed,
            left=change.left.cpu(),
            right=change.right.cpu(),
            base_dtype=str(matrix.weight.dtype).removeprefix("torch."),
            base_sha256=base_sha256(self.model, layer),
            base_norm=float(torch.linalg.matrix_norm(base_values(self.model, layer).float())),
        )
