"""Ridge regression towards the identity by plain gradient descent in double precision: slow, and without any linear solver."""

import torch


def fit(x, y, ridge, steps=20_000):
    """Minimises |X A + b - Y|² + penalty |A - I|² over A [d, d] and b, penalty = ridge * mean over axes of the summed squares."""
    x, y = x.double(), y.double()
    centred = x - x.mean(0)
    penalty = ridge * centred.square().sum(0).mean()
    weight, bias = torch.eye(x.shape[1], dtype=torch.float64), torch.zeros(y.shape[1], dtype=torch.float64)
    rate = 0.5 / (torch.linalg.matrix_norm(x, 2) ** 2 + len(x) + penalty)
    eye = torch.eye(x.shape[1], dtype=torch.float64)
    for _ in range(steps):
        error = x @ weight + bias - y
        weight = weight - rate * 2 * (x.T @ error + penalty * (weight - eye))
        bias = bias - rate * 2 * error.sum(0)
    return weight, bias
