"""Direct logit attribution in plain loops: the final norm with its divisor fixed, one part of the stream at a time."""

import math


def divisor(x, eps, centred):
    mean = math.fsum(x) / len(x) if centred else 0.0
    return math.sqrt(math.fsum((v - mean) ** 2 for v in x) / len(x) + eps)


def contribution(part, x, gamma, row, eps, centred, scale=1.0):
    """What one part adds to the logit whose unembedding row is ``row``; ``x`` is the whole stream."""
    mean = math.fsum(part) / len(part) if centred else 0.0
    s = divisor(x, eps, centred)
    return scale * math.fsum(w * g * (v - mean) / s for w, g, v in zip(row, gamma, part, strict=True))
