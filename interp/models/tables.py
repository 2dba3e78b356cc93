"""Every tensor of a model, from file headers alone: names, shapes, formats, sizes. No weight is read and torch is not imported."""

import os
import re
from collections.abc import Iterable
from pathlib import Path

from interp.models.folder import folder_tensors
from interp.models.gguf import is_gguf, read_gguf_header
from interp.models.headers import TensorInfo, read_header
from interp.models.locate import find_files


def tensor_table(name: str | os.PathLike[str]) -> list[TensorInfo]:
    """Every tensor of a model on this machine, in natural order (layer 2 before layer 10).

    Args:
        name: a folder of safetensors, one ``.safetensors`` or ``.gguf`` file, or the alias or Hugging Face id of a cached model.

    Raises:
        ModelError: the model is not here, or a file is damaged.

    """
    path = find_files(os.fspath(name))
    return sorted(_read(path), key=lambda info: natural_key(info.name))


def _read(path: Path) -> Iterable[TensorInfo]:
    if path.is_dir():
        return folder_tensors(path)
    return read_gguf_header(path).tensors if path.suffix.lower() == ".gguf" or is_gguf(path) else read_header(path)


def natural_key(name: str) -> tuple[tuple[int, int, str], ...]:
    """A sorting key under which numbers inside names count as numbers, of any length."""
    parts = re.split("([0-9]+)", name)
    return tuple(
        (0, len(part.lstrip("0")), part.lstrip("0")) if index % 2 else (1, 0, part) for index, part in enumerate(parts)
    )
