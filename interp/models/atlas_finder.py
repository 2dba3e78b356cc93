"""Finding a component in a model by its TransformerLens name, through the architecture's component table."""

from dataclasses import dataclass

from torch import nn
from transformers import PreTrainedModel

from interp.errors import ModelError
from interp.models.atlas_cache import unsupported
from interp.models.components import Components, module_at


@dataclass(frozen=True)
class Finder:
    """Looks up components by their TransformerLens name and makes sure that they exist."""

    model: PreTrainedModel
    components: Components

    def optional(self, name: str, within: str = "") -> str | None:
        """The full path of a component, under the block ``within`` for names that begin with "blocks."; None where absent."""
        candidates = self.components.paths.get(name)
        if candidates is None:
            return None
        for candidate in candidates:
            path = f"{within}.{candidate}" if within else candidate
            if module_at(self.model, path) is not None:
                return path
        if name in self.components.optional:
            return None
        raise ModelError(
            f"{type(self.model).__name__} has no module {' or '.join(candidates)} in {within or 'the model'} for {name}; the component "
            f"table does not fit this version of transformers: install the versions that interp is released with"
        )

    def required(self, name: str, within: str = "") -> str:
        """The full path of a component that every supported model has; ModelError where it is absent."""
        path = self.optional(name, within)
        if path is None:
            raise unsupported(type(self.model).__name__, f"{within or 'the model'} has no {name}")
        return path

    def module(self, within: str, name: str) -> nn.Module:
        """The module of a required component."""
        module = module_at(self.model, self.required(name, within))
        assert module is not None
        return module

    def child(self, parent: str | None, *names: str) -> str | None:
        """The path of the first of these children that exists: parts that TransformerLens has no name for."""
        paths = [f"{parent}.{name}" for name in names] if parent is not None else []
        return next((path for path in paths if module_at(self.model, path) is not None), None)
