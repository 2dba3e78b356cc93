"""Finished parts of long work in a file, so that work which was stopped goes on where it was and ends in the same numbers."""

import hashlib
import json
import os
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from interp.errors import ModelError, UsageError, brief
from interp.files import save_tensors

if TYPE_CHECKING:
    from torch import Tensor

_HEADER_KEY = "interp_checkpoint"
_SECONDS_BETWEEN_WRITES = 10.0


class Checkpoint:
    """Parts of one piece of work by name; used as a context manager.

    ``key`` says what the work is: model, prompt, settings. When the block ends well the file is removed; when it is left by an
    exception, Ctrl-C included, what is done is written, as it is every few seconds on the way, and with ``at_once`` whenever something is
    put: then a kill loses nothing either. Without a path nothing is kept.

    Raises UsageError where the file belongs to other work or cannot be written, ModelError where it is damaged.
    """

    def __init__(self, path: str | os.PathLike[str] | None, key: Mapping[str, Any], *, at_once: bool = False) -> None:
        self.path = None if path is None else Path(path)
        self._at_once = at_once
        self._key = hash_of(key)
        self._parts: dict[str, Tensor] = {}
        self._written = time.monotonic()
        if self.path is not None and self.path.exists():
            self._parts = self._read(self.path)
        self.n_found = len(self._parts)

    @property
    def n_kept(self) -> int:
        """The number of parts that are done."""
        return len(self._parts)

    def get(self, name: str) -> "Tensor | None":
        """A part that is done, or None."""
        return self._parts.get(name)

    def put(self, name: str, tensor: "Tensor") -> None:
        """Keeps a part that was just done."""
        self.put_all({name: tensor})

    def put_all(self, parts: "Mapping[str, Tensor]") -> None:
        """Keeps parts that were just done and belong together: all are written, or none."""
        self._parts |= {name: tensor.detach().cpu() for name, tensor in parts.items()}
        if self._at_once or time.monotonic() - self._written > _SECONDS_BETWEEN_WRITES:
            self._write()

    def __enter__(self) -> "Checkpoint":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None and self.path is not None:
            self.path.unlink(missing_ok=True)
        elif kind is not None and self._parts:
            self._write()

    def _write(self) -> None:
        if self.path is not None:
            save_tensors(self.path, self._parts, {_HEADER_KEY: self._key})
        self._written = time.monotonic()

    def _read(self, path: Path) -> "dict[str, Tensor]":
        from safetensors import SafetensorError, safe_open

        try:
            with safe_open(path, framework="pt") as file:
                key = (file.metadata() or {}).get(_HEADER_KEY)
                parts = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        except FileNotFoundError:  # the same command beside us has just ended
            return {}
        except (SafetensorError, OSError, ValueError) as error:
            raise ModelError(f"{path} is not a readable checkpoint ({brief(error)}); remove it") from error
        if key != self._key:
            raise UsageError(
                f"{path} is not a checkpoint of this work (another model, prompt or setting); choose another path"
            )
        return parts


def hash_of(key: Mapping[str, Any]) -> str:
    """A name for a piece of work: the SHA-256 of its key as JSON."""
    return hashlib.sha256(json.dumps(key, sort_keys=True, default=str).encode()).hexdigest()
