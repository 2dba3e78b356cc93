"""What is done of a sequence of edits, in a checkpoint: each edit and each check as soon as it is finished."""

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

import torch
from jaxtyping import Float64, UInt8
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from interp.analyzers.ablation_texts import Item
from interp.analyzers.sweep import request_key
from interp.checkpoint import Checkpoint
from interp.editing.cases import EditCase
from interp.editing.edit import Edit
from interp.editing.matrix import sha256_of
from interp.editing.second_moments import SecondMoment
from interp.editing.settings import EditSettings
from interp.editing.stack import applied_edits
from interp.errors import ModelError, brief
from interp.prompts import Fact
from interp.results import unpacked
from interp.runner.model import Model

_HEADER = "header"


class KeptSequence:
    """Gives what a checkpoint holds, and makes and keeps what it does not hold.

    An edit is kept as the bytes of a safetensors file, so that the one that comes back is the one that was made, bit for bit.
    """

    def __init__(self, kept: Checkpoint) -> None:
        self._kept = kept
        self._started = time.perf_counter()
        before = kept.get("seconds")
        self._before = 0.0 if before is None else float(before)

    @property
    def seconds(self) -> float:
        """The time that the work has taken, that of calls which were stopped included, up to the last thing that they kept."""
        return self._before + time.perf_counter() - self._started

    def contexts(self, sample: Callable[[], Sequence[str]]) -> Sequence[str]:
        """The sampled contexts, which all edits share."""
        found = self._kept.get("contexts")
        if found is not None:
            return tuple(json.loads(_text_of(found)))
        texts = sample()
        self._keep("contexts", _as_bytes(json.dumps(texts).encode()))
        return texts

    def edit(self, number: int, make: Callable[[], Edit]) -> Edit:
        """The edit of this number. Raises ModelError where what is kept of it cannot be read."""
        found = self._kept.get(f"edit.{number}")
        if found is not None:
            return self._read(found)
        made = make()
        text, tensors = made.packed()
        self._keep(f"edit.{number}", _as_bytes(save({**tensors, _HEADER: _as_bytes(text.encode())})))
        return made

    def check(
        self, edited: int, measure: Callable[[], Float64[Tensor, "measure fact"]]
    ) -> Float64[Tensor, "measure fact"]:
        """The figures of the check after so many facts."""
        found = self._kept.get(f"check.{edited}")
        if found is not None:
            return found
        measured = measure()
        self._keep(f"check.{edited}", measured)
        return measured

    def _keep(self, name: str, part: Tensor) -> None:
        self._kept.put_all({name: part, "seconds": torch.tensor(self.seconds, dtype=torch.float64)})

    def _read(self, found: Tensor) -> Edit:
        path = self._kept.path
        assert path is not None, "only a file holds finished parts"
        try:
            tensors = load(found.numpy().tobytes())
            edit = unpacked(path, _text_of(tensors.pop(_HEADER)), tensors)
        except (SafetensorError, ModelError, KeyError, ValueError) as error:
            raise ModelError(f"{path} is not a readable checkpoint ({brief(error)}); remove it") from error
        assert isinstance(edit, Edit), "only edits are kept"
        return edit


def sequence_key(
    model: Model,
    facts: Sequence[Fact],
    cases: Sequence[EditCase],
    windows: Sequence[Item],
    moments: SecondMoment | Sequence[SecondMoment] | None,
    settings: EditSettings,
    **asked: Any,
) -> Mapping[str, Any]:
    """What the work is, for its checkpoint: the model with the edits that it has, and all that was asked."""
    given = [moments] if isinstance(moments, SecondMoment) else moments or []
    return request_key(
        model,
        analysis="edit_sequence",
        edits=[
            (change.layer, sha256_of(change.left), sha256_of(change.right))
            for edit in applied_edits(model)
            for change in edit.layers
        ],
        facts=[asdict(fact) for fact in facts],
        true=[case.true for case in cases],
        windows=[(window.prompt, window.tokens.ids, window.scored_from) for window in windows],
        moments=[(moment.layer, moment.n_tokens, sha256_of(moment.matrix)) for moment in given],
        settings=settings.plain(),
        **asked,
    )


def _as_bytes(data: bytes) -> UInt8[Tensor, " _"]:
    return torch.frombuffer(bytearray(data), dtype=torch.uint8)


def _text_of(data: UInt8[Tensor, " _"]) -> str:
    return data.numpy().tobytes().decode()
