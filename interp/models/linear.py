"""Which modules are plain linear maps, whichever way round they store their weight."""

from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D


def linear_weight(module: nn.Module) -> Tensor | None:
    """The weight [out in] of a ``nn.Linear`` or of transformers' Conv1D, sharing its memory; None of anything else, such as a subclass."""
    if type(module) not in (nn.Linear, Conv1D) or not isinstance(module.weight, nn.Parameter):
        return None
    weight = module.weight.detach()
    return weight.T if isinstance(module, Conv1D) else weight
