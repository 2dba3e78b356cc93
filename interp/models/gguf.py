"""What a GGUF file says it holds: metadata and tensors, read from its header without loading weights.

The format (version 2 and 3): magic, version, counts; key/value metadata; for each tensor its name, shape (innermost first), type and
offset; then the aligned tensor data. Standard library only, because listing tensors must start fast.
"""

import mmap
import os
import struct
from contextlib import suppress
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

from interp.models.headers import TensorInfo, broken, open_size, refuse_other_formats

# type id: (name, elements a block, bytes a block)
QUANT_TYPES: dict[int, tuple[str, int, int]] = {
    0: ("float32", 1, 4),
    1: ("float16", 1, 2),
    2: ("Q4_0", 32, 18),
    3: ("Q4_1", 32, 20),
    6: ("Q5_0", 32, 22),
    7: ("Q5_1", 32, 24),
    8: ("Q8_0", 32, 34),
    9: ("Q8_1", 32, 40),
    10: ("Q2_K", 256, 84),
    11: ("Q3_K", 256, 110),
    12: ("Q4_K", 256, 144),
    13: ("Q5_K", 256, 176),
    14: ("Q6_K", 256, 210),
    15: ("Q8_K", 256, 292),
    16: ("IQ2_XXS", 256, 66),
    17: ("IQ2_XS", 256, 74),
    18: ("IQ3_XXS", 256, 98),
    19: ("IQ1_S", 256, 50),
    20: ("IQ4_NL", 32, 18),
    21: ("IQ3_S", 256, 110),
    22: ("IQ2_S", 256, 82),
    23: ("IQ4_XS", 256, 136),
    24: ("int8", 1, 1),
    25: ("int16", 1, 2),
    26: ("int32", 1, 4),
    27: ("int64", 1, 8),
    28: ("float64", 1, 8),
    29: ("IQ1_M", 256, 56),
    30: ("bfloat16", 1, 2),
    34: ("TQ1_0", 256, 54),
    35: ("TQ2_0", 256, 66),
    39: ("MXFP4", 32, 17),
}
# metadata value type: its struct code
_SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
_STRING, _ARRAY = 8, 9
_MAX_DIMS = 4
_SIZES = ("embedding_length", "feed_forward_length", "key_length", "value_length", "vocab_size", "_count")
_MAX_NESTING = 8

Scalar = str | int | float | bool


@dataclass(frozen=True, kw_only=True)
class GgufHeader:
    """The header of one GGUF file.

    Attributes:
        version: of the format.
        metadata: the scalar values by key (``general.architecture``, ``general.license``, ...); arrays are left out.
        tensors: in file order.

    """

    version: int
    metadata: dict[str, Scalar]
    tensors: tuple[TensorInfo, ...]

    def text(self, key: str) -> str | None:
        """A metadata value that is a string, or None."""
        value = self.metadata.get(key)
        return value if isinstance(value, str) and value else None


def is_gguf(path: Path) -> bool:
    """Whether a file begins as GGUF files do. A file that cannot be read is none: whoever reads it next says why."""
    with suppress(OSError), open(path, "rb") as file:
        return file.read(4) == b"GGUF"
    return False


def read_gguf_header(path: str | os.PathLike[str]) -> GgufHeader:
    """Reads and checks the header of a GGUF file.

    Raises:
        ModelError: the file is missing, empty, truncated, big-endian, of an unknown version, something else, or contradicts itself.

    """
    path = Path(path)
    size = open_size(path)
    if size == 0:
        raise broken(path, "the file is empty (0 bytes)")
    try:
        with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as view:
            if view[:4] != b"GGUF":
                refuse_other_formats(path, view[:64])
                raise broken(path, "not a GGUF file (it does not begin with 'GGUF')")
            return _Reader(path, view, size).header()
    except OSError as error:
        raise broken(path, f"cannot be read ({error.strerror})", "check its permissions and the disk") from error
    except (struct.error, IndexError) as error:
        raise broken(path, "truncated: it ends inside its header") from error


def check_sizes(path: Path, header: GgufHeader) -> None:
    """Refuses metadata that speak of more layers, or of larger ones, than the file has tensors for: a model is made as they say.

    Raises:
        ModelError: naming the key.

    """
    blocks = {info.name.split(".")[1] for info in header.tensors if info.name.startswith("blk.")}
    largest = max((size for info in header.tensors for size in info.shape), default=0)
    of = f"{header.text('general.architecture')}."
    count = header.metadata.get(f"{of}block_count")
    if count != len(blocks):
        raise broken(path, f"{of}block_count is {count} and the file has tensors of {len(blocks)} blocks")
    for key, value in header.metadata.items():
        if key.startswith(of) and key.endswith(_SIZES) and isinstance(value, int) and value > largest:
            raise broken(path, f"{key} is {value:,} and no tensor is longer than {largest:,}")


