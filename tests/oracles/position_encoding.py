"""Position encodings from their papers, in plain loops."""

import math


def rope_angles(base, width):
    """theta_i = base ** (-2 i / width) (Su et al. 2021, equation 15)."""
    return [base ** (-2 * i / width) for i in range(width // 2)]


def kept(angles, d_head, distance):
    """The mean over the coordinates of a head of what a turn by distance * angle leaves of a product; unturned ones keep all."""
    turned = math.fsum(2 * math.cos(distance * angle) for angle in angles)
    return (turned + d_head - 2 * len(angles)) / d_head


def alibi_slopes(n_heads):
    """A geometric sequence from 2 ** (-8 / n) (Press et al. 2022, section 3); n is a power of two."""
    return [2 ** (-8 * (head + 1) / n_heads) for head in range(n_heads)]


def cosine_at(rows, distance):
    """The mean cosine of the pairs of rows that lie so far apart."""
    values = []
    for i in range(len(rows) - distance):
        v, w = rows[i], rows[i + distance]
        lengths = math.sqrt(math.fsum(x * x for x in v)) * math.sqrt(math.fsum(y * y for y in w))
        values.append(math.fsum(x * y for x, y in zip(v, w, strict=True)) / lengths)
    return math.fsum(values) / len(values)
