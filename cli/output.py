"""Where a command's words go: the result to stdout (or a file), progress to stderr.

Rich draws tables and progress bars. Text of a model or a prompt is never read as Rich markup and never reaches the terminal with
control characters. Under ``--json`` stdout carries exactly one object.
"""

import io
import json
import math
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from interp.errors import UsageError
from interp.files import write_bytes

from .text import inert

if TYPE_CHECKING:
    from rich.console import Console, RenderableType
    from rich.progress import Progress

SCHEMA_VERSION = 1

Step: TypeAlias = Callable[[str, int, int | None], None]
"""Progress of long work: what is being done, how much is done, how much there is (None: not known)."""

FILE_WIDTH = 120


@dataclass(frozen=True, kw_only=True)
class Output:
    """How one command speaks: its name, whether as JSON, to which file, and whether it shows progress."""

    command: str
    as_json: bool = False
    path: Path | None = None
    quiet: bool = False

    def show(self, payload: Mapping[str, Any], draw: "Callable[[Console], None]", *, to_stdout: bool = False) -> None:
        """Writes the result: ``payload`` as one JSON object under ``--json``, else what ``draw`` prints on a console.

        It goes to ``path`` if one was given, else to stdout; ``to_stdout`` is for commands whose ``path`` holds something else.
        """
        if self.path is None or to_stdout:
            if self.as_json:
                sys.stdout.write(self._json(payload))
            else:
                screen = console()
                with screen.capture() as drawn:  # so that an interrupt leaves all of it or nothing
                    draw(screen)
                sys.stdout.write(drawn.get())
            return
        if self.as_json:
            write_bytes(self.path, self._json(payload).encode())
        else:
            text = io.StringIO()
            draw(console(text, width=FILE_WIDTH))
            write_bytes(self.path, text.getvalue().encode())
        self.note(f"wrote {self.path}")

    def note(self, message: str) -> None:
        """One line on stderr, unless quiet."""
        if not self.quiet:
            print(inert(message), file=sys.stderr)

    def warn(self, message: str) -> None:
        """One line on stderr, quiet or not."""
        print(f"warning: {inert(message)}", file=sys.stderr)

    @contextmanager
    def progress(self, *, in_bytes: bool = False) -> Iterator[Step]:
        """Bars on stderr with the time left, one for each kind of work that the yielded function is told about.

        Nothing is shown when quiet or when stderr is no terminal.
        """
        if self.quiet or not sys.stderr.isatty():
            yield _unwatched
            return
        bars, tasks = _bars(in_bytes), {}

        def step(what: str, done: int, total: int | None) -> None:
            if not tasks:
                bars.start()
            if what not in tasks:
                tasks[what] = bars.add_task(inert(what), total=total)
            bars.update(tasks[what], completed=done, total=total)

        try:
            yield step
        finally:
            bars.stop()

    def _json(self, payload: Mapping[str, Any]) -> str:
        fields = {"schema_version": SCHEMA_VERSION, "command": self.command, **payload}
        return json.dumps(_json_safe(fields), ensure_ascii=False, allow_nan=False) + "\n"


def console(file: Any = None, *, width: int | None = None) -> "Console":
    """A Rich console that reads no markup, highlights nothing and, on a file or pipe, writes no colour and cuts no line."""
    from rich.console import Console

    file = file or sys.stdout
    if width is None and not file.isatty():
        width = FILE_WIDTH
    return Console(file=file, width=width, markup=False, highlight=False, emoji=False, soft_wrap=False)


def table(
    columns: Sequence[str],
    rows: Iterable[Sequence[object]],
    *,
    title: str | None = None,
    right: str = "",
    header: bool = True,
) -> "RenderableType":
    """A Rich table of inert text. ``right`` has one character a column, ``>`` for those aligned to the right."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    drawn = Table(
        title=Text(inert(title)) if title else None,
        title_justify="left",
        box=box.SIMPLE_HEAD,
        pad_edge=False,
        show_header=header,
    )
    for name, align in zip(columns, right.ljust(len(columns)), strict=True):
        drawn.add_column(Text(name), justify="right" if align == ">" else "left", no_wrap=align == ">", overflow="fold")
    for row in rows:
        drawn.add_row(*(Text(inert(str(cell))) for cell in row))
    return drawn


def check_writable(path: Path | None, suffixes: Sequence[str] = ()) -> None:
    """Fails before any work when ``path`` cannot be written, or has none of the ``suffixes``. Raises UsageError."""
    if path is None:
        return
    if suffixes and path.suffix not in suffixes:
        raise UsageError(f"the output file {path} ends in {path.suffix!r}; valid: {', '.join(suffixes)}")
    if path.is_dir():
        raise UsageError(f"the output file {path} is a folder; name a file in it")
    if not path.resolve().parent.is_dir():
        raise UsageError(f"the folder {path.resolve().parent} does not exist; create it or choose another output path")
    if path.exists() and not path.is_file():
        raise UsageError(f"the output file {path} is not a regular file; choose another output path")
    try:
        with tempfile.TemporaryFile(dir=path.resolve().parent):
            pass
    except OSError as error:
        raise UsageError(
            f"cannot write in {path.resolve().parent}: {error.strerror}; choose another output path"
        ) from error


def _json_safe(value: Any) -> Any:
    """``value`` with NaN and infinities as null, paths as text and tuples as lists."""
    if isinstance(value, Mapping):
        return {str(key): _json_safe(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_json_safe(item) for item in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return str(value) if isinstance(value, Path) else value


def _bars(in_bytes: bool) -> "Progress":
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    counted = DownloadColumn() if in_bytes else MofNCompleteColumn()
    columns = (TextColumn("{task.description}", markup=False), BarColumn(), counted, TimeRemainingColumn())
    return Progress(*columns, console=Console(file=sys.stderr, markup=False, highlight=False), transient=True)


def _unwatched(what: str, done: int, total: int | None) -> None:
    """Progress that nobody sees."""
