"""Edits in the safetensors of a model folder: applied in place, several at once, undone in any order, safe against being killed.

Before a weight is touched its bytes are kept in a file beside it (``folder_log``), with the edits that the folder is to hold. Then each
file is replaced in one step. So at any moment the log says what every tensor is to be, and the next command brings it there: a change
that was killed is finished by the same command, or taken back by ``undo``. When no edit is left the files are those from before, byte
for byte, and the log is removed.
"""

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from interp.editing.folder_log import LOG, FolderEdit, FolderLog, LoggedTensor, name_of, read_log, write_log
from interp.editing.folder_shards import PART, StoredTensor, read_tensor, replace_tensors, stored_tensors, tensor_of
from interp.editing.matrix import sha256_of
from interp.editing.new_folder import sync_folder
from interp.editing.stack import edited_matrix
from interp.errors import ModelError, NumericsError, UsageError, VerificationError
from interp.models.cache import hash_file, locked

if TYPE_CHECKING:
    from interp.editing.edit import Edit, LayerEdit


@dataclass(frozen=True, kw_only=True, eq=False)
class FolderChange:
    """What a call did: the edits that are in the folder now, the files that it wrote, whether a killed change was finished first.

    ``taken_back`` are the edits that it took out; ``restored`` maps each file to its SHA-256 where the folder is as before any edit.
    """

    edits: tuple[FolderEdit, ...]
    written: tuple[str, ...]
    finished: bool
    taken_back: tuple[FolderEdit, ...] = ()
    restored: dict[str, str] | None = None


def folder_edits(folder: str | os.PathLike[str]) -> tuple[FolderEdit, ...]:
    """The edits that a model folder holds, the first that was applied first. Raises ModelError where its log is damaged."""
    log = read_log(Path(folder))
    return () if log is None else log.edits


def apply_to_folder(folder: str | os.PathLike[str], edit: "Edit", *, other_base: bool = False) -> FolderChange:
    """Writes an edit into the weights of a model folder, on top of those that are there; in the format that they are stored in.

    Where the same call was killed it is finished. ``other_base`` allows other base weights of the same shapes.
    Raises ModelError where the folder is no model of safetensors, holds another base model, or was changed by others since the last
    edit, UsageError where the edit is in it already, does not fit, or the folder cannot be written, NumericsError for NaN or infinity.
    """
    path = Path(folder)
    with _opened(path) as tensors:
        log = read_log(path) or FolderLog()
        now = _hashes(path, tensors, log)
        name = name_of(edit)
        if any(there.name == name for there in log.edits):
            if not _unfinished(log, now):
                raise UsageError(f"this edit is in {path} already; undo it with: interp edit undo {path}")
            return _bring(path, tensors, log, log.edits, now, undoing=log.undoing)
        added = _located(path, tensors, log, edit, name, other_base)
        return _bring(path, tensors, log, (*log.edits, added), now, undoing=False)


def undo_in_folder(folder: str | os.PathLike[str], edit: "Edit | None" = None) -> FolderChange:
    """Takes an edit out of a model folder, by default the last one; without edits its files are those from before, byte for byte.

    Where an undo was killed it is finished and nothing more is taken out.
    Raises UsageError where the edit is not in the folder, ModelError where the weights were changed by others since the last edit,
    VerificationError where other bytes of a file changed meanwhile, so that it is not the one from before.
    """
    path = Path(folder)
    with _opened(path) as tensors:
        log = read_log(path)
        if log is None:
            raise UsageError(f"no edit is in {path}; apply one with: interp edit apply FILE {path}")
        now = _hashes(path, tensors, log)
        unfinished = _unfinished(log, now) or not log.edits
        name = None if edit is None else name_of(edit)
        if unfinished and log.undoing and (name is None or all(there.name != name for there in log.edits)):
            return _bring(path, tensors, log, log.edits, now, undoing=True)
        taken = log.edits[-1] if name is None else next((there for there in log.edits if there.name == name), None)
        if taken is None:
            raise UsageError(
                f"this edit is not in {path}, which holds {len(log.edits)} others; see: interp edit show {path}"
            )
        left = tuple(there for there in log.edits if there is not taken)
        done = _bring(path, tensors, log, left, now, undoing=True)
        return replace(done, taken_back=(taken,))


@contextmanager
def _opened(folder: Path) -> Iterator[dict[str, StoredTensor]]:
    """The folder's tensors, while no other process on this machine edits it; what a killed one left half-written is removed."""
    stored_tensors(folder)
    with locked(f"edits-{hashlib.sha256(str(folder.resolve()).encode()).hexdigest()[:32]}"):
        try:
            (folder / PART).unlink(missing_ok=True)
        except OSError as error:
            raise UsageError(f"cannot write in {folder}: {error.strerror}") from error
        yield stored_tensors(folder)


