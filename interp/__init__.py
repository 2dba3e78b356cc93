"""Shows what happens inside a language model and changes it.

The names below are imported when they are first used, so that ``import interp`` is instant and loads no torch.
"""

from importlib import import_module
from sys import modules
from types import ModuleType
from typing import TYPE_CHECKING, Any

from interp._version import __version__

if TYPE_CHECKING:
    from interp.errors import (
        InterpError,
        MemoryLimitError,
        ModelError,
        NumericsError,
        UsageError,
        VerificationError,
    )
    from interp.prompts import Conversation, Fact
    from interp.results import load_result

_HOME = {
    "InterpError": "interp.errors",
    "UsageError": "interp.errors",
    "ModelError": "interp.errors",
    "NumericsError": "interp.errors",
    "MemoryLimitError": "interp.errors",
    "VerificationError": "interp.errors",
    "Conversation": "interp.prompts",
    "Fact": "interp.prompts",
    "load_result": "interp.results",
}
"""Where each public name lives."""

__all__ = [
    "__version__",
    "load_result",
    "Conversation",
    "Fact",
    "InterpError",
    "UsageError",
    "ModelError",
    "NumericsError",
    "MemoryLimitError",
    "VerificationError",
]


class _Package(ModuleType):
    """The package itself. A public name that is also a subpackage's, such as ``report``, always means the function."""

    def __setattr__(self, name: str, value: object) -> None:
        if not (name in _HOME and isinstance(value, ModuleType)):
            super().__setattr__(name, value)


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'interp' has no attribute {name!r}; its names are: {', '.join(__all__)}")
    value = getattr(import_module(_HOME[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


modules[__name__].__class__ = _Package
