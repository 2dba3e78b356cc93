"""The bytes of a safetensors file that is written in pieces: where each row goes is known from the shapes, before the last row is there.

The library writes a file from whole tensors, twice copied. The format is eight bytes with the length of the header, the header as JSON, and
the tensors one behind the other in the order of their names; a test holds these bytes equal to the library's own.
"""

import hashlib
import json
import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

_NAMES = {torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16"}


@dataclass(frozen=True, kw_only=True)
class Layout:
    """The header of a file, its own length in front, and where each tensor begins."""

    header: bytes
    offsets: Mapping[str, int]


def layout_of(tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> Layout:
    """The layout of a file of these tensors, which have one dtype."""
    described: dict[str, object] = {"__metadata__": dict(metadata)}
    offsets, end = dict[str, int](), 0
    for name in sorted(tensors):
        tensor = tensors[name]
        offsets[name], end = end, end + tensor.nbytes
        described[name] = {
            "dtype": _NAMES[tensor.dtype],
            "shape": list(tensor.shape),
            "data_offsets": [offsets[name], end],
        }
    text = json.dumps(described, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    header = struct.pack("<Q", len(text)) + text
    return Layout(header=header, offsets={name: len(header) + start for name, start in offsets.items()})


def pieces_of(
    tensors: Mapping[str, Tensor], layout: Layout, rows: Iterable[tuple[int, int]]
) -> list[tuple[int, memoryview]]:
    """The bytes of some rows (start, stop) of every tensor, with their places in the file."""
    spans = list(rows)
    return [
        (layout.offsets[name] + start * tensor[0].nbytes, bytes_of(tensor[start:stop]))
        for name, tensor in tensors.items()
        for start, stop in spans
    ]


def bytes_of(tensor: Tensor) -> memoryview:
    """The bytes of a tensor whose rows lie one behind the other, not copied."""
    return tensor.reshape(-1).view(torch.uint8).numpy().data


def sha256_of(tensors: Mapping[str, Tensor], layout: Layout) -> str:
    """The SHA-256 of the whole file."""
    digest = hashlib.sha256(layout.header)
    for name in layout.offsets:
        digest.update(bytes_of(tensors[name]))
    return digest.hexdigest()


def whole_file(tensors: Mapping[str, Tensor], layout: Layout) -> bytes:
    """All of it."""
    return b"".join([layout.header, *(bytes_of(tensors[name]) for name in layout.offsets)])
