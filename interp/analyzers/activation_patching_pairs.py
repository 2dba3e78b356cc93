"""Pairs of a clean and a corrupted prompt, read and checked: as many tokens on both sides, and an answer that tells them apart."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Integral
from typing import Any, cast

from interp.analyzers.answers import Answer, AnswerLike, Question, ask, continued, read_answer
from interp.analyzers.metrics import METRICS, MetricLike
from interp.errors import NumericsError, UsageError, unknown
from interp.maths.patching import DIRECTIONS
from interp.runner.batch import is_single_prompt
from interp.runner.memory import in_halves
from interp.runner.model import Model
from interp.tokens import Tokens, leading_space_hint

_PROMPTS_AT_ONCE = 32

Targets = AnswerLike | None | Sequence[AnswerLike | None]
"""One answer for all pairs, or one for each."""


@dataclass(frozen=True, kw_only=True, eq=False)
class PromptPair:
    """The same question of two prompts with as many tokens."""

    clean: Question
    corrupted: Question

    @property
    def differs(self) -> tuple[bool, ...]:
        """For each position of what the model runs on, whether the tokens there differ."""
        return tuple(one != other for one, other in zip(self.clean.asked.ids, self.corrupted.asked.ids, strict=True))

    @property
    def n_prompt(self) -> int:
        """Tokens of either prompt, without the answer."""
        return len(self.clean.prompt)


def checked_metric(metric: MetricLike | None, against: Targets, *, direction: str, confidence: float) -> MetricLike:
    """The metric of a call: by default the logit difference where the answer is weighed ``against`` another, else the probability.

    Raises UsageError for an unknown metric or direction, or a confidence that is none.
    """
    if direction not in DIRECTIONS:
        raise unknown("direction", direction, DIRECTIONS)
    if not 0 < confidence < 1:
        raise UsageError(f"confidence is {confidence}; valid: between 0 and 1, both excluded")
    chosen = metric if metric is not None else "probability" if against is None else "logit_difference"
    if isinstance(chosen, str) and chosen not in METRICS:
        raise unknown("metric", chosen, METRICS)
    return chosen


def read_pairs(
    model: Model, clean: Any, corrupted: Any, target: Targets, against: Targets, metric: MetricLike
) -> tuple[PromptPair, ...]:
    """The pairs that ``clean`` and ``corrupted`` make: one prompt each, or as many.

    A target that is not given is what the model ranks first after the clean prompt; where the answer is ``weighed`` against another one,
    that is by default what it ranks first after the corrupted prompt. Where the metric scores the answer, one that is also the
    model's own after the corrupted prompt is refused.
    """
    scored, weighed = metric in ("probability", "log_prob", "logit_difference"), metric == "logit_difference"
    sides = _prompts(model, clean, corrupted)
    single = is_single_prompt(clean)
    _check_tokens(sides)
    targets = _one_each("target", target, len(sides), single)
    others = _one_each("against", against, len(sides), single)
    for text in dict.fromkeys(item for item in targets if isinstance(item, str)):
        hint = leading_space_hint(model.tokenizer, text)
        if hint:
            model.notify(hint)
    answers = _answers(model, [pair[0] for pair in sides], targets)
    rivals: list[AnswerLike | None] = list(others)
    if scored:
        own = _own_answers(model, [pair[1] for pair in sides], answers)
        _check_answers(answers, own, given=[item is not None for item in targets])
        if weighed:
            rivals = [own[i][0] if other is None else other for i, other in enumerate(others)]
    return tuple(
        _pair(model, *sides[index], answers[index], rivals[index], index if len(sides) > 1 else None)
        for index in range(len(sides))
    )


def _prompts(model: Model, clean: Any, corrupted: Any) -> list[tuple[Tokens, Tokens]]:
    kinds = is_single_prompt(clean), is_single_prompt(corrupted)
    lists = [[given] if single else list(given) for given, single in zip((clean, corrupted), kinds, strict=True)]
    if not lists[0] or len(lists[0]) != len(lists[1]) or kinds[0] != kinds[1]:
        counts = ["one prompt" if single else f"{len(many)} prompts" for single, many in zip(kinds, lists, strict=True)]
        raise UsageError(
            f"clean and corrupted must be one prompt each, or lists of as many prompts; got {counts[0]} as clean and "
            f"{counts[1]} as corrupted"
        )
    return [(model.tokens(one), model.tokens(other)) for one, other in zip(*lists, strict=True)]


def _one_each(what: str, given: Targets, n_pairs: int, single: bool) -> list[AnswerLike | None]:
    """An answer for each pair. For one pair a list of ids is one answer of several tokens."""
    if given is None or isinstance(given, str | int) or (single and _is_ids(given)):
        return [cast("AnswerLike | None", given)] * n_pairs
    items = list(given)
    if len(items) != n_pairs:
        raise UsageError(
            f"{what} gives {len(items)} answers for {n_pairs} pairs; give one for all, or one for each pair"
        )
    return items


def _is_ids(given: Any) -> bool:
    return len(given) > 0 and all(isinstance(item, Integral) for item in given)


def _check_tokens(sides: Sequence[tuple[Tokens, Tokens]]) -> None:
    for index, (clean, corrupted) in enumerate(sides):
        if len(clean) != len(corrupted):
            raise UsageError(
                f"pair {index}: the clean prompt has {len(clean)} tokens and the corrupted one {len(corrupted)}, patching needs as "
                f"many, so that their positions correspond; clean {list(clean.labels)}, corrupted {list(corrupted.labels)}"
            )
        if clean.ids == corrupted.ids:
            raise UsageError(
                f"pair {index}: the clean and the corrupted prompt are the same {len(clean)} tokens, so patching between them changes "
                "nothing; give two that differ"
            )


def _answers(model: Model, prompts: Sequence[Tokens], targets: Sequence[AnswerLike | None]) -> list[Answer]:
    """The answers asked for; where there is none, what the model ranks first."""
    open_ones = [index for index, target in enumerate(targets) if target is None]
    firsts = dict(zip(open_ones, _ranked_first(model, [prompts[i] for i in open_ones], 1), strict=True))
    return [read_answer(model, firsts[i] if target is None else target) for i, target in enumerate(targets)]


def _own_answers(model: Model, prompts: Sequence[Tokens], answers: Sequence[Answer]) -> list[tuple[int, ...]]:
    """What the model itself ranks first after each prompt, token by token with the answer's earlier tokens given."""
    own: dict[int, tuple[int, ...]] = {}
    for length in sorted({len(answer.ids) for answer in answers}):
        chosen = [index for index, answer in enumerate(answers) if len(answer.ids) == length]
        asked = [continued(model, prompts[index], answers[index]) for index in chosen]
        own |= zip(chosen, _ranked_first(model, asked, length), strict=True)
    return [own[index] for index in range(len(answers))]


