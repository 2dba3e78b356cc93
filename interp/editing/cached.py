"""Where things are kept that a model makes for its edits and would make alike each time."""

from pathlib import Path

from interp.errors import ModelError
from interp.models.cache import make_folder
from interp.runner.model import Model


def cached_path(model: Model, folder: str, name: str) -> Path | None:
    """The file ``name`` of this model, of these weights in this dtype, in a sub-folder of the cache.

    None for a model made in memory, and where the folder cannot be made.
    """
    if model.source is None:
        return None
    try:
        place = make_folder(folder)
    except ModelError:
        return None
    dtype = str(model.dtype).removeprefix("torch.")
    return place / f"{model.source.weights_sha256[:32]}-{dtype}-{name}"
