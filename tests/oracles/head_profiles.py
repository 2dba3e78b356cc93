"""What a head attends to, in plain loops over one pattern: rows of lists, one number at a time."""

import math


def visible(query, window):
    """The keys that a query sees."""
    first = 0 if window is None else max(0, query - window + 1)
    return range(first, query + 1)


def places(name, query, ids, punctuation, window, local):
    """The keys of one kind for one query; None where the query cannot show it."""
    seen = visible(query, window)
    if name == "first_token":
        keys = [0] if query > 0 and 0 in seen else []
    elif name == "local_window":
        keys = [key for key in range(query - local + 1, query + 1) if key > 0 and key in seen]
        keys = keys if len(keys) == local and (window is None or local < window) else []
    elif name in ("previous_token", "current_token") or name.startswith("back_"):
        offset = {"previous_token": 1, "current_token": 0}.get(name) if "_token" in name else int(name[5:])
        keys = [query - offset] if query - offset > 0 and query - offset in seen else []
    else:
        keys = []
        for key in range(1, query):
            if key not in seen:
                continue
            if name == "duplicate_tokens" and ids[key] == ids[query]:
                keys.append(key)
            if name == "induction_targets" and ids[key - 1] == ids[query]:
                keys.append(key)
            if name == "punctuation" and punctuation[key]:
                keys.append(key)
    return keys or None


def row_shape(row, query, window):
    """Entropy in nats, the same over the greatest possible, and mean distance of one row."""
    total = math.fsum(row[: query + 1])
    entropy = -math.fsum(p / total * math.log(p / total) for p in row[: query + 1] if p > 0)
    distance = math.fsum(row[key] / total * (query - key) for key in range(query + 1))
    return entropy, entropy / math.log(len(visible(query, window))), distance


def mean(values):
    kept = [value for value in values if value is not None]
    return math.fsum(kept) / len(kept) if kept else math.nan


def measure(name, pattern, ids, punctuation, window=None, local=8):
    """One measure of one head's pattern: the mean over the queries that can show it."""
    if name in ("entropy_nats", "entropy_normalised", "mean_distance"):
        index = ("entropy_nats", "entropy_normalised", "mean_distance").index(name)
        return mean([row_shape(row, query, window)[index] for query, row in enumerate(pattern) if query > 0])
    values = []
    for query, row in enumerate(pattern):
        keys = places(name, query, ids, punctuation, window, local)
        values.append(None if keys is None else math.fsum(row[key] for key in keys))
    return mean(values)


def permuted(name, pattern, ids, punctuation, window=None, local=8):
    """The expectation of a measure of place when the weights of each row are dealt to its visible keys at random."""
    values = []
    for query, row in enumerate(pattern):
        seen = visible(query, window)
        total = math.fsum(row)
        if name == "mean_distance":
            values.append(mean([query - key for key in seen]) if query > 0 else None)
        elif name == "entropy_nats":
            values.append(math.log(len(seen)) if query > 0 else None)
        elif name == "entropy_normalised":
            values.append(1.0 if query > 0 else None)
        else:
            keys = places(name, query, ids, punctuation, window, local)
            values.append(None if keys is None else total * len(keys) / len(seen))
    return mean(values)


def explained_by_position(patterns, window=None):
    """For each prompt's pattern of one head: 1 - squared error of the other prompts' means by position over that of the row means."""
    out = []
    for i, own in enumerate(patterns):
        first, distance = {}, {}
        for j, other in enumerate(patterns):
            if i == j:
                continue
            for query in range(1, len(other)):
                first.setdefault(query, []).append(other[query][0])
                for key in range(1, query + 1):
                    distance.setdefault(query - key, []).append(other[query][key])
        error = spread = 0.0
        for query in range(1, len(own)):
            seen = visible(query, window)
            even = math.fsum(own[query]) / len(seen)
            for key in range(query + 1):
                place, table = (query, first) if key == 0 else (query - key, distance)
                while place > 0 and place not in table:
                    place -= 1
                guess = mean(table[place]) if place in table else 0.0
                error += (own[query][key] - guess) ** 2
                spread += (own[query][key] - even) ** 2 if key in seen else own[query][key] ** 2
        out.append(1 - error / spread if len(patterns) > 1 and spread > 1e-6 * len(own) else math.nan)
    return out
