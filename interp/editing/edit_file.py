"""Reading a saved edit and holding it against the model it is to change."""

import os
from pathlib import Path

from interp.editing.edit import Edit
from interp.errors import ModelError
from interp.foreign_json import parse_json
from interp.runner.model import Model


def load_edit(path: str | os.PathLike[str], model: Model | None = None, *, other_base: bool = False) -> Edit:
    """An edit from the file that ``Edit.save`` wrote.

    With a ``model`` its weights from before any edit must be those that the edit was made for. ``other_base`` takes other weights of
    the same shapes: the edit that comes back is one of that model.

    Raises ModelError where the file is missing, damaged or no edit, and for another base model, UsageError where the edit does not fit
    the model's layers.
    """
    kind = _kind(path)
    if kind not in (None, Edit.kind):
        raise ModelError(
            f"{path} holds a {kind!r} result, not an edit; edits are written by Edit.save or `interp edit -o`"
        )
    edit = Edit.load(path)
    if model is None:
        return edit
    if other_base:
        return edit.rebased(model)
    edit.check(model)
    return edit


def _kind(path: str | os.PathLike[str]) -> str | None:
    """The kind of result a file says it holds; None where it says none, which reading it whole explains."""
    from safetensors import SafetensorError, safe_open

    if not Path(path).is_file():
        return None
    try:
        with safe_open(path, framework="pt") as file:
            kind = parse_json((file.metadata() or {}).get("interp_result", "{}")).get("kind")
    except (SafetensorError, OSError, ValueError, AttributeError):
        return None
    return kind if isinstance(kind, str) else None
