"""The models of a sweep: how each is loaded, as ``interp.load`` takes it, and what it is called in the rows."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from interp.errors import UsageError, unknown
from interp.models.placement import PLANS
from interp.scale.sweep_values import Values

LOADING = ("dtype", "device", "device_map", "max_memory", "offload_folder")
"""Keys that hold for all models, and that each model can have of its own."""
DTYPES = ("auto", "float32", "bfloat16", "float16")
_MODEL_KEYS = ("name", "revision", *LOADING)


@dataclass(frozen=True, kw_only=True)
class ModelSpec:
    """How a model is loaded: see ``interp.load``. Keys of ``max_memory`` are text, as files hold them."""

    name: str
    revision: str | None
    device: str
    dtype: str
    offline: bool
    device_map: str | dict[str, str | int] | None = None
    max_memory: dict[str, str | int] | None = None
    offload_folder: str | None = None

    def limits(self) -> dict[str | int, str | int] | None:
        """``max_memory`` with the numbers of GPUs as numbers."""
        if self.max_memory is None:
            return None
        return {int(place) if place.isdigit() else place: size for place, size in self.max_memory.items()}


def read_models(given: Mapping[str, Any], where: str, folder: Path) -> dict[str, ModelSpec]:
    """The models that a configuration names, by what each is called in the rows; relative paths are relative to ``folder``.

    Raises UsageError, with the valid names, for anything that is not known or of the wrong kind.
    """
    if "model" in given and "models" in given:
        raise UsageError(f"{where}: 'model' and 'models' were both given; give one of them")
    asked = given.get("models", given.get("model", "smollm2-135m"))
    asked = list(asked) if isinstance(asked, list | tuple) else [asked]
    if not asked:
        raise UsageError(f"{where}: 'models' is empty; name at least one")
    specs = [_model(one, given, Values(where), folder) for one in asked]
    names = [spec.name for spec in specs]
    found: dict[str, ModelSpec] = {}
    for spec in specs:
        parts = (spec.name, spec.revision, spec.dtype, spec.device) if names.count(spec.name) > 1 else (spec.name,)
        label = " ".join(part for part in parts if part)
        if label in found:
            raise UsageError(f"{where}: the model {label!r} is there twice; leave one out")
        found[label] = spec
    return found


def _model(one: Any, given: Mapping[str, Any], values: Values, folder: Path) -> ModelSpec:
    own: Mapping[str, Any] = {"name": one} if isinstance(one, str) else one
    if not isinstance(own, Mapping) or not isinstance(own.get("name"), str):
        raise UsageError(f"{values.where}: a model is a name, or a table with 'name'; got {one!r}")
    values.known("key of a model", own, _MODEL_KEYS)
    both = {**given, **own}
    dtype = values.of(both, "dtype", str, "text", "auto")
    if dtype not in DTYPES:
        raise unknown("dtype", dtype, DTYPES)
    device, offload = (
        values.of(both, name, str, "text", default) for name, default in (("device", "auto"), ("offload_folder", None))
    )
    device_map, max_memory = _device_map(both, values), _max_memory(both, values)
    if device_map is not None and device != "auto":
        raise UsageError(f"{values.where}: device {device!r} and device_map were both given; leave one of them out")
    for name, value in (("max_memory", max_memory), ("offload_folder", offload)):
        if value is not None and device_map is None:
            raise UsageError(f'{values.where}: {name} is of a device map; give device_map = "auto" with it')
    return ModelSpec(
        name=_resolved(own["name"], folder) if own["name"].startswith(".") else own["name"],
        revision=values.of(own, "revision", str, "text", None),
        device=device,
        dtype=dtype,
        offline=values.of(given, "offline", bool, "true or false", False),
        device_map=device_map,
        max_memory=max_memory,
        offload_folder=None if offload is None else _resolved(offload, folder),
    )


def _device_map(given: Mapping[str, Any], values: Values) -> str | dict[str, str | int] | None:
    """A plan of accelerate's, or where each part goes; what devices there are is seen where the model is loaded."""
    found = values.of(given, "device_map", str | Mapping, "text, or a table from module paths to devices")
    if isinstance(found, str) and found not in PLANS:
        raise unknown("device map", found, (*PLANS, "a table from module paths to devices"))
    if isinstance(found, Mapping):
        return _places(found, "device_map", 'a device, such as "cpu" or 0', values)
    return found


def _max_memory(given: Mapping[str, Any], values: Values) -> dict[str, str | int] | None:
    found = values.of(
        given, "max_memory", Mapping, 'a table from devices to sizes, such as { 0 = "20GB", cpu = "60GB" }'
    )
    return (
        None if found is None else _places(found, "max_memory", 'a size, such as "20GB" or a number of bytes', values)
    )


def _places(given: Mapping[Any, Any], name: str, said: str, values: Values) -> dict[str, str | int]:
    """A table whose values are text or whole numbers from 0. Raises UsageError for others, and for an empty one."""
    if not given:
        raise UsageError(f"{values.where}: {name!r} is empty; leave it out")
    for key, value in given.items():
        fits = isinstance(value, str | int) and not isinstance(value, bool) and value != ""
        if not fits or (isinstance(value, int) and value < 0):
            raise UsageError(f"{values.where}: {name} of {str(key)!r} must be {said}, got {value!r}")
    return {str(key): value for key, value in given.items()}


def _resolved(path: str, folder: Path) -> str:
    return str((folder / Path(path).expanduser()).resolve())
