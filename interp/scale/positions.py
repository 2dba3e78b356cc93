"""Which positions of a text are kept: all, the last, one, or a slice, with or without the begin-of-text token."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from interp.errors import UsageError
from interp.runner.model import Model

_SLICE = re.compile(r"(-?\d{1,9})?:(-?\d{1,9})?(?::(\d{1,9})?)?")


@dataclass(frozen=True)
class PositionFilter:
    """A slice of each window's positions, less those of ``skipped`` (a token id) at its start."""

    chosen: slice
    skipped: int | None = None

    def of(self, ids: Sequence[int]) -> range | list[int]:
        """The positions of these token ids that are kept, in order."""
        found = range(len(ids))[self.chosen]
        if self.skipped is None or not ids or ids[0] != self.skipped:
            return found
        return [position for position in found if position > 0]


def position_filter(model: Model, positions: str, *, skip_bos: bool) -> PositionFilter:
    """The filter that ``positions`` words: "all", "last", "5", "-1", or a slice such as "1:", ":16", "-8:" or "::4".

    Raises UsageError for other words, and for ``skip_bos`` where the tokenizer has no begin-of-text token.
    """
    chosen = _slice(positions)
    if not skip_bos:
        return PositionFilter(chosen)
    bos = getattr(model.tokenizer, "bos_token_id", None)
    if bos is None:
        raise UsageError(
            "skip_bos: this model's tokenizer has no begin-of-text token; leave out the first token with positions '1:'"
        )
    return PositionFilter(chosen, int(bos))


def words_of(positions: str) -> str:
    """The words for these positions that all spellings of them share: "0:" is "all". Raises UsageError like ``position_filter``."""
    chosen = _slice(positions)
    start, stop = chosen.start or 0, chosen.stop
    step = "" if chosen.step in (None, 1) else f":{chosen.step}"
    if stop is None and not step and start in (0, -1):
        return "last" if start else "all"
    if stop is not None and stop - start == 1 and (start >= 0 or stop < 0) and not step:
        return str(start)
    return f"{start or ''}:{'' if stop is None else stop}{step}"


def _slice(text: str) -> slice:
    if text == "all":
        return slice(None)
    if text == "last":
        return slice(-1, None)
    if re.fullmatch(r"-?\d{1,9}", text):
        place = int(text)
        return slice(place, place + 1 if place != -1 else None)
    match = _SLICE.fullmatch(text)
    if match is None or (match[3] is not None and int(match[3]) == 0):
        raise UsageError(
            f"cannot read the positions {text!r}; write all, last, a position (0, -1) or a slice (1:, :16, -8:, ::4)"
        )
    start, stop, step = (None if part is None else int(part) for part in match.groups())
    return slice(start, stop, step)
