"""Dataclasses as plain JSON, and back by their annotations: what ``Result.to_json`` shows and ``load_result`` reads again.

NaN and both infinities are null in JSON and come back as NaN, or as None where a field may be None. A tensor comes back in the
precision that its digits need: those of a float32 read as one, whatever they were stored as.
"""

import math
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from types import NoneType, UnionType
from typing import Any, Union, get_args, get_origin, get_type_hints

import torch
from torch import Tensor


def plain(value: Any) -> Any:
    """``value`` as JSON-safe Python: tensors as nested lists, dataclasses and mappings as dictionaries."""
    if isinstance(value, Tensor):
        return _plain_tensor(value.detach().cpu())
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, tuple | list):
        return [plain(item) for item in value]
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if is_dataclass(value) and not isinstance(value, type):
        return {field.name: plain(getattr(value, field.name)) for field in fields(value)}
    return value


def from_plain(cls: type, encoded: Any) -> Any:
    """The instance of the dataclass ``cls`` that ``plain`` gave ``encoded`` for. Raises ValueError where it does not fit."""
    hints = get_type_hints(cls)
    if not isinstance(encoded, Mapping):
        return built(cls, encoded)
    return built(cls, {name: _read(value, hints.get(name, Any), name) for name, value in encoded.items()})


def built(cls: type, values: Any) -> Any:
    """An instance of the dataclass ``cls`` from its fields by name.

    Raises ValueError unless each is there and is what its annotation says, and axes of one name have one size in all of them.
    """
    hints = get_type_hints(cls)
    names = {field.name for field in fields(cls) if field.init}
    if not isinstance(values, Mapping) or set(values) != names:
        got = sorted(map(str, values)) if isinstance(values, Mapping) else type(values).__name__
        raise ValueError(f"{cls.__name__} needs the fields {sorted(names)}, got {got}")
    sizes: dict[str, int] = {}
    for name, value in values.items():
        if not fits(value, hints[name]):
            raise ValueError(f"field {name!r} of {cls.__name__} is not a {hints[name]}")
        for axis, size in _axes(value, hints[name]):
            if sizes.setdefault(axis, size) != size:
                raise ValueError(f"the axis {axis} of {cls.__name__} has {sizes[axis]} entries, and {size} in {name!r}")
    return cls(**values)


def _axes(value: Any, annotation: Any) -> list[tuple[str, int]]:
    """The named axes of a tensor with their sizes, where its annotation, or an arm of it, names each of them."""
    arms = get_args(annotation) if get_origin(annotation) in (Union, UnionType) else (annotation,)
    for names in (str(arm.dim_str).split() for arm in arms if hasattr(arm, "dim_str") and isinstance(value, Tensor)):
        if len(names) == value.ndim and all(name.isidentifier() for name in names):
            return [(name, size) for name, size in zip(names, value.shape, strict=True) if name != "_"]
    return []


