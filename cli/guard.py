"""Turns whatever ends a command into an exit code and at most one line on stderr.

INTERP_DEBUG=1 shows the traceback as well. Nothing is caught broadly: an error that nobody foresaw goes to ``sys.excepthook``, which
prints its type in the same one-line form, and Python exits with 1.
"""

import os
import sys
import traceback
from collections.abc import Callable
from types import TracebackType

import typer

from interp.errors import InterpError, MemoryLimitError, is_out_of_memory

from .text import one_line

INTERRUPTED = 130


class Interrupted(InterpError):
    """An interrupt of which there is more to say than that it came, such as what is kept. Typer lets it pass, unlike KeyboardInterrupt."""

    exit_code = INTERRUPTED


def guarded(command: Callable[[], object]) -> int:
    """Runs ``command`` and returns the exit code its end means."""
    sys.excepthook = _unforeseen
    try:
        code = command()
        sys.stdout.flush()
    except InterpError as error:
        return _fail(str(error), error.exit_code)
    except typer.TyperException as error:
        return _fail(_usage_message(error), error.exit_code)
    except (KeyboardInterrupt, typer.Abort):
        return _fail("interrupted", INTERRUPTED)
    except BrokenPipeError:
        return _reader_gone()
    except (MemoryError, RuntimeError, OSError) as error:
        if not is_out_of_memory(error):
            raise
        said = one_line(error)[:120]
        return _fail(f"{_OUT_OF_MEMORY} ({said})" if said else _OUT_OF_MEMORY, MemoryLimitError.exit_code)
    if code == INTERRUPTED:  # Typer turns the interrupt into this code itself
        return _fail("interrupted", INTERRUPTED)
    return code if isinstance(code, int) else 0


_OUT_OF_MEMORY = "out of memory; use a shorter prompt, a smaller model, --dtype bfloat16 or --device cpu"


def _fail(message: str, code: int) -> int:
    if _debugging():
        traceback.print_exc()
    print(f"error: {one_line(message)}", file=sys.stderr)
    return code


def _debugging() -> bool:
    return os.environ.get("INTERP_DEBUG", "") not in ("", "0")


def _unforeseen(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    if _debugging():
        sys.__excepthook__(kind, error, trace)
        return
    print(f"error: {kind.__name__}: {one_line(error)} (run with INTERP_DEBUG=1 for the traceback)", file=sys.stderr)


def _usage_message(error: typer.TyperException) -> str:
    """The parser's message with the valid options where one is unknown, and where to read more."""
    message = error.format_message()
    context, refused = getattr(error, "ctx", None), getattr(error.__cause__, "errors", None)
    if context is None:
        return message
    if hasattr(error, "option_name") and hasattr(error, "possibilities"):
        options = sorted(
            name for parameter in context.command.params for name in parameter.opts if name.startswith("--")
        )
        message = f"{error.message}; valid: {', '.join(options)}"
    elif message.startswith("No such command"):
        message = f"{message.rstrip('.')}; valid: {', '.join(context.command.commands)}"
    elif refused is not None:  # pydantic's, whose words say what was expected and not what was got
        message = f"{message.rstrip('.')}, got {refused()[0]['input']!r}"
    return f"{message.rstrip('.')}; see `{context.command_path} --help`"


def _reader_gone() -> int:
    """The reader of our output has closed it (``interp tensors M | head``): no message, and none when Python flushes at exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 1
