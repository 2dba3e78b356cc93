"""A tuned lens: per layer an affine map from the normed stream to the normed final stream, fitted on text in closed form.

See ``interp.maths.tuned_lens`` for what is solved and where it departs from Belrose et al. (2023).
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from interp.errors import UsageError
from interp.maths.tuned_lens import TranslatorFitter, translate
from interp.prompts import PromptLike
from interp.results import Result
from interp.runner.memory import in_halves
from interp.runner.model import Model
from interp.sites import Site
from interp.tokens import Tokens, from_ids, tokenize

if TYPE_CHECKING:
    from pandas import DataFrame
    from plotly.graph_objects import Figure

_BATCH = 8


@dataclass(frozen=True, kw_only=True, eq=False)
class TunedLens(Result):
    """Translators for the stream after each block; pass it as ``interp.logit_lens(model, prompt, lens=tuned)``.

    ``weight`` and ``bias`` act on normed streams. ``explained_variance`` is the share of the normed final stream's variance that the
    translated stream explains on the fitted text. The last layer's translator is the identity, so the lens ends in the model's logits.
    """

    kind: ClassVar[str] = "tuned_lens"
    schema_version: ClassVar[int] = 1

    weight: Float[Tensor, "layer d_model d_model"]
    bias: Float[Tensor, "layer d_model"]
    explained_variance: Float[Tensor, " layer"]
    n_tokens: int
    ridge: float

    def check(self, model: Model, sites: Sequence[Site]) -> None:
        """Raises UsageError where the lens does not fit the model or the sites to read."""
        other = next((site for site in sites if site.kind != "resid_post"), None)
        if other is not None:
            raise UsageError(
                f"a tuned lens reads resid_post only, not {other.kind}; leave lens out or ask for resid_post"
            )
        shape = (model.atlas.n_layers, model.atlas.d_model)
        if tuple(self.bias.shape) != shape:
            raise UsageError(
                f"the tuned lens is for {self.bias.shape[0]} layers of width {self.bias.shape[1]}, "
                f"the model has {shape[0]} of width {shape[1]}; fit one with interp.fit_tuned_lens(model, texts)"
            )
        own = model.provenance().weights_sha256
        if None not in (own, self.provenance.weights_sha256) and own != self.provenance.weights_sha256:
            raise UsageError(
                f"the tuned lens was fitted on other weights ({self.provenance.model}) than those of {model.name}; "
                "fit one with interp.fit_tuned_lens(model, texts)"
            )

    def apply(
        self, normed: Float[Tensor, "layer pos d_model"], layers: Sequence[int]
    ) -> Float[Tensor, "layer pos d_model"]:
        """Normed streams after these layers, translated."""
        index = torch.tensor(list(layers))
        out = translate(normed, self.weight[index].to(normed.device), self.bias[index].to(normed.device))
        last = index == len(self.bias) - 1
        # Bit for bit: the last layer's stream is not to pass through a matrix product.
        out[last] = normed[last]
        return out

    def to_frame(self) -> "DataFrame":
        """One line for each layer."""
        import pandas as pd

        eye = torch.eye(self.weight.shape[1])
        return pd.DataFrame(
            {
                "layer": range(len(self.bias)),
                "explained_variance_share": self.explained_variance.tolist(),
                "distance_from_identity": (self.weight - eye).norm(dim=(1, 2)).tolist(),
                "bias_norm": self.bias.norm(dim=1).tolist(),
            }
        )

    def figure(self) -> "Figure":
        """The share of the final state's variance that each layer explains."""
        from interp.figures.story import story_lines

        return story_lines(
            {"tuned lens": self.explained_variance.double().numpy()},
            rows=[str(layer) for layer in range(len(self.bias))],
            unit="explained variance of the final state",
        )


def fit_tuned_lens(
    model: Model,
    texts: Iterable[PromptLike],
    *,
    ridge: float = 0.01,
    max_tokens: int = 100_000,
    max_length: int = 256,
) -> TunedLens:
    """Fits a tuned lens on texts.

    Args:
        model: the model.
        texts: prompts; read until ``max_tokens`` tokens have been seen.
        ridge: the pull towards the plain lens, relative to the variance of the streams.
        max_tokens: how many tokens to fit on; several times ``d_model`` are needed for more than a slight change.
        max_length: tokens of each text that are used (at most the context).

    Raises:
        UsageError: no text, or a bad ``ridge``.
        NumericsError: NaN or infinite streams.

    """
    fitter = TranslatorFitter(model.atlas.n_layers, model.atlas.d_model)
    length = min(max_length, model.atlas.n_ctx or max_length)
    remaining = iter(texts)
    while fitter.n_tokens < max_tokens:
        batch = [_cut(model, text, length) for text in islice(remaining, _BATCH)]
        if not batch:
            break
        # One update a batch: a product over a few rows is slow.
        parts = [rows for _, rows in in_halves(model, batch, partial(_normed, model), "texts")]
        normed = torch.cat(parts, 1) if len(parts) > 1 else parts[0]
        fitter.update(normed, normed[-1])
    fitted = fitter.result(ridge=ridge)
    return TunedLens(
        provenance=model.provenance(),
        weight=fitted.weight,
        bias=fitted.bias,
        explained_variance=fitted.explained,
        n_tokens=fitted.n_tokens,
        ridge=ridge,
    )


def _normed(model: Model, batch: Sequence[Tokens]) -> Float[Tensor, "layer row d_model"]:
    """The normed streams behind every layer at the real positions of some texts."""
    streams = model.run(list(batch), "resid_post", logits=False).cache.stack("resid_post")
    return model.final_norm(torch.cat([streams[:, i, : len(tokens)] for i, tokens in enumerate(batch)], 1))


def _cut(model: Model, text: PromptLike, length: int) -> Tokens:
    return model.tokens(from_ids(model.tokenizer, tokenize(model.tokenizer, text).ids[:length]))
