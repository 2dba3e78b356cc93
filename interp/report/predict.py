"""Matrices and planes of words as decisions, each cell told from the cells above and before it.

A number is foretold from its neighbours, and from the same cell of the matrices before, by least squares over the rows so far. What
is written is how far off that was, in steps of the matrix, under two contexts: how far off it was around, and the number foretold. A word
is looked for among the words above and before it; one not found there is named.

Sums of squares are whole numbers below 2^53 and everything else is done in one order, so that the reader's foretold numbers are the same.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from jaxtyping import Bool, Int

from interp.report.rangecoder import Decisions

UNIT = 4096
_BEND = 30
_FLAT = 400
_STRIDE = 16
_NODES = 96
_UP, _DOWN, _SIGN = 24, 48, 72
"""Of the nodes of a context: the length from which to go, lengths above it, below it, and the sign."""
_CLASSES = 128
_LONGEST = 17
_FARTHEST = (1 << 31) - 1
PEERS = 4


def scale_of(sizes: Sequence[float]) -> Int[np.ndarray, " step"]:
    """Where each step lies: evenly for few steps, else the finer the greater the number, as its logarithm does.

    ``sizes`` are the numbers that the steps stand for, from 0 on.
    """
    if len(sizes) <= _FLAT:
        return np.arange(len(sizes)) * _STRIDE
    places, place = [0], 0.0
    for low, high in pairwise(sizes):
        place += UNIT * (high - low) / (low + _BEND)
        places.append(int(place + 0.5))
    return np.array(places)


class Foreteller:
    """Least squares over the rows so far, older ones counting three quarters as much with each row."""

    def __init__(self, features: int) -> None:
        self._squares = [[0.0] * features for _ in range(features)]
        self._products = [0.0] * features
        self.weights = [0.0] * features
        self.weights[2] = 1.0  # the first row knows the cell before it only

    def learn(self, features: Int[np.ndarray, "feature pos"], row: Int[np.ndarray, " pos"]) -> None:
        """Takes a row into account and solves for the next."""
        squares, products = (features @ features.T).tolist(), (features @ row).tolist()
        count = len(products)
        for i in range(count):
            for j in range(count):
                self._squares[i][j] = self._squares[i][j] * 0.75 + squares[i][j]
            self._products[i] = self._products[i] * 0.75 + products[i]
        self.weights = _solved(self._squares, self._products)


def _solved(squares: list[list[float]], products: list[float]) -> list[float]:
    """Gauss's elimination without exchanges: a little on the diagonal keeps it steady."""
    count = len(products)
    rows = [[*squares[i], products[i]] for i in range(count)]
    for i in range(count):
        rows[i][i] += rows[i][i] / 1024 + 1000
    for i in range(count):
        for j in range(i + 1, count):
            factor = rows[j][i] / rows[i][i]
            for k in range(i, count + 1):
                rows[j][k] -= factor * rows[i][k]
    weights = [0.0] * count
    for i in range(count - 1, -1, -1):
        rest = rows[i][count]
        for k in range(i + 1, count):
            rest -= rows[i][k] * weights[k]
        weights[i] = rest / rows[i][i]
    return weights


def twins_of(ids: Sequence[int]) -> Int[np.ndarray, " pos"]:
    """For each token the place where it stood last before, -1 for none: there the model often did the same."""
    last: dict[int, int] = {}
    twins = []
    for place, number in enumerate(ids):
        twins.append(last.get(number, -1))
        last[number] = place
    return np.array(twins, dtype=np.int64)


