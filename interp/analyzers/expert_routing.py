"""Expert routing: which experts each token passes in a model that has several in a layer, and with which weights."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import torch
from jaxtyping import Float, Int
from torch import Tensor

from interp.errors import UsageError, VerificationError
from interp.models.routers import Routing, route
from interp.prompts import PromptLike
from interp.results import Result
from interp.runner.model import Model
from interp.tokens import Tokens

if TYPE_CHECKING:
    from pandas import DataFrame
    from plotly.graph_objects import Figure


@dataclass(frozen=True, kw_only=True, eq=False)
class ExpertRoutingResult(Result):
    """The ``chosen`` experts of each token in the ``layers`` that have any, the heaviest first, and their ``weights``.

    A weight multiplies what its expert puts out; in some families they add up to 1, in others to the share that the chosen ones have.
    ``scores`` are the router's logits. ``share`` is the part of all weights of the prompt that an expert gets. In
    ``shared_layers`` every token also passes one more expert, which no router chooses.
    """

    kind: ClassVar[str] = "expert_routing"
    schema_version: ClassVar[int] = 2

    tokens: Tokens
    layers: tuple[int, ...]
    shared_layers: tuple[int, ...]
    scores: Float[Tensor, "layer pos expert"]
    chosen: Int[Tensor, "layer pos k"]
    weights: Float[Tensor, "layer pos k"]

    @property
    def share(self) -> Float[Tensor, "layer expert"]:
        """The part of all weights of the prompt that each expert gets; 1 / experts each would be an even load."""
        total = torch.zeros(len(self.layers), self.scores.shape[2], dtype=torch.float64)
        total.scatter_add_(1, self.chosen.flatten(1), self.weights.double().flatten(1))
        return (total / total.sum(1, keepdim=True)).float()

    def to_frame(self) -> "DataFrame":
        """One line for each layer, token and chosen expert."""
        import pandas as pd

        return pd.DataFrame(
            [
                {
                    "layer": layer,
                    "position": position,
                    "token": piece,
                    "choice": choice,
                    "expert": int(self.chosen[row, position, choice]),
                    "weight": float(self.weights[row, position, choice]),
                }
                for row, layer in enumerate(self.layers)
                for position, piece in enumerate(self.tokens.pieces)
                for choice in range(self.chosen.shape[2])
            ]
        )

    def figure(self) -> "Figure":
        """A heatmap of the share of all weights that each expert gets, over layers."""
        from interp.figures.expert_routing import share_heatmap

        return share_heatmap(self.share.double().numpy(), self.layers)


def expert_routing(model: Model, prompt: PromptLike) -> ExpertRoutingResult:
    """Runs a prompt once and reads what each router decides, from its own module on the stream that it saw.

    Raises:
        UsageError: a bad prompt; a model without experts.
        ModelError: a router that does not tell which experts it chose.
        VerificationError: the scores are not those of the run.

    """
    layers = tuple(layer for layer, block in enumerate(model.atlas.blocks) if block.router is not None)
    if not layers:
        raise UsageError(f"{model.name} has no experts: its layers have one MLP each")
    tokens = model.tokens(prompt)
    run = model.run(tokens, ["resid_mid", "mlp.router"], logits=False)
    found: list[Routing] = []
    for layer in layers:
        routing = route(model.hf, model.atlas, layer, run.cache[f"resid_mid@{layer}"][0])
        seen = run.cache[f"mlp.router@{layer}"][0].float()
        off = float((routing.scores - seen).abs().max())
        if not off <= 1e-3 * max(1.0, float(seen.abs().max())):
            raise VerificationError(f"in layer {layer} the router's scores differ from those of the run by {off:.2g}")
        found.append(_heaviest_first(routing))
    return ExpertRoutingResult(
        provenance=model.provenance(),
        tokens=tokens,
        layers=layers,
        shared_layers=tuple(layer for layer in layers if model.atlas.blocks[layer].shared_expert is not None),
        scores=torch.stack([routing.scores.cpu() for routing in found]),
        chosen=torch.stack([routing.chosen.cpu() for routing in found]),
        weights=torch.stack([routing.weights.cpu() for routing in found]),
    )


def _heaviest_first(routing: Routing) -> Routing:
    weights, order = routing.weights.sort(dim=-1, descending=True, stable=True)
    return Routing(scores=routing.scores, chosen=routing.chosen.gather(-1, order), weights=weights)
