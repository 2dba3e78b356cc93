"""What each way of choosing the next token leaves of the model's distribution: greedy, temperatures, top-k, top-p."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from jaxtyping import Float, Int
from torch import Tensor

from interp.errors import NumericsError, UsageError
from interp.maths.ranking import top_lowest_first
from interp.maths.sampling import Sampling, choice_statistics
from interp.prompts import PromptLike
from interp.results import Result
from interp.runner.model import Model
from interp.tokens import Tokens, visible, vocabulary

if TYPE_CHECKING:
    from pandas import DataFrame
    from plotly.graph_objects import Figure

CHOICES = (
    Sampling(temperature=0.0),
    Sampling(temperature=0.5),
    Sampling(temperature=1.0),
    Sampling(temperature=1.5),
    Sampling(top_k=5),
    Sampling(top_k=50),
    Sampling(top_p=0.5),
    Sampling(top_p=0.9),
)
"""The ways that are compared unless others are given; temperature 1 without a filter is the model's own distribution."""


@dataclass(frozen=True, kw_only=True, eq=False)
class DecodingChoicesResult(Result):
    """The distribution of the next token under each of ``choices``, as ``Model.generate`` draws from it.

    ``probs`` are the probabilities of the likeliest tokens, ``top_ids``; ``other_probs`` is what all other tokens share. ``n_kept``
    counts the tokens that can be drawn at all, of ``d_vocab``; ``kept_mass`` is the probability that the model itself gives these
    tokens; ``entropy_nats`` is the entropy of what is drawn from.
    """

    kind: ClassVar[str] = "decoding_choices"
    schema_version: ClassVar[int] = 1

    tokens: Tokens
    choices: tuple[Sampling, ...]
    d_vocab: int
    top_ids: Int[Tensor, " k"]
    top_logits: Float[Tensor, " k"]
    probs: Float[Tensor, "choice k"]
    other_probs: Float[Tensor, " choice"]
    n_kept: Int[Tensor, " choice"]
    kept_mass: Float[Tensor, " choice"]
    entropy_nats: Float[Tensor, " choice"]
    vocabulary: dict[str, str]

    @property
    def pieces(self) -> tuple[str, ...]:
        """The text of the likeliest tokens."""
        return tuple(self.vocabulary[str(number)] for number in self.top_ids.tolist())

    def to_frame(self) -> "DataFrame":
        """One row for each choice and token, the likeliest first; a token that is left out has probability 0."""
        import pandas as pd

        rows = [
            {
                "choice": choice.label,
                "temperature": choice.temperature,
                "top_k": choice.top_k,
                "top_p": choice.top_p,
                "token_id": int(self.top_ids[rank]),
                "token": piece,
                "probability": float(self.probs[index, rank]),
                "tokens_kept": int(self.n_kept[index]),
                "kept_mass_probability": float(self.kept_mass[index]),
                "entropy_nats": float(self.entropy_nats[index]),
            }
            for index, choice in enumerate(self.choices)
            for rank, piece in enumerate(self.pieces)
        ]
        return pd.DataFrame(rows)

    def figure(self) -> "Figure":
        """The probability of each likely token under each choice; blank where it is left out."""
        from interp.figures.decoding_choices import choice_map

        return choice_map(
            self.probs.double().numpy(),
            self.other_probs.double().numpy(),
            tokens=[visible(piece) for piece in self.pieces],
            choices=[choice.label for choice in self.choices],
        )


def decoding_choices(
    model: Model, prompt: PromptLike, *, choices: Sequence[Sampling] = CHOICES, top_k: int = 10
) -> DecodingChoicesResult:
    """Compares ways of choosing the token after a prompt on the model's own logits (Holtzman et al. 2020).

    The probabilities come from the code that ``Model.generate`` draws with, so that they are those of its first token.

    Args:
        model: the model.
        prompt: text, token ids or a conversation.
        choices: the ways to compare, such as ``interp.Sampling(temperature=0.7, top_p=0.9)``.
        top_k: how many of the likeliest tokens to show one by one. It filters nothing; that is a matter of ``choices``.

    Raises:
        UsageError: a bad prompt or top_k, or no choice.
        NumericsError: NaN or infinite logits.

    """
    d_vocab = model.unembedding.weight.shape[0]
    if not 1 <= top_k <= d_vocab:
        raise UsageError(f"top_k is {top_k}; valid: 1 to {d_vocab}, the size of the vocabulary")
    if not choices:
        raise UsageError("no choice is given; give one or more, such as interp.Sampling(temperature=0.7)")
    tokens = model.tokens(prompt)
    logits = model.run(tokens, logits="last").last_logits.float().cpu()
    if not bool(logits.isfinite().all()):
        raise NumericsError("the model's logits hold NaN or infinity; check the weights, or use dtype='float32'")
    best, ids = top_lowest_first(logits, top_k)
    left = choice_statistics(logits[0], choices)
    shown = left.probs[:, ids[0]]
    return DecodingChoicesResult(
        provenance=model.provenance(),
        tokens=tokens,
        choices=tuple(choices),
        d_vocab=logits.shape[1],
        top_ids=ids[0],
        top_logits=best[0],
        probs=shown,
        other_probs=(left.probs.double().sum(-1) - shown.double().sum(-1)).clamp(min=0.0).float(),
        n_kept=left.n_kept,
        kept_mass=left.kept_mass,
        entropy_nats=left.entropy_nats,
        vocabulary=vocabulary(model.tokenizer, ids[0].tolist()),
    )
