"""A range coder: decisions with learnt chances in nearly as few bits as they are surprising.

A decision is one bit with two contexts. Each context remembers how often its bit was 0; the chance taken is the mean of the two, or that
of the one which was met before. Whoever reads knows the same contexts and learns the same chances, so nothing but the decisions is
written (Martin 1979; a carry goes back into bytes already written). Chances are products and sums of doubles in a fixed order: Python and
JavaScript get the same bits.
"""

CHANCE_BITS = 12
SLOWEST = 60
RATES = tuple(1 / (count + 1.6) for count in range(SLOWEST + 1))
_TOP = 1 << 24


class Decisions:
    """Collects decisions; ``encoded`` writes them."""

    def __init__(self) -> None:
        self.first: list[int] = []
        self.second: list[int] = []
        self.value: list[int] = []
        self._contexts = 0

    def contexts(self, count: int) -> int:
        """The number of the first of ``count`` fresh contexts."""
        self._contexts += count
        return self._contexts - count

    def ask(self, one: int, two: int, value: bool | int) -> None:
        """A decision under two contexts."""
        self.first.append(one)
        self.second.append(two)
        self.value.append(int(value))

    def plain(self, value: int, bits: int) -> None:
        """A number of up to 16 ``bits``, every value as likely as every other."""
        if bits:
            self.first.append(-bits)
            self.second.append(0)
            self.value.append(value)

    def encoded(self) -> bytes:
        """The decisions as bytes."""
        chances, counts = [0.5] * self._contexts, [0] * self._contexts
        output = bytearray()
        low, size = 0, (1 << 32) - 1
        for one, two, value in zip(self.first, self.second, self.value, strict=True):
            if one < 0:
                size >>= -one
                low += size * value
            else:
                chance, other = chances[one], chances[two]
                mean = chance if not counts[two] else other if not counts[one] else (chance + other) / 2
                bound = (size >> CHANCE_BITS) * min(max(int(mean * 4096), 1), 4095)
                if value:
                    low += bound
                    size -= bound
                    chances[one] = chance - chance * RATES[counts[one]]
                    chances[two] -= chances[two] * RATES[counts[two]]
                else:
                    size = bound
                    chances[one] = chance + (1 - chance) * RATES[counts[one]]
                    chances[two] += (1 - chances[two]) * RATES[counts[two]]
                if counts[one] < SLOWEST:
                    counts[one] += 1
                if counts[two] < SLOWEST:
                    counts[two] += 1
            while size < _TOP:
                low = _shifted(low, output)
                size <<= 8
        for _ in range(4):
            low = _shifted(low, output)
        return bytes(output)


def _shifted(low: int, output: bytearray) -> int:
    """Writes the highest byte of ``low``, with its carry."""
    if low >= 1 << 32:
        place = len(output) - 1
        while output[place] == 255:
            output[place] = 0
            place -= 1
        output[place] += 1
        low -= 1 << 32
    output.append(low >> 24)
    return (low & (_TOP - 1)) << 8