def features_of(
    rows: Int[np.ndarray, "layer pos"], row: int, twins: Int[np.ndarray, " pos"], peers: Sequence[np.ndarray]
) -> Int[np.ndarray, "feature pos"]:
    """For each cell of a row: a constant; the cells above, before, above and before, two above; that at its twin and the one above that

    (before and above for a token without one); then its peers and the cells above them.
    """
    zero = np.zeros_like(rows[0])
    up = rows[row - 1] if row else zero
    above = rows[row - 2] if row > 1 else up
    left = np.concatenate([up[:1], rows[row, :-1]])
    corner = np.concatenate([up[:1], up[:-1]])
    twin, over_twin = np.where(twins < 0, left, rows[row, twins]), np.where(twins < 0, corner, up[twins])
    found = [np.full_like(zero, UNIT), up, left, corner, above, twin, over_twin]
    for peer in peers:
        found += [peer[row], peer[row - 1] if row else zero]
    return np.stack(found)


@dataclass(frozen=True, kw_only=True)
class _Tables:
    """The first contexts of a matrix: by how far off numbers were around, by the number foretold, for digits and for holes."""

    near: int
    told: int
    fine: int
    gaps: int

    @classmethod
    def fresh(cls, out: Decisions) -> "_Tables":
        near, told = out.contexts(_NODES * _CLASSES), out.contexts(_NODES * _CLASSES)
        return cls(near=near, told=told, fine=out.contexts(_CLASSES), gaps=out.contexts(4))


def number_decisions(
    steps: Int[np.ndarray, "layer pos"],
    places: Int[np.ndarray, " step"],
    holes: Bool[np.ndarray, "layer pos"],
    twins: Int[np.ndarray, " pos"],
    peers: Sequence[np.ndarray],
    out: Decisions,
) -> Int[np.ndarray, "layer pos"]:
    """Adds the decisions of a matrix to ``out``; returns where its cells lie, for matrices that it is a peer of.

    ``steps`` are signed; ``holes`` says which cells are empty.
    """
    lies = np.sign(steps) * places[np.abs(steps)]
    tables = _Tables.fresh(out)
    foreteller = Foreteller(7 + 2 * len(peers))
    off = np.zeros_like(lies)
    any_holes = bool(holes.any())
    for row in range(len(steps)):
        features = features_of(lies, row, twins, peers)
        told = np.zeros(lies.shape[1])
        for weight, feature in zip(foreteller.weights, features, strict=True):
            told = told + weight * feature
        told = np.clip(np.floor(told + 0.5), -places[-1], places[-1]).astype(np.int64)
        off[row] = np.abs(lies[row] - told)
        near, kind = _contexts_of(off, row, told, places)
        errors = (steps[row] - step_at(told, places)).tolist()
        for pos, (error, about, look) in enumerate(zip(errors, near.tolist(), kind.tolist(), strict=True)):
            if any_holes:
                above, before = row > 0 and holes[row - 1, pos], pos > 0 and holes[row, pos - 1]
                gap = tables.gaps + 2 * int(above) + int(before)
                out.ask(gap, gap, bool(holes[row, pos]))
            if not (any_holes and holes[row, pos]):
                _error_decisions(error, about, look, tables, out)
        foreteller.learn(features, lies[row])
    return lies


def step_at(told: Int[np.ndarray, " pos"], places: Int[np.ndarray, " step"]) -> Int[np.ndarray, " pos"]:
    """The last step that does not lie beyond what was foretold."""
    return np.sign(told) * (np.searchsorted(places, np.abs(told), side="right") - 1)


