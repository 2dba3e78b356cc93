"""The check that every reading of the final stream must pass: it gives the model's own logits."""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from interp.errors import NumericsError, VerificationError

_CHUNK = 64


def check_log_probs(
    ids: Int[Tensor, "pos k"],
    log_probs: Float[Tensor, "pos k"],
    logits: Float[Tensor, "pos d_vocab"],
    *,
    what: str,
) -> None:
    """Compares log-probabilities (nats) of some tokens, the greatest first, with those of the model's logits.

    Allowed is the rounding of the logits: 1e-4 and 2e-5 of the largest logit in fp32, four units in the last place in half precision.

    Raises:
        VerificationError: they differ; the message names the position and both values.
        NumericsError: the model's logits hold NaN or infinity.

    """
    for start in range(0, len(ids), _CHUNK):
        rows = slice(start, start + _CHUNK)
        expected = logits[rows].float()
        if not torch.isfinite(expected).all():
            raise NumericsError("the model's logits hold NaN or infinity; check the weights, or use dtype='float32'")
        eps = 0.0 if logits.dtype == torch.float32 else 4 * torch.finfo(logits.dtype).eps
        allowed = 1e-4 + max(2e-5, eps) * expected.abs().amax(1)
        own = expected.log_softmax(-1)
        difference = (own.gather(1, ids[rows].to(own.device)) - log_probs[rows].to(own)).abs().amax(1)
        difference = torch.maximum(difference, (own.amax(1) - log_probs[rows, 0].to(own)).abs())
        # Written so that NaN fails too.
        bad = (~(difference <= allowed)).nonzero()
        if bad.numel():
            place = int(bad[0])
            raise VerificationError(
                f"{what} differs from the model's logits at row {start + place}: log-probabilities are off by "
                f"{float(difference[place]):.2g} nats, allowed are {float(allowed[place]):.2g}"
            )
