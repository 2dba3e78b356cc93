"""Reads the data of a page back, with plain loops from the format's description and nothing of the writer."""

import json
import lzma
import math
import string

CHARACTERS = [character for character in map(chr, range(33, 127)) if character not in "<>&"]
FUNCTIONS = {
    "exp": math.exp,
    "log": math.log,
    "1 + value": lambda value: 1 + value,
    "log10(value)": math.log10,
    "log10(1 + value)": lambda value: math.log10(1 + value),
}


def unpacked(text: str, length: int) -> bytes:
    """The bytes of base91 text: each pair of characters is 13 bits."""
    assert not set(text) - set(string.printable)
    bits = ""
    for first, second in zip(text[::2], text[1::2], strict=True):
        bits += f"{CHARACTERS.index(first) * 91 + CHARACTERS.index(second):013b}"
    return bytes(int(bits[at : at + 8], 2) for at in range(0, 8 * length, 8))


def lzma_bytes(data: bytes) -> bytes:
    return lzma.decompress(data, format=lzma.FORMAT_ALONE)


class Range:
    """A range decoder whose contexts are names; a chance is that of 0."""

    def __init__(self, data: bytes) -> None:
        self.data = data + bytes(4)
        self.at = 4
        self.size = 2**32 - 1
        self.code = int.from_bytes(self.data[:4], "big")
        self.learnt: dict[object, tuple[float, int]] = {}

    def _fill(self) -> None:
        while self.size < 2**24:
            self.size *= 256
            self.code = self.code * 256 + self.data[self.at]
            self.at += 1

    def bit(self, one: object, two: object) -> int:
        (first, seen), (second, met) = self.learnt.get(one, (0.5, 0)), self.learnt.get(two, (0.5, 0))
        mean = first if met == 0 else second if seen == 0 else (first + second) / 2
        bound = self.size // 4096 * min(max(int(mean * 4096), 1), 4095)
        bit = int(self.code >= bound)
        self.code, self.size = (self.code - bound, self.size - bound) if bit else (self.code, bound)
        self._fill()
        for name, count in ((one, seen), (two, met)):
            chance, _ = self.learnt.get(name, (0.5, 0))
            rate = 1 / (count + 1.6)
            self.learnt[name] = (chance - chance * rate if bit else chance + (1 - chance) * rate, 0)
        for name, more in ((one, seen + 1 + (one == two)), (two, met + 1 + (one == two))):
            self.learnt[name] = (self.learnt[name][0], min(more, 60))
        return bit

    def plain(self, bits: int) -> int:
        self.size //= 2**bits
        value, self.code = divmod(self.code, self.size)
        self._fill()
        return value


def sizes(top: int, exact: bool) -> list[float]:
    found = [float(size) for size in range(top + 1 if exact else 1000)]
    while len(found) <= top:
        found += [10.0 * size for size in found[-900:]]
    return found[: top + 1]


def places_of(numbers: list[float]) -> list[int]:
    if len(numbers) <= 400:
        return [16 * index for index in range(len(numbers))]
    places, place = [0], 0.0
    for index in range(1, len(numbers)):
        place += 4096 * (numbers[index] - numbers[index - 1]) / (numbers[index - 1] + 30)
        places.append(math.floor(place + 0.5))
    return places


def step_at(told: int, places: list[int]) -> int:
    step = max(index for index, place in enumerate(places) if place <= abs(told))
    return -step if told < 0 else step


def solve(squares: list[list[float]], products: list[float]) -> list[float]:
    count = len(products)
    table = [[*squares[i], products[i]] for i in range(count)]
    for i in range(count):
        table[i][i] += table[i][i] / 1024 + 1000
    for i in range(count):
        for j in range(i + 1, count):
            factor = table[j][i] / table[i][i]
            for k in range(i, count + 1):
                table[j][k] -= factor * table[i][k]
    weights = [0.0] * count
    for i in reversed(range(count)):
        rest = table[i][count]
        for k in range(i + 1, count):
            rest -= table[i][k] * weights[k]
        weights[i] = rest / table[i][i]
    return weights


