"""The last MLP, computed only at the positions that are unembedded: nothing else of it is ever read."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from interp.models.atlas import module_at
from interp.runner.session import Session
from interp.sites import ORDER

if TYPE_CHECKING:
    from interp.runner.model import Model


def only_at(model: "Model", session: Session, columns: Sequence[Sequence[int]] | None) -> list[Any]:
    """Registers the hooks that narrow the last block's MLP to the columns that any row unembeds, and returns their handles.

    Elsewhere its output is zero. None are registered where somebody looks at what comes after the last attention, and for families
    whose MLP is more than a map of each position's stream.
    """
    block = model.atlas.blocks[-1]
    path = block.mlp
    wanted = [] if columns is None else sorted({column for row in columns for column in row})
    if not 0 < len(wanted) < session.n_pos:
        return []
    if path is None or block.experts or block.mlp_has_residual:
        return []
    if any(_is_late(visit.binding.site.order, model) for visits in session.visits.values() for visit in visits):
        return []
    module = module_at(model.hf, path)
    assert module is not None, "the atlas checked this path"
    narrow = _Narrowed(wanted)
    return [module.register_forward_pre_hook(narrow.enter), module.register_forward_hook(narrow.leave)]


def _is_late(order: tuple[int, int], model: "Model") -> bool:
    return order >= (model.atlas.n_layers - 1, ORDER["resid_mid"])


class _Narrowed:
    """One call of the module: takes the columns out of its input and puts its output back in place."""

    def __init__(self, columns: Sequence[int]) -> None:
        self._columns, self._n_pos = list(columns), 0

    def enter(self, module: nn.Module, args: tuple[Any, ...]) -> Any:
        if not args or args[0].dim() != 3:
            self._n_pos = 0
            return None
        self._n_pos = args[0].shape[1]
        return (args[0][:, self._columns], *args[1:])

    def leave(self, module: nn.Module, args: tuple[Any, ...], output: Any) -> Tensor | None:
        if not self._n_pos:
            return None
        whole = output.new_zeros(output.shape[0], self._n_pos, output.shape[2])
        whole[:, self._columns] = output
        return whole
