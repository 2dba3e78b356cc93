"""The end of a forward and the choice of a token in plain loops over plain Hugging Face logits, one number at a time."""

import math

import torch

from oracles.runner import filtered_probabilities


def softmax(logits: list[float]) -> list[float]:
    """e^l over the sum of all e^l, as it is written in books: nothing is taken off first."""
    powers = [math.exp(value) for value in logits]
    total = math.fsum(powers)
    return [power / total for power in powers]


def histogram(values: list[float], n_bins: int) -> list[int]:
    least, greatest = min(values), max(values)
    counts = [0] * n_bins
    for value in values:
        counts[min(int((value - least) / ((greatest - least) / n_bins)), n_bins - 1)] += 1
    return counts


def chosen_from(logits: list[float], temperature: float, top_k: int | None, top_p: float | None) -> list[float]:
    """The probabilities that the next token is drawn with."""
    if temperature == 0:
        best = logits.index(max(logits))
        return [1.0 if index == best else 0.0 for index in range(len(logits))]
    return filtered_probabilities(logits, temperature, top_k, top_p)


def entropy(probabilities: list[float]) -> float:
    return -math.fsum(p * math.log(p) for p in probabilities if p > 0)


def token_losses(hf, ids: list[int]) -> list[dict]:
    """For each token but the first: its loss, the entropy that was expected, its rank, the likeliest token; each prefix run anew."""
    found = []
    for position in range(1, len(ids)):
        with torch.no_grad():
            logits = hf(torch.tensor([ids[:position]]), use_cache=False).logits[0, -1].double().tolist()
        probabilities = softmax(logits)
        target = ids[position]
        found.append(
            {
                "loss": -math.log(probabilities[target]),
                "entropy": entropy(probabilities),
                "rank": sum(value > logits[target] for value in logits),
                "top": logits.index(max(logits)),
                "top_log_prob": math.log(max(probabilities)),
            }
        )
    return found


def cache_of(hf, ids: list[int]) -> list[tuple[int, int, int, int]]:
    """What Hugging Face's own cache keeps of a text, layer by layer: key/value heads, tokens, width and bytes of a number."""
    with torch.no_grad():
        kv = hf(torch.tensor([ids]), use_cache=True).past_key_values
    shapes = []
    for layer in kv.layers:
        (_, heads, tokens, width), values = layer.keys.shape, layer.values.shape
        assert tuple(values) == (1, heads, tokens, width)
        shapes.append((heads, tokens, width, layer.keys.element_size()))
    return shapes


def cache_bytes(shapes: list[tuple[int, int, int, int]]) -> int:
    return sum(2 * heads * tokens * width * size for heads, tokens, width, size in shapes)
