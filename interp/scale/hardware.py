"""The processor that numbers were computed on."""

import platform

import torch

from interp.runner.model import Model


def hardware_of(model: Model) -> str:
    """What the last bits of a number can depend on beside the versions of the packages: the GPU's name, or what the CPU can do."""
    if model.device.type == "cuda":
        return torch.cuda.get_device_name(model.device)
    return f"{platform.machine()} {torch.backends.cpu.get_cpu_capability()}"
