"""What an ablation runs the model on: prompts with an answer, or texts cut into pieces, and what is read off each."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from interp.analyzers.answers import AnswerLike, Question, ask
from interp.analyzers.metrics import Metric, MetricLike, metric_of
from interp.errors import UsageError
from interp.maths.ablation import mean_losses
from interp.runner.batch import is_single_prompt
from interp.runner.model import Model
from interp.tokens import Tokens, tokenize

LOSS = "loss"
LONGEST_PIECE = 1024
"""Tokens of the longest piece that a text is cut into, unless told otherwise."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Item:
    """One forward's worth of prompt number ``prompt``: what the model runs on, and what is asked of it.

    A piece of a text has no ``question``: the loss of its tokens from ``scored_from`` on is read. A piece counts
    in the prompt's figure by their number.
    """

    prompt: int
    tokens: Tokens
    question: Question | None
    scored_from: int = 1

    @property
    def weight(self) -> int:
        """Its share in the prompt's figure."""
        return len(self.tokens) - self.scored_from if self.question is None else 1

    @property
    def asked(self) -> Tokens:
        """The prompt without the tokens of an answer that was put behind it."""
        return self.tokens if self.question is None else self.question.prompt

    @property
    def answer_ids(self) -> tuple[tuple[int, ...], ...]:
        """The ids of the answer and of the one against it, as far as there are any."""
        if self.question is None:
            return ()
        return tuple(answer.ids for answer in (self.question.answer, self.question.against) if answer is not None)

    def metric(self, spec: MetricLike, reference: Tensor | None) -> Metric:
        """What is read off its logits; ``reference`` are those of the unchanged model at the answer's positions."""
        if self.question is not None:
            return metric_of(spec, [self.question], reference=reference)
        ids = torch.tensor(self.tokens.ids)

        def loss(logits: Tensor, prompts: Sequence[int]) -> Tensor:
            return mean_losses(logits, ids.to(logits.device), self.scored_from)

        return Metric(name=LOSS, unit="nats", positions=tuple(range(-len(ids), 0)), score=loss)


def text_items(model: Model, texts: Sequence[Tokens], context: int | None) -> list[Item]:
    """The pieces of texts, each of at most ``context`` tokens, in order.

    Pieces share one token, so that every token of a text but its first is predicted once. A token that the tokenizer itself puts in
    front of the text, such as begin-of-text, stands in front of every piece.
    Raises UsageError for no text, one of a single token, or a bad context.
    """
    longest = _longest_piece(model, context)
    items = []
    for index, tokens in enumerate(texts):
        if len(tokens) < 2:
            raise UsageError(
                f"prompt {index} has one token ({tokens.labels[0]}), and the loss is of the tokens after the first; give a longer one"
            )
        items += [
            Item(prompt=index, tokens=model.tokens(piece), question=None, scored_from=first)
            for piece, first in pieces(tokens, longest)
        ]
    return items


def question_items(
    model: Model,
    prompts: Sequence[Any],
    targets: Sequence[AnswerLike | None],
    against: Sequence[AnswerLike | None],
) -> list[Item]:
    """Each prompt with its answer."""
    items = []
    for index, (prompt, target, other) in enumerate(zip(prompts, targets, against, strict=True)):
        question = ask(model, prompt, target, other)
        items.append(Item(prompt=index, tokens=question.asked, question=question))
    return items


def reference_texts(model: Model, reference: Any, context: int | None) -> list[Tokens]:
    """The pieces of one or several reference texts, of at most ``context`` tokens. Raises UsageError for none."""
    texts = [reference] if is_single_prompt(reference) else list(reference)
    if not texts:
        raise UsageError(
            "there is no reference text; give at least one, or leave reference out for the prompts themselves"
        )
    longest = _longest_piece(model, context)
    return [model.tokens(piece) for text in texts for piece, _ in pieces(text_tokens(model, text), longest)]


def pieces(tokens: Tokens, longest: int) -> list[tuple[Tokens, int]]:
    """A text in consecutive pieces of at most ``longest`` tokens, and the first token of each whose loss is read."""
    if len(tokens) <= longest:
        return [(tokens, 1)]
    lead = 1 if tokens.spans[0] is None else 0
    found, start = [], lead
    while start < len(tokens) - 1:
        stop = min(start + longest - lead, len(tokens))
        places = [*range(lead), *range(start, stop)]
        # The first token of the first piece proper is predicted from the leading one; later pieces repeat a token that has been.
        found.append((_part(tokens, places), 1 if start == lead else 1 + lead))
        start = stop - 1
    return found


def one_for_each(what: str, given: Any, n_prompts: int, *, single: bool) -> list[AnswerLike | None]:
    """The answer of each prompt: one for all of them, or a list with one for each. Of a single prompt a list is the answer's ids."""
    if single or given is None or isinstance(given, str | int):
        return [given] * n_prompts
    answers = list(given)
    if len(answers) != n_prompts:
        raise UsageError(
            f"{what} holds {len(answers)} answers for {n_prompts} prompts; give one for each, or a single one"
        )
    return answers


def _longest_piece(model: Model, context: int | None) -> int:
    most = model.atlas.n_ctx
    if context is None:
        return min(LONGEST_PIECE, most or LONGEST_PIECE)
    if context < 3 or (most is not None and context > most):
        raise UsageError(f"context is {context}; valid: 3 to {most if most is not None else 'any length'}")
    return context


def text_tokens(model: Model, text: Any) -> Tokens:
    """A text's tokens, however many they are."""
    return text if isinstance(text, Tokens) else tokenize(model.tokenizer, text)


def _part(tokens: Tokens, places: Sequence[int]) -> Tokens:
    chosen = tuple(tokens.pieces[place] for place in places)
    return Tokens(
        text="".join(chosen),
        ids=tuple(tokens.ids[place] for place in places),
        pieces=chosen,
        spans=tuple(None for _ in places),
    )
