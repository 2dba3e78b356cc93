"""Architecture: the sizes of a model and every tensor it holds, with what each does."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from interp.models.tensor_roles import PARTS, TensorRole, tensor_roles
from interp.results import Result
from interp.runner.model import Model

if TYPE_CHECKING:
    from pandas import DataFrame
    from plotly.graph_objects import Figure


@dataclass(frozen=True, kw_only=True)
class TensorGroup:
    """Tensors that do the same in several layers: ``count`` of them, with the sum of their ``parameters`` and ``bytes``."""

    pattern: str
    layers: tuple[int, ...]
    shape: tuple[int, ...]
    dtype: str
    part: str
    role: str
    count: int
    parameters: int
    bytes: int


@dataclass(frozen=True, kw_only=True, eq=False)
class ArchitectureResult(Result):
    """The sizes of a model, which are counts, and its ``tensors`` as they are in memory, each once.

    ``d_mlp`` is None where all blocks have experts, ``n_ctx`` where the architecture sets no longest context. ``n_experts`` holds for each
    layer how many experts it has, 0 in a dense one. ``parallel`` says whether attention and MLP read the same stream.
    """

    kind: ClassVar[str] = "architecture"
    schema_version: ClassVar[int] = 1

    n_layers: int
    n_heads: int
    n_kv_heads: int
    d_model: int
    d_head: int
    d_mlp: int | None
    d_vocab: int
    n_ctx: int | None
    n_experts: tuple[int, ...]
    parallel: bool
    tied_embeddings: bool
    tensors: tuple[TensorRole, ...]

    @property
    def parameters(self) -> int:
        """All numbers that the model has learned."""
        return sum(tensor.parameters for tensor in self.tensors)

    @property
    def bytes(self) -> int:
        """What they take in memory."""
        return sum(tensor.bytes for tensor in self.tensors)

    def groups(self) -> tuple[TensorGroup, ...]:
        """The tensors with those that do the same in several layers as one, in the order of their first."""
        found: dict[tuple[object, ...], list[TensorRole]] = {}
        for tensor in self.tensors:
            found.setdefault((tensor.pattern, tensor.shape, tensor.dtype, tensor.role), []).append(tensor)
        return tuple(_group(members) for members in found.values())

    def parts(self) -> dict[str, int]:
        """The parameters of each part that the model has, in the order of ``interp.models.tensor_roles.PARTS``."""
        sizes = {part: sum(tensor.parameters for tensor in self.tensors if tensor.part == part) for part in PARTS}
        return {part: size for part, size in sizes.items() if size}

    def to_frame(self) -> "DataFrame":
        """One line for each tensor."""
        import pandas as pd

        return pd.DataFrame(
            [
                {
                    "tensor": tensor.name,
                    "layer": tensor.layer,
                    "shape": " x ".join(map(str, tensor.shape)),
                    "dtype": tensor.dtype,
                    "parameters": tensor.parameters,
                    "bytes": tensor.bytes,
                    "part": tensor.part,
                    "role": tensor.role,
                }
                for tensor in self.tensors
            ]
        )

    def figure(self) -> "Figure":
        """Bars of the parameters of each part."""
        from interp.figures.architecture import part_bars

        return part_bars(self.parts())


def architecture(model: Model) -> ArchitectureResult:
    """Lists what a loaded model is made of; nothing is run.

    Roles come from the atlas, which knows each part by its place in the model and not by its name. A tensor that no part of the atlas
    holds is listed as such.
    """
    atlas = model.atlas
    tensors = tensor_roles(model.hf, atlas)
    return ArchitectureResult(
        provenance=model.provenance(),
        n_layers=atlas.n_layers,
        n_heads=atlas.n_heads,
        n_kv_heads=atlas.n_kv_heads,
        d_model=atlas.d_model,
        d_head=atlas.d_head,
        d_mlp=atlas.d_mlp,
        d_vocab=atlas.d_vocab,
        n_ctx=atlas.n_ctx,
        n_experts=tuple(_experts(tensors, layer) for layer in range(atlas.n_layers)),
        parallel=atlas.blocks[0].parallel,
        tied_embeddings=atlas.tied_embeddings,
        tensors=tuple(tensors),
    )


def _experts(tensors: Iterable[TensorRole], layer: int) -> int:
    """A router has a row for each expert."""
    routers = [tensor.shape[0] for tensor in tensors if tensor.layer == layer and tensor.part == "router"]
    return routers[0] if routers else 0


def _group(members: list[TensorRole]) -> TensorGroup:
    first = members[0]
    return TensorGroup(
        pattern=first.pattern if len(members) > 1 else first.name,
        layers=tuple(member.layer for member in members if member.layer is not None),
        shape=first.shape,
        dtype=first.dtype,
        part=first.part,
        role=first.role,
        count=len(members),
        parameters=sum(member.parameters for member in members),
        bytes=sum(member.bytes for member in members),
    )
