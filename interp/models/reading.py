"""Tensors of safetensors files that are read, and turned into the wanted dtype, a megabyte at a time.

Where the dtype in memory is not that of the file, mapping the file would hold both: the new tensors, and every page of the file that has
been touched. Reading holds the new ones and a buffer. ``lazy_tensors`` is what transformers takes as a state dict.
"""

import json
from dataclasses import dataclass
from math import prod
from pathlib import Path
from types import EllipsisType
from typing import Any

import torch
from torch import Tensor

from interp.models.folder import weight_files

_BUFFER = 1 << 20
_DTYPES = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}


@dataclass(frozen=True, kw_only=True)
class LazyTensor:
    """A tensor of a file from byte ``start`` on; ``[...]`` reads it in ``wanted``."""

    file: Path
    start: int
    shape: tuple[int, ...]
    stored: torch.dtype
    wanted: torch.dtype

    def __getitem__(self, whole: EllipsisType) -> Tensor:
        out = torch.empty(self.shape, dtype=self.wanted)
        flat, done = out.view(-1), 0
        buffer = bytearray(min(_BUFFER, flat.numel() * self.stored.itemsize))
        part = torch.frombuffer(buffer, dtype=self.stored)
        with open(self.file, "rb", buffering=0) as file:
            file.seek(self.start)
            while done < flat.numel():
                count = min(len(part), flat.numel() - done)
                wanted = memoryview(buffer)[: count * self.stored.itemsize]
                if file.readinto(wanted) != len(wanted):
                    raise OSError(f"{self.file} ended while it was read")
                flat[done : done + count] = part[:count]
                done += count
        return out

    def get_shape(self) -> list[int]:
        """The sizes, as safetensors' own slices say them."""
        return list(self.shape)


def lazy_tensors(folder: Path, skeleton: Any, dtype: torch.dtype) -> dict[str, Any] | None:
    """The tensors of a folder by name, each read when it is asked for; None where that would be no gain, or would change a number.

    No gain where the files are in ``dtype`` already: mapped, they are the weights. A model that keeps some tensors in another dtype than
    the rest is left to transformers, which knows which.
    """
    found: dict[str, Any] = {}
    for file in weight_files(folder):
        with open(file, "rb") as opened:
            length = int.from_bytes(opened.read(8), "little")
            header = json.loads(opened.read(length))
        header.pop("__metadata__", None)
        for name, entry in header.items():
            if entry["dtype"] not in _DTYPES or not prod(entry["shape"]):
                return None
            found[name] = LazyTensor(
                file=file,
                start=8 + length + entry["data_offsets"][0],
                shape=tuple(entry["shape"]),
                stored=_DTYPES[entry["dtype"]],
                wanted=dtype,
            )
    alike = all(tensor.stored == dtype for tensor in found.values())
    return None if alike or _keeps_others(skeleton, dtype) else found


def _keeps_others(skeleton: Any, dtype: torch.dtype) -> bool:
    kept = (getattr(skeleton, name, None) for name in ("_keep_in_fp32_modules", "_keep_in_fp32_modules_strict"))
    floating = (tensor.dtype for tensor in skeleton.state_dict().values() if tensor.is_floating_point())
    return (dtype != torch.float32 and any(kept)) or any(found != dtype for found in floating)
