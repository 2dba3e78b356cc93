"""What every analysis ends in: a frozen result with a table, a figure, a file format and provenance.

A result class is a frozen dataclass whose fields are tensors, plain values, tuples, dictionaries with string keys, or
further frozen dataclasses. From its fields alone this module gives it a file (safetensors: tensors as tensors, the rest
as JSON in the header; nothing in it can run code), a JSON object, and a place in the registry by which ``load_result``
finds the class again::

    @dataclass(frozen=True, kw_only=True, eq=False)
    class LensResult(Result):
        kind: ClassVar[str] = "logit_lens"
        schema_version: ClassVar[int] = 1
        tokens: Tokens
        entropy_nats: Float[Tensor, "layer pos"]

The same result always gives the same bytes, in the file and in JSON.
"""

import json
import math
import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar, get_args, get_type_hints

from torch import Tensor

from interp.errors import ModelError, brief
from interp.files import save_tensors
from interp.foreign_json import parse_json
from interp.maths.estimates import Estimate as Estimate  # a result's own word for a figure from samples
from interp.plain_json import built, from_plain, plain

if TYPE_CHECKING:
    from pandas import DataFrame
    from plotly.graph_objects import Figure

# Not typing.Self: the run-time checker of the tests cannot resolve it in a class that it does not decorate itself.
_R = TypeVar("_R", bound="Result")

# One metadata key only: safetensors writes several in an order that changes from run to run.
_HEADER_KEY = "interp_result"
_TENSOR, _FLOAT, _DATACLASS = "$tensor", "$float", "$dataclass"


@dataclass(frozen=True, kw_only=True)
class Provenance:
    """Where a result comes from: enough to repeat it.

    ``weights_sha256`` is None for a model made in memory; ``created`` is an ISO 8601 time in UTC; ``threads`` is
    torch's intra-op number; ``attention`` is the model's attention implementation; ``versions`` are those of packages.
    """

    model: str
    weights_sha256: str | None
    architecture: str
    dtype: str
    device: str
    threads: int
    seed: int | None
    command: str | None
    created: str
    versions: dict[str, str]
    attention: str | None


@dataclass(frozen=True, kw_only=True, eq=False)
class Result(ABC):
    """Base of every result; a subclass sets ``kind`` (unique) and ``schema_version`` (one more when fields change)."""

    kind: ClassVar[str]
    schema_version: ClassVar[int] = 1
    provenance: Provenance

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        kind = cls.__dict__.get("kind")
        if kind is None:
            return
        known = _KINDS.get(kind)
        same = known is None or (known.__module__, known.__qualname__) == (cls.__module__, cls.__qualname__)
        assert same, f"two result classes have the kind {kind!r}: {known} and {cls}"
        _KINDS[kind] = cls

    @abstractmethod
    def to_frame(self) -> "DataFrame":
        """The result as a tidy table, one observation a row, with the unit in each column's name."""

    @abstractmethod
    def figure(self) -> "Figure":
        """The result as a plotly figure to look at or change."""

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes the result to ``path`` (safetensors with a JSON header), all of it or nothing.

        Raises:
            UsageError: the path cannot be written.

        """
        text, tensors = self.packed()
        save_tensors(path, tensors, {_HEADER_KEY: text})

    def packed(self) -> tuple[str, dict[str, Tensor]]:
        """What ``save`` writes, to be kept beside other things: the header's text, and the tensors; ``unpacked`` reads both."""
        tensors: dict[str, Tensor] = {}
        encoded = {field.name: _encode(getattr(self, field.name), field.name, tensors) for field in fields(self)}
        header = {"kind": self.kind, "schema_version": self.schema_version, "fields": encoded}
        return json.dumps(header, sort_keys=True, ensure_ascii=True, allow_nan=False), tensors

    @classmethod
    def load(cls: "type[_R]", path: str | os.PathLike[str]) -> "_R":
        """Reads a result written by ``save``.

        Raises:
            ModelError: the file is missing, damaged, of an unknown kind or another version, or holds another class.

        """
        result = load_result(path)
        if not isinstance(result, cls):
            raise ModelError(
                f"{path} holds a {result.kind!r} result, not {cls.kind!r}; load it with interp.load_result"
            )
        return result

    def _repr_html_(self) -> str:
        """How a notebook shows the result: inert HTML, see ``interp.notebook``."""
        from interp.notebook import fragment

        return fragment(self)

    def to_json(self) -> dict[str, Any]:
        """The result as one JSON-safe object: tensors as nested lists, NaN and infinity as null."""
        head = {"kind": self.kind, "schema_version": self.schema_version}
        return head | {field.name: plain(getattr(self, field.name)) for field in fields(self)}


_KINDS: dict[str, type[Result]] = {}


def registered_kinds() -> dict[str, type[Result]]:
    """The result classes imported so far, by kind."""
    return dict(sorted(_KINDS.items()))


def load_result(path: str | os.PathLike[str]) -> Result:
    """Reads a saved result of any kind whose module has been imported: a .safetensors file, or the .json of a command.

    JSON knows neither NaN nor infinity; where it says null the result holds NaN.

    Raises:
        ModelError: the file is missing, damaged, not a result, of an unknown kind or of a newer version.

    """
    if Path(path).suffix == ".json":
        kind, version, encoded = _read_json(path)
        known = _known(path, kind, version)
        return _built(path, lambda: from_plain(known, encoded))
    return unpacked(path, *_read(path))


