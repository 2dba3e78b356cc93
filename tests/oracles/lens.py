"""The logit lens in plain loops and double precision: softmax of the unembedded stream, one row and one token at a time."""

import math


def logits(stream, weight, bias=None, scale=1.0, softcap=None):
    """Gemma 2: softcap * tanh(l / softcap); Cohere and Granite: a factor on l."""
    out = []
    for token, row in enumerate(weight):
        value = math.fsum(a * b for a, b in zip(stream, row, strict=True))
        value = scale * (value + (bias[token] if bias is not None else 0.0))
        out.append(value if softcap is None else softcap * math.tanh(value / softcap))
    return out


def log_softmax(values):
    top = max(values)
    lse = top + math.log(math.fsum(math.exp(value - top) for value in values))
    return [value - lse for value in values]


def top(values, k):
    """Ids of the greatest values; of equal ones the lower id first."""
    return sorted(range(len(values)), key=lambda token: (-values[token], token))[:k]


def entropy(log_probs):
    return -math.fsum(math.exp(value) * value for value in log_probs)


def kl(final, lens):
    """KL(final || lens), both as log-probabilities."""
    return math.fsum(math.exp(f) * (f - p) for f, p in zip(final, lens, strict=True))


def rank(values, target):
    return sum(1 for value in values if value > values[target])


def lens(streams, weight, targets, k, bias=None, scale=1.0, softcap=None, final=None):
    """Every statistic as nested lists [layer][pos]; ``final`` is the last layer unless given."""
    out = {name: [] for name in ("top_ids", "top_log_probs", "entropy", "kl", "target_log_prob", "target_rank")}
    ends = streams[-1] if final is None else final
    for layer in streams:
        rows = {name: [] for name in out}
        for stream, end, target in zip(layer, ends, targets, strict=True):
            values = logits(stream, weight, bias, scale, softcap)
            log_probs = log_softmax(values)
            rows["top_ids"].append(top(values, k))
            rows["top_log_probs"].append([log_probs[token] for token in top(values, k)])
            rows["entropy"].append(entropy(log_probs))
            rows["kl"].append(kl(log_softmax(logits(end, weight, bias, scale, softcap)), log_probs))
            rows["target_log_prob"].append(log_probs[target])
            rows["target_rank"].append(rank(values, target))
        for name in out:
            out[name].append(rows[name])
    return out
