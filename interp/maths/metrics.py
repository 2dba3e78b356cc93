"""What is read off the logits of a prompt: how probable an answer is, how far ahead of another, how far from a reference."""

import torch
from jaxtyping import Float, Int
from torch import Tensor


def answer_log_prob(
    logits: Float[Tensor, "batch pos d_vocab"], answer: Int[Tensor, "batch pos"]
) -> Float[Tensor, " batch"]:
    """The log probability in nats of an answer of several tokens: position i scores its token i, those before it given."""
    chosen = logits.gather(-1, answer[..., None]).squeeze(-1)
    return (chosen - logits.logsumexp(-1)).sum(-1)


def logit_difference(
    logits: Float[Tensor, "batch d_vocab"], answer: Int[Tensor, " batch"], against: Int[Tensor, " batch"]
) -> Float[Tensor, " batch"]:
    """The logit of one token less that of another (Wang et al. 2022): the log of the ratio of their probabilities."""
    rows = torch.arange(len(logits), device=logits.device)
    return logits[rows, answer] - logits[rows, against]


def kl_divergence(
    logits: Float[Tensor, "batch pos d_vocab"], reference: Float[Tensor, "batch pos d_vocab"]
) -> Float[Tensor, " batch"]:
    """KL(reference || logits) of the next-token distributions in nats, the mean over positions."""
    wanted, found = reference.log_softmax(-1), logits.log_softmax(-1)
    by_position = (wanted.exp() * (wanted - found)).sum(-1)
    return by_position.mean(-1)
