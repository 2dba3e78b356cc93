"""The tuned lens in closed form (Belrose et al. 2023, "Eliciting Latent Predictions from Transformers with the Tuned Lens").

The paper translates the stream of each layer by an affine map before the final norm, ``norm(A h + b) W_U``, and trains A and b by
gradient descent on the KL divergence to the model's final distribution. Here the map acts after the norm, from the normed stream of a
layer to the normed final stream, and is the solution of a ridge regression. Departures, and why:

- Squared error in place of KL: one pass over text and one linear system per layer, no learning rate, the same result every time. The
  best linear estimate of the final state does not depend on how the unembedding weighs its axes.
- After the norm in place of before: the first token's stream is often a hundred times as long as the others and would rule the
  regression; the norm takes that off. What the unembedding reads is estimated directly.
- The penalty pulls towards the identity, ``ridge * |A - I|²``, so that with little text the lens falls back to the plain logit lens. The
  paper starts at the identity for the same reason.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from interp.errors import NumericsError, UsageError


@dataclass(frozen=True, kw_only=True, eq=False)
class Translators:
    """``x -> x weightᵀ + bias`` for each layer, between normed streams. ``explained`` is the share of the final state's variance over the
    fitted text that the translated stream explains (1 is all; below 0 is worse than the mean).
    """

    weight: Float[Tensor, "layer d_model d_model"]
    bias: Float[Tensor, "layer d_model"]
    explained: Float[Tensor, " layer"]
    n_tokens: int


def translate(
    normed: Float[Tensor, "layer pos d_model"],
    weight: Float[Tensor, "layer d_model d_model"],
    bias: Float[Tensor, "layer d_model"],
) -> Float[Tensor, "layer pos d_model"]:
    """Every layer's normed stream through its own translator."""
    return torch.baddbmm(bias[:, None].to(normed), normed, weight.to(normed).transpose(1, 2))


class TranslatorFitter:
    """Ridge regression from the normed stream of each layer to the normed final stream, from batches of positions.

    The products of one batch are fp32; they are summed in fp64, which a second moment over many thousands of tokens needs:
    ``layers * d_model²`` numbers, twice.
    """

    def __init__(self, n_layers: int, d_model: int) -> None:
        self.n_tokens = 0
        self._xx = torch.zeros(n_layers, d_model, d_model, dtype=torch.float64)
        self._xy = torch.zeros_like(self._xx)
        self._x = torch.zeros(n_layers, d_model, dtype=torch.float64)
        self._y = torch.zeros(d_model, dtype=torch.float64)
        self._yy = 0.0

    def update(self, normed: Float[Tensor, "layer row d_model"], final: Float[Tensor, "row d_model"]) -> None:
        """Adds positions. Raises NumericsError for NaN or infinity, which would spoil every sum."""
        x, y = normed.float(), final.float()
        if not (torch.isfinite(x).all() and torch.isfinite(y).all()):
            raise NumericsError("a residual stream is NaN or infinite; check the weights, or use dtype='float32'")
        transposed = x.transpose(1, 2)
        self._xx += (transposed @ x).cpu()
        self._xy += (transposed @ y).cpu()
        self._x += x.sum(1).cpu()
        self._y += y.sum(0).cpu()
        self._yy += float(y.square().sum())
        self.n_tokens += len(y)

    def result(self, *, ridge: float = 0.01) -> Translators:
        """Solves ``min |X Aᵀ + b - Y|² + penalty |A - I|²`` for each layer.

        ``ridge`` is the penalty relative to ``n_tokens`` times the mean variance of the layer's axes, so that it means the same for any
        amount of text and any scale.
        """
        if self.n_tokens < 2:
            raise UsageError("a tuned lens needs text: at least two tokens")
        if not ridge > 0:
            raise UsageError(f"ridge is {ridge}; it must be greater than 0")
        n, (n_layers, d_model) = self.n_tokens, self._x.shape
        x_mean, y_mean = self._x / n, self._y / n
        xx = self._xx - n * x_mean[:, :, None] * x_mean[:, None, :]
        xy = self._xy - n * x_mean[:, :, None] * y_mean
        penalty = ridge * xx.diagonal(dim1=1, dim2=2).mean(1).clamp(min=torch.finfo(torch.float64).tiny)
        eye = torch.eye(d_model, dtype=torch.float64)
        weight = torch.empty_like(xx)  # transposed: x @ weight
        for layer in range(n_layers):
            weight[layer] = torch.linalg.solve(xx[layer] + penalty[layer] * eye, xy[layer] + penalty[layer] * eye)
        y_variance = self._yy - n * float(y_mean.square().sum())
        error = y_variance - 2 * (weight * xy).sum((1, 2)) + (weight * (xx @ weight)).sum((1, 2))
        return Translators(
            weight=weight.transpose(1, 2).float().contiguous(),
            bias=(y_mean - torch.einsum("ld,lde->le", x_mean, weight)).float(),
            explained=(1 - error / y_variance).float(),
            n_tokens=n,
        )