def unpacked(path: str | os.PathLike[str], text: str, tensors: Mapping[str, Tensor]) -> Result:
    """The result that ``packed`` took apart, from the file ``path``, which errors name.

    Raises:
        ModelError: the parts are damaged, of an unknown kind or of another version.

    """
    try:
        header = parse_json(text)
        kind, version, encoded = header["kind"], header["schema_version"], header["fields"]
    except (ValueError, TypeError, KeyError) as error:
        raise _damaged(path, "its header is not the JSON of a result") from error
    known = _known(path, kind, version)
    return _built(path, lambda: _build(known, encoded, tensors, _dataclasses_within(known)))


def _known(path: str | os.PathLike[str], kind: Any, version: Any) -> type[Result]:
    """The class of a kind in the version that it has now."""
    known = _KINDS.get(kind) if isinstance(kind, str) else None
    if known is None:
        kinds = ", ".join(sorted(_KINDS)) or "none"
        raise ModelError(
            f"{path} holds a result of the unknown kind {brief(repr(kind))}; this version of interp reads: {kinds}"
        )
    if version != known.schema_version:
        todo = (
            "upgrade interp" if isinstance(version, int) and version > known.schema_version else "make the result again"
        )
        raise ModelError(
            f"{path} holds {kind!r} version {brief(repr(version))}, this interp reads {known.schema_version}; {todo}"
        )
    return known


def _built(path: str | os.PathLike[str], build: Callable[[], Any]) -> Any:
    try:
        return build()
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise _damaged(path, str(error) or type(error).__name__) from error


def _read_json(path: str | os.PathLike[str]) -> tuple[Any, Any, dict[str, Any]]:
    """Kind, version and fields of a result as JSON: the file of ``-o``, or what a command printed under ``--json``."""
    _check_there(path)
    try:
        found = parse_json(Path(path).read_bytes())
    except (OSError, ValueError) as error:
        raise _damaged(path, str(error)) from error
    if isinstance(found, dict) and "kind" not in found and isinstance(found.get("result"), dict):
        found = found["result"]
    if not isinstance(found, dict) or not {"kind", "schema_version"} <= set(found):
        raise ModelError(f"{path} is JSON but not a saved result; results are written by a command's -o or --json")
    encoded = {name: value for name, value in found.items() if name not in ("kind", "schema_version")}
    return found["kind"], found["schema_version"], encoded


def _check_there(path: str | os.PathLike[str]) -> None:
    if not Path(path).is_file():
        raise ModelError(f"there is no file {path}; results are written by Result.save or a command's -o option")


def _read(path: str | os.PathLike[str]) -> tuple[str, dict[str, Tensor]]:
    from safetensors import SafetensorError, safe_open

    _check_there(path)
    try:
        with safe_open(path, framework="pt") as file:
            text = (file.metadata() or {}).get(_HEADER_KEY)
            tensors = {name: file.get_tensor(name) for name in file.keys()} if text else {}  # noqa: SIM118
    except (SafetensorError, OSError, ValueError) as error:
        raise _damaged(path, str(error)) from error
    if text is None:
        raise ModelError(f"{path} is a safetensors file but not a saved result; results are written by Result.save")
    return text, tensors


def _damaged(path: str | os.PathLike[str], cause: str) -> ModelError:
    return ModelError(f"{path} is not a readable result file ({brief(cause)}); make it again")


def _encode(value: Any, name: str, tensors: dict[str, Tensor]) -> Any:
    """``value`` as strict JSON; its tensors are put into ``tensors`` under their path of field names."""
    if isinstance(value, Tensor):
        # A copy: safetensors refuses tensors that share memory, which slices of one tensor do.
        tensors[name] = value.detach().to("cpu", copy=True).contiguous()
        return {_TENSOR: name}
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else {_FLOAT: str(value)}
    if isinstance(value, tuple):
        return [_encode(item, f"{name}.{index}", tensors) for index, item in enumerate(value)]
    if isinstance(value, Mapping):
        assert all(isinstance(key, str) and not key.startswith("$") for key in value), f"{name}: bad keys {list(value)}"
        return {key: _encode(item, f"{name}.{key}", tensors) for key, item in value.items()}
    if is_dataclass(value) and not isinstance(value, type):
        items = {field.name: getattr(value, field.name) for field in fields(value)}
        return {_DATACLASS: type(value).__name__} | _encode(items, name, tensors)
    raise TypeError(f"a result cannot hold a {type(value).__name__} (in {name}); use tensors, tuples or dataclasses")


def _decode(value: Any, tensors: Mapping[str, Tensor], classes: Mapping[str, type]) -> Any:
    if isinstance(value, list):
        return tuple(_decode(item, tensors, classes) for item in value)
    if not isinstance(value, dict):
        return value
    if _TENSOR in value:
        return tensors[value[_TENSOR]]
    if _FLOAT in value:
        return float(value[_FLOAT])
    if _DATACLASS in value:
        inner = {key: item for key, item in value.items() if key != _DATACLASS}
        return _build(classes[value[_DATACLASS]], inner, tensors, classes)
    return {key: _decode(item, tensors, classes) for key, item in value.items()}


def _build(cls: type, encoded: Any, tensors: Mapping[str, Tensor], classes: Mapping[str, type]) -> Any:
    """An instance of the dataclass ``cls``, each field checked against its annotation."""
    if not isinstance(encoded, dict):
        return built(cls, encoded)
    return built(cls, {name: _decode(item, tensors, classes) for name, item in encoded.items()})


def _dataclasses_within(cls: type) -> dict[str, type]:
    """The dataclasses reachable through the annotations of ``cls``: the only classes a file may name."""
    found: dict[str, type] = {}
    waiting: list[Any] = list(get_type_hints(cls).values())
    while waiting:
        annotation = waiting.pop()
        waiting.extend(get_args(annotation))
        if isinstance(annotation, type) and is_dataclass(annotation) and annotation.__name__ not in found:
            found[annotation.__name__] = annotation
            waiting.extend(get_type_hints(annotation).values())
    return found