def _contexts_of(
    off: Int[np.ndarray, "layer pos"], row: int, told: Int[np.ndarray, " pos"], places: Int[np.ndarray, " step"]
) -> tuple[Int[np.ndarray, " pos"], Int[np.ndarray, " pos"]]:
    """How far off numbers were around, in eighths of a step, and a class of the number foretold."""
    up = off[row - 1] if row else np.zeros_like(told)
    left = np.concatenate([up[:1], off[row, :-1]])
    second = np.concatenate([left[:1], left[:-1]])
    before = np.concatenate([[0], np.cumsum(off[row])[:-1]])
    mean = np.where(np.arange(len(told)) > 0, before // np.maximum(np.arange(len(told)), 1), up)
    expected = left + second + 2 * up + 2 * mean + 6
    reach = step_at(np.minimum(told + 64, places[-1]), places) - step_at(np.maximum(told - 64, -places[-1]), places)
    near = np.minimum(expected * np.maximum(reach, 1) // 96 + 1, _FARTHEST)
    return near, np.clip((told >> 9) + 64, 0, 127)


def _error_decisions(error: int, about: int, look: int, tables: _Tables, out: Decisions) -> None:
    """How long the error is in bits, from what is usual there up or down; its sign; two digits that are learnt and the others plain."""
    bits = about.bit_length()
    one = tables.near + _NODES * min(4 * bits + ((about << 2 >> (bits - 1)) & 3), _CLASSES - 1)
    two = tables.told + _NODES * look
    length, place = abs(error).bit_length(), min(max(bits - 4, 0), _LONGEST)
    out.ask(one + place, two + place, length > place)
    if length > place:
        for longer in range(place + 1, length + 1):
            out.ask(one + _UP + longer, two + _UP + longer, length > longer)
    else:
        for shorter in range(place, max(length, 1) - 1, -1):
            out.ask(one + _DOWN + shorter, two + _DOWN + shorter, length < shorter)
    if length:
        out.ask(one + _SIGN + length, two + _SIGN + length, error < 0)
        node = 1
        for depth in range(min(length - 1, 2)):
            bit = abs(error) >> (length - 2 - depth) & 1
            out.ask(tables.fine + 4 * length + node, tables.fine + 4 * length + node, bit)
            node = 2 * node + bit
        rest = max(length - 3, 0)
        out.plain(abs(error) & ((1 << rest) - 1), rest)


def word_decisions(
    cells: Int[np.ndarray, "layer pos plane"], twins: Int[np.ndarray, " pos"], depth: int, known: int, out: Decisions
) -> int:
    """Adds the decisions of a group of planes to ``out``.

    Words are numbered as they are met, in ``depth`` bits: ``known`` counts those met before, the result those met now.
    """
    n_planes = cells.shape[2]
    flags, seen = out.contexts((3 * n_planes + 2) * n_planes), out.contexts(4 << depth)
    fresh, tree = out.contexts(1), out.contexts(1 << depth)
    rows, places = cells.tolist(), twins.tolist()
    for row, line in enumerate(rows):
        own = out.contexts(1 << depth)
        for pos, cell in enumerate(line):
            up = rows[row - 1][pos] if row else []
            twin = line[places[pos]] if places[pos] >= 0 else []
            left = line[pos - 1] if pos else []
            others = _others(n_planes, up, twin, left)
            for plane, word in enumerate(cell):
                likeliest = [(words[plane], *source) for words, source in ((up, (0, 0)), (twin, (1, 3))) if words]
                tried = set(cell[:plane])
                for one, source, kind in [*likeliest, *others]:
                    if one in tried:
                        continue
                    tried.add(one)
                    out.ask(flags + source * n_planes + plane, seen + 4 * one + kind, one == word)
                    if one == word:
                        break
                else:
                    out.ask(fresh, fresh, word == known)
                    if word == known:
                        known += 1
                    else:
                        _named(word, depth, tree, own, out)
    return known


def _others(n_planes: int, *cells: Sequence[int]) -> list[tuple[int, int, int]]:
    """The words of the cells above, at the twin and before, each with its source and the kind of that."""
    return [
        (word, 2 + kind * n_planes + index, 1 + kind)
        for kind, words in enumerate(cells)
        for index, word in enumerate(words)
    ]


def _named(word: int, depth: int, tree: int, own: int, out: Decisions) -> None:
    """The number of a word, bit by bit."""
    node = 1
    for place in range(depth - 1, -1, -1):
        bit = word >> place & 1
        out.ask(tree + node, own + node, bit)
        node = 2 * node + bit
