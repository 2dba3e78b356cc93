"""Loading a model for a command, with progress and notes on stderr."""

import gc
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from interp.errors import UsageError

from .output import Output

if TYPE_CHECKING:
    from interp.runner.model import Model


def open_model(
    speaker: Output,
    name: str,
    *,
    device: str,
    dtype: str,
    device_map: str | None = None,
    revision: str | None = None,
    offline: bool = False,
) -> "Model":
    """The model that ``--model``, ``--device``, ``--device-map``, ``--dtype``, ``--revision`` and ``--offline`` ask for."""
    places = _read_device_map(device_map)
    with _collector_paused(), speaker.progress(in_bytes=True) as step:
        from interp.runner.model import load

        return load(
            name,
            device=device,
            dtype=dtype,
            device_map=places,
            revision=revision,
            offline=offline,
            progress=step,
            notify=speaker.note,
        )


def _read_device_map(text: str | None) -> Any:
    """A plan's name, or the mapping in a JSON file. Raises UsageError for a file that is none."""
    if text is None or not text.startswith("@"):
        return text
    try:
        found = json.loads(Path(text[1:]).read_bytes())
    except (OSError, ValueError) as error:
        raise UsageError(f"--device-map {text}: the file cannot be read as JSON ({error})") from error
    if not isinstance(found, dict) or not all(isinstance(place, str | int) for place in found.values()):
        raise UsageError(f'--device-map {text}: give an object from module paths to devices, such as {{"": "cpu"}}')
    return found


@contextmanager
def _collector_paused() -> Iterator[None]:
    """No garbage collection while libraries and weights are loaded, nor over them later: it finds nothing there and takes a second."""
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()