class _Reader:
    """A cursor over the mapped file."""

    def __init__(self, path: Path, view: mmap.mmap, size: int) -> None:
        self.path, self.view, self.size, self.at = path, view, size, 4

    def header(self) -> GgufHeader:
        version = self.number("I")
        if version not in (2, 3):
            cause = "it is big-endian" if version >> 16 else f"its format version is {version}"
            raise broken(self.path, f"{cause}; this reader knows little-endian versions 2 and 3", "convert it anew")
        n_tensors, n_values = self.number("Q"), self.number("Q")
        # a name takes at least 8 bytes, so larger counts cannot be true
        if max(n_tensors, n_values) > self.size // 8:
            raise broken(self.path, "truncated: the header counts more tensors than the file has room for")
        metadata: dict[str, Scalar] = {}
        for _ in range(n_values):
            key = self.text()
            value = self.value(self.number("I"))
            if value is not None:
                metadata[key] = value
        entries = [self.entry() for _ in range(n_tensors)]
        return GgufHeader(version=version, metadata=metadata, tensors=self.place(entries, metadata))

    def number(self, code: str) -> Any:
        (value,) = struct.unpack_from(f"<{code}", self.view, self.at)
        self.at += struct.calcsize(f"<{code}")
        return value

    def skip(self, length: int) -> int:
        """Moves over ``length`` bytes and gives where they began."""
        begin = self.at
        if length > self.size - begin:
            raise IndexError
        self.at += length
        return begin

    def text(self) -> str:
        length = self.number("Q")
        begin = self.skip(length)
        return self.view[begin : begin + length].decode("utf-8", "replace")

    def value(self, kind: int, nesting: int = 0) -> Scalar | None:
        """One metadata value; None for an array, which is only stepped over."""
        if kind in _SCALARS:
            return self.number(_SCALARS[kind])
        if kind == _STRING:
            return self.text()
        if kind != _ARRAY or nesting == _MAX_NESTING:
            raise broken(self.path, f"the header holds a value of the unknown type {kind}")
        inner, count = self.number("I"), self.number("Q")
        if inner in _SCALARS:
            self.skip(count * struct.calcsize(f"<{_SCALARS[inner]}"))
        elif inner == _STRING:
            for _ in range(count):
                self.skip(self.number("Q"))
        else:
            for _ in range(count):
                self.value(inner, nesting + 1)
        return None

    def entry(self) -> tuple[str, tuple[int, ...], int, int]:
        """Name, shape, type id and offset of one tensor."""
        name = self.text()
        n_dims = self.number("I")
        if n_dims > _MAX_DIMS:
            raise broken(self.path, f"tensor {name!r} has {n_dims} dimensions; GGUF allows {_MAX_DIMS}")
        inner_first = [self.number("Q") for _ in range(n_dims)]
        return name, tuple(reversed(inner_first)), self.number("I"), self.number("Q")

    def place(
        self, entries: list[tuple[str, tuple[int, ...], int, int]], metadata: dict[str, Scalar]
    ) -> tuple[TensorInfo, ...]:
        """Sizes of all tensors, each inside the file and clear of the others."""
        alignment = metadata.get("general.alignment", 32)
        if not isinstance(alignment, int) or alignment < 1:
            raise broken(self.path, f"general.alignment is {alignment!r}")
        data = -(-self.at // alignment) * alignment
        infos = [self.info(name, shape, kind) for name, shape, kind, _ in entries]
        end, before = 0, ""
        for offset, info in sorted(
            ((entry[3], info) for entry, info in zip(entries, infos, strict=True)), key=lambda pair: pair[0]
        ):
            if offset < end:
                raise broken(self.path, f"tensor {info.name!r} overlaps {before!r}")
            end, before = offset + info.bytes, info.name
            if data + end > self.size:
                raise broken(
                    self.path,
                    f"truncated: tensor {info.name!r} ends at byte {data + end:,} and the file has {self.size:,}",
                )
        if len({info.name for info in infos}) != len(infos):
            raise broken(self.path, "a tensor name occurs twice")
        return tuple(infos)

    def info(self, name: str, shape: tuple[int, ...], kind: int) -> TensorInfo:
        if kind not in QUANT_TYPES:
            raise broken(self.path, f"tensor {name!r} has the unknown GGUF type {kind}", "convert it to another type")
        label, block, block_bytes = QUANT_TYPES[kind]
        if shape and shape[-1] % block:
            raise broken(self.path, f"tensor {name!r} {list(shape)} does not divide into {label} blocks of {block}")
        return TensorInfo(
            name=name, shape=shape, dtype=label, bytes=prod(shape) // block * block_bytes, file=self.path.name
        )
