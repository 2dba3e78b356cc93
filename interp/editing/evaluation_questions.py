"""What an evaluation asks of each case, and the answers put together by role."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from interp.analyzers.answers import read_answer
from interp.editing.answer_scores import Heard, Probe
from interp.editing.asked_prompts import AskedPrompts, Readings
from interp.editing.cases import EditCase
from interp.maths.edit_scores import divergence
from interp.prompts import PromptLike
from interp.runner.model import Model


@dataclass(frozen=True, kw_only=True, eq=False)
class Asked:
    """One question: whose it is, its part in the evaluation, and what the model runs on."""

    role: str
    case: int
    probe: Probe

    @property
    def text(self) -> str:
        """The prompt."""
        return self.probe.prompt.text


@dataclass(frozen=True, kw_only=True)
class Reply:
    """What is kept of the answer to one question: see ``Readings``."""

    new_nats: float
    true_nats: float
    new_accuracy: float
    true_accuracy: float
    top: int
    top_probability: float


@dataclass(frozen=True, kw_only=True, eq=False)
class Replied:
    """A question with what was heard; what compares before and after is NaN where there is no after."""

    asked: Asked
    before: Reply
    after: Reply | None
    kl_nats: float
    same: float


def questions_of(model: Model, index: int, case: EditCase) -> list[Asked]:
    """All questions of case number ``index``."""
    objects = (read_answer(model, case.fact.target), read_answer(model, case.true))
    about = [("prompt", case.fact.prompt)]
    about += [("paraphrase", prompt) for prompt in case.paraphrases]
    about += [("neighbour", prompt) for prompt in case.neighbours]
    found = [
        Asked(role=role, case=index, probe=Probe(prompt=model.tokens(text), answers=objects)) for role, text in about
    ]
    for role, pairs in (("portability", case.portability), ("locality", case.locality)):
        for prompt, answer in pairs:
            probe = Probe(prompt=model.tokens(prompt), answers=(read_answer(model, answer),))
            found.append(Asked(role=role, case=index, probe=probe))
    return found


def unrelated_questions(model: Model, prompts: Sequence[PromptLike]) -> list[Asked]:
    """Prompts that have no answer to score; the case is filled in by the edit that they are asked of."""
    return [Asked(role="unrelated", case=0, probe=Probe(prompt=model.tokens(prompt))) for prompt in prompts]


def replies(asked: Sequence[Asked], before: Sequence[Heard], after: Sequence[Heard] | None) -> list[Replied]:
    """The questions with what was heard; log-probabilities are compared here and not kept."""
    if after is None:
        nothing = float("nan")
        return [
            Replied(asked=one, before=_reply(one, old), after=None, kl_nats=nothing, same=nothing)
            for one, old in zip(asked, before, strict=True)
        ]
    return [
        Replied(
            asked=one,
            before=_reply(one, old),
            after=_reply(one, new),
            kl_nats=float(divergence(old.log_probs[None].double(), new.log_probs[None].double())[0]),
            same=_same(old, new),
        )
        for one, old, new in zip(asked, before, after, strict=True)
    ]


def gathered(replied: Sequence[Replied]) -> dict[str, AskedPrompts]:
    """The replies by role, in the order of the roles."""
    found = {}
    for role in AskedPrompts.ROLES:
        rows = [row for row in replied if row.asked.role == role]
        if not rows:
            continue
        after = [row.after for row in rows if row.after is not None]
        found[role] = AskedPrompts(
            case=torch.tensor([row.asked.case for row in rows]),
            texts=tuple(row.asked.text for row in rows),
            before=_readings([row.before for row in rows]),
            after=_readings(after) if after else None,
            kl_nats=torch.tensor([row.kl_nats for row in rows], dtype=torch.float64) if after else None,
            same=torch.tensor([row.same for row in rows], dtype=torch.float64) if after else None,
        )
    return found


def _reply(asked: Asked, heard: Heard) -> Reply:
    """The answers of a question are the new and the true object, or its own alone, or none."""
    answers = asked.probe.answers
    missing = [float("nan")] * (2 - len(answers))
    right = [
        sum(chosen == index for chosen, index in zip(choices, answer.ids, strict=True)) / len(answer.ids)
        for choices, answer in zip(heard.choices, answers, strict=True)
    ]
    new_nats, true_nats = [*missing, *heard.nats]
    new_accuracy, true_accuracy = [*missing, *right]
    return Reply(
        new_nats=new_nats,
        true_nats=true_nats,
        new_accuracy=new_accuracy,
        true_accuracy=true_accuracy,
        top=heard.top,
        top_probability=float(heard.log_probs[heard.top].exp()),
    )


def _readings(replies: Sequence[Reply]) -> Readings:
    def column(name: str) -> Tensor:
        return torch.tensor([getattr(reply, name) for reply in replies], dtype=torch.float64)

    return Readings(
        new_nats=column("new_nats"),
        true_nats=column("true_nats"),
        new_accuracy=column("new_accuracy"),
        true_accuracy=column("true_accuracy"),
        top=torch.tensor([reply.top for reply in replies]),
        top_probability=column("top_probability"),
    )


def _same(before: Heard, after: Heard) -> float:
    """The share of the places of the last answer (the true object's, or the question's own) in which the same token ranks first."""
    if not before.choices:
        return float("nan")
    old, new = before.choices[-1], after.choices[-1]
    return sum(one == other for one, other in zip(old, new, strict=True)) / len(old)
