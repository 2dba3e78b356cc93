"""Metrics of logits against plain arithmetic."""

import math

import pytest
import torch

from interp.maths.metrics import answer_log_prob, kl_divergence, logit_difference

LOGITS = torch.randn(3, 2, 7, generator=torch.Generator().manual_seed(0))


def softmax(row: torch.Tensor) -> list[float]:
    shifted = [math.exp(x - float(row.max())) for x in row.tolist()]
    return [x / sum(shifted) for x in shifted]


def test_the_probability_of_an_answer_is_the_product_over_its_tokens() -> None:
    answer = torch.tensor([[1, 2], [0, 6], [3, 3]])
    found = answer_log_prob(LOGITS, answer).exp()
    for row in range(3):
        expected = math.prod(softmax(LOGITS[row, i])[answer[row, i]] for i in range(2))
        assert float(found[row]) == pytest.approx(expected, rel=1e-5)


def test_a_logit_difference_is_the_log_of_a_ratio_of_probabilities() -> None:
    answer, against = torch.tensor([1, 2, 3]), torch.tensor([4, 0, 6])
    found = logit_difference(LOGITS[:, 0], answer, against)
    for row in range(3):
        p = softmax(LOGITS[row, 0])
        assert float(found[row]) == pytest.approx(math.log(p[answer[row]] / p[against[row]]), abs=1e-5)


def test_kl_is_the_mean_over_positions_and_zero_for_the_reference_itself() -> None:
    reference = LOGITS.flip(0)
    found = kl_divergence(LOGITS, reference)
    for row in range(3):
        each = []
        for position in range(2):
            p, q = softmax(reference[row, position]), softmax(LOGITS[row, position])
            each.append(sum(a * math.log(a / b) for a, b in zip(p, q, strict=True)))
        assert float(found[row]) == pytest.approx(sum(each) / 2, abs=1e-5)
    torch.testing.assert_close(kl_divergence(LOGITS, LOGITS), torch.zeros(3))
