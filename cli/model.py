"""Loading a model for a command, with progress and notes on stderr."""

from typing import TYPE_CHECKING

from .output import Output

if TYPE_CHECKING:
    from interp.runner.model import Model


def open_model(
    speaker: Output, name: str, *, device: str, dtype: str, revision: str | None = None, offline: bool = False
) -> "Model":
    """The model that ``--model``, ``--device``, ``--dtype``, ``--revision`` and ``--offline`` ask for."""
    from interp.runner.model import load

    with speaker.progress(in_bytes=True) as step:
        return load(
            name,
            device=device,
            dtype=dtype,
            revision=revision,
            offline=offline,
            progress=step,
            notify=speaker.note,
        )