def _hashes(folder: Path, tensors: dict[str, StoredTensor], log: FolderLog) -> dict[str, str]:
    """The SHA-256 of each logged tensor as it is now. Raises ModelError where that is neither what it was nor what it was to become."""
    now: dict[str, str] = {}
    for name, logged in log.tensors.items():
        found = tensors.get(name)
        if found is None or found.shape != tuple(logged.base.shape) or found.file != logged.file:
            raise ModelError(
                f"{name} is not in {folder} as {folder / LOG} says; put the edited file back, or fetch the folder again"
            )
        now[name] = sha256_of(read_tensor(folder, found))
        if now[name] not in (logged.was, logged.becomes):
            raise ModelError(
                f"{name} in {folder} is not what the last edit wrote (SHA-256 {now[name]}, not {logged.becomes}): something else "
                f"changed it; put that back, or remove {folder / LOG} to keep the weights as they are"
            )
    return now


def _unfinished(log: FolderLog, now: dict[str, str]) -> bool:
    return any(now[name] != logged.becomes for name, logged in log.tensors.items())


def _located(
    folder: Path, tensors: dict[str, StoredTensor], log: FolderLog, edit: "Edit", name: str, other_base: bool
) -> FolderEdit:
    """The edit with the names of the tensors that it changes; they are held against those it was made for."""
    places = []
    for change in edit.layers:
        stored = tensor_of(change, tensors.values(), folder)
        logged = log.tensors.get(stored.name)
        base = read_tensor(folder, stored) if logged is None else logged.base
        own = sha256_of(base.to(getattr(torch, change.base_dtype)))
        if own != change.base_sha256 and not other_base:
            raise ModelError(
                f"the edit was made for other weights: layer {change.layer} of {edit.provenance.model} had SHA-256 "
                f"{change.base_sha256} in {change.base_dtype}, {stored.name} in {folder} has {own}; "
                "give the edit's model, or allow it (--other-base)"
            )
        places.append(stored.name)
    return FolderEdit(
        name=name,
        method=edit.method,
        model=edit.provenance.model,
        facts=edit.facts,
        layers=edit.layers,
        tensors=tuple(places),
    )


def _bring(
    folder: Path,
    tensors: dict[str, StoredTensor],
    log: FolderLog,
    edits: tuple[FolderEdit, ...],
    now: dict[str, str],
    *,
    undoing: bool,
) -> FolderChange:
    """Brings every tensor to what ``edits`` make of its base: first the log, then each file that differs."""
    was_unfinished = _unfinished(log, now) or not log.edits
    logged, wanted = _planned(folder, tensors, log, edits)
    files = dict(log.files)
    for found in logged.values():
        if found.file not in files:
            files[found.file] = hash_file(folder / found.file)
    write_log(folder, FolderLog(edits=edits, tensors=logged, files=files, undoing=undoing))
    written = sorted({found.file for found in logged.values() if found.was != found.becomes})
    for file in written:
        replace_tensors(
            folder, file, {tensors[name]: tensor for name, tensor in wanted.items() if tensors[name].file == file}
        )
    change = FolderChange(edits=edits, written=tuple(written), finished=was_unfinished and bool(log.tensors))
    return change if edits else replace(change, restored=_close(folder, files))


def _planned(
    folder: Path, tensors: dict[str, StoredTensor], log: FolderLog, edits: tuple[FolderEdit, ...]
) -> tuple[dict[str, LoggedTensor], dict[str, Tensor]]:
    """What the log is to say of each tensor, and its new value. Raises NumericsError for NaN or infinity."""
    changes: dict[str, tuple[LayerEdit, ...]] = {}
    for edit in edits:
        for name, change in zip(edit.tensors, edit.layers, strict=True):
            changes[name] = (*changes.get(name, ()), change)
    logged: dict[str, LoggedTensor] = {}
    wanted: dict[str, Tensor] = {}
    for name in dict.fromkeys((*log.tensors, *changes)):
        current = read_tensor(folder, tensors[name])
        base = log.tensors[name].base if name in log.tensors else current
        made = changes.get(name, ())
        wanted[name] = edited_matrix(base, made, transposed=made[0].transposed) if made else base
        if not wanted[name].isfinite().all():
            raise NumericsError(
                f"the edit makes NaN or infinite weights of {name} in {tensors[name].dtype}; make it again"
            )
        logged[name] = LoggedTensor(
            file=tensors[name].file, base=base, was=sha256_of(current), becomes=sha256_of(wanted[name])
        )
    return logged, wanted


def _close(folder: Path, files: dict[str, str]) -> dict[str, str]:
    """Removes the log of a folder without edits. Raises VerificationError where a file is not the one from before the first."""
    found = {file: hash_file(folder / file) for file in files}
    (folder / LOG).unlink()
    sync_folder(folder)
    other = [file for file in files if found[file] != files[file]]
    if other:
        raise VerificationError(
            f"the edited tensors of {folder} are as before, but other bytes of {', '.join(other)} changed since the first edit "
            f"(SHA-256 {found[other[0]]}, then {files[other[0]]}); something else wrote to it"
        )
    return found
