"""Single tensors of a model folder: found by the module they belong to, read, and replaced in their file atomically.

A file is never written in place: a copy with the new bytes at the tensors' places is put where it was, in one rename.
"""

import os
import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from safetensors import SafetensorError
from torch import Tensor

from interp.editing.new_folder import sync_folder
from interp.errors import ModelError, UsageError, brief
from interp.models.cache import cache_folder
from interp.models.folder import folder_tensors, weight_files
from interp.models.headers import TensorInfo, read_header

if TYPE_CHECKING:
    from interp.editing.edit import LayerEdit

PART = ".interp-edits.part"
"""A file that is being written; one that is found is the remainder of a killed process."""
_FORMATS = ("float32", "bfloat16", "float16", "float64")
_COPY_FIRST = "copy the folder, or write an edited one with `interp edit export FILE --model-folder NEW`"


@dataclass(frozen=True, kw_only=True)
class StoredTensor:
    """A tensor of a folder: its name, the file it is in, and the place of its bytes there."""

    name: str
    file: str
    dtype: str
    shape: tuple[int, ...]
    offset: int
    size: int


def stored_tensors(folder: Path) -> dict[str, StoredTensor]:
    """Every tensor of a model folder by name, from the headers of its files.

    Raises UsageError where the folder is a cache that other programs read too, ModelError where it is none of safetensors.
    """
    if not folder.is_dir():
        what = "is a file" if folder.exists() else "does not exist"
        raise ModelError(f"{folder} {what}; give the folder of a model in safetensors")
    if folder.resolve().is_relative_to(cache_folder().resolve()):
        raise UsageError(f"{folder} is in interp's cache, which every command reads; {_COPY_FIRST}")
    for path in weight_files(folder):
        if path.is_symlink():
            raise UsageError(f"{path} is a link to {path.resolve()}, which others may read too; {_COPY_FIRST}")
    found: dict[str, StoredTensor] = {}
    folder_tensors(folder)  # holds the files against their index
    for path in weight_files(folder):
        infos = read_header(path)
        at = path.stat().st_size - sum(info.bytes for info in infos)  # tensors follow each other to the end of the file
        for info in infos:
            found[info.name] = _place(info, at)
            at += info.bytes
    return found


def tensor_of(change: "LayerEdit", tensors: Iterable[StoredTensor], folder: Path) -> StoredTensor:
    """The tensor that holds the matrix of a change. Checkpoints leave out or rename the first parts of a module's path.

    Raises ModelError where there is none, or where it is stored in a format that cannot be edited, UsageError for another shape.
    """
    wanted = f"{change.path}.weight".split(".")
    from_layer = len(wanted) - wanted.index(str(change.layer)) if str(change.layer) in wanted else len(wanted)
    shared = {tensor.name: _shared(wanted, tensor.name.split(".")) for tensor in tensors}
    most = max(shared.values(), default=0)
    best = [tensor for tensor in tensors if shared[tensor.name] == most]
    if most < from_layer or len(best) > 1:
        raise ModelError(
            f"{folder} has no tensor for {change.path}, which the edit changes; it holds another architecture"
        )
    found = best[0]
    shape = (len(change.left), change.right.shape[1])[:: -1 if change.transposed else 1]
    if found.shape != shape:
        wanted, there = (" x ".join(map(str, sizes)) for sizes in (shape, found.shape))
        raise UsageError(
            f"the edit changes a matrix of {wanted}, {found.name} in {folder} is {there}; give the model it was made for"
        )
    if found.dtype not in _FORMATS:
        raise ModelError(
            f"{found.name} in {folder} is stored as {found.dtype}; it can be edited in {', '.join(_FORMATS)}"
        )
    return found


def read_tensor(folder: Path, stored: StoredTensor) -> Tensor:
    """The tensor as it is in its file now."""
    with open(folder / stored.file, "rb") as file:
        file.seek(stored.offset)
        data = bytearray(file.read(stored.size))
    return torch.frombuffer(data, dtype=getattr(torch, stored.dtype)).reshape(stored.shape)


def replace_tensors(folder: Path, file: str, tensors: Mapping[StoredTensor, Tensor]) -> None:
    """Puts a copy of ``file`` with these tensors in its place; all other bytes stay. Raises UsageError where it cannot be written."""
    with replaced(folder, file) as part:
        shutil.copyfile(folder / file, part)
        shutil.copymode(folder / file, part)
        with open(part, "rb+") as written:
            for stored, tensor in tensors.items():
                written.seek(stored.offset)
                written.write(tensor.contiguous().view(torch.uint8).numpy().tobytes())


@contextmanager
def replaced(folder: Path, file: str) -> Iterator[Path]:
    """The path of a new version of ``folder / file``, which takes its place in one step, for good, when the block ends well.

    Raises UsageError where it cannot be written.
    """
    part = folder / PART
    try:
        yield part
        with open(part, "rb+") as written:
            os.fsync(written.fileno())
        os.replace(part, folder / file)
        sync_folder(folder)
    except (OSError, SafetensorError) as error:
        cause = getattr(error, "strerror", None) or brief(error)
        raise UsageError(f"cannot write {folder / file}: {cause}; the file is as it was") from error
    finally:
        part.unlink(missing_ok=True)


def _place(info: TensorInfo, offset: int) -> StoredTensor:
    return StoredTensor(
        name=info.name, file=info.file, dtype=info.dtype, shape=info.shape, offset=offset, size=info.bytes
    )


def _shared(first: list[str], second: list[str]) -> int:
    """How many parts the two names have in common, counted from their ends."""
    pairs = zip(reversed(first), reversed(second), strict=False)
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))
