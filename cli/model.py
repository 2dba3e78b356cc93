"""Loading a model for a command, with progress and notes on stderr."""

import gc
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from .output import Output

if TYPE_CHECKING:
    from interp.runner.model import Model


def open_model(
    speaker: Output, name: str, *, device: str, dtype: str, revision: str | None = None, offline: bool = False
) -> "Model":
    """The model that ``--model``, ``--device``, ``--dtype``, ``--revision`` and ``--offline`` ask for."""
    with _collector_paused(), speaker.progress(in_bytes=True) as step:
        from interp.runner.model import load

        return load(
            name,
            device=device,
            dtype=dtype,
            revision=revision,
            offline=offline,
            progress=step,
            notify=speaker.note,
        )


@contextmanager
def _collector_paused() -> Iterator[None]:
    """No garbage collection while libraries and weights are loaded, nor over them later: it finds nothing there and takes a second."""
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()
