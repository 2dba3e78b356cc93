"""The matrices and tokens of a page in few bytes.

A number keeps three digits, and is no finer than a ten-thousandth (or than a hundredth of the greatest, in a matrix of small numbers).
Its code counts the numbers that can be written so, so that codes of near numbers are near, and small: 0 to 999 ten-thousandths are the
codes 0 to 999, then each decade has 900. A matrix is held as codes, or as differences of codes from layer to layer where these are smaller;
all high bytes come before all low ones. Tokens are numbered by how often they occur, 128 of them in one byte.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float, Int

DIGITS = 3
_FINEST = -4
_MISSING = 0
_ZERO = 1 << 15
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

    def __init__(self) -> None:
        self._matrices: list[dict[str, Any]] = []
        self._numbers: dict[tuple[Any, ...], int] = {}
        self._bytes: list[bytes] = []
        self._planes: list[Int[np.ndarray, "layer pos"]] = []
        self._plane_numbers: dict[tuple[Any, ...], int] = {}
        self._words: dict[str, int] = {}

    def reference(self, values: "Float[np.ndarray, 'layer pos'] | Mapped") -> dict[str, Any]:
        """``{"matrix": number}``, with the name of the function for a mapped one."""
        if isinstance(values, Mapped):
            return self.reference(values.values) | {"by": values.by}
        codes, exponent = codes_of(values)
        key = (codes.tobytes(), codes.shape, exponent)
        number = self._numbers.setdefault(key, len(self._matrices))
        if number == len(self._matrices):
            packed, differences = _smaller(codes)
            self._matrices.append({"shape": list(codes.shape), "exponent": exponent, "differences": differences})
            self._bytes.append(packed)
        return {"matrix": number}

    def words(self, words: Words) -> dict[str, list[int]]:
        """``{"words": [number of each plane]}``: one plane for each token of a cell."""
        planes = words.ids.reshape(*words.ids.shape[:2], -1)
        return {"words": [self._plane(planes[..., place], words.texts) for place in range(planes.shape[2])]}

    def _plane(self, ids: Int[np.ndarray, "layer pos"], texts: Mapping[int, str]) -> int:
        distinct, places = np.unique(ids, return_inverse=True)
        known = [self._words.setdefault(texts[int(number)], len(self._words)) for number in distinct]
        plane = np.array(known, dtype=np.int64)[places].reshape(ids.shape)
        number = self._plane_numbers.setdefault((plane.tobytes(), plane.shape), len(self._planes))
        if number == len(self._planes):
            self._planes.append(plane)
        return number

    def packed(self) -> tuple[dict[str, Any], bytes]:
        """What the script must know to read the arrays, and their bytes: matrices, then planes of tokens."""
        words = list(self._words)
        counts = np.zeros(len(words), dtype=np.int64)
        for plane in self._planes:
            counts += np.bincount(plane.reshape(-1), minlength=len(words))
        order = sorted(range(len(words)), key=lambda index: (-counts[index], words[index]))
        rank = np.empty(len(words), dtype=np.int64)
        rank[order] = np.arange(len(words))
        description = {
            "matrices": self._matrices,
            "planes": [list(plane.shape) for plane in self._planes],
            "words": [words[index] for index in order],
        }
        return description, b"".join([*self._bytes, *(_variable_bytes(rank[plane]) for plane in self._planes)])


def codes_of(values: Float[np.ndarray, "layer pos"]) -> tuple[Int[np.ndarray, "layer pos"], int]:
    """The code of each number (0: not finite, 32768: zero) and the power of ten that code 1 above zero stands for."""
    finite = np.isfinite(values)
    known = np.where(finite, values, 0.0).astype(np.float64)
    greatest = float(np.abs(known).max(initial=0.0))
    exponent = next((-places for places in range(-_FINEST) if (known == np.round(known, places)).all()), None)
    if exponent is None:
        exponent = min(_FINEST, int(np.floor(np.log10(greatest))) - DIGITS + 1)
    steps = np.abs(known) / 10.0**exponent
    decade = np.maximum(np.floor(np.log10(np.maximum(steps, 1.0))).astype(np.int64) - (DIGITS - 1), 0)
    digits = np.round(steps / 10.0**decade).astype(np.int64)
    index = np.where(decade > 0, _WHOLE + (decade - 1) * _DECADE + digits - _WHOLE // 10, digits)
    codes = _ZERO + np.sign(known).astype(np.int64) * np.minimum(index, _ZERO - 1)
    return np.where(finite, codes, _MISSING), exponent


def _smaller(codes: Int[np.ndarray, "layer pos"]) -> tuple[bytes, bool]:
    """The codes in bytes, as they are or as differences between layers, and whether it is the latter."""
    plain = _folded(codes - _ZERO)
    differences = _folded(np.diff(codes, axis=0, prepend=np.full_like(codes[:1], _ZERO)))
    better = bool(np.log2(1 + differences).sum() < np.log2(1 + plain).sum())
    chosen = differences if better else plain
    return np.stack([chosen >> 8, chosen & 255]).astype(np.uint8).tobytes(), better


def _folded(values: Int[np.ndarray, "layer pos"]) -> Int[np.ndarray, "layer pos"]:
    """Signed 16-bit numbers (modulo 65536) as unsigned ones, 0 -1 1 -2 ... as 0 1 2 3 ..."""
    signed = ((values + _ZERO) & 0xFFFF) - _ZERO
    return ((signed << 1) ^ (signed >> 63)) & 0xFFFF


def _variable_bytes(values: Int[np.ndarray, "layer pos"]) -> bytes:
    """Seven bits a byte, lowest first; a byte over 127 says that more follow."""
    flat = values.reshape(-1)
    groups = np.stack([flat, flat >> 7, flat >> 14], axis=1)
    more = np.stack([groups[:, 1] > 0, groups[:, 2] > 0, np.zeros_like(flat, dtype=bool)], axis=1)
    used = np.stack([np.ones_like(flat, dtype=bool), groups[:, 1] > 0, groups[:, 2] > 0], axis=1)
    return ((groups & 127) | (more << 7)).astype(np.uint8)[used].tobytes()
