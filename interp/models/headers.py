"""What a safetensors file says it holds, read from its header alone and checked before any weight is read.

The format: eight bytes of header length (little endian), a JSON header that gives each tensor's dtype, shape and place, then the
tensors without gap or overlap. A file that breaks this is refused with its name, the cause and the fix. Standard library only.
"""

import json
import os
from collections.abc import Iterable
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

from interp.errors import ModelError, brief

# name in the file: (readable name, bits an element)
_DTYPES: dict[str, tuple[str, int]] = {
    "BOOL": ("bool", 8),
    "U8": ("uint8", 8),
    "I8": ("int8", 8),
    "U16": ("uint16", 16),
    "I16": ("int16", 16),
    "U32": ("uint32", 32),
    "I32": ("int32", 32),
    "U64": ("uint64", 64),
    "I64": ("int64", 64),
    "F4": ("float4_e2m1", 4),
    "F6_E2M3": ("float6_e2m3", 6),
    "F6_E3M2": ("float6_e3m2", 6),
    "F8_E4M3": ("float8_e4m3", 8),
    "F8_E5M2": ("float8_e5m2", 8),
    "F8_E4M3FNUZ": ("float8_e4m3fnuz", 8),
    "F8_E5M2FNUZ": ("float8_e5m2fnuz", 8),
    "F8_E8M0": ("float8_e8m0", 8),
    "F16": ("float16", 16),
    "BF16": ("bfloat16", 16),
    "F32": ("float32", 32),
    "F64": ("float64", 64),
    "C64": ("complex64", 64),
}
_MAX_HEADER = 100_000_000  # the format's own limit
_AGAIN = "fetch the file again"
_NOT_WEIGHTS: tuple[tuple[tuple[bytes, ...], str], ...] = (
    (
        (b"version https://git-lfs",),
        "it is a Git LFS pointer, not the weights; run `git lfs pull` in its folder or fetch the file again",
    ),
    (
        (b"<!doctype", b"<html", b"<?xml", b"<head"),
        "it is a web page, not weights; the download gave an error or login page, fetch the file again",
    ),
    (
        (b"pk\x03\x04", b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05"),
        "it is a pickle or zip file, which can run code and is never read; save the model as safetensors",
    ),
    ((b"gguf",), "it is a GGUF file; give it the ending .gguf and pass its path"),
)


@dataclass(frozen=True, kw_only=True)
class TensorInfo:
    """What a file's header says about one tensor.

    Attributes:
        name: as written in the file.
        shape: sizes, outermost first (row-major order, for GGUF files too).
        dtype: ``float32``, ``bfloat16``, ... or the GGUF quantisation type, such as ``Q4_1``.
        bytes: space in the file.
        file: name of the file that holds it.

    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    bytes: int
    file: str

    @property
    def parameters(self) -> int:
        """How many numbers it holds."""
        return prod(self.shape)


def broken(path: Path, cause: str, fix: str = _AGAIN) -> ModelError:
    """The one-line error for a damaged file: which, why, what to do."""
    return ModelError(f"{path}: {brief(cause)}; {fix}")


def open_size(path: Path) -> int:
    """Size of a readable regular file in bytes, or a ModelError."""
    try:
        if not path.is_file():
            raise broken(path, "no such file" if not path.exists() else "not a regular file", "check the path")
        return path.stat().st_size
    except OSError as error:
        raise broken(path, f"cannot be read ({error.strerror})", "check the path and its permissions") from error


def refuse_other_formats(path: Path, start: bytes) -> None:
    """Names a file that is something other than weights, by its first bytes."""
    head = start.lstrip().lower()
    for signatures, cause in _NOT_WEIGHTS:
        if head.startswith(signatures):
            raise ModelError(f"{path}: {cause}")


def read_header(path: str | os.PathLike[str]) -> list[TensorInfo]:
    """Every tensor of one safetensors file, from its header, in file order.

    Raises:
        ModelError: the file is missing, empty, truncated, something else than safetensors, or its header contradicts itself.

    """
    path = Path(path)
    size = open_size(path)
    if size == 0:
        raise broken(path, "the file is empty (0 bytes)")
    header, data_size = _read_json(path, size)
    header.pop("__metadata__", None)
    placed = sorted((_entry(path, name, entry) for name, entry in header.items()), key=lambda item: item[:2])
    _check_places(path, placed, data_size)
    return [info for _, _, info in placed]


def _read_json(path: Path, size: int) -> tuple[dict[str, Any], int]:
    try:
        with open(path, "rb") as file:
            start = file.read(64)
            refuse_other_formats(path, start)
            length = int.from_bytes(start[:8], "little")
            if size < 8 or start[8:9] != b"{" or length > _MAX_HEADER:
                raise broken(path, "not a safetensors file (its first bytes are no safetensors header)")
            if length > size - 8:
                raise broken(path, f"truncated: the header alone takes {length:,} bytes and the file has {size:,}")
            file.seek(8)
            text = file.read(length)
    except OSError as error:
        raise broken(path, f"cannot be read ({error.strerror})", "check its permissions and the disk") from error
    try:
        header = json.loads(text, object_pairs_hook=_unique)
    except (ValueError, RecursionError) as error:
        raise broken(path, f"the safetensors header is no valid JSON ({error})") from error
    if not isinstance(header, dict):
        raise broken(path, "the safetensors header is no JSON object")
    return header, size - 8 - length


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a name occurs twice")
    return found


def _entry(path: Path, name: str, entry: object) -> tuple[int, int, TensorInfo]:
    """Begin, end and description of one tensor; the byte range must agree with shape and dtype."""
    if not isinstance(entry, dict):
        raise broken(path, f"the header entry of {name!r} is no object")
    dtype = entry.get("dtype")
    if not isinstance(dtype, str) or dtype not in _DTYPES:
        raise broken(path, f"tensor {name!r} has the unknown dtype {dtype!r}")
    shape, offsets = _sizes(entry.get("shape")), _sizes(entry.get("data_offsets"))
    if shape is None or offsets is None or len(offsets) != 2 or offsets[0] > offsets[1]:
        raise broken(path, f"tensor {name!r} has a bad shape or bad offsets in the header")
    label, bits = _DTYPES[dtype]
    begin, end = offsets
    if prod(shape) * bits != (end - begin) * 8:
        raise broken(path, f"tensor {name!r} is {label} {list(shape)} but its byte range has {end - begin:,} bytes")
    return begin, end, TensorInfo(name=name, shape=shape, dtype=label, bytes=end - begin, file=path.name)


def _sizes(value: object) -> tuple[int, ...] | None:
    """A list of sizes or offsets from the header; None if it is none."""
    if isinstance(value, list) and all(type(item) is int and item >= 0 for item in value):
        return tuple(value)
    return None


def _check_places(path: Path, placed: Iterable[tuple[int, int, TensorInfo]], data_size: int) -> None:
    """Tensors follow each other without gap or overlap and end where the file ends."""
    at = 0
    for begin, end, info in placed:
        if begin != at:
            word = "overlaps the one before it" if begin < at else "leaves a gap before it"
            raise broken(path, f"tensor {info.name!r} {word} (starts at byte {begin:,}, expected {at:,})")
        at = end
    if at > data_size:
        raise broken(path, f"truncated: the tensors need {at:,} bytes and the file has {data_size:,}")
    if at < data_size:
        raise broken(path, f"{data_size - at:,} bytes follow the last tensor")
