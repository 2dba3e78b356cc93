"""Long work that Ctrl-C does not lose: what is done is kept in the cache folder, and the same command goes on from there.

Which file it is depends on the command, its request and the model, so that another request never meets it. An analyzer writes the file
when it is stopped and removes it when it is done; ``--fresh`` removes it beforehand. Everything in the folder can be removed.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeAlias

import typer

from interp._version import __version__
from interp.errors import ModelError

from .guard import Interrupted
from .output import Output, Step

if TYPE_CHECKING:
    from interp.runner.model import Model

FOLDER = "unfinished"

Fresh: TypeAlias = Annotated[
    bool, typer.Option("--fresh", help="Start anew, also where the same command was interrupted.")
]


@dataclass(kw_only=True)
class Work:
    """What an analyzer needs to be stopped without loss: its ``checkpoint`` (None keeps nothing) and its ``progress``."""

    checkpoint: Path | None
    show: Step
    totals: dict[str, int] = field(default_factory=dict)
    """How much there is to do, by what is done."""

    def progress(self, what: str, done: int, total: int | None) -> None:
        """Shows the progress and remembers how much there is in all."""
        self.totals[what] = total or 0
        self.show(what, done, total)


@contextmanager
def keeping(
    speaker: Output,
    model: "Model",
    *,
    fresh: bool,
    unit: str = "runs",
    count: "Callable[[Path | None], int] | None" = None,
    **request: Any,
) -> Iterator[Work]:
    """Work with bars of progress, which Ctrl-C stops with a line that says what is kept and how to go on::

        with keeping(speaker, model, fresh=fresh, prompt=prompt) as work:
            result = causal_trace(model, prompt, checkpoint=work.checkpoint, progress=work.progress)

    ``request`` is everything that the work depends on beside the model, as values that JSON can hold. ``count`` says how many
    ``unit`` a checkpoint holds, by default the rows of its tensors. Nothing is kept where the cache folder cannot be written, and a
    warning says so. Raises Interrupted in place of KeyboardInterrupt.
    """
    kept = count or _kept
    try:
        path = checkpoint_path(speaker.command, model, request)
    except ModelError as error:
        speaker.warn(f"an interrupt will lose what is done: {error}")
        path = None
    if path is not None and fresh:
        path.unlink(missing_ok=True)
    found = kept(path)
    if found:
        speaker.note(
            f"going on from where the same command was stopped: {found:,} {unit} are kept (--fresh starts anew)"
        )
    with speaker.progress() as show:
        work = Work(checkpoint=path, show=show)
        try:
            yield work
        except KeyboardInterrupt as error:
            raise Interrupted(_said(kept(path), sum(work.totals.values()), unit)) from error


def checkpoint_path(command: str, model: "Model", request: dict[str, Any]) -> Path:
    """The file of one command, request and model. Raises ModelError when the cache folder cannot be made."""
    from interp.checkpoint import hash_of
    from interp.models.cache import make_folder

    source = model.provenance(command=command)
    whole = {
        "interp": __version__,
        "model": source.model,
        "weights": source.weights_sha256,
        "dtype": source.dtype,
        "device": source.device,
        "request": request,
    }
    return make_folder(FOLDER) / f"{command}-{hash_of(whole)[:32]}.safetensors"


def _said(kept: int, total: int, unit: str) -> str:
    if not kept:
        return "interrupted before anything was finished; the same command starts anew"
    of_all = f" of {total:,}" if total else ""
    return f"interrupted; {kept:,}{of_all} {unit} are kept: the same command goes on from there"


def _kept(path: Path | None) -> int:
    """How many runs a checkpoint holds the numbers of: the rows of its tensors. 0 where there is none to read."""
    if path is None or not path.is_file():
        return 0
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            return sum(file.get_slice(name).get_shape()[0] for name in file.keys())  # noqa: SIM118
    except (SafetensorError, OSError):
        return 0
