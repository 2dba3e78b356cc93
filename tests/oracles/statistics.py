"""Student's t, Benjamini-Hochberg and the sign-flip test in plain loops: integrals by Simpson's rule, tests by enumeration."""

import itertools
import math


def t_density(x, df):
    log = math.lgamma((df + 1) / 2) - math.lgamma(df / 2) - 0.5 * math.log(df * math.pi)
    return math.exp(log - (df + 1) / 2 * math.log1p(x * x / df))


def t_upper_tail(t, df, steps=4000):
    """P(T > t) for t >= 0, with x = t + u / (1 - u) mapping [0, 1) onto the tail."""

    def integrand(u):
        return t_density(t + u / (1 - u), df) / (1 - u) ** 2 if u < 1 else (1 / math.pi if df == 1 else 0.0)

    width = 1 / steps
    total = integrand(0.0) + integrand(1.0)
    total += math.fsum((4 if i % 2 else 2) * integrand(i * width) for i in range(1, steps))
    return total * width / 3


def mean_and_error(samples):
    kept = [value for value in samples if not math.isnan(value)]
    n = len(kept)
    if n == 0:
        return math.nan, math.nan, 0
    mean = math.fsum(kept) / n
    if n == 1:
        return mean, math.nan, 1
    return mean, math.sqrt(math.fsum((value - mean) ** 2 for value in kept) / (n - 1) / n), n


def sign_flip(samples):
    """The exact one-sided p value: the share of all patterns of signs with a sum at least the one seen."""
    kept = [value for value in samples if not math.isnan(value)]
    seen = math.fsum(kept)
    sums = [
        math.fsum(s * v for s, v in zip(signs, kept, strict=True))
        for signs in itertools.product((1, -1), repeat=len(kept))
    ]
    return sum(1 for value in sums if value >= seen - 1e-12) / len(sums)


def benjamini_hochberg(p, rate):
    tests = sorted((value, index) for index, value in enumerate(p) if not math.isnan(value))
    last = 0
    for rank, (value, _) in enumerate(tests, start=1):
        if value <= rank / len(tests) * rate:
            last = rank
    found = {index for _, index in tests[:last]}
    return [index in found for index in range(len(p))]
