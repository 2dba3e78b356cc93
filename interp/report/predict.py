"""Matrices and planes of words as decisions, each cell told from the cells above and before it.

A number is foretold from its neighbours, and from the same cell of the matrices before, by least squares over the rows so far. What
is written is how far off that was, in steps of the matrix, under two contexts: how far off it was around, and the number foretold. A word
is looked for among the words above and before it; one not found there is named.

Sums of squares are whole numbers below 2^53 and everything else is done in one order, so that the reader's foretold numbers are the same.
"""

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
from jaxtyping import Bool, Int

from interp.report.rangecoder import Decisions

UNIT = 4096
_BEND = 30
_FLAT = 400
_STRIDE = 16
_NODES = 96
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
    base, gaps = out.contexts(_NODES * 2 * 128), out.contexts(4)
    fine = out.contexts(128)
    foreteller = Foreteller(7 + 2 * len(peers))
    off = np.zeros_like(lies)
    for row in range(len(steps)):
        features = features_of(lies, row, twins, peers)
        told = np.zeros(lies.shape[1])
        for weight, feature in zip(foreteller.weights, features, strict=True):
            told = told + weight * feature
        told = np.clip(np.floor(told + 0.5), -places[-1], places[-1]).astype(np.int64)
        off[row] = np.abs(lies[row] - told)
        guess = step_at(told, places)
        near, kind = _contexts_of(off, row, told, places)
        _row_decisions(steps[row], guess, near, kind, (base, gaps, fine), (holes, row) if holes.any() else None, out)
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


def _row_decisions(steps, guess, near, kind, bases, holes, out: Decisions) -> None:  # noqa: ANN001
    base, gaps, fine = bases
    first, second, value = out.first, out.second, out.value
    for pos, (step, told, about, look) in enumerate(zip(steps.tolist(), guess.tolist(), near.tolist(), kind.tolist(), strict=True)):
        if holes is not None:
            empty, row = holes
            context = gaps + (2 * int(empty[row - 1, pos]) if row else 0) + (int(empty[row, pos - 1]) if pos else 0)
            first.append(context)
            second.append(context)
            value.append(int(empty[row, pos]))
            if empty[row, pos]:
                continue
        bits = about.bit_length()
        one = base + _NODES * min(4 * bits + ((about << 2 >> (bits - 1)) & 3), 127)
        two = base + _NODES * (128 + look)
        error = step - told
        length, start = abs(error).bit_length(), min(max(bits - 4, 0), _LONGEST)
        place = start
        if length > start:
            first.append(one + place)
            second.append(two + place)
            value.append(1)
            place += 1
            while length > place:
                first.append(one + 24 + place)
                second.append(two + 24 + place)
                value.append(1)
                place += 1
            first.append(one + 24 + place)
            second.append(two + 24 + place)
            value.append(0)
        else:
            first.append(one + place)
            second.append(two + place)
            value.append(0)
            while place > 0:
                first.append(one + 48 + place)
                second.append(two + 48 + place)
                value.append(int(length < place))
                if length == place:
                    break
                place -= 1
        if length:
            first.append(one + 72 + length)
            second.append(two + 72 + length)
            value.append(int(error < 0))
            rest, node = abs(error), 1
            for depth in range(min(length - 1, 2)):
                bit = rest >> (length - 2 - depth) & 1
                first.append(fine + 4 * length + node)
                second.append(fine + 4 * length + node)
                value.append(bit)
                node = 2 * node + bit
            left = max(length - 3, 0)
            out.plain(rest & ((1 << left) - 1), left)


def word_decisions(
    cells: Int[np.ndarray, "layer pos plane"], twins: Int[np.ndarray, " pos"], depth: int, known: int, out: Decisions
) -> int:
    """Adds the decisions of a group of planes to ``out``. Words are numbered as they are met: ``known`` counts those met before, the result those met now."""
    n_rows, n_pos, n_planes = cells.shape
    sources = 3 * n_planes + 2
    flags, seen, fresh = out.contexts(sources * n_planes), out.contexts(4 << depth), out.contexts(1)
    tree = out.contexts(1 << depth)
    first, second, value = out.first, out.second, out.value
    rows = cells.tolist()
    for row in range(n_rows):
        own = out.contexts(1 << depth)
        for pos in range(n_pos):
            up = rows[row - 1][pos] if row else []
            twin = rows[row][twins[pos]] if twins[pos] >= 0 else []
            left = rows[row][pos - 1] if pos else []
            others = list(enumerate([*up, *[-1] * (n_planes - len(up)), *twin, *[-1] * (n_planes - len(twin)), *left], 2))
            used: list[int] = []
            for plane, word in enumerate(rows[row][pos]):
                tried = {*used, -1}
                for source, one in [*enumerate([*up[plane : plane + 1]]), *((1, one) for one in twin[plane : plane + 1]), *others]:
                    if one in tried:
                        continue
                    tried.add(one)
                    first.append(flags + source * n_planes + plane)
                    second.append(seen + 4 * one + (0 if source == 0 else 1 + (source - 2) // n_planes if source > 1 else 3))
                    value.append(int(one == word))
                    if one == word:
                        break
                else:
                    is_new = word == known
                    first.append(fresh)
                    second.append(fresh)
                    value.append(int(is_new))
                    if is_new:
                        known += 1
                    else:
                        node = 1
                        for place in range(depth - 1, -1, -1):
                            bit = word >> place & 1
                            first.append(tree + node)
                            second.append(own + node)
                            value.append(bit)
                            node = 2 * node + bit
                used.append(word)
    return known
