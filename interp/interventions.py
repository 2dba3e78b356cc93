"""Changes to a forward pass, as data. They say what to change; the runner applies them and never edits a tensor in place.

Each names its site (any spec of ``interp.sites``; several layers are allowed) and, if not everything is meant, the positions
(negative counts from the end of each prompt), heads and prompts of the batch that it changes.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar

from interp.errors import UsageError

if TYPE_CHECKING:
    from torch import Tensor

Indices = int | Sequence[int]


@dataclass(frozen=True, kw_only=True, eq=False)
class Region:
    """Which part of a site's tensor an intervention changes; None means all."""

    positions: Indices | None = None
    heads: Indices | None = None
    prompts: Indices | None = None


@dataclass(frozen=True, eq=False)
class Intervention(Region):
    """Base of all interventions. A subclass gives the new values of its region from the old.

    ``rowwise`` says that what a row gets depends on that row alone, so that rows which share the intervention can be changed together.
    """

    rowwise: ClassVar[bool] = True
    site: str

    def values(self, old: "Tensor", name: str) -> "Tensor":
        """New values for the selected region ``old`` of the site called ``name``; must broadcast to its shape."""
        raise TypeError(f"{type(self).__name__} does not say how to change a value")

    def values_of(self, old: "Tensor", name: str, prompts: Sequence[int]) -> "Tensor":
        """The same where the rows of ``old`` belong to these prompts of the run."""
        return self.values(old, name)


@dataclass(frozen=True, eq=False)
class Patch(Intervention):
    """Replaces the region by ``value``: a tensor that broadcasts to it, or a mapping from site names to such tensors.

    A replaced attention pattern is ``Patch("attn.pattern@5", pattern, heads=3)``. With ``by_prompt`` the first axis of the value is
    the prompts of the run, and each row takes its own prompt's entry.
    """

    value: "Tensor | Mapping[str, Tensor]"
    by_prompt: bool = field(default=False, kw_only=True)

    def values(self, old: "Tensor", name: str) -> "Tensor":
        return _fitted(self._value(name), old, name)

    def values_of(self, old: "Tensor", name: str, prompts: Sequence[int]) -> "Tensor":
        if not self.by_prompt:
            return self.values(old, name)
        value = self._value(name)
        if value.dim() == 0 or len(value) <= max(prompts):
            raise UsageError(
                f"the patch for {self.site!r} is by prompt and its value has shape {tuple(value.shape)}; the first axis must have "
                f"an entry for each prompt of the run, {max(prompts) + 1} at least"
            )
        return _fitted(value[list(prompts)], old, name)

    def _value(self, name: str) -> "Tensor":
        value = self.value if not isinstance(self.value, Mapping) else self.value.get(name)
        if value is None:
            raise UsageError(f"the patch for {self.site!r} holds no value for {name}")
        return value


@dataclass(frozen=True, eq=False)
class ZeroAblate(Intervention):
    """Sets the region to zero."""

    def values(self, old: "Tensor", name: str) -> "Tensor":
        return old.new_zeros(()).expand(old.shape)


@dataclass(frozen=True, eq=False)
class MeanAblate(Intervention):
    """Replaces the region by ``mean``: an average over a reference distribution, which the caller has measured.

    A tensor that broadcasts to the region, or a mapping from site names to such tensors.
    """

    mean: "Tensor | Mapping[str, Tensor]"

    def values(self, old: "Tensor", name: str) -> "Tensor":
        mean = self.mean if not isinstance(self.mean, Mapping) else self.mean.get(name)
        if mean is None:
            raise UsageError(f"the mean ablation of {self.site!r} holds no mean for {name}")
        return _fitted(mean, old, name)


@dataclass(frozen=True, eq=False)
class Steer(Intervention):
    """Adds ``scale`` times ``vector`` to the region."""

    vector: "Tensor"
    scale: float = 1.0

    def values(self, old: "Tensor", name: str) -> "Tensor":
        return old + self.scale * _fitted(self.vector, old, name)


@dataclass(frozen=True, eq=False)
class Scale(Intervention):
    """Multiplies the region by ``factor``."""

    factor: float

    def values(self, old: "Tensor", name: str) -> "Tensor":
        return old * self.factor


@dataclass(frozen=True, eq=False)
class Apply(Intervention):
    """Replaces the region by ``function(region)``, for anything the others do not say. The function must not edit in place."""

    rowwise: ClassVar[bool] = False
    function: "Callable[[Tensor], Tensor]"

    def values(self, old: "Tensor", name: str) -> "Tensor":
        return _fitted(self.function(old), old, name)


def _fitted(value: "Tensor", old: "Tensor", name: str) -> "Tensor":
    """``value`` on the device and in the dtype of ``old``, broadcast to its shape."""
    value = value.to(device=old.device, dtype=old.dtype)
    try:
        return value.expand(old.shape)
    except RuntimeError as error:
        raise UsageError(
            f"a value of shape {tuple(value.shape)} does not fit the selected part of {name}, shape {tuple(old.shape)}"
        ) from error
