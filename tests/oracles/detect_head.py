"""TransformerLens' detection patterns and scores in plain loops."""


def wanted(name, ids):
    n = len(ids)
    out = [[0.0] * n for _ in range(n)]
    for query in range(n):
        for key in range(query + 1):
            if name == "previous_token_head":
                hit = key == query - 1
            elif name == "duplicate_token_head":
                hit = key < query and ids[key] == ids[query]
            else:
                hit = key > 0 and ids[key - 1] == ids[query]
            out[query][key] = float(hit)
    return out


def score(pattern, wanted, measure, exclude_bos, exclude_current_token):
    hit = total = error = 0.0
    for query, row in enumerate(pattern):
        for key, value in enumerate(row):
            if (exclude_bos and key == 0) or (exclude_current_token and key == query):
                continue
            hit += value * wanted[query][key]
            total += value
            error += abs(value - wanted[query][key])
    return hit / total if measure == "mul" else 1 - round(error / len(pattern), 3)
