"""Arguments that are files of saved results."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from interp.errors import UsageError

if TYPE_CHECKING:
    from interp.results import Result

SUFFIXES = (".safetensors", ".json")


def is_saved(argument: str) -> bool:
    """Whether an argument means a saved result: its name ends as one. ``@FILE.json`` is a conversation, so a prompt."""
    return argument.endswith(SUFFIXES) and not argument.startswith("@")


def load_saved(arguments: Sequence[str]) -> "list[Result]":
    """The results of these files. Raises UsageError where one is no file of results, ModelError where one cannot be read."""
    from interp import load_result

    for argument in arguments:
        if not is_saved(argument):
            raise UsageError(
                f"{argument!r} is among saved results but ends in neither {' nor '.join(SUFFIXES)}; give a prompt or results, not both"
            )
    return [load_result(Path(argument)) for argument in arguments]
