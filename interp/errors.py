"""Errors that a user can cause or meet, with the exit code the command line gives each.

The message is one line: what was got, what was expected, what to do. ``unknown`` words the commonest one.
"""

import errno
from collections.abc import Iterable
from difflib import get_close_matches
from typing import ClassVar

_LONGEST = 400
"""Characters of what was got that an error repeats: a damaged file can hold names as long as itself."""


class InterpError(Exception):
    """Base of every error that ``interp`` raises on purpose."""

    exit_code: ClassVar[int] = 1


class UsageError(InterpError, ValueError):
    """A bad argument: the message names the valid values."""

    exit_code = 2


class ModelError(InterpError):
    """A model, tokenizer or file that is missing, unreadable or not what it should be."""

    exit_code = 3


class NumericsError(InterpError):
    """NaN or infinity where a number is needed."""

    exit_code = 4


class MemoryLimitError(InterpError, MemoryError):
    """The work does not fit in memory, even in the smallest chunks."""

    exit_code = 5


class VerificationError(InterpError):
    """A result failed its own check, such as a lens whose last row differs from the model's logits."""

    exit_code = 6


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory is short, on a GPU or the host.

    Told by name and text, because torch may not be loaded: its allocator of the CPU raises a plain RuntimeError, and so do mapped files.
    """
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    if isinstance(error, OSError):
        return error.errno == errno.ENOMEM
    return isinstance(error, RuntimeError) and "allocate memory" in str(error)


def brief(cause: object) -> str:
    """A cause in one line that is not too long, for an error that passes it on."""
    line = " ".join(str(cause).split())
    return line if len(line) <= _LONGEST else f"{line[:_LONGEST]}…"


def unknown(what: str, got: object, valid: Iterable[object]) -> UsageError:
    """An error for a name that is not among the valid ones, with the nearest valid name first."""
    names, given = [str(name) for name in valid], str(got)
    given = given if len(given) <= _LONGEST else f"{given[:_LONGEST]}…"
    close = get_close_matches(given, names, n=1)
    hint = f" (did you mean {close[0]!r}?)" if close else ""
    return UsageError(f"unknown {what} {given!r}{hint}; valid: {', '.join(names)}")


def out_of_range(what: str, got: int, size: int) -> UsageError:
    """An error for an index outside ``-size .. size - 1``."""
    return UsageError(f"{what} {got} is out of range; valid: 0 to {size - 1} (or -{size} to -1 from the end)")