def error(decoder: Range, name: object, about: int, look: int) -> int:
    bits = about.bit_length()
    near = min(4 * bits + (about * 4 // 2 ** (bits - 1)) % 4, 127)

    def ask(*node: object) -> int:
        return decoder.bit((name, "near", near, *node), (name, "told", look, *node))

    length = min(max(bits - 4, 0), 17)
    if ask("from", length):
        length += 1
        while ask("up", length):
            length += 1
    else:
        while length > 0 and ask("down", length):
            length -= 1
    if length == 0:
        return 0
    sign = -1 if ask("sign", length) else 1
    size = 1
    for _ in range(min(length - 1, 2)):
        size = 2 * size + decoder.bit((name, "fine", length, size), (name, "fine", length, size))
    low = max(length - 3, 0)
    return sign * (size * 2**low + decoder.plain(low) if low else size)


def matrix(decoder: Range, name: object, unit: dict, twins: list[int], peers: list[list[list[int]]]):
    """The numbers of a matrix, and where its cells lie."""
    height, width = unit["shape"]
    numbers = sizes(unit["top"], unit["exact"])
    places = places_of(numbers)
    count = 7 + 2 * len(peers)
    squares, products = [[0.0] * count for _ in range(count)], [0.0] * count
    weights = [1.0 if index == 2 else 0.0 for index in range(count)]
    values: list[list[float | None]] = []
    lies: list[list[int]] = []
    off: list[list[int]] = []
    for row in range(height):
        up, off_up = (lies[row - 1], off[row - 1]) if row else ([0] * width, [0] * width)
        above = lies[row - 2] if row > 1 else up
        lies.append([])
        off.append([])
        values.append([])
        features = []
        for pos in range(width):
            left, corner = (lies[row][pos - 1], up[pos - 1]) if pos else (up[0], up[0])
            again = (left, corner) if twins[pos] < 0 else (lies[row][twins[pos]], up[twins[pos]])
            feature = [4096, up[pos], left, corner, above[pos], *again]
            for peer in peers:
                feature += [peer[row][pos], peer[row - 1][pos] if row else 0]
            features.append(feature)
            exactly = 0.0
            for weight, part in zip(weights, feature, strict=True):
                exactly += weight * part
            told = min(max(math.floor(exactly + 0.5), -places[-1]), places[-1])
            before = [off_up[0], off_up[0], *off[row]][-2:]
            mean = sum(off[row]) // pos if pos else off_up[0]
            expected = sum(before) + 2 * off_up[pos] + 2 * mean + 6
            reach = step_at(min(told + 64, places[-1]), places) - step_at(max(told - 64, -places[-1]), places)
            about = min(expected * max(reach, 1) // 96 + 1, 2**31 - 1)
            look = min(max(told // 512 + 64, 0), 127)
            gap = (
                name,
                "gap",
                row > 0 and values[row - 1][pos] is None,
                pos > 0 and values[row][pos - 1] is None,
            )
            hole = unit["holes"] and decoder.bit(gap, gap)
            step = 0 if hole else step_at(told, places) + error(decoder, name, about, look)
            sign = -1 if step < 0 else 1
            values[row].append(None if hole else sign * numbers[abs(step)] * 10.0 ** unit["exponent"])
            lies[row].append(sign * places[abs(step)])
            off[row].append(abs(lies[row][pos] - told))
        for i in range(count):
            for j in range(count):
                squares[i][j] = squares[i][j] * 0.75 + sum(one[i] * one[j] for one in features)
            products[i] = products[i] * 0.75 + sum(one[i] * lie for one, lie in zip(features, lies[row], strict=True))
        weights = solve(squares, products)
    return values, lies


def group(decoder: Range, name: object, shape: list[int], twins: list[int], depth: int, met: list[int]):
    """The planes of a group, as numbers of words; ``met`` counts the words met so far."""
    height, width, count = shape
    rows: list[list[list[int]]] = []
    for row in range(height):
        rows.append([])
        for pos in range(width):
            up = rows[row - 1][pos] if row else []
            twin = rows[row][twins[pos]] if twins[pos] >= 0 else []
            left = rows[row][pos - 1] if pos else []
            cell: list[int] = []
            for plane in range(count):
                found, tried = None, set(cell)
                candidates = [(words[plane], kind, kind) for kind, words in (("up!", up), ("twin!", twin)) if words]
                for kind, words in (("up", up), ("twin", twin), ("left", left)):
                    candidates += [(word, (kind, index), kind) for index, word in enumerate(words)]
                for word, source, kind in candidates:
                    if word not in tried:
                        tried.add(word)
                        if decoder.bit((name, source, plane), (name, "seen", word, kind)):
                            found = word
                            break
                if found is None and decoder.bit((name, "new"), (name, "new")):
                    found = met[0]
                    met[0] += 1
                if found is None:
                    node = 1
                    for _ in range(depth):
                        node = 2 * node + decoder.bit((name, "tree", node), (name, row, node))
                    found = node - 2**depth
                cell.append(found)
            rows[row].append(cell)
    return [[[cell[plane] for cell in line] for line in rows] for plane in range(count)]


class PageData:
    """``blocks`` and ``prompts`` as the script gets them, and its arrays by reference."""

    def __init__(self, text: bytes, binary: bytes) -> None:
        data = json.loads(text)
        self.blocks, self.prompts, described = data["blocks"], data["prompts"], data["arrays"]
        decoder = Range(binary)
        self.matrices, self.planes = [], []
        read: list[tuple[list[int], list[list[int]]]] = []
        for unit in described["matrices"]:
            peers = [lies for shape, lies in read if shape == unit["shape"]][-4:]
            values, lies = matrix(decoder, ("matrix", len(read)), unit, self._twins(unit["shape"][1]), peers)
            self.matrices.append(values)
            read.append((unit["shape"], lies))
        words, met = described["words"].split("\n"), [0]
        depth = len(words if described["words"] else []).bit_length()
        for number, shape in enumerate(described["planes"]):
            planes = group(decoder, ("words", number), shape, self._twins(shape[1]), depth, met)
            self.planes += [[[words[index] for index in line] for line in plane] for plane in planes]

    def _twins(self, width: int) -> list[int]:
        for prompt in self.prompts.values():
            ids = prompt["ids"]
            if len(ids) == width:
                return [max((at for at in range(place) if ids[at] == ids[place]), default=-1) for place in range(width)]
        return [-1] * width

    def matrix(self, reference: dict) -> list[list[float | None]]:
        rows, by = self.matrices[reference["matrix"]], reference.get("by")
        return (
            rows if by is None else [[None if value is None else FUNCTIONS[by](value) for value in row] for row in rows]
        )

    def words(self, reference: dict, row: int, column: int) -> list[str]:
        return [self.planes[plane][row][column] for plane in reference["words"]]
