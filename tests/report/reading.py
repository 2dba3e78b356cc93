"""Reads the data of a page back, with plain loops from the format's description and nothing of the writer."""

import gzip
import json
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


def number(code: int, exponent: int) -> float | None:
    if code == 0:
        return None
    sign, index = (1, code - 32768) if code >= 32768 else (-1, 32768 - code)
    digits = index
    if index >= 1000:
        decade, within = divmod(index - 1000, 900)
        digits = (100 + within) * 10 ** (decade + 1)
    return sign * digits * 10.0**exponent


def matrix(binary: bytes, shape: list[int], exponent: int, differences: bool) -> list[list[float | None]]:
    height, width = shape
    codes: list[int] = []
    for place in range(height * width):
        folded = binary[place] * 256 + binary[height * width + place]
        change = folded // 2 if folded % 2 == 0 else -(folded + 1) // 2
        before = codes[place - width] if differences and place >= width else 32768
        codes.append((before + change) % 65536)
    return [[number(code, exponent) for code in codes[row * width : (row + 1) * width]] for row in range(height)]


class PageData:
    """``blocks`` and ``prompts`` as the script gets them, and its arrays by reference."""

    def __init__(self, packed: bytes) -> None:
        text, _, binary = gzip.decompress(packed).partition(b"\0")
        data = json.loads(text)
        self.blocks, self.prompts, described = data["blocks"], data["prompts"], data["arrays"]
        self.matrices, self.planes = [], []
        for unit in described["matrices"]:
            size = 2 * math.prod(unit["shape"])
            self.matrices.append(matrix(binary[:size], **unit))
            binary = binary[size:]
        for height, width in described["planes"]:
            plane = [["" for _ in range(width)] for _ in range(height)]
            for row in range(height):
                for column in range(width):
                    used = next(place for place, byte in enumerate(binary) if byte < 128) + 1
                    index = sum((byte % 128) << (7 * place) for place, byte in enumerate(binary[:used]))
                    plane[row][column], binary = described["words"][index], binary[used:]
            self.planes.append(plane)

    def matrix(self, reference: dict) -> list[list[float | None]]:
        rows, by = self.matrices[reference["matrix"]], reference.get("by")
        return (
            rows if by is None else [[None if value is None else FUNCTIONS[by](value) for value in row] for row in rows]
        )

    def words(self, reference: dict, row: int, column: int) -> list[str]:
        return [self.planes[plane][row][column] for plane in reference["words"]]
