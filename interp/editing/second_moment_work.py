"""Running a corpus through a model up to the highest layer that is asked for, and summing the keys as they pass."""

import time
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from interp.checkpoint import Checkpoint
from interp.editing.matrix import output_matrix
from interp.errors import MemoryLimitError, is_out_of_memory
from interp.maths.second_moment import Moments, SecondMomentFitter
from interp.models.cache import Step
from interp.runner.batch import by_length
from interp.runner.model import Model
from interp.runner.plan import Capture
from interp.sites import Site
from interp.tokens import Tokens

_STATE = "state"
_SHARE_OF_KEEPING = 0.03
"""Greatest share of the time that goes into keeping what is done."""


def token_batches(pieces: Sequence[tuple[int, ...]], batch_tokens: int) -> list[list[tuple[int, ...]]]:
    """Pieces of about equal length together, the shortest first: in each batch at most ``batch_tokens`` positions, padding included.

    A longer piece is a batch of its own.
    """
    batches = by_length([len(piece) for piece in pieces], batch_tokens)
    return [[pieces[place] for place in batch] for batch in batches]


def tokens_kept(path: Path | None) -> int:
    """How many tokens a checkpoint holds the sums of; 0 where there is none to read."""
    if path is None or not path.is_file():
        return 0
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            return int(file.get_slice(_STATE)[1:2].item())
    except (SafetensorError, OSError):
        return 0


class Fit:
    """The second moments of some layers, batch after batch."""

    def __init__(self, model: Model, layers: Sequence[int]) -> None:
        widths = {layer: output_matrix(model, layer).values.shape[1] for layer in layers}
        self._model = model
        self._fitters = {layer: SecondMomentFitter(width, device=model.device) for layer, width in widths.items()}
        self._done = 0
        self._most: int | None = None  # positions of a batch, once memory ran out with more
        self._kept_at, self._keeping = time.monotonic(), 0.0

    def run(self, batches: Sequence[Sequence[tuple[int, ...]]], kept: Checkpoint, progress: Step) -> None:
        """Counts every batch that ``kept`` does not hold yet."""
        found = kept.get(_STATE)
        if found is not None:
            self._restore(found)
        total = sum(len(piece) for batch in batches for piece in batch)
        done = sum(len(piece) for batch in batches[: self._done] for piece in batch)
        progress("second moment", done, total)
        for batch in batches[self._done :]:
            self.count(batch)
            self._done += 1
            done += sum(map(len, batch))
            self._keep(kept)
            progress("second moment", done, total)

    def count(self, batch: Sequence[tuple[int, ...]]) -> None:
        """Runs one batch up to the highest layer and counts the keys of its real positions.

        Where memory runs out the batch is halved, which the model's listener is told, and later batches are no larger. Layers that the
        failed forward came to have counted the whole batch, so they count none of its halves. Raises MemoryLimitError where one
        text alone does not fit.
        """
        waiting: list[tuple[Sequence[tuple[int, ...]], frozenset[int]]] = [(batch, frozenset())]
        while waiting:
            part, counted = waiting.pop(0)
            if len(part) == 1 or self._most is None or _positions(part) <= self._most:
                counted |= self._forward(part, counted)
                if len(counted) == len(self._fitters):
                    continue
                self._halved(part)
            half = len(part) // 2
            waiting[:0] = [(part[:half], counted), (part[half:], counted)]

    def _forward(self, batch: Sequence[tuple[int, ...]], counted: frozenset[int]) -> set[int]:
        """The layers that have counted the batch, ``counted`` left out: all others, unless memory runs out."""
        lengths = [len(piece) for piece in batch]
        tokens = [Tokens(text="", ids=ids, pieces=("",) * len(ids), spans=(None,) * len(ids)) for ids in batch]
        found: set[int] = set()

        def reduce(keys: Tensor, site: Site) -> Tensor:
            assert site.layer is not None, "keys are of a layer"
            self._fitters[site.layer].update(_real(keys, lengths))
            found.add(site.layer)
            return keys.new_zeros(1)

        sites = ",".join(str(layer) for layer in self._fitters if layer not in counted)
        try:
            self._model.run(tokens, Capture(f"mlp.post@{sites}", reduce=reduce), logits=False)
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
        return found

    def _halved(self, batch: Sequence[tuple[int, ...]]) -> None:
        """Takes in that a batch does not fit in memory, and says so."""
        size = _positions(batch)
        if len(batch) == 1:
            raise MemoryLimitError(
                f"a forward of one text of {size:,} tokens does not fit in memory; use a smaller model or dtype='bfloat16'"
            )
        self._most = size // 2
        if self._model.device.type == "cuda":
            torch.cuda.empty_cache()
        self._model.notify(f"out of memory with {size:,} tokens a batch; going on with {self._most:,}")

    def results(self) -> dict[int, Moments]:
        """What was measured, by layer."""
        return {layer: fitter.result() for layer, fitter in self._fitters.items()}

    def _keep(self, kept: Checkpoint) -> None:
        """Puts a copy of the sums aside, seldom enough to cost little: after an interrupt the batches since are run again."""
        if kept.path is None or time.monotonic() - self._kept_at < self._keeping / _SHARE_OF_KEEPING:
            return
        started = time.monotonic()
        done = torch.tensor([self._done], dtype=torch.float64)
        kept.put(_STATE, torch.cat([done, *(fitter.state() for fitter in self._fitters.values())]))
        self._kept_at = time.monotonic()
        self._keeping = self._kept_at - started

    def _restore(self, state: Tensor) -> None:
        self._done = int(state[0])
        parts = state[1:].split([fitter.state_size for fitter in self._fitters.values()])
        for fitter, part in zip(self._fitters.values(), parts, strict=True):
            fitter.restore(part)


def _positions(batch: Sequence[tuple[int, ...]]) -> int:
    """Positions of a batch, padding included."""
    return len(batch) * max(map(len, batch))


def _real(keys: Tensor, lengths: Sequence[int]) -> Tensor:
    """The keys at positions that are not padding, [row d_mlp]."""
    if min(lengths) == keys.shape[1]:
        return keys.flatten(0, 1)
    positions = torch.arange(keys.shape[1], device=keys.device)
    return keys[positions < torch.tensor(lengths, device=keys.device)[:, None]]
