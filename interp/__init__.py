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
    from interp.report.page import report
    from interp.results import load_result
    from interp.runner.model import Model, load

_HOME = {
    "load": "interp.runner.model",
    "Model": "interp.runner.model",
    "report": "interp.report.page",
    "load_result": "interp.results",
    "Conversation": "interp.prompts",
    "Fact": "interp.prompts",
    "InterpError": "interp.errors",
    "UsageError": "interp.errors",
    "ModelError": "interp.errors",
    "NumericsError": "interp.errors",
    "MemoryLimitError": "interp.errors",
    "VerificationError": "interp.errors",
}
"""Where each public name lives."""

__all__ = [
    "__version__",
    "load",
    "Model",
    "report",
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
    if name == "load_result":  # it knows a kind of result once the module that defines it is imported
        for module in sorted(set(_HOME.values())):
            import_module(module)
    value = getattr(import_module(_HOME[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


modules[__name__].__class__ = _Package
