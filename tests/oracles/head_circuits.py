"""The circuits of heads with explicit matrices and plain loops (Elhage et al. 2021). Matrices are lists of rows; streams are rows.

Only eigenvalues and singular values are left to numpy, which gets the whole matrix, d_model or vocabulary squared.
"""

import math

import numpy as np


def product(a, b):
    return [[math.fsum(x * b[i][j] for i, x in enumerate(row)) for j in range(len(b[0]))] for row in a]


def transposed(a):
    return [list(column) for column in zip(*a, strict=True)]


def frobenius(a):
    return math.sqrt(math.fsum(x * x for row in a for x in row))


def read_through_norm(weight, gamma, centred):
    """The map that a norm's weight (and centring) makes of ``weight`` [d_model, d_head], but for the divisor."""
    width = len(weight)
    scaled = [[gamma[i] * x for x in row] for i, row in enumerate(weight)]
    if not centred:
        return scaled
    means = [math.fsum(row[j] for row in scaled) / width for j in range(len(scaled[0]))]
    return [[x - means[j] for j, x in enumerate(row)] for row in scaled]


def unembedding_through_norm(unembed, gamma, centred):
    """Rows of the unembedding [token, d_model] as they read the stream before the final norm."""
    return transposed(read_through_norm(transposed(unembed), gamma, centred))


def ov(W_V, W_O):
    return product(W_V, W_O)


def qk(W_Q, W_K):
    return product(W_Q, transposed(W_K))


def rotated_qk(W_Q, W_K, distance, theta=10000.0):
    """W_QK of RoFormer (Su et al. 2021) for a key ``distance`` positions back; halves rotate together as in GPT-NeoX and Llama."""
    width = len(W_Q[0])
    half = width // 2
    turned = []
    for row in W_Q:
        new = [0.0] * width
        for i in range(half):
            angle = distance * theta ** (-2 * i / width)
            new[i] = row[i] * math.cos(angle) - row[i + half] * math.sin(angle)
            new[i + half] = row[i + half] * math.cos(angle) + row[i] * math.sin(angle)
        turned.append(new)
    return qk(turned, W_K)


def composition(kind, ov1, qk2, ov2):
    """Q: W_OV1 W_QK2; K: W_OV1 W_QK2ᵀ; V: W_OV1 W_OV2, each over the norms of its factors."""
    second = {"q": qk2, "k": transposed(qk2), "v": ov2}[kind]
    return frobenius(product(ov1, second)) / (frobenius(ov1) * frobenius(second))


def singular_values(a):
    return sorted(np.linalg.svd(np.array(a), compute_uv=False).tolist(), reverse=True)


def token_map(embed, middle, unembed):
    """W_E M W_U [token, token]: what each token's embedding gives each token."""
    return product(product(embed, middle), transposed(unembed))


def centred_columns(table):
    """Each row less its mean."""
    return [[x - math.fsum(row) / len(row) for x in row] for row in table]


def eigenvalue_score(table):
    values = np.linalg.eigvals(np.array(table))
    return float(values.sum().real / np.abs(values).sum())


def own_ranks(table):
    return [sum(x > row[t] for x in row) for t, row in enumerate(table)]


def haar_moments(a, b, width):
    """Mean and variance of sum a_i b_j O_ij² over random orthogonal O: the moments of its entries (Collins and Sniady 2006)."""
    fourth = 3 / (width * (width + 2))
    same_line = 1 / (width * (width + 2))
    apart = (width + 1) / (width * (width - 1) * (width + 2))
    mean = second = 0.0
    for i, x in enumerate(a):
        for j, y in enumerate(b):
            mean += x * y / width
            for k, u in enumerate(a):
                for m, v in enumerate(b):
                    moment = fourth if (i, j) == (k, m) else same_line if i == k or j == m else apart
                    second += x * y * u * v * moment
    return mean, second - mean * mean
