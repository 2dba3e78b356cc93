"""The texts that induction is measured on: repeated random tokens, or texts that are given; each with a reference without repeats."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Int
from torch import Generator, Tensor

from interp.analyzers.ordinary_tokens import begin_of_text, frequencies, ordinary_ids
from interp.errors import UsageError
from interp.maths.induction import Places, places
from interp.maths.random_tokens import distinct_tokens, repeated_tokens, unrepeated_tokens
from interp.runner.batch import Batch
from interp.runner.model import Model

_REFERENCES = 4
"""Reference texts for each given prompt."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Texts:
    """Texts of one length, a row for each sample, with the places where induction would look.

    ``reference`` are random texts of that length in which nothing is repeated, at least as many. ``period`` is the length of the
    block that is repeated, None where the texts are no exact repeats.
    """

    ids: Int[Tensor, "batch pos"]
    reference: Int[Tensor, "sample pos"]
    period: int | None
    places: Places

    @property
    def n_pos(self) -> int:
        """Tokens in each text."""
        return self.ids.shape[1]


def random_texts(
    model: Model,
    *,
    periods: Sequence[int],
    copies: int,
    seeds: int,
    corpus: str | Sequence[str] | None,
    first_token: bool | int,
    generator: Generator,
) -> tuple[Texts, ...]:
    """One batch for each period, with a row for each seed. Raises UsageError for a period or number that does not fit."""
    first = begin_of_text(model, first_token)
    lead = 0 if first is None else 1
    _check_sizes(model, periods, copies, seeds, lead)
    ordinary = ordinary_ids(model)
    if first is not None:
        ordinary = ordinary[ordinary != first]
    weights = None if corpus is None else frequencies(model, corpus, ordinary)
    found = []
    for period in periods:
        block = distinct_tokens(ordinary, weights, seeds, period, generator)
        reference = unrepeated_tokens(ordinary, weights, seeds, period, copies, generator, first)
        found.append(_texts(model, repeated_tokens(block, copies, first), reference, period, lead))
    return tuple(found)


def _check_sizes(model: Model, periods: Sequence[int], copies: int, seeds: int, lead: int) -> None:
    if not periods:
        raise UsageError("no period given; give one or more, such as periods=[20, 40, 60]")
    if copies < 2:
        raise UsageError(f"copies is {copies}; a repeat needs 2 or more")
    if seeds < 1:
        raise UsageError(f"seeds is {seeds}; valid: 1 or more (an interval needs 2)")
    context = model.atlas.n_ctx
    longest = None if context is None else (context - lead) // copies
    if context is not None and longest is not None and longest < 2:
        raise UsageError(
            f"copies is {copies}; valid: 2 to {(context - lead) // 2}, so that they fit the context of {context}"
        )
    for period in periods:
        if period < 2 or (longest is not None and period > longest):
            limit = (
                "2 or more"
                if longest is None
                else f"2 to {longest}, so that {copies} copies fit the context of {context}"
            )
            raise UsageError(f"the period {period} is out of range; valid: {limit}")


def given_texts(model: Model, prompts: Any, first_token: bool | int, generator: Generator) -> tuple[Texts, ...]:
    """One batch for each given prompt. Raises UsageError for one in which no token comes again."""
    ordinary, first = ordinary_ids(model), begin_of_text(model, first_token)
    found = []
    for index, tokens in enumerate(Batch.of(model, prompts).tokens):
        ids = torch.tensor([tokens.ids])
        if len(tokens) < 3:
            raise UsageError(
                f"prompt {index} has {len(tokens)} token{'s'[: len(tokens) > 1]}; induction needs a token that comes again: give 3 or more"
            )
        lead = 1 if tokens.ids[0] == first else 0
        period = _period(tokens.ids[lead:])
        length = len(tokens) - lead
        reference = unrepeated_tokens(
            ordinary, None, _REFERENCES, length, 1, generator, tokens.ids[0] if lead else None
        )
        texts = _texts(model, ids, reference, period, lead)
        if (texts.places.targets < 0).all():
            raise UsageError(
                f"no token of prompt {index} comes again after others, so no head can show induction there; repeat some of "
                "its text, or leave prompts out for repeated random tokens"
            )
        found.append(texts)
    return tuple(found)


def _texts(model: Model, ids: Tensor, reference: Tensor, period: int | None, lead: int) -> Texts:
    ids = ids.to(model.device)
    return Texts(ids=ids, reference=reference.to(model.device), period=period, places=places(ids, period, lead))


def _period(ids: Sequence[int]) -> int | None:
    """The shortest block of two tokens or more that the text repeats exactly, at least once in full; None if there is none."""
    for period in range(2, len(ids) // 2 + 1):
        if all(ids[at] == ids[at - period] for at in range(period, len(ids))):
            return period
    return None
