"""Where a weight is, also one that accelerate keeps outside its module and brings in for the module's forward alone.

With a device map a module may compute on another device than the one before it, and its weights may wait in host memory or on disk;
meanwhile they are on the ``meta`` device. Accelerate keeps them in a map that hangs on the module. Here they are found, read and
written there; everything else in interp asks here and need not know.
"""

import os
from collections.abc import Iterator, MutableMapping
from typing import Any

import torch
from torch import Tensor, nn

from interp.errors import ModelError

_SHARD = "2GB"
"""Files of a model whose weights are offloaded: as much of them is in memory at once while it is saved."""


def execution_device(module: nn.Module) -> torch.device:
    """The device on which a module computes: what accelerate moves its inputs to, else where its weights are."""
    found = _hooked_device(module)
    if found is not None:
        return found
    for part in module.modules():
        device = _hooked_device(part)
        if device is not None:
            return device
        for tensor in (*part._parameters.values(), *part._buffers.values()):
            if tensor is not None:
                return tensor.device
    return torch.device("cpu")


def arriving(module: nn.Module, value: Tensor) -> Tensor:
    """An input of a module on the device where the module will compute with it: the copy that accelerate would make."""
    device = _hooked_device(module)
    return value if device is None or value.device == device else value.to(device)


def read_weight(module: nn.Module, name: str = "weight") -> Tensor | None:
    """The values of a parameter or buffer, on the module's device; not a copy where it is in memory. None where there is none.

    Raises ModelError where it is on the meta device and nothing says where its values are.
    """
    tensor = getattr(module, name, None)
    if not isinstance(tensor, Tensor):
        return None
    if not tensor.is_meta:
        return tensor.detach()
    values = _map_of(module, name)[name]
    return values.detach().to(device=execution_device(module), dtype=tensor.dtype)


def write_weight(module: nn.Module, name: str, values: Tensor) -> None:
    """Puts new values into a parameter, in its own memory; one that is offloaded is changed where it is kept.

    Nothing is written to disk: the new values of a weight that is read from there stay in host memory in its place, until it is given
    the values of the file again. Raises ModelError where accelerate's map cannot be changed.
    """
    tensor = getattr(module, name)
    if not tensor.is_meta:
        with torch.no_grad():
            tensor.copy_(values)
        return
    _put(_map_of(module, name), name, values.detach())


def named_weights(hf: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Every parameter with its values, each once and in the model's order; offloaded ones are in memory one after another."""
    tied = getattr(hf, "all_tied_weights_keys", None) or {}
    seen: set[int] = set()
    for path, module in hf.named_modules():
        for name, parameter in module._parameters.items():
            full = f"{path}.{name}" if path else name
            # A weight that comes and goes is a new object each time, so that its ties are told by name.
            if parameter is None or (full in tied if parameter.is_meta else id(parameter) in seen):
                continue
            seen.add(id(parameter))
            values = read_weight(module, name)
            assert values is not None, "the parameter is there"
            yield full, values


def is_dispatched(hf: nn.Module) -> bool:
    """Whether accelerate moves what this model computes with; then its parts may be on several devices."""
    return "_hf_hook" in hf.__dict__


def is_offloaded(hf: nn.Module) -> bool:
    """Whether any weight waits outside its module."""
    return any(parameter.is_meta for parameter in hf.parameters())


def save_weights(hf: Any, folder: str | os.PathLike[str]) -> None:
    """Hugging Face's ``save_pretrained``, which reads offloaded weights back, a shard at a time."""
    if not is_offloaded(hf):
        hf.save_pretrained(folder)
        return
    # By this it tells offloaded weights; accelerate's cpu_offload and disk_offload do not set it.
    told = "hf_device_map" in vars(hf)
    if not told:
        hf.hf_device_map = {"": "disk"}
    try:
        hf.save_pretrained(folder, max_shard_size=_SHARD)
    finally:
        if not told:
            del hf.hf_device_map


def _hooks(module: nn.Module) -> tuple[Any, ...]:
    hook = module.__dict__.get("_hf_hook")
    return () if hook is None else tuple(getattr(hook, "hooks", (hook,)))


def _hooked_device(module: nn.Module) -> torch.device | None:
    for hook in _hooks(module):
        device = getattr(hook, "execution_device", None)
        if device is not None:
            return torch.device("cuda", device) if isinstance(device, int) else torch.device(device)
    return None


def _map_of(module: nn.Module, name: str) -> Any:
    """Accelerate's map from the names of a module's weights to their values."""
    for hook in _hooks(module):
        weights = getattr(hook, "weights_map", None)
        if getattr(hook, "offload", False) and weights is not None:
            return weights
    raise ModelError(
        f"the {name} of a {type(module).__name__} is on the meta device and no hook of accelerate says where its values are; "
        "load the model with interp.load, or dispatch it with accelerate"
    )


def _put(weights: Any, key: str, values: Tensor) -> None:
    if hasattr(weights, "dataset") and hasattr(weights, "prefix"):  # accelerate's PrefixedDataset
        return _put(weights.dataset, f"{weights.prefix}{key}", values)
    kept, on_disk = getattr(weights, "state_dict", None), getattr(weights, "index", {})
    if isinstance(kept, MutableMapping):  # accelerate's OffloadedWeightsLoader
        return _put_before_disk(weights, key, values) if key in on_disk else _copy(kept[key], values)
    if isinstance(weights, MutableMapping):
        return _copy(weights[key], values)
    raise ModelError(
        f"{key} is kept in a {type(weights).__name__}, which cannot be written to; load the model without offloading"
    )


def _copy(kept: Tensor, values: Tensor) -> None:
    with torch.no_grad():
        kept.copy_(values)


def _put_before_disk(weights: Any, key: str, values: Tensor) -> None:
    """What is kept in memory goes before what is on disk; equal values need not be kept."""
    weights.state_dict.pop(key, None)
    stored = weights[key]
    if not torch.equal(stored.cpu().view(torch.uint8), values.to("cpu", stored.dtype).view(torch.uint8)):
        weights.state_dict[key] = values.to("cpu", stored.dtype, copy=True)
