"""The loss of each token of a prompt: how surprised the model was by what came next."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import torch
from jaxtyping import Float, Int
from torch import Tensor

from interp.analyzers.verification import check_log_probs
from interp.errors import UsageError
from interp.maths import edit_scores
from interp.maths.lens import lens_statistics
from interp.prompts import Conversation, PromptLike
from interp.results import Result
from interp.runner.model import Model
from interp.tokens import Tokens, vocabulary

if TYPE_CHECKING:
    from pandas import DataFrame
    from plotly.graph_objects import Figure


@dataclass(frozen=True, kw_only=True, eq=False)
class TokenLossesResult(Result):
    """How well each token of a prompt was foretold by those before it.

    Everything is about tokens 1, 2, ... of ``tokens``: the first has nothing before it and no loss. ``losses_nats`` is -ln p of the token
    that came, ``entropy_nats`` the loss that the model itself expected there, ``ranks`` how many tokens were likelier, ``top_ids`` and
    ``top_log_probs_nats`` the tokens that it thought likeliest. ``templated`` says whether the prompt is a conversation, so that the
    tokens of its chat template are among them.
    """

    kind: ClassVar[str] = "token_losses"
    schema_version: ClassVar[int] = 2

    tokens: Tokens
    templated: bool
    losses_nats: Float[Tensor, " predicted"]
    entropy_nats: Float[Tensor, " predicted"]
    ranks: Int[Tensor, " predicted"]
    top_ids: Int[Tensor, "predicted k"]
    top_log_probs_nats: Float[Tensor, "predicted k"]
    vocabulary: dict[str, str]

    @property
    def mean_loss_nats(self) -> float:
        """The mean over all tokens but the first."""
        return float(self.losses_nats.double().mean())

    @property
    def perplexity(self) -> float:
        """The exponential of the mean loss: as many tokens, all alike, would be as hard to guess."""
        return float(edit_scores.perplexity(self.losses_nats.double(), torch.ones_like(self.ranks)))

    def most_surprising(self, count: int = 8) -> tuple[int, ...]:
        """The positions in the prompt of the tokens with the greatest losses, the greatest first."""
        return tuple(1 + index for index in self.losses_nats.argsort(descending=True, stable=True)[:count].tolist())

    def to_frame(self) -> "DataFrame":
        """One row for each token but the first."""
        import pandas as pd

        return pd.DataFrame(
            {
                "position": range(1, len(self.tokens)),
                "token_id": self.tokens.ids[1:],
                "token": self.tokens.pieces[1:],
                "loss_nats": self.losses_nats.tolist(),
                "entropy_nats": self.entropy_nats.tolist(),
                "rank": self.ranks.tolist(),
                "top_token": [self.vocabulary[str(number)] for number in self.top_ids[:, 0].tolist()],
                "top_log_prob_nats": self.top_log_probs_nats[:, 0].tolist(),
            }
        )

    def figure(self) -> "Figure":
        """The loss of each token as a bar, and the loss that the model expected there as a mark."""
        from interp.figures.token_losses import loss_bars

        return loss_bars(self.losses_nats.double().numpy(), self.entropy_nats.double().numpy(), self.tokens.labels)


def token_losses(model: Model, prompt: PromptLike, *, top_k: int = 3) -> TokenLossesResult:
    """The loss -ln p of every token of a prompt given those before it, with what the model expected instead.

    Args:
        model: the model.
        prompt: text of two tokens or more, token ids or a conversation.
        top_k: how many of the likeliest tokens to keep at each place.

    The logits of all positions are never held together: statistics are taken part by part of the vocabulary, and checked against the
    model's own logits at the last position.

    Raises:
        UsageError: a bad prompt or top_k, or a prompt of one token.
        NumericsError: NaN or infinite logits.
        VerificationError: the final stream does not give the model's logits.

    """
    tokens = model.tokens(prompt)
    if len(tokens) < 2:
        raise UsageError("the prompt has one token, and nothing before it that could foretell it; give two or more")
    run = model.run(tokens, ["resid_post@-1"], logits="last")
    targets = torch.tensor([*tokens.ids[1:], tokens.ids[-1]])
    normed = model.final_norm(run.cache["resid_post@-1"][0])
    found = lens_statistics(normed[None], model.unembedding, targets, k=top_k)
    check_log_probs(
        found.top_ids[0, -1:], found.top_log_probs[0, -1:], run.last_logits, what="the final stream read for losses"
    )
    top_ids = found.top_ids[0, :-1].cpu()
    return TokenLossesResult(
        provenance=model.provenance(),
        tokens=tokens,
        templated=isinstance(prompt, Conversation),
        losses_nats=-found.target_log_prob[0, :-1].cpu(),
        entropy_nats=found.entropy[0, :-1].cpu(),
        ranks=found.target_rank[0, :-1].cpu(),
        top_ids=top_ids,
        top_log_probs_nats=found.top_log_probs[0, :-1].cpu(),
        vocabulary=vocabulary(model.tokenizer, top_ids.unique().tolist()),
    )
