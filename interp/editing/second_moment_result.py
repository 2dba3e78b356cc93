"""The second moment of one layer's keys as a result: a file, its shrinkage, its spectrum, what it may be used for."""

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, ClassVar

from jaxtyping import Float64
from torch import Tensor

from interp.editing.stack import base_sha256
from interp.errors import ModelError, UsageError
from interp.maths.second_moment import Moments, condition_number, eigenvalues, has_inverse, ledoit_wolf, shrink
from interp.results import Result
from interp.runner.model import Model
from interp.sites import read_layer

if TYPE_CHECKING:
    from pandas import DataFrame
    from plotly.graph_objects import Figure


ENOUGH_TOKENS_PER_DIMENSION = 32
"""Tokens for each dimension of the keys from which on nothing is shrunk: the error of C is then small beside what C says."""


@dataclass(frozen=True, kw_only=True, eq=False)
class SecondMoment(Result):
    """The mean of k k^T over the keys k of a layer, uncentred and not shrunk.

    Keys are what the MLP's output projection of ``layer`` gets (``mlp.post``), at every token of the corpus, the first of each text
    as well. ``fourth_moment`` is the mean of |k|^4, which the shrinkage is chosen by. ``n_texts`` are the pieces of text that the
    ``n_tokens`` stood in. ``base_sha256`` is of the layer's stored output projection.
    """

    kind: ClassVar[str] = "second_moment"
    schema_version: ClassVar[int] = 1

    layer: int
    matrix: Float64[Tensor, "d_mlp d_mlp"]
    fourth_moment: float
    n_tokens: int
    n_texts: int
    corpus: str
    corpus_sha256: str
    base_sha256: str

    @property
    def width(self) -> int:
        """Width of a key, d_mlp."""
        return self.matrix.shape[0]

    @property
    def moments(self) -> Moments:
        """The numbers alone."""
        return Moments(matrix=self.matrix, fourth=self.fourth_moment, n_rows=self.n_tokens)

    @cached_property
    def eigenvalues(self) -> Float64[Tensor, " d_mlp"]:
        """The eigenvalues of the matrix, greatest first."""
        return eigenvalues(self.matrix)

    @cached_property
    def automatic_shrinkage(self) -> float:
        """How much is shrunk unless told otherwise; see ``shrunk``."""
        if self.n_tokens >= ENOUGH_TOKENS_PER_DIMENSION * self.width and has_inverse(self.matrix):
            return 0.0
        return ledoit_wolf(self.moments)

    def shrunk(self, shrinkage: float | None = None) -> Float64[Tensor, "d_mlp d_mlp"]:
        """(1 - a) C + a (tr C / d) I for the amount a, from 0 to 1.

        None chooses it by the number of tokens: 0 where there are 32 or more for each dimension, else the amount of least expected
        error of Ledoit and Wolf (2004) (``interp.maths.second_moment.ledoit_wolf``). That is taken as well where C has no inverse,
        however many tokens there are, as with units that never fire. Raises UsageError for an amount out of range.
        """
        return shrink(self.matrix, self._amount(shrinkage))

    def condition_number(self, shrinkage: float | None = 0.0) -> float:
        """The greatest eigenvalue of C over the least, after shrinking; infinite where C has no inverse. None shrinks as ``shrunk``."""
        return condition_number(self.eigenvalues, self._amount(shrinkage))

    def check(self, model: Model, layer: int, min_tokens: int | None = None) -> None:
        """That this may be used for a layer of a model.

        ``min_tokens`` is how many tokens are needed; None is one for each dimension of the keys, below which C has no inverse.
        Raises ModelError where it is of another model or layer, UsageError where it has too few tokens.
        """
        layer = read_layer(layer, model.atlas.n_layers)
        command = f"interp moments {model.name} --layer {layer}"
        weights = None if model.source is None else model.source.weights_sha256
        if None not in (weights, self.provenance.weights_sha256) and weights != self.provenance.weights_sha256:
            raise ModelError(
                f"the second moment is of {self.provenance.model} (weights {_short(self.provenance.weights_sha256)}), the model is "
                f"{model.name} ({_short(weights)}); make one of this model: {command} -o FILE"
            )
        if layer != self.layer:
            raise ModelError(
                f"the second moment is of layer {self.layer}, layer {layer} is needed; make one of it: {command} -o FILE"
            )
        base = base_sha256(model, layer)
        if base != self.base_sha256:
            raise ModelError(
                f"the second moment was measured with other weights in layer {layer} ({_short(self.base_sha256)}) than the model "
                f"has ({_short(base)}); make one of this model: {command} -o FILE"
            )
        needed = self.width if min_tokens is None else min_tokens
        if self.n_tokens < needed:
            raise UsageError(
                f"the second moment of layer {layer} has {self.n_tokens:,} tokens, {needed:,} are needed; make one of more: "
                f"{command} --corpus FILE --max-tokens {needed} -o FILE"
            )

    def to_frame(self) -> "DataFrame":
        """One line for each eigenvalue, greatest first, as it is and after the automatic shrinkage."""
        import pandas as pd

        amount, mean = self.automatic_shrinkage, float(self.eigenvalues.mean())
        values = self.eigenvalues.numpy()
        return pd.DataFrame(
            {
                "layer": self.layer,
                "direction": range(self.width),
                "eigenvalue": values,
                "share_of_trace": values / values.sum(),
                "shrunk_eigenvalue": (1 - amount) * values + amount * mean,
            }
        )

    def figure(self) -> "Figure":
        """The spectrum: the eigenvalues, greatest first, as they are and after the automatic shrinkage."""
        from interp.figures.second_moment import spectrum

        frame = self.to_frame()
        amount = self.automatic_shrinkage
        lines = {f"layer {self.layer}, as measured": frame["eigenvalue"].to_numpy()}
        if amount:
            lines[f"shrunk by {amount:.2g}"] = frame["shrunk_eigenvalue"].to_numpy()
        return spectrum(lines)

    def _amount(self, shrinkage: float | None) -> float:
        if shrinkage is None:
            return self.automatic_shrinkage
        if not 0 <= shrinkage <= 1:
            raise UsageError(f"shrinkage is {shrinkage}; valid: 0 (none) to 1 (the identity), or None to choose it")
        return shrinkage


def _short(digest: str | None) -> str:
    return "made in memory" if digest is None else f"SHA-256 {digest[:12]}"
