"""Which heads read what which earlier heads wrote, from the weights (Elhage et al. 2021, "Three Kinds of Composition")."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from interp.analyzers.circuit_weights import checked_rotations, layer_weights, left_out, ov_circuits, qk_circuits
from interp.errors import UsageError, unknown
from interp.heads import Head, heads_of
from interp.maths.head_circuits import Circuit, reduced_input, reduced_output
from interp.maths.head_composition import THROUGH, composition, energies, random_rotations, rotation_null, shape_null
from interp.results import Result
from interp.runner.model import Model

if TYPE_CHECKING:
    from pandas import DataFrame
    from plotly.graph_objects import Figure

DRAWS = 100


@dataclass(frozen=True, kw_only=True, eq=False)
class HeadCompositionResult(Result):
    """Composition of each of ``readers`` with every head of the layers before it.

    ``through`` is what the reader reads with: "q", "k" or "v". ``composition`` is between 0 and 1, NaN for writers that are not in
    an earlier layer, [reader, writer] with all heads of the model as writers. ``null_mean`` and ``null_sd`` are over ``draws``
    random rotations of the writer's output, ``shape_mean`` and ``shape_sd`` over as many pairs of Gaussian matrices. In a rotary model
    W_QK depends on how far the key is before the query: ``distance`` positions here. ``left_out`` says what the numbers do not contain.
    """

    kind: ClassVar[str] = "head_composition"
    schema_version: ClassVar[int] = 1

    through: str
    distance: int
    n_layers: int
    n_heads: int
    readers: tuple[Head, ...]
    composition: Float[Tensor, "reader writer"]
    null_mean: Float[Tensor, "reader writer"]
    null_sd: Float[Tensor, "reader writer"]
    shape_mean: float
    shape_sd: float
    draws: int
    seed: int
    left_out: tuple[str, ...]

    @property
    def z(self) -> Float[Tensor, "reader writer"]:
        """The composition in standard deviations above the mean of the rotation null."""
        return (self.composition - self.null_mean) / self.null_sd

    @property
    def peer_z(self) -> Float[Tensor, "reader writer"]:
        """The composition in standard deviations above the mean of the same reader with all earlier heads."""
        mean = self.composition.nanmean(1, keepdim=True)
        spread = (self.composition - mean).square().nanmean(1, keepdim=True).sqrt()
        return (self.composition - mean) / spread

    def of(self, reader: Head) -> Float[Tensor, "layer head"]:
        """The composition of one reader with every head, by layer and head. Raises UsageError for one that is not among the readers."""
        if reader not in self.readers:
            raise UsageError(f"{reader} is not among the readers; valid: {', '.join(map(str, self.readers))}")
        return self.composition[self.readers.index(reader)].reshape(self.n_layers, self.n_heads)

    def strongest(self, reader: Head, count: int = 5) -> tuple[Head, ...]:
        """The earlier heads that compose most with a reader, strongest first."""
        values = self.of(reader).flatten().nan_to_num(nan=-1.0)
        order = values.argsort(descending=True, stable=True).tolist()
        return tuple(Head(*divmod(index, self.n_heads)) for index in order if float(values[index]) >= 0)[:count]

    def to_frame(self) -> "DataFrame":
        """One line for each reader and earlier writer."""
        import pandas as pd

        z, peers = self.z, self.peer_z
        lines = [
            {
                "reader": str(reader),
                "writer": str(Head(*divmod(column, self.n_heads))),
                "through": self.through,
                "composition": float(self.composition[row, column]),
                "null_mean": float(self.null_mean[row, column]),
                "null_sd": float(self.null_sd[row, column]),
                "z": float(z[row, column]),
                "peer_z": float(peers[row, column]),
            }
            for row, reader in enumerate(self.readers)
            for column in range(reader.layer * self.n_heads)
        ]
        return pd.DataFrame(lines)

    def figure(self) -> "Figure":
        """A map of readers by writers, coloured by the standard deviations above the rotation null."""
        from interp.figures.head_circuits import composition_map

        writers = [str(Head(layer, head)) for layer in range(self.n_layers) for head in range(self.n_heads)]
        return composition_map(
            self.composition.numpy(), self.z.numpy(), [str(reader) for reader in self.readers], writers, self.through
        )


def head_composition(
    model: Model,
    kind: str = "k",
    *,
    heads: "str | Head | Iterable[str | Head | tuple[int, int]] | None" = None,
    distance: int = 0,
    draws: int = DRAWS,
    seed: int = 0,
) -> HeadCompositionResult:
    """How strongly heads read, through their queries, keys or values, from what each earlier head writes.

    Args:
        model: the model.
        kind: "q", "k" or "v": the input of the reading head. An induction head reads a previous-token head through its keys.
        heads: the reading heads, such as "L18H6" or ["17.3", "17.4"]; None: all that have heads before them.
        distance: for rotary models and "q" or "k", how many positions the key lies before the query.
        draws: random rotations behind the null of each pair.
        seed: of these draws.

    Norms' weights are folded in; see ``left_out`` of the result for what is not. Matrices that know nothing of each other compose to
    about ``1 / sqrt(d_model)``, which is why each value comes with its null. All heads of a model write into the same few
    directions more than a random rotation does, so also compare with the reader's other partners (``peer_z``).

    Raises:
        UsageError: an unknown kind, a head out of range or in layer 0, too few draws, a distance the model's attention does not have.
        ModelError: a family whose heads have no weights of their own.

    """
    if kind not in THROUGH:
        raise unknown("kind of composition", kind, THROUGH)
    atlas = model.atlas
    _check_distance(model, distance)
    readers = _readers(heads, atlas.n_layers, atlas.n_heads)
    last = max(reader.layer for reader in readers)
    writers = heads_of(
        [(layer, head) for layer in range(last) for head in range(atlas.n_heads)], atlas.n_layers, atlas.n_heads
    )
    generator = torch.Generator().manual_seed(seed)
    rotations = random_rotations(atlas.d_model, min(atlas.d_head, atlas.d_model), generator, draws)
    pairs = pair_up(read_outputs(model, writers), read_inputs(model, readers, kind, distance), rotations)
    shape = shape_null(atlas.d_model, atlas.d_head, generator, draws)
    return HeadCompositionResult(
        provenance=model.provenance(seed=seed),
        through=kind,
        distance=distance,
        n_layers=atlas.n_layers,
        n_heads=atlas.n_heads,
        readers=readers,
        composition=_widened(pairs.composition, atlas.n_layers * atlas.n_heads),
        null_mean=_widened(pairs.null_mean, atlas.n_layers * atlas.n_heads),
        null_sd=_widened(pairs.null_sd, atlas.n_layers * atlas.n_heads),
        shape_mean=float(shape.mean),
        shape_sd=float(shape.sd),
        draws=draws,
        seed=seed,
        left_out=left_out(model, range(last + 1), tokens=False),
    )


def _check_distance(model: Model, distance: int) -> None:
    rotary, n_ctx = any(block.rotary for block in model.atlas.blocks), model.atlas.n_ctx
    if distance and not rotary:
        raise UsageError(f"distance {distance}: only rotary models have a W_QK that depends on distance; leave it at 0")
    if distance < 0 or (n_ctx is not None and distance >= n_ctx):
        raise UsageError(f"distance {distance} is out of range; valid: 0 to {'any' if n_ctx is None else n_ctx - 1}")


def _readers(
    heads: "str | Head | Iterable[str | Head | tuple[int, int]] | None", n_layers: int, n_heads: int
) -> tuple[Head, ...]:
    if n_layers < 2:
        raise UsageError("this model has one layer, so no head has heads before it to compose with")
    chosen = heads_of(heads, n_layers, n_heads)
    if heads is None:
        return tuple(head for head in chosen if head.layer > 0)
    first = next((head for head in chosen if head.layer == 0), None)
    if first is not None:
        raise UsageError(
            f"{first} has no heads before it to compose with; valid: L1H0 to L{n_layers - 1}H{n_heads - 1}"
        )
    return tuple(chosen)


@dataclass(frozen=True, kw_only=True, eq=False)
class Outputs:
    """What heads write, reduced (``reduced_output`` of W_OV), and the energies of their maps."""

    heads: tuple[Head, ...]
    factors: Float[Tensor, "writer d_head d_model"]
    energies: Float[Tensor, "writer direction"]


@dataclass(frozen=True, kw_only=True, eq=False)
class Inputs:
    """What heads read with (``reduced_input`` of W_QK, its transpose, or W_OV), and the energies of their maps."""

    heads: tuple[Head, ...]
    factors: Float[Tensor, "reader d_model d_head"]
    energies: Float[Tensor, "reader direction"]


@dataclass(frozen=True, kw_only=True, eq=False)
class Pairs:
    """Composition of readers with writers and its rotation null; NaN where the writer is not in an earlier layer."""

    composition: Float[Tensor, "reader writer"]
    null_mean: Float[Tensor, "reader writer"]
    null_sd: Float[Tensor, "reader writer"]


def read_outputs(model: Model, heads: Sequence[Head]) -> Outputs:
    """The writing side of heads, which are in order of their layers."""
    factors, shares = [], []
    for layer, chosen in groupby(heads, key=lambda head: head.layer):
        ov = _of(ov_circuits(layer_weights(model, layer)), [head.head for head in chosen])
        factors.append(reduced_output(ov))
        shares.append(energies(ov).cpu())
    return Outputs(heads=tuple(heads), factors=torch.cat(factors), energies=torch.cat(shares))


def read_inputs(model: Model, heads: Sequence[Head], through: str, distance: int = 0) -> Inputs:
    """The reading side of heads through their queries, keys or values."""
    factors, shares = [], []
    for layer, chosen in groupby(heads, key=lambda head: head.layer):
        weights = layer_weights(model, layer)
        rotation = checked_rotations(model, layer, [distance]) if distance and through != "v" else None
        qk = qk_circuits(weights, None if rotation is None else rotation[0])
        whole = {"q": qk, "k": qk.transposed, "v": ov_circuits(weights)}[through]
        circuit = _of(whole, [head.head for head in chosen])
        factors.append(reduced_input(circuit))
        shares.append(energies(circuit).cpu())
    return Inputs(heads=tuple(heads), factors=torch.cat(factors), energies=torch.cat(shares))


def _of(circuit: Circuit, heads: list[int]) -> Circuit:
    return Circuit(read=circuit.read[heads], write=circuit.write[heads])


def pair_up(outputs: Outputs, inputs: Inputs, rotations: Float[Tensor, "sample direction direction"]) -> Pairs:
    """The composition of every reader with every writer of an earlier layer, a pair of layers at a time, and its null."""
    values = torch.full((len(inputs.heads), len(outputs.heads)), float("nan"), dtype=torch.float64)
    for layer, rows in _by_layer(inputs.heads):
        for earlier, columns in _by_layer(outputs.heads):
            if earlier < layer:
                values[rows, columns] = composition(outputs.factors[columns], inputs.factors[rows]).cpu()
    null = rotation_null(outputs.energies, inputs.energies, rotations)
    missing = values.isnan()
    return Pairs(
        composition=values.float(),
        null_mean=null.mean.masked_fill(missing, float("nan")).float(),
        null_sd=null.sd.masked_fill(missing, float("nan")).float(),
    )


def _by_layer(heads: Sequence[Head]) -> list[tuple[int, slice]]:
    """Each layer with the places of its heads, which are side by side."""
    found, start = [], 0
    for layer, chosen in groupby(heads, key=lambda head: head.layer):
        count = len(list(chosen))
        found.append((layer, slice(start, start + count)))
        start += count
    return found


def _widened(values: Float[Tensor, "reader _"], count: int) -> Float[Tensor, "reader writer"]:
    wide = torch.full((len(values), count), float("nan"))
    wide[:, : values.shape[1]] = values
    return wide
