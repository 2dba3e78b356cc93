"""Induction scores as plain loops over lists, from Olsson et al. 2022 and Elhage et al. 2021 and from TransformerLens' demo of heads."""

import math


def targets(ids, i):
    """The positions after the earlier occurrences of token i."""
    return [j + 1 for j in range(i) if ids[j] == ids[i]]


def stripe(pattern, period, first, offset=1):
    """Mean attention from i to i - period + offset over the repeats; keys before the first block are no places of it."""
    seen = []
    for i in range(first + period, len(pattern)):
        j = i - period + offset
        if first <= j <= i:
            seen.append(pattern[i][j])
    return sum(seen) / len(seen)


def diagonal(pattern, period):
    """TransformerLens: the mean of the whole diagonal, period - 1 below the main one."""
    seen = [pattern[i][i - period + 1] for i in range(period - 1, len(pattern))]
    return sum(seen) / len(seen)


def previous(pattern):
    seen = [pattern[i][i - 1] for i in range(1, len(pattern))]
    return sum(seen) / len(seen)


def on_targets(pattern, ids):
    seen = [sum(pattern[i][j] for j in targets(ids, i)) for i in range(len(ids)) if targets(ids, i)]
    return sum(seen) / len(seen)


def off_first(pattern, ids):
    seen = [sum(pattern[i][1:]) for i in range(len(ids)) if targets(ids, i)]
    return sum(seen) / len(seen)


def prefix_matching(pattern, ids):
    return on_targets(pattern, ids) / off_first(pattern, ids)


def losses(logits, ids):
    """-ln p of each next token."""
    found = []
    for row, token in zip(logits[:-1], ids[1:], strict=True):
        top = max(row)
        found.append(top + math.log(sum(math.exp(x - top) for x in row)) - row[token])
    return found


def first_and_second(by_token, ids):
    """Mean loss after new tokens, and on the tokens that an earlier occurrence foretells."""
    new = [loss for i, loss in enumerate(by_token) if not targets(ids, i)]
    foretold = [loss for i, loss in enumerate(by_token) if ids[i + 1] in [ids[j] for j in targets(ids, i)]]
    return sum(new) / len(new), sum(foretold) / len(foretold)


def late_less_early(by_token):
    quarter = max(1, len(by_token) // 4)
    return sum(by_token[-quarter:]) / quarter - sum(by_token[:quarter]) / quarter
