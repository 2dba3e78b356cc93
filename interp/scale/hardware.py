"""The processor that numbers are computed on."""

import platform

import torch

from interp.runner.model import Model


def hardware_of(model: Model) -> str:
    """What the last bits of a number can depend on beside the versions of the packages: the GPU's name, or what the CPU can do."""
    if model.device.type == "cuda":
        return torch.cuda.get_device_name(model.device)
    return f"{platform.machine()} {torch.backends.cpu.get_cpu_capability()}"


def own_gpu(device: str, number: int) -> str:
    """The device of the worker with this number: workers on one machine take its GPUs in turn."""
    if device not in ("auto", "cuda"):
        return device
    count = torch.cuda.device_count()
    return f"cuda:{number % count}" if count else device
