"""Attention in plain loops and double precision: scores, softmax, what a row shows, and Kobayashi et al.'s norms."""

import math


def scores(q, k, scaling, softcap=None, window=None):
    """Scores of one head: lists [query][key] of the keys up to the query; -inf where the window hides one."""
    out = []
    for i, query in enumerate(q):
        row = []
        for j, key in enumerate(k[: i + 1]):
            if window is not None and i - j >= window:
                row.append(-math.inf)
                continue
            value = scaling * math.fsum(a * b for a, b in zip(query, key, strict=True))
            row.append(value if softcap is None else softcap * math.tanh(value / softcap))
        out.append(row)
    return out


def pattern(rows, sink=None):
    """Softmax of each row; a learned sink takes a share and is dropped."""
    out = []
    for row in rows:
        top = max([*row, sink] if sink is not None else row)
        parts = [math.exp(value - top) for value in row]
        total = math.fsum(parts) + (math.exp(sink - top) if sink is not None else 0.0)
        out.append([part / total for part in parts])
    return out


def statistics(rows, k):
    """What each row of one head's pattern shows."""
    out = {name: [] for name in ("mass", "entropy", "distance", "first", "previous", "own", "top_keys", "top_weights")}
    for i, row in enumerate(rows):
        mass = math.fsum(row)
        shares = [weight / mass for weight in row]
        out["mass"].append(mass)
        out["entropy"].append(-math.fsum(share * math.log(share) for share in shares if share > 0))
        out["distance"].append(math.fsum(share * (i - j) for j, share in enumerate(shares)))
        out["first"].append(row[0])
        out["previous"].append(row[i - 1] if i else math.nan)
        out["own"].append(row[i])
        best = sorted((j for j in range(i + 1) if row[j] > 0), key=lambda j: -row[j])[:k]
        out["top_keys"].append(best + [-1] * (k - len(best)))
        out["top_weights"].append([row[j] for j in best] + [0.0] * (k - len(best)))
    return out


def norm(vector):
    return math.sqrt(math.fsum(value * value for value in vector))


def written(v, slice_of_W_O):
    """v_j W_O^h: what a head would write from key j with weight one."""
    width = len(slice_of_W_O[0])
    return [math.fsum(v[row] * slice_of_W_O[row][column] for row in range(len(v))) for column in range(width)]


def weighted(rows, vectors):
    """||p_ij x_j||, by scaling every vector first and taking its norm after (Kobayashi et al. 2020, equation 2)."""
    return [[norm([weight * x for x in vectors[j]]) for j, weight in enumerate(row)] for row in rows]
