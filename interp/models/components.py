"""The component table of one architecture, as data, and finding a module by its path."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import nn


@dataclass(frozen=True, kw_only=True)
class Components:
    """Where an architecture keeps its parts, in TransformerLens' names.

    ``paths`` gives for each name ("embed", "blocks", "blocks.attn.q", ...) the module paths that it may have, the first that exists
    counts; those under "blocks." are relative to the block. ``optional`` names need not exist. ``parallel`` says whether
    TransformerLens takes the block for one in which attention and MLP read the same state.
    """

    paths: Mapping[str, tuple[str, ...]]
    optional: frozenset[str]
    parallel: bool

    def to_json(self) -> dict[str, Any]:
        """The same as JSON-safe values, sorted."""
        paths = {name: list(self.paths[name]) for name in sorted(self.paths)}
        return {"paths": paths, "optional": sorted(self.optional), "parallel": self.parallel}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> "Components":
        """The inverse of ``to_json``. Raises KeyError or TypeError for anything else."""
        paths = {name: tuple(candidates) for name, candidates in values["paths"].items()}
        return cls(paths=paths, optional=frozenset(values["optional"]), parallel=bool(values["parallel"]))


def module_at(model: nn.Module, path: str) -> nn.Module | None:
    """The submodule at a dotted path, or None where the model has none."""
    module: nn.Module | None = model
    for part in path.split("."):
        # Straight from the registry: a run looks up hundreds of modules, and nn.Module's own attribute access is slow.
        module = None if module is None else module._modules.get(part)
    return module
