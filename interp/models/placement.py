"""Which device each part of a model goes to, chosen or checked with accelerate before any weight is read."""

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from interp.errors import MemoryLimitError, UsageError, unknown
from interp.models.device import available_devices, free_memory

if TYPE_CHECKING:
    import torch

PLANS = ("auto", "balanced", "balanced_low_0", "sequential")
"""Accelerate's ways to share a model out: auto and balanced fill GPUs evenly, sequential one after another; the rest goes to the CPU, and
what does not fit there to disk."""

DISK = "disk"
DeviceMap = str | Mapping[str, Any]
_OF_HOST = 0.9
"""Share of the free host memory that weights may take where nothing is said."""


def check_request(device: str, device_map: DeviceMap | None, max_memory: Mapping[Any, Any] | None) -> None:
    """Raises UsageError for a device map that this machine cannot have, before anything is fetched or read."""
    if device_map is None:
        if max_memory is not None:
            raise UsageError("max_memory says how a device map is filled; give device_map='auto' with it")
        return
    if device != "auto":
        raise UsageError(f"device {device!r} and a device map were given; leave one of them out")
    if isinstance(device_map, str):
        if device_map not in PLANS:
            raise unknown("device map", device_map, (*PLANS, "a mapping from module paths to devices"))
        return
    for part, place in device_map.items():
        _place_name(place, f"the device of {part or 'the whole model'!r}")


def takes_part(device_map: DeviceMap) -> "torch.device":
    """The first accelerator that a device map can use, else the CPU: what an automatic dtype goes by."""
    import torch

    names = available_devices() if isinstance(device_map, str) else map(_place_name, device_map.values())
    return next((torch.device(name) for name in names if name not in ("cpu", DISK)), torch.device("cpu"))


def placed(
    skeleton: Any, device_map: DeviceMap, max_memory: Mapping[Any, Any] | None, dtype: "torch.dtype"
) -> dict[str, int | str]:
    """Where each module of a model goes: its path to a device, "cpu" or "disk", in what accelerate calls them.

    Args:
        skeleton: the model on the meta device, tied weights tied.
        device_map: one of ``PLANS``, or a mapping from module paths to devices; "" is the whole model.
        max_memory: bytes, or text such as "20GB", by device index, "cpu"; what is free now where nothing is given.
        dtype: what the weights will be in memory.

    Raises:
        UsageError: a path that the model does not have, or a module that no path covers.
        MemoryLimitError: the weights for a device do not fit in what is free there.

    """
    found = _planned(skeleton, device_map, max_memory, dtype) if isinstance(device_map, str) else _given(device_map)
    _check_covered(skeleton, found)
    _check_room(skeleton, found, dtype)
    return dict(_apart(skeleton, "", None, found))


def _planned(skeleton: Any, plan: str, max_memory: Mapping[Any, Any] | None, dtype: "torch.dtype") -> dict[str, Any]:
    from accelerate import infer_auto_device_map
    from accelerate.utils.modeling import get_balanced_memory, get_max_memory

    whole: list[str] = list(getattr(skeleton, "_no_split_modules", None) or ())
    limits = get_max_memory(_limits(max_memory))
    if max_memory is None and "cpu" in limits:
        limits["cpu"] = int(limits["cpu"] * _OF_HOST)
    if plan != "sequential":
        low = plan == "balanced_low_0"
        limits = get_balanced_memory(skeleton, limits, no_split_module_classes=whole, dtype=dtype, low_zero=low)
    return dict(infer_auto_device_map(skeleton, limits, no_split_module_classes=whole, dtype=dtype))


def _limits(max_memory: Mapping[Any, Any] | None) -> dict[Any, Any] | None:
    """The caller's limits as accelerate takes them: device indices as numbers."""
    if max_memory is None:
        return None
    limits = {}
    for place, size in max_memory.items():
        name = _place_name(place, "a device of max_memory")
        limits[int(name.removeprefix("cuda:")) if name.startswith("cuda:") else name] = size
    return limits


def _given(device_map: Mapping[str, Any]) -> dict[str, Any]:
    names = {part: _place_name(place) for part, place in device_map.items()}
    return {part: int(name[5:]) if name.startswith("cuda:") else name for part, name in names.items()}


def _place_name(place: Any, what: str = "a device") -> str:
    """``cuda:0`` for 0, "cuda" and "cuda:0". Raises UsageError for what this machine does not have."""
    name = f"cuda:{place}" if isinstance(place, int) else str(place)
    name = "cuda:0" if name == "cuda" else name
    valid = (*available_devices(), DISK)
    if name not in valid:
        raise UsageError(f"{what} is {str(place)!r}, which is not available here; available: {', '.join(valid)}")
    return name


def _check_covered(skeleton: Any, found: Mapping[str, Any]) -> None:
    """Accelerate's paths name modules or single parameters."""
    known = {"", *(name for name, _ in skeleton.named_modules()), *(name for name, _ in skeleton.named_parameters())}
    strange = sorted(set(found) - known)
    if strange:
        raise UsageError(
            f"the device map names {strange[0]!r}, which {type(skeleton).__name__} does not have; its parts: "
            f"{', '.join(_parts(skeleton))}"
        )
    left = [name for name, _ in skeleton.named_parameters() if not any(_covers(part, name) for part in found)]
    if left:
        raise UsageError(
            f"the device map says nothing of {left[0]} ({len(left)} tensors in all); add its module, or '' for the rest"
        )


def _covers(part: str, name: str) -> bool:
    return part in ("", name) or name.startswith(f"{part}.")


def _parts(skeleton: Any) -> Iterator[str]:
    for name, child in skeleton.named_children():
        yield name
        yield from (f"{name}.{inner}" for inner, _ in child.named_children())


def _apart(module: Any, path: str, place: Any, found: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """The same map without a path inside another, which accelerate cannot follow: what surrounds a part is named part by part."""
    place = found.get(path, place)
    start = f"{path}." if path else ""
    if place is not None and not any(part.startswith(start) and part != path for part in found):
        yield path, place
        return
    for name, _ in (*module.named_parameters(recurse=False), *module.named_buffers(recurse=False)):
        own = found.get(f"{start}{name}", place)
        if own is not None:
            yield f"{start}{name}", own
    for name, child in module.named_children():
        yield from _apart(child, f"{start}{name}", place, found)


def _check_room(skeleton: Any, found: Mapping[str, Any], dtype: "torch.dtype") -> None:
    import torch

    needs: dict[str, int] = {}
    for name, parameter in skeleton.named_parameters():
        part = max((part for part in found if _covers(part, name)), key=len)
        place = _place_name(found[part])
        needs[place] = needs.get(place, 0) + parameter.numel() * dtype.itemsize
    for place, needed in needs.items():
        free = None if place == DISK else free_memory(torch.device(place))
        if free is not None and needed > free:
            raise MemoryLimitError(
                f"the device map puts {needed / 1e9:.1f} GB of weights in {str(dtype).removeprefix('torch.')} on {place}, where "
                f"{free / 1e9:.1f} GB are free; put more on disk or on other devices, or take {_smaller(dtype)}a smaller model"
            )


def _smaller(dtype: "torch.dtype") -> str:
    return "dtype='bfloat16' or " if dtype.itemsize > 2 else ""
