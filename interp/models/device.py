"""Which device and number format a model is loaded in."""

from collections import Counter
from collections.abc import Iterable
from typing import TYPE_CHECKING

from interp.errors import UsageError, unknown
from interp.models.headers import TensorInfo

if TYPE_CHECKING:
    import torch

DTYPES = ("auto", "float32", "bfloat16", "float16")


def available_devices() -> tuple[str, ...]:
    """The devices of this machine, best first: every CUDA device, MPS, the CPU."""
    import torch

    cuda = [f"cuda:{index}" for index in range(torch.cuda.device_count())] if torch.cuda.is_available() else []
    mps = ["mps"] if torch.backends.mps.is_available() else []
    return (*cuda, *mps, "cpu")


def resolve_device(device: str) -> "torch.device":
    """The device that ``device`` asks for; ``auto`` takes CUDA, then MPS, then the CPU.

    Raises:
        UsageError: this machine has no such device; the message names those it has.

    """
    import torch

    devices = available_devices()
    if device == "auto":
        return torch.device(devices[0])
    if device == "cuda" and "cuda:0" in devices:
        return torch.device("cuda:0")
    if device in devices:
        return torch.device(device)
    if device in ("cpu:0", "mps:0") and device[:3] in devices:
        return torch.device(device[:3])
    raise UsageError(f"device {device!r} is not available here; available: auto, {', '.join(devices)}")


def takes_accelerator(device: str) -> bool:
    """Whether ``device`` ("auto" takes the best that is here) is another than the CPU."""
    return (available_devices()[0] if device == "auto" else device).partition(":")[0] != "cpu"


def free_memory(device: "torch.device") -> int | None:
    """Free bytes on a device; None where it cannot be told."""
    import psutil
    import torch

    if device.type == "cuda":
        unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return torch.cuda.mem_get_info(device)[0] + unused
    return psutil.virtual_memory().available if device.type in ("cpu", "mps") else None


def check_dtype(dtype: str) -> str:
    """``dtype`` if it is one of DTYPES.

    Raises:
        UsageError: it is not.

    """
    if dtype not in DTYPES:
        raise unknown("dtype", dtype, DTYPES)
    return dtype


def resolve_dtype(dtype: str, device: "torch.device", tensors: Iterable[TensorInfo]) -> "torch.dtype":
    """The number format to load in; ``auto`` is fp32 on the CPU and the checkpoint's own on accelerators.

    fp32 on the CPU because every fp16 and bf16 value is exact in it, and because half precision is slower there than fp32.
    The checkpoint's format is the one most of its bytes are in.
    """
    import torch

    if dtype != "auto":
        return getattr(torch, dtype)
    if device.type == "cpu":
        return torch.float32
    sizes: Counter[str] = Counter()
    for info in tensors:
        sizes[info.dtype] += info.bytes
    common = sizes.most_common(1)[0][0] if sizes else "float32"
    return {"float16": torch.float16, "bfloat16": torch.bfloat16}.get(common, torch.float32)
