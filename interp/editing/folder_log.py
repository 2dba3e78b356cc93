"""What an edited model folder remembers, in a file beside the weights: the bytes from before any edit, and the edits that are in it.

The file is written before the weights are, so that a process that is killed in between leaves all that is needed to go on or back.
"""

import hashlib
import json
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from interp.editing.edit import LayerEdit
from interp.editing.folder_shards import replaced
from interp.errors import ModelError, brief
from interp.foreign_json import parse_json
from interp.plain_json import built
from interp.prompts import Fact

if TYPE_CHECKING:
    from interp.editing.edit import Edit

LOG = "interp-edits.safetensors"
_HEADER_KEY = "interp_edits"
_VERSION = 1


@dataclass(frozen=True, kw_only=True, eq=False)
class FolderEdit:
    """An edit that is in a folder: ``name`` is the SHA-256 of its factors, ``model`` the one it was made on."""

    name: str
    method: str
    model: str
    facts: tuple[Fact, ...]
    layers: tuple[LayerEdit, ...]
    tensors: tuple[str, ...]


@dataclass(frozen=True, kw_only=True, eq=False)
class LoggedTensor:
    """A tensor before any edit, and the hashes of its bytes before and after the last change, which may have been stopped between."""

    file: str
    base: Tensor
    was: str
    becomes: str


@dataclass(frozen=True, kw_only=True, eq=False)
class FolderLog:
    """The edits of a folder in the order of their application, the tensors they touch, and the SHA-256 of their files before any edit.

    ``undoing`` says what the last change was to do.
    """

    edits: tuple[FolderEdit, ...] = ()
    tensors: dict[str, LoggedTensor] = field(default_factory=dict)
    files: dict[str, str] = field(default_factory=dict)
    undoing: bool = False


def name_of(edit: "Edit") -> str:
    """What an edit is known by in a folder: the SHA-256 of its layers and factors."""
    digest = hashlib.sha256()
    for change in edit.layers:
        digest.update(f"{change.layer} {tuple(change.left.shape)} {tuple(change.right.shape)} ".encode())
        for factor in (change.left, change.right):
            digest.update(factor.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def read_log(folder: Path) -> FolderLog | None:
    """What the folder remembers; None where it holds no edit. Raises ModelError where the file is damaged or of another version."""
    from safetensors import SafetensorError, safe_open

    path = folder / LOG
    if not path.exists():
        return None
    try:
        with safe_open(path, framework="pt") as file:
            header = parse_json((file.metadata() or {})[_HEADER_KEY])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        if header["schema_version"] != _VERSION:
            raise ModelError(
                f"{path} is of version {brief(header['schema_version'])}, this interp reads {_VERSION}; upgrade interp"
            )
        return _decoded(header, tensors)
    except (SafetensorError, OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        cause = brief(error) or type(error).__name__
        raise ModelError(
            f"{path} is damaged ({cause}), so the edits of this folder cannot be taken back; fetch the folder again"
        ) from error


def write_log(folder: Path, log: FolderLog) -> None:
    """Writes what the folder remembers, all of it or nothing."""
    from safetensors.torch import save_file

    header, tensors = _encoded(log)
    with replaced(folder, LOG) as part:
        save_file(tensors, part, {_HEADER_KEY: json.dumps(header)})
        part.chmod((folder / next(iter(log.files))).stat().st_mode & 0o777)  # safetensors leaves out the umask


def _encoded(log: FolderLog) -> tuple[dict[str, Any], dict[str, Tensor]]:
    tensors = {f"interp.base.{name}": found.base.contiguous() for name, found in log.tensors.items()}
    for index, edit in enumerate(log.edits):
        for number, change in enumerate(edit.layers):
            tensors[f"interp.edit.{index}.{number}.left"] = change.left.detach().cpu().contiguous().clone()
            tensors[f"interp.edit.{index}.{number}.right"] = change.right.detach().cpu().contiguous().clone()
    header = {
        "schema_version": _VERSION,
        "undoing": log.undoing,
        "files": log.files,
        "tensors": {
            name: {"file": found.file, "was": found.was, "becomes": found.becomes}
            for name, found in log.tensors.items()
        },
        "edits": [
            {
                "name": edit.name,
                "method": edit.method,
                "model": edit.model,
                "facts": [[fact.subject, fact.template, fact.target] for fact in edit.facts],
                "tensors": edit.tensors,
                "layers": [
                    {
                        "layer": change.layer,
                        "path": change.path,
                        "transposed": change.transposed,
                        "base_dtype": change.base_dtype,
                        "base_sha256": change.base_sha256,
                        "base_norm": change.base_norm,
                    }
                    for change in edit.layers
                ],
            }
            for edit in log.edits
        ],
    }
    return header, tensors


def _decoded(header: dict[str, Any], tensors: dict[str, Tensor]) -> FolderLog:
    edits = []
    for index, entry in enumerate(header["edits"]):
        layers = tuple(
            built(
                LayerEdit,
                {
                    "left": tensors[f"interp.edit.{index}.{number}.left"],
                    "right": tensors[f"interp.edit.{index}.{number}.right"],
                    **change,
                },
            )
            for number, change in enumerate(entry["layers"])
        )
        words = [field.name for field in fields(Fact)]
        facts = tuple(built(Fact, dict(zip(words, fact, strict=True))) for fact in entry["facts"])
        named = {key: entry[key] for key in ("name", "method", "model")}
        edits.append(built(FolderEdit, {"layers": layers, "facts": facts, "tensors": tuple(entry["tensors"]), **named}))
    logged = {
        name: built(LoggedTensor, {"base": tensors[f"interp.base.{name}"], **found})
        for name, found in header["tensors"].items()
    }
    rest = {"files": header["files"], "undoing": header["undoing"]}
    return built(FolderLog, {"edits": tuple(edits), "tensors": logged, **rest})
