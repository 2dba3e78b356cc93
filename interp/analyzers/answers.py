"""A prompt and the answer whose score is read, of one token or several."""

from collections.abc import Sequence
from dataclasses import dataclass

from interp.errors import UsageError, out_of_range
from interp.prompts import PromptLike
from interp.runner.model import Model
from interp.tokens import Tokens, decode_pieces, from_ids

AnswerLike = str | int | Sequence[int]
"""Text, one token id, or the ids of several."""


@dataclass(frozen=True, kw_only=True)
class Answer:
    """The tokens of an answer; ``text`` is what they stand for."""

    text: str
    ids: tuple[int, ...]
    pieces: tuple[str, ...]


@dataclass(frozen=True, kw_only=True, eq=False)
class Question:
    """A prompt with its answer, and another answer that it is weighed ``against`` where there is one.

    ``asked`` is what the model runs on: the prompt and all of the answer but its last token, so that every token of the answer is
    scored with those before it given (teacher forcing).
    """

    prompt: Tokens
    answer: Answer
    against: Answer | None
    asked: Tokens

    @property
    def n_answer(self) -> int:
        """Tokens of the answer. Its scores stand at the last ``n_answer`` positions of what the model runs on."""
        return len(self.answer.ids)


def ask(
    model: Model,
    prompt: PromptLike | Tokens,
    target: AnswerLike | None = None,
    against: AnswerLike | None = None,
) -> Question:
    """The question whether ``prompt`` goes on with ``target``; None is what the model itself ranks first.

    Raises UsageError for an answer that is empty or not in the vocabulary, and for one that begins like the one it is weighed against.
    """
    tokens = prompt if isinstance(prompt, Tokens) else model.tokens(prompt)
    answer = first_choice(model, tokens) if target is None else read_answer(model, target)
    other = None if against is None else read_answer(model, against, "answer against the target")
    if other is not None and other.ids[0] == answer.ids[0]:
        raise UsageError(
            f"the target {answer.text!r} and the answer against it {other.text!r} begin with the same token "
            f"{answer.pieces[0]!r}; give two that differ"
        )
    return Question(prompt=tokens, answer=answer, against=other, asked=continued(model, tokens, answer))


def read_answer(model: Model, answer: AnswerLike, what: str = "target") -> Answer:
    """The tokens of an answer given as text or ids; errors call it ``what``."""
    if isinstance(answer, str):
        if not answer:
            raise UsageError(f"the {what} is empty; give its text, such as ' Paris'")
        if model.tokenizer is None:
            raise UsageError(f"this model has no tokenizer; give the {what} as a token id or a list of ids")
        ids = tuple(int(index) for index in model.tokenizer(answer, add_special_tokens=False)["input_ids"])
    else:
        ids = (int(answer),) if isinstance(answer, int) else tuple(int(index) for index in answer)
    if not ids:
        raise UsageError(f"the {what} has no token; give its text, such as ' Paris', or the ids of its tokens")
    for index in ids:
        if not 0 <= index < model.atlas.d_vocab:
            raise out_of_range("token id", index, model.atlas.d_vocab)
    pieces = decode_pieces(model.tokenizer, ids)
    return Answer(text=answer if isinstance(answer, str) else "".join(pieces), ids=ids, pieces=pieces)


def first_choice(model: Model, tokens: Tokens) -> Answer:
    """The token that the model ranks first after a prompt."""
    logits = model.run(tokens, logits="last").last_logits[0]
    return read_answer(model, int(logits.argmax()))


def continued(model: Model, tokens: Tokens, answer: Answer) -> Tokens:
    """The prompt followed by all of the answer but its last token."""
    forced = answer.ids[:-1]
    if not forced:
        return tokens
    tail = from_ids(model.tokenizer, forced)
    end = len(tokens.text)
    spans = tuple(None if span is None else (span[0] + end, span[1] + end) for span in tail.spans)
    longer = Tokens(
        text=tokens.text + tail.text,
        ids=tokens.ids + tail.ids,
        pieces=tokens.pieces + tail.pieces,
        spans=tokens.spans + spans,
    )
    return model.tokens(longer)
