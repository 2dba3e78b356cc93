"""Arguments that are files of saved results."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from interp.errors import InterpError, ModelError, UsageError, brief

if TYPE_CHECKING:
    import typer

    from interp.results import Result

SUFFIXES = (".safetensors", ".json")


WITH_FILES = frozenset({"asked", "output", "as_json", "quiet", "offline"})
"""What a command that takes prompts or saved results does with both, by the names of its parameters."""


def is_saved(argument: str) -> bool:
    """Whether an argument means saved results: it ends as their files do, or names a folder that holds some.

    ``@FILE.json`` is a conversation, so a prompt.
    """
    return (argument.endswith(SUFFIXES) and not argument.startswith("@")) or bool(_within(argument))


def load_saved(arguments: Sequence[str]) -> "list[Result]":
    """The results of these files, and of all files of these folders in the order of their names.

    Raises UsageError where an argument is no file or folder of results, ModelError where one cannot be read.
    """
    from interp import load_result

    for argument in arguments:
        if not is_saved(argument):
            raise UsageError(
                f"{argument!r} is among saved results but is no folder of them and ends in neither {' nor '.join(SUFFIXES)}; "
                "give a prompt or results, not both"
            )
    return [load_result(path) for argument in arguments for path in _within(argument) or [Path(argument)]]


@contextmanager
def showing(files: Sequence[str]) -> "Iterator[None]":
    """What is shown comes from these files: an error of ours means that one was changed so that its parts do not fit together.

    Loading checks every part by itself; that a token's name is missing, say, shows only when the token is drawn. Without files an error
    is our own, and goes on.
    """
    try:
        yield
    except InterpError:
        raise
    except (ArithmeticError, AssertionError, AttributeError, LookupError, RuntimeError, TypeError, ValueError) as error:
        if not files:
            raise
        cause = brief(f"{type(error).__name__}: {error}")
        raise ModelError(f"the parts of {' or '.join(files)} do not fit together ({cause}); make it again") from error


def check_only_files(context: "typer.Context") -> None:
    """Raises UsageError for an option on the command line that means nothing beside saved results."""
    for option in context.command.params:
        name = option.name or ""
        source = context.get_parameter_source(name)
        if source is not None and source.name == "COMMANDLINE" and name not in WITH_FILES:
            raise UsageError(
                f"{option.opts[0]} is of a prompt; saved results are shown and compared as they are, so leave it out"
            )


def _within(argument: str) -> list[Path]:
    """The files of results in a folder, sorted; none where it is no folder."""
    if not argument:  # an empty prompt; as a path it would be the folder that we are in
        return []
    try:
        return sorted(path for path in Path(argument).iterdir() if path.suffix in SUFFIXES)
    except (OSError, ValueError):
        return []
