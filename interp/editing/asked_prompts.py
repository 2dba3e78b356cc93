"""What a model answers to the prompts of cases, before and after an edit: the numbers that every score is made from."""

from dataclasses import dataclass
from typing import ClassVar

from jaxtyping import Float, Int
from torch import Tensor

WHEN = ("before", "after")
"""The two states of a model that an edit is measured in."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Readings:
    """Prompts in one state of the model.

    ``new_nats`` and ``true_nats`` are the mean of -ln p over the tokens of the new and of the true object, each with those before it
    given. ``new_accuracy`` and ``true_accuracy`` are the share of these tokens that rank first in their place. For portability and
    locality prompts the true object is their own answer. NaN where a prompt has no such answer. ``top`` is the token that ranks first
    after the prompt, with its probability.
    """

    new_nats: Float[Tensor, " batch"]
    true_nats: Float[Tensor, " batch"]
    new_accuracy: Float[Tensor, " batch"]
    true_accuracy: Float[Tensor, " batch"]
    top: Int[Tensor, " batch"]
    top_probability: Float[Tensor, " batch"]


@dataclass(frozen=True, kw_only=True, eq=False)
class AskedPrompts:
    """The prompts of one role, those of all cases one after another; ``case`` says whose each is.

    Unrelated prompts are no case's: they are asked again of every edit, and ``case`` is the edit's number. ``after`` and what compares the
    two are None where no edit was measured. ``kl_nats`` is KL(before || after) of the next token. ``same`` is the share of the places
    of the true object's tokens in which the same token ranks first before and after.
    """

    ROLES: ClassVar[tuple[str, ...]] = ("prompt", "paraphrase", "neighbour", "portability", "locality", "unrelated")

    case: Int[Tensor, " batch"]
    texts: tuple[str, ...]
    before: Readings
    after: Readings | None
    kl_nats: Float[Tensor, " batch"] | None
    same: Float[Tensor, " batch"] | None

    def at(self, when: str) -> Readings | None:
        """The readings "before" or "after"."""
        return self.before if when == "before" else self.after

    @property
    def kept(self) -> Float[Tensor, " batch"] | None:
        """1 where the same token ranks first after the prompt as before, else 0."""
        return None if self.after is None else (self.before.top == self.after.top).double()
