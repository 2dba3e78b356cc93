"""Pairs of indirect-object prompts whose answers are each other's names (Wang et al. 2022), and those that a model answers rightly.

"After Ann and Bob went to the shop, Bob gave a plum to" is followed by " Ann": the indirect object is the name that stands once, the
subject the one that stands twice. Putting the indirect object where the subject stands for the second time, "After Ann and Bob went to
the shop, Ann gave a plum to", leaves everything else as it is and flips the answer to " Bob" (symmetric token replacement, Zhang and
Nanda 2023): an ABBA prompt becomes a BABA prompt with the names' places exchanged, and the other way round.
"""

import random
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from experiments.ioi.config import Config
from interp.analyzers.answers import read_answer
from interp.errors import UsageError
from interp.prompts import read_jsonl
from interp.runner.model import Model

_WORD = re.compile(r"[^\W\d_]+")


@dataclass(frozen=True, kw_only=True)
class Flip:
    """A prompt and the same with its answer flipped: ``answer`` follows the clean one, ``against`` the corrupted one."""

    number: int
    clean: str
    corrupted: str
    answer: str
    against: str


@dataclass(frozen=True, kw_only=True)
class Chosen:
    """The pairs to patch, and of how many tried how many fell out for which reason."""

    flips: tuple[Flip, ...]
    n_tried: int
    left_out: dict[str, int] = field(default_factory=dict)


def flipped(number: int, prompt: str, answer: str) -> Flip | None:
    """The pair of a prompt; None where its names cannot be told from the text.

    The answer must stand in it once as a word, and exactly one other word with a capital letter twice: the subject.
    """
    words = list(_WORD.finditer(prompt))
    counts = Counter(word[0] for word in words)
    twice = [word for word, count in counts.items() if count == 2 and word[0].isupper() and word != answer]
    if counts[answer] != 1 or len(twice) != 1:
        return None
    last = [word for word in words if word[0] == twice[0]][-1]
    corrupted = prompt[: last.start()] + answer + prompt[last.end() :]
    return Flip(number=number, clean=prompt, corrupted=corrupted, answer=" " + answer, against=" " + twice[0])


def read_flips(path: str | Path) -> tuple[Flip, ...]:
    """The pairs of a JSON array or JSON Lines file whose objects have ``prompt`` and ``answer``.

    Raises UsageError for an object that lacks one of them, and for a file with no pair.
    """
    flips = []
    for number, row in enumerate(read_jsonl(path)):
        prompt, answer = row.get("prompt"), row.get("answer")
        if not (isinstance(prompt, str) and isinstance(answer, str)):
            raise UsageError(f"{path}, object {number}: needs 'prompt' and 'answer', both text")
        flip = flipped(number, prompt, answer.strip())
        flips += [] if flip is None else [flip]
    if not flips:
        raise UsageError(f"{path} holds no prompt that names its answer once and one other name twice")
    return tuple(flips)


def alike(model: Model, flip: Flip) -> bool:
    """Whether the two prompts have as many tokens, differ in one stretch of them only, and have answers that begin differently."""
    clean, corrupted = model.tokens(flip.clean), model.tokens(flip.corrupted)
    first = [read_answer(model, name).ids for name in (flip.answer, flip.against)]
    if len(clean) != len(corrupted) or first[0][0] == first[1][0] or len(first[0]) != len(first[1]):
        return False
    differ = [place for place, (one, other) in enumerate(zip(clean.ids, corrupted.ids, strict=True)) if one != other]
    return bool(differ) and differ[-1] - differ[0] < len(first[0])


def chosen(model: Model, flips: Sequence[Flip], config: Config) -> Chosen:
    """The first ``config.pairs`` pairs, in shuffled order, that tokenise alike and of which the model answers both prompts rightly.

    Rightly: the name's first token is its most likely next token. Raises UsageError where there is none.
    """
    order = list(flips)
    random.Random(config.seed).shuffle(order)
    found: list[Flip] = []
    n_tried, left_out = 0, Counter[str]()
    for start in range(0, len(order), config.asked_at_once):
        chunk = order[start : start + config.asked_at_once]
        reasons = _reasons(model, chunk)
        for flip, reason in zip(chunk, reasons, strict=True):
            n_tried += 1
            if reason:
                left_out[reason] += 1
            else:
                found.append(flip)
            if len(found) == config.pairs:
                return Chosen(flips=tuple(found), n_tried=n_tried, left_out=dict(left_out))
    if not found:
        raise UsageError(f"{model.name} answers none of the {n_tried} pairs rightly; left out: {dict(left_out)}")
    return Chosen(flips=tuple(found), n_tried=n_tried, left_out=dict(left_out))


def _reasons(model: Model, flips: Sequence[Flip]) -> list[str]:
    """Why each pair is left out; empty where it is not."""
    reasons = ["" if alike(model, flip) else "other tokens" for flip in flips]
    asked = [flip for flip, reason in zip(flips, reasons, strict=True) if not reason]
    if not asked:
        return reasons
    prompts = [prompt for flip in asked for prompt in (flip.clean, flip.corrupted)]
    answers = [answer for flip in asked for answer in (flip.answer, flip.against)]
    likeliest = model.run(prompts, logits="last").last_logits.argmax(-1).tolist()
    right = [read_answer(model, answer).ids[0] == token for answer, token in zip(answers, likeliest, strict=True)]
    verdicts = iter(right[at] and right[at + 1] for at in range(0, len(right), 2))
    return [reason or ("" if next(verdicts) else "another answer") for reason in reasons]
