"""Cases whose fact a model knows: an edit of a fact that it does not know changes nothing that was there."""

from collections.abc import Sequence

import torch

from interp.analyzers.answers import read_answer
from interp.editing.answer_scores import Probe, hear
from interp.editing.cases import EditCase
from interp.errors import UsageError
from interp.models.cache import Step
from interp.models.progress import silent
from interp.runner.model import Model

_AT_ONCE = 64


def known_cases(
    model: Model, cases: Sequence[EditCase], n: int | None = None, seed: int = 0, *, progress: Step | None = None
) -> tuple[EditCase, ...]:
    """Cases drawn at random, without a prompt twice, whose true object the model gives.

    Known means: after the prompt the first token of the true object ranks first. A fact whose subject spells the object ("Nokia 3310 was
    made by Nokia", whatever the case of letters) is left out, for the model need not know it, and so is one whose new object is the
    true one.

    Args:
        model: the model, as it is.
        cases: to draw from. For neighbours out of all of them call ``with_neighbours`` first.
        n: how many; None is all that are known, in the order of the draw.
        seed: of the draw. The first n of a seed are the same whatever n is.
        progress: called with (what, done, total).

    Raises:
        UsageError: fewer than n are known.

    """
    if n is not None and n < 1:
        raise UsageError(f"n is {n}; give 1 or more, or None for all")
    step = progress or silent
    order = torch.randperm(len(cases), generator=torch.Generator().manual_seed(seed)).tolist()
    drawn = {cases[index].fact.prompt: cases[index] for index in reversed(order)}  # of equal prompts the first drawn
    asked = [case for case in reversed(drawn.values()) if _asks_for_knowledge(case)]
    known: list[EditCase] = []
    for start in range(0, len(asked), _AT_ONCE):
        chunk = asked[start : start + _AT_ONCE]
        known += [case for case, right in zip(chunk, _answers_right(model, chunk), strict=True) if right]
        if n is None:
            step("prompts asked", min(start + _AT_ONCE, len(asked)), len(asked))
            continue
        step("known facts", min(len(known), n), n)
        if len(known) >= n:
            return tuple(known[:n])
    if n is not None:
        raise UsageError(
            f"{model.name} knows {len(known)} of the {len(asked)} facts, {n} are asked for; give more cases"
        )
    return tuple(known)


def _asks_for_knowledge(case: EditCase) -> bool:
    true, subject = case.true.strip().casefold(), case.fact.subject.casefold()
    return true not in subject and true != case.fact.target.strip().casefold()


def _answers_right(model: Model, cases: Sequence[EditCase]) -> list[bool]:
    heard = hear(model, [Probe(prompt=model.tokens(case.fact.prompt)) for case in cases])
    return [one.top == read_answer(model, case.true).ids[0] for one, case in zip(heard, cases, strict=True)]