def _ranked_first(model: Model, prompts: Sequence[Tokens], n: int) -> list[tuple[int, ...]]:
    """The ids of the greatest logits at the last ``n`` positions of each prompt."""
    found: list[tuple[int, ...]] = []

    def first(batch: Sequence[Tokens]) -> list[list[int]]:
        run = model.run(list(batch), logits=range(-n, 0))
        assert run.logits is not None, "logits were asked for"
        if not run.logits.isfinite().all():
            raise NumericsError("the model's logits hold NaN or infinity; check the weights, or use dtype='float32'")
        return run.logits.argmax(-1).tolist()

    for start in range(0, len(prompts), _PROMPTS_AT_ONCE):
        for _, rows in in_halves(model, prompts[start : start + _PROMPTS_AT_ONCE], first, "prompts"):
            found += map(tuple, rows)
    return found


def _check_answers(answers: Sequence[Answer], own: Sequence[tuple[int, ...]], *, given: Sequence[bool]) -> None:
    same = [index for index, answer in enumerate(answers) if answer.ids == own[index]]
    if not same:
        return
    where = "" if len(answers) == 1 else f" of pair{'s' * (len(same) > 1)} {', '.join(map(str, same))}"
    text, count = Counter(answers[index].text for index in same).most_common(1)[0]
    shown = repr(text) if count == len(same) else f"{text!r} and others"
    chosen = "" if any(given[index] for index in same) else ", the model's own after the clean prompt"
    raise UsageError(
        f"the target{where} ({shown}{chosen}) is also what the model ranks first after the corrupted prompt, so there is nothing to "
        "restore (denoising) and nothing to break (noising); give another target, or a corrupted prompt that the model goes on with "
        "otherwise"
    )


def _pair(
    model: Model, clean: Tokens, corrupted: Tokens, answer: Answer, against: AnswerLike | None, index: int | None
) -> PromptPair:
    try:
        asked = ask(model, clean, answer.ids, against)
    except UsageError as error:
        raise error if index is None else UsageError(f"pair {index}: {error}") from error
    # The answer as it was given: asked by its ids, a text would read as its pieces.
    question = Question(prompt=clean, answer=answer, against=asked.against, asked=asked.asked)
    other = Question(prompt=corrupted, answer=answer, against=asked.against, asked=continued(model, corrupted, answer))
    return PromptPair(clean=question, corrupted=other)
