"""Facts of a file, and those that a model knows."""

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from experiments.causal_tracing.config import Config
from interp.analyzers.answers import read_answer
from interp.errors import UsageError
from interp.prompts import read_jsonl
from interp.runner.model import Model


@dataclass(frozen=True, kw_only=True)
class KnownFact:
    """A statement without its end: ``prompt`` holds the ``subject`` once, ``attribute`` follows; ``number`` is the place in the file."""

    number: int
    prompt: str
    subject: str
    attribute: str

    @property
    def answer(self) -> str:
        """The attribute as it stands in running text."""
        return self.attribute if self.prompt[-1].isspace() else " " + self.attribute


@dataclass(frozen=True, kw_only=True)
class Asked:
    """The facts that a model knows, and how many it was asked to find them."""

    known: tuple[KnownFact, ...]
    n_asked: int


def read_facts(path: str | Path) -> tuple[KnownFact, ...]:
    """The facts of a JSON array or JSON Lines file whose objects have ``subject``, ``attribute`` and ``prompt`` (or ``template``).

    A template is a prompt with ``{}`` in place of the subject. Facts whose prompt does not hold the subject exactly once are left out.
    Raises UsageError for an object that lacks a field, and for a file without a fact.
    """
    facts = []
    for number, row in enumerate(read_jsonl(path)):
        subject, attribute, prompt = row.get("subject"), row.get("attribute"), row.get("prompt")
        if not isinstance(prompt, str) and isinstance(row.get("template"), str):
            prompt = str(row["template"]).replace("{}", str(subject))
        if not (isinstance(subject, str) and isinstance(attribute, str) and isinstance(prompt, str)):
            raise UsageError(
                f"{path}, object {number}: needs 'subject', 'attribute' and 'prompt' or 'template', all text"
            )
        if subject and attribute and prompt.count(subject) == 1:
            facts.append(KnownFact(number=number, prompt=prompt, subject=subject, attribute=attribute))
    if not facts:
        raise UsageError(f"{path} holds no fact whose prompt names its subject once")
    return tuple(facts)


def known_facts(model: Model, facts: Sequence[KnownFact], config: Config) -> Asked:
    """The first ``config.facts`` facts, in shuffled order, whose attribute begins with the model's most likely next token.

    Raises UsageError where the model knows none.
    """
    order = list(facts)
    random.Random(config.seed).shuffle(order)
    known: list[KnownFact] = []
    n_asked = 0
    for chunk in _chunks(order, config.asked_at_once):
        for fact, right in zip(chunk, _answers_rightly(model, chunk), strict=True):
            n_asked += 1
            known += [fact] if right else []
            if len(known) == config.facts:
                return Asked(known=tuple(known), n_asked=n_asked)
    if not known:
        raise UsageError(f"{model.name} knows none of the {n_asked} facts; give a file with facts that it knows")
    return Asked(known=tuple(known), n_asked=n_asked)


def first_token(model: Model, fact: KnownFact) -> int:
    """The first token of the fact's answer."""
    return read_answer(model, fact.answer).ids[0]


def _answers_rightly(model: Model, facts: Sequence[KnownFact]) -> list[bool]:
    logits = model.run([fact.prompt for fact in facts], logits="last").last_logits
    chosen = logits.argmax(-1).tolist()
    return [first_token(model, fact) == token for fact, token in zip(facts, chosen, strict=True)]


def _chunks(facts: Sequence[KnownFact], size: int) -> Iterator[Sequence[KnownFact]]:
    for start in range(0, len(facts), size):
        yield facts[start : start + size]
