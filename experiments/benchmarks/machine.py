"""What figures were measured on: the machine, the model and the versions."""

import datetime
import os
import platform
from importlib.metadata import PackageNotFoundError, version

import psutil
import torch

from interp.runner.model import Model

PACKAGES = ("torch", "transformers", "transformer-lens", "nnsight")


def about(model: Model, command: str) -> dict[str, str]:
    """The machine, the model and the versions."""
    source = model.source
    found = {}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "not installed"
    return {
        "command": command,
        "model": f"{model.name}, {str(model.dtype).removeprefix('torch.')} on {model.device}",
        "weights SHA-256": source.weights_sha256 if source else "made in memory",
        "machine": f"{os.cpu_count()} cores, {platform.machine()}, {platform.system()}, "
        f"{psutil.virtual_memory().total / 2**30:.0f} GiB",
        "threads": str(torch.get_num_threads()),
        "versions": ", ".join([f"Python {platform.python_version()}", *(f"{k} {v}" for k, v in found.items())]),
        "load average before": f"{psutil.getloadavg()[0]:.1f}",
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
    }
