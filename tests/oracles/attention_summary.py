"""Who reads whom, in plain loops over the patterns of one layer: [head][query][key]."""


def summary(patterns, k, window):
    heads, n = len(patterns), len(patterns[0])
    mean = [[sum(patterns[h][i][j] for h in range(heads)) / heads for j in range(n)] for i in range(n)]
    top_keys, received = [], []
    for i in range(n):
        between = sorted(range(1, i), key=lambda j: -mean[i][j])
        found = [j for j in between if mean[i][j] > 0][:k]
        top_keys.append(found + [-1] * (k - len(found)))
    for j in range(n):
        seeing = [i for i in range(j + 1, n) if window is None or i - j < window]
        received.append(sum(mean[i][j] for i in seeing) / len(seeing) if seeing else None)
    edges = [(patterns[h][i][j], h, i, j) for h in range(heads) for i in range(n) for j in range(1, i)]
    reach = max(i - j for h in range(heads) for i in range(n) for j in range(i + 1) if patterns[h][i][j] > 0)
    return {
        "first": [mean[i][0] for i in range(n)],
        "own": [mean[i][i] for i in range(n)],
        "top_keys": top_keys,
        "received": received,
        "edge": max(edges, key=lambda edge: edge[0]),
        "reach": reach,
    }
