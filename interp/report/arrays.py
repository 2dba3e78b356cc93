"""The matrices and tokens of a page in few bytes.

Whole numbers under 65,536 are exact. Other numbers keep three digits, and are no finer than a ten-thousandth (or than a hundredth of the
greatest, in a matrix of small numbers). A number is held as a step: steps count the numbers that can be written so, 0 to 999
ten-thousandths and then 900 in each decade. Steps and tokens are written as decisions (predict.py) in one stream (rangecoder.py).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int

from interp.report.predict import PEERS, number_decisions, scale_of, twins_of, word_decisions
from interp.report.rangecoder import Decisions

DIGITS = 3
_FINEST = -4
_EXACT = 1 << 16
_LAST = (1 << 15) - 1
_WHOLE, _DECADE = 10**DIGITS, 9 * 10 ** (DIGITS - 1)


@dataclass(frozen=True, eq=False)
class Mapped:
    """A matrix that the page computes from ``values`` by a function that its script knows: one matrix then serves several pictures."""

    values: Float[np.ndarray, "layer pos"]
    by: str


@dataclass(frozen=True, eq=False)
class Words:
    """Tokens for each layer and position: their ids and the text of each id."""

    ids: Int[np.ndarray, "layer pos ..."]
    texts: Mapping[int, str]


class Arrays:
    """Collects the arrays of a page, each once; blocks refer to them by number."""

    def __init__(self, prompts: Sequence[Sequence[int]] = ()) -> None:
        """``prompts`` are the token ids of the page's prompts: where a token comes again, its column is likened to the earlier one."""
        self._prompts = prompts
        self._matrices: list[_Matrix] = []
        self._numbers: dict[tuple[Any, ...], int] = {}
        self._groups: list[Int[np.ndarray, "layer pos plane"]] = []
        self._plane_numbers: dict[tuple[Any, ...], int] = {}
        self._words: dict[str, int] = {}

    def reference(self, values: "Float[np.ndarray, 'layer pos'] | Mapped") -> dict[str, Any]:
        """``{"matrix": number}``, with the name of the function for a mapped one."""
        if isinstance(values, Mapped):
            return self.reference(values.values) | {"by": values.by}
        matrix = _matrix_of(values)
        key = (matrix.steps.tobytes(), matrix.steps.shape, matrix.exponent, matrix.exact, matrix.holes.tobytes())
        number = self._numbers.setdefault(key, len(self._matrices))
        if number == len(self._matrices):
            self._matrices.append(matrix)
        return {"matrix": number}

    def words(self, words: Words) -> dict[str, list[int]]:
        """``{"words": [number of each plane]}``: one plane for each token of a cell. Planes that come together are written together."""
        distinct, places = np.unique(words.ids, return_inverse=True)
        known = [self._words.setdefault(words.texts[int(number)], len(self._words)) for number in distinct]
        cells = np.array(known, dtype=np.int64)[places].reshape(*words.ids.shape[:2], -1)
        numbers, fresh = [], []
        for place in range(cells.shape[2]):
            key = (cells[..., place].tobytes(), cells.shape[:2])
            if key not in self._plane_numbers:
                self._plane_numbers[key] = len(self._plane_numbers)
                fresh.append(place)
            numbers.append(self._plane_numbers[key])
        if fresh:
            self._groups.append(cells[..., fresh])
        return {"words": numbers}

    def packed(self) -> tuple[dict[str, Any], bytes]:
        """What the script must know to read the arrays, and their bytes: matrices, then planes of tokens."""
        decisions = Decisions()
        lies: list[Int[np.ndarray, "layer pos"]] = []
        for matrix in self._matrices:
            peers = [one for one in lies if one.shape == matrix.steps.shape][-PEERS:]
            lies.append(
                number_decisions(
                    matrix.steps, matrix.places, matrix.holes, self._twins(matrix.steps.shape[1]), peers, decisions
                )
            )
        words = list(self._words)
        order: list[int] = []
        if self._groups:
            distinct, first = np.unique(
                np.concatenate([cells.reshape(-1) for cells in self._groups]), return_index=True
            )
            order = distinct[np.argsort(first)].tolist()
        rank = np.zeros(len(words), dtype=np.int64)
        rank[order] = np.arange(len(order))
        known = 0
        for cells in self._groups:
            twins = self._twins(cells.shape[1])
            known = word_decisions(rank[cells], twins, len(words).bit_length(), known, decisions)
        description = {
            "matrices": [matrix.described() for matrix in self._matrices],
            "planes": [list(cells.shape) for cells in self._groups],
            "words": "\n".join(words[index] for index in order),
        }
        return description, decisions.encoded()

    def _twins(self, width: int) -> Int[np.ndarray, " pos"]:
        """Those of the first prompt with as many tokens as there are columns."""
        return next((twins_of(ids) for ids in self._prompts if len(ids) == width), np.full(width, -1))


@dataclass(frozen=True, kw_only=True, eq=False)
class _Matrix:
    """A matrix in signed steps; ``exponent`` is the power of ten that step 1 stands for. The steps of ``holes`` are 0."""

    steps: Int[np.ndarray, "layer pos"]
    exponent: int
    exact: bool
    holes: Bool[np.ndarray, "layer pos"]

    @property
    def places(self) -> Int[np.ndarray, " step"]:
        """Where the steps lie: see predict.py."""
        top = int(np.abs(self.steps).max(initial=0))
        return scale_of(list(map(float, range(top + 1))) if self.exact else sizes_of(top))

    def described(self) -> dict[str, Any]:
        """What the script must know to read it."""
        return {
            "shape": list(self.steps.shape),
            "exponent": self.exponent,
            "exact": self.exact,
            "holes": bool(self.holes.any()),
            "top": int(np.abs(self.steps).max(initial=0)),
        }


def _matrix_of(values: Float[np.ndarray, "layer pos"]) -> _Matrix:
    finite = np.isfinite(values)
    known = np.where(finite, values, 0.0).astype(np.float64)
    if (known == np.round(known)).all() and np.abs(known).max(initial=0.0) < _EXACT:
        return _Matrix(steps=known.astype(np.int64), exponent=0, exact=True, holes=~finite)
    steps, exponent = steps_of(known)
    return _Matrix(steps=steps, exponent=exponent, exact=False, holes=~finite)


def steps_of(values: Float[np.ndarray, "layer pos"]) -> tuple[Int[np.ndarray, "layer pos"], int]:
    """The signed step of each number, and the power of ten that step 1 stands for."""
    greatest = float(np.abs(values).max(initial=0.0))
    exponent = next((-places for places in range(-_FINEST) if (values == np.round(values, places)).all()), None)
    if exponent is None:
        exponent = min(_FINEST, int(np.floor(np.log10(greatest))) - DIGITS + 1)
    units = np.abs(values) / 10.0**exponent
    decade = np.maximum(np.floor(np.log10(np.maximum(units, 1.0))).astype(np.int64) - (DIGITS - 1), 0)
    digits = np.round(units / 10.0**decade).astype(np.int64)
    index = np.where(decade > 0, _WHOLE + (decade - 1) * _DECADE + digits - _WHOLE // 10, digits)
    return np.sign(values).astype(np.int64) * np.minimum(index, _LAST), exponent


def sizes_of(top: int) -> list[float]:
    """The numbers that steps 0 to ``top`` stand for, in units."""
    sizes = list(map(float, range(_WHOLE)))
    while len(sizes) <= top:
        sizes += [10.0 * size for size in sizes[-_DECADE:]]
    return sizes[: top + 1]