def fits(value: Any, annotation: Any) -> bool:
    """Whether ``value`` is what ``annotation`` says: unions, tuples, mappings, classes and jaxtyping's array types."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if annotation is Any:
        return True
    if origin in (Union, UnionType):
        return any(fits(value, argument) for argument in arguments)
    if origin is tuple:
        if not isinstance(value, tuple):
            return False
        kinds = arguments[:1] * len(value) if arguments[-1] is Ellipsis else arguments
        return len(value) == len(kinds) and all(map(fits, value, kinds))
    if isinstance(origin, type) and issubclass(origin, Mapping):
        return isinstance(value, Mapping) and all(all(map(fits, item, arguments)) for item in value.items())
    if annotation is None or annotation is NoneType:
        return value is None
    if annotation is float:
        return isinstance(value, float | int) and not isinstance(value, bool)
    if annotation is int:
        return isinstance(value, int) and not isinstance(value, bool)
    return isinstance(value, annotation) if isinstance(annotation, type) else True


def _read(value: Any, annotation: Any, name: str) -> Any:
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin in (Union, UnionType):
        return _first_that_fits(value, arguments, name)
    if origin is tuple:
        if not isinstance(value, list):
            raise _misfit(name, annotation)
        kinds = arguments[:1] * len(value) if arguments[-1] is Ellipsis else arguments
        return tuple(_read(item, kind, name) for item, kind in zip(value, kinds, strict=True))
    if isinstance(origin, type) and issubclass(origin, Mapping):
        if not isinstance(value, dict):
            raise _misfit(name, annotation)
        return {key: _read(item, arguments[1], name) for key, item in value.items()}
    if _is_tensor(annotation):
        return _tensor(value, annotation, name)
    if isinstance(annotation, type) and is_dataclass(annotation):
        return from_plain(annotation, value)
    return _scalar(value, annotation, name)


def _first_that_fits(value: Any, annotations: tuple[Any, ...], name: str) -> Any:
    """``value`` as the first of several annotations that takes it; null is None wherever None is one of them."""
    if value is None and NoneType in annotations:
        return None
    for annotation in annotations:
        try:
            return _read(value, annotation, name)
        except ValueError:
            continue
    raise _misfit(name, " | ".join(map(str, annotations)))


def _scalar(value: Any, annotation: Any, name: str) -> Any:
    if annotation is float and (value is None or (isinstance(value, float | int) and not isinstance(value, bool))):
        return math.nan if value is None else float(value)
    if annotation in (NoneType, None) and value is not None:
        raise _misfit(name, annotation)
    if annotation is int and isinstance(value, bool):
        raise _misfit(name, annotation)
    if annotation in (float, int, str, bool) and not isinstance(value, annotation):
        raise _misfit(name, annotation)
    return value


def _is_tensor(annotation: Any) -> bool:
    return annotation is Tensor or getattr(annotation, "array_type", None) is Tensor


def _tensor(value: Any, annotation: Any, name: str) -> Tensor:
    """Nested lists as a tensor of a type that the annotation takes: whole numbers, truth values or floats as they are written."""
    if not isinstance(value, list | int | float | None):
        raise _misfit(name, annotation)
    for dtype in _types(value):
        try:
            found = torch.tensor(_nan_for_null(value), dtype=torch.float64 if dtype is torch.float32 else dtype)
        except (TypeError, ValueError, RuntimeError, OverflowError) as error:
            raise _misfit(name, annotation) from error
        found = _in_its_precision(found) if dtype is torch.float32 else found
        if isinstance(found, annotation):
            return found
    raise _misfit(name, annotation)


def _types(value: Any) -> tuple[torch.dtype, ...]:
    """The types that numbers so written can have; all where there is no number."""
    leaf = value
    while isinstance(leaf, list) and leaf:
        leaf = leaf[0]
    if isinstance(leaf, bool):
        return (torch.bool,)
    if isinstance(leaf, int):
        return (torch.int64, torch.uint8)
    return (torch.float32, torch.int64, torch.uint8, torch.bool) if isinstance(leaf, list) else (torch.float32,)


def _nan_for_null(value: Any) -> Any:
    if isinstance(value, list):
        return [_nan_for_null(item) for item in value]
    return math.nan if value is None else value


def _in_its_precision(tensor: Tensor) -> Tensor:
    """A float64 tensor as float32 where that loses no digit that was written."""
    narrow = tensor.to(torch.float32)
    written = torch.from_numpy(narrow.numpy().astype(str).astype(float)) if narrow.numel() else tensor
    return narrow if torch.equal(written.nan_to_num(), tensor.nan_to_num()) else tensor


def _misfit(name: str, annotation: Any) -> ValueError:
    return ValueError(f"field {name!r} is not a {annotation}")


def _plain_tensor(tensor: Tensor) -> Any:
    if not tensor.is_floating_point():
        return tensor.tolist()
    # Through text, so that 0.1 in float32 reads 0.1 and not 0.10000000149011612.
    array = tensor.to(torch.float32) if tensor.dtype == torch.bfloat16 else tensor
    return plain(array.numpy().astype(str).astype(float).tolist())
