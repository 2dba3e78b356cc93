"""From which layer on does the stream say whether a sentence is kind? Activations of a corpus in a store, a linear probe on each layer.

Half of the sentences are negated, so that no single word tells. The adjectives of the test are not among those of the training.
"""

import torch

import interp

NOUNS = ("film", "meal", "hotel", "book", "game", "song")
KIND = ("good", "great", "wonderful", "lovely", "excellent", "fine", "superb", "pleasant")
UNKIND = ("bad", "awful", "terrible", "boring", "horrible", "poor", "dreadful", "ugly")
LAYERS = (0, 5, 10, 15, 20, 25, 29)

texts, labels, held_out = [], [], []
for noun in NOUNS:
    for index, words in enumerate(zip(KIND, UNKIND, strict=True)):
        for negated in (False, True):
            for kind, word in zip((True, False), words, strict=True):
                texts.append(f"The {noun} was {'not ' if negated else ''}{word}.")
                labels.append(1.0 if kind != negated else -1.0)
                held_out.append(index >= 5)

model = interp.load("smollm2-135m")
sites = [f"resid_post@{layer}" for layer in LAYERS]
store = interp.collect(model, texts, sites, "probe-store", positions="last")
(rows,) = store.batches(sites, batch_rows=len(texts))
order = rows.documents
y, test = torch.tensor(labels)[order], torch.tensor(held_out)[order]


def accuracy(x: torch.Tensor) -> float:
    """Share of test sentences on the right side of a ridge regression on the training sentences."""
    x = (x - x[~test].mean(0)) / x[~test].std(0)
    train = x[~test]
    weights = torch.linalg.solve(train.T @ train + 100 * torch.eye(x.shape[1]), train.T @ y[~test])
    return float(((x[test] @ weights).sign() == y[test]).float().mean())


print(f"{len(texts)} sentences, {int(test.sum())} of them for the test")
for layer, site in zip(LAYERS, sites, strict=True):
    print(f"after layer {layer:2}: {accuracy(rows[site].float()):.2f}")
