"""The matrix that edits change: the MLP's output projection W, from keys [d_mlp] to values [d_model]."""

import hashlib
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from interp.errors import UsageError
from interp.models.atlas import module_at
from interp.models.offload import read_weight, write_weight
from interp.runner.model import Model
from interp.sites import read_layer


@dataclass(frozen=True, kw_only=True, eq=False)
class OutputMatrix:
    """The output projection of one layer's MLP.

    ``path`` is the module's; ``transposed`` says that its weight is stored [d_mlp d_model], as in transformers' Conv1D, and not
    [d_model d_mlp], as in nn.Linear.
    """

    layer: int
    path: str
    transposed: bool
    module: nn.Module

    @property
    def weight(self) -> nn.Parameter:
        """The parameter; on the meta device where it is offloaded."""
        return self.module.get_parameter("weight")

    @property
    def stored(self) -> Tensor:
        """The weight as it is stored, on the module's device; the model's own memory unless it is offloaded."""
        found = read_weight(self.module)
        assert found is not None, "the module has a weight"
        return found

    @property
    def shape(self) -> tuple[int, int]:
        """d_model and d_mlp."""
        rows, columns = self.weight.shape
        return (columns, rows) if self.transposed else (rows, columns)

    def write(self, stored: Tensor) -> None:
        """Puts other values in the weight's place, shaped as ``stored`` is; an offloaded one is changed where it is kept."""
        write_weight(self.module, "weight", stored)

    @property
    def values(self) -> Float[Tensor, "d_model d_mlp"]:
        """The matrix as [d_model d_mlp]; shares the model's memory unless it is offloaded."""
        return self.stored.T if self.transposed else self.stored

    @property
    def norm(self) -> float:
        """The Frobenius norm |W|."""
        return float(torch.linalg.matrix_norm(self.values.float()))


def output_matrix(model: Model, layer: int) -> OutputMatrix:
    """The matrix of a layer; negative layers count from the end.

    Raises UsageError for a layer that the model does not have, for one whose MLP is a mixture of experts, and where the weight is
    shared with another module, which an edit would change too.
    """
    layer = read_layer(layer, model.atlas.n_layers)
    block = model.atlas.blocks[layer]
    if block.experts is not None:
        raise UsageError(
            f"layer {layer} of {model.name} is a mixture of experts: each token passes its own few output projections, so no one "
            "matrix holds the fact; edit a layer with a dense MLP" + _dense_layers(model)
        )
    if block.down is None:
        raise UsageError(f"the MLP of layer {layer} of {model.name} has no output projection that the atlas knows")
    module = module_at(model.hf, block.down)
    weight = getattr(module, "weight", None)
    if module is None or not isinstance(weight, nn.Parameter):
        raise UsageError(
            f"{block.down} holds no plain weight (it may be quantised); load the model in float32 or bfloat16"
        )
    sharing = [name for name, other in model.hf.named_parameters(remove_duplicate=False) if other is weight]
    if len(sharing) > 1:
        raise UsageError(
            f"the weight of {block.down} is shared by {', '.join(sharing)}; an edit would change all of them"
        )
    return OutputMatrix(layer=layer, path=block.down, transposed=block.conv1d, module=module)


def sha256_of(stored: Tensor) -> str:
    """The SHA-256 of a tensor's bytes, in the order of its axes."""
    data = stored.detach().cpu().contiguous()
    return hashlib.sha256(data.view(torch.uint8).numpy().tobytes()).hexdigest()


def _dense_layers(model: Model) -> str:
    dense = [str(layer) for layer, block in enumerate(model.atlas.blocks) if block.down is not None]
    return f": {', '.join(dense)}" if dense else "; this model has none"
