"""The corrupted runs of a causal trace: noise on the subject's embeddings, or another subject in its place."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Generator, Tensor

from interp.analyzers.answers import Answer, Question, continued, read_answer
from interp.errors import UsageError
from interp.interventions import Steer
from interp.maths.tracing import gaussian_noise
from interp.models.atlas import module_at
from interp.prompts import Conversation, PromptLike
from interp.runner.model import Model
from interp.tokens import Tokens

SubjectLike = str | int | Sequence[int]
"""Text that occurs once in the prompt, or the positions of its tokens."""
ReplacementLike = str | Sequence[int]
"""Text, or token ids."""

_IDS_AT_ONCE = 8192


@dataclass(frozen=True, kw_only=True, eq=False)
class Subject:
    """The subject's text and the positions of its tokens, one after another."""

    text: str
    positions: tuple[int, ...]


@dataclass(frozen=True, kw_only=True, eq=False)
class Corruption:
    """How the corrupted runs differ from the clean one.

    ``asked`` is what each sample runs on and ``changes`` what is done to it there. The other fields are those of the result.
    """

    name: str
    asked: tuple[Tokens, ...]
    changes: tuple[Steer, ...] = ()
    noise: float = math.nan
    noise_std: float = math.nan
    replacements: tuple[str, ...] = ()


def find_subject(tokens: Tokens, subject: SubjectLike) -> Subject:
    """The subject in a prompt, by character offsets or by position.

    Raises UsageError for text that is not in the prompt or is there twice, and for positions that are not one after another.
    """
    if isinstance(subject, str):
        if not subject:
            raise UsageError("the subject is empty; give words of the prompt, spelt as there")
        return Subject(text=subject, positions=tokens.positions_of(subject))
    given = (subject,) if isinstance(subject, int) else tuple(subject)
    positions = tuple(sorted({tokens.position(index) for index in given}))
    if not positions:
        raise UsageError("the subject has no position; give its text, or the positions of its tokens")
    if positions != tuple(range(positions[0], positions[-1] + 1)):
        raise UsageError(f"the subject's positions {list(positions)} are not one after another; give a range of them")
    return Subject(text="".join(tokens.pieces[p] for p in positions), positions=positions)


@torch.no_grad()
def embedding_std(model: Model) -> float:
    """The standard deviation over all entries of the token embeddings, as they leave the embedding (gemma scales them there)."""
    module = module_at(model.hf, model.atlas.embed)
    assert module is not None, "the atlas checked this path"
    n, total, squares = 0, 0.0, 0.0
    ids = torch.arange(model.hf.get_input_embeddings().weight.shape[0], device=model.device)
    for chunk in ids.split(_IDS_AT_ONCE):
        values = module(chunk[None]).float()
        n += values.numel()
        total += float(values.sum(dtype=torch.float64))
        squares += float(values.square().sum(dtype=torch.float64))
    return math.sqrt(max(squares / n - (total / n) ** 2, 0.0))


def noise_for(
    model: Model, positions: int, *, noise: float = 3.0, samples: int = 10, seed: int = 0
) -> Float[Tensor, "sample pos d_model"]:
    """The noise that ``interp.causal_trace`` adds to the embeddings of a subject of so many tokens, one draw a sample.

    Normal, with ``noise`` times ``embedding_std`` as its standard deviation; in fp32 on the CPU, so that it is the same on every device.
    """
    generator = Generator().manual_seed(seed)
    return gaussian_noise(samples, positions, model.atlas.d_model, noise * embedding_std(model), generator)


def with_noise(
    model: Model, question: Question, subject: Subject, *, noise: float, samples: int, seed: int
) -> Corruption:
    """Runs with noise on the subject's embeddings (Meng et al. 2022, section 2.1).

    Raises UsageError for noise that is not above 0 or fewer than one sample.
    """
    if not (math.isfinite(noise) and noise > 0):
        raise UsageError(f"noise is {noise}; give a number above 0, in standard deviations of the embeddings")
    if samples < 1:
        raise UsageError(f"samples is {samples}; give 1 or more")
    drawn = noise_for(model, len(subject.positions), noise=noise, samples=samples, seed=seed)
    return Corruption(
        name="noise",
        asked=(question.asked,) * samples,
        changes=(Steer("embed", drawn, positions=subject.positions),),
        noise=noise,
        noise_std=embedding_std(model),
    )


def with_tokens(
    model: Model,
    prompt: PromptLike | Tokens,
    question: Question,
    subject: Subject,
    replacements: ReplacementLike | Sequence[ReplacementLike],
) -> Corruption:
    """Runs with other subjects of as many tokens in the subject's place.

    Raises UsageError when there is none, or when one is the subject itself, has another number of tokens or changes tokens around it.
    """
    given = _listed(replacements)
    if not given or not all(map(len, given)):
        raise UsageError("there is no replacement; give another subject, or leave replacements out for noise")
    replaced = [_replaced(model, prompt, question.prompt, subject, item) for item in given]
    first, last = subject.positions[0], subject.positions[-1]
    return Corruption(
        name="tokens",
        asked=tuple(continued(model, tokens, question.answer) for tokens in replaced),
        replacements=tuple("".join(tokens.pieces[first : last + 1]) for tokens in replaced),
    )


def check_replaced(corruption: Corruption, answer: Answer, logits: Float[Tensor, "batch pos d_vocab"]) -> None:
    """Raises UsageError where the model gives the answer for a replacement too: then nothing is corrupted."""
    for text, row in zip(corruption.replacements, logits, strict=True):
        if row.argmax(-1).tolist() == list(answer.ids):
            raise UsageError(
                f"the model's own answer with {text!r} in the subject's place is {answer.text!r} too, so there is nothing to trace; "
                "give a subject with another answer"
            )


def foil(model: Model, logits: Float[Tensor, "sample d_vocab"], answer: int) -> Answer:
    """The token of the greatest mean probability over corrupted runs that is not ``answer``."""
    mean = logits.float().softmax(-1).mean(0)
    mean[answer] = -1
    return read_answer(model, int(mean.argmax()))


def _listed(replacements: ReplacementLike | Sequence[ReplacementLike]) -> list[ReplacementLike]:
    """One replacement or several, as a list."""
    if isinstance(replacements, str):
        return [replacements]
    ids = [item for item in replacements if isinstance(item, int)]
    return [ids] if ids else [item for item in replacements if not isinstance(item, int)]


def _replaced(
    model: Model, prompt: PromptLike | Tokens, tokens: Tokens, subject: Subject, replacement: ReplacementLike
) -> Tokens:
    if isinstance(replacement, str) and isinstance(prompt, str | Conversation) and _stands_once(prompt, subject.text):
        found = model.tokens(_in_place(prompt, subject.text, replacement))
    else:
        ids = read_answer(model, replacement).ids
        found = model.tokens(tokens.ids[: subject.positions[0]] + ids + tokens.ids[subject.positions[-1] + 1 :])
    _check_aligned(tokens, found, subject, replacement)
    return found


def _stands_once(prompt: str | Conversation, text: str) -> bool:
    """Whether ``text`` stands once in the prompt as it was given."""
    parts = [prompt] if isinstance(prompt, str) else [content for _, content in prompt.messages]
    return sum(part.count(text) for part in parts) == 1


def _in_place(prompt: str | Conversation, old: str, new: str) -> str | Conversation:
    if isinstance(prompt, str):
        return prompt.replace(old, new)
    return Conversation(tuple((role, content.replace(old, new)) for role, content in prompt.messages), prompt.reply)


def _check_aligned(tokens: Tokens, found: Tokens, subject: Subject, replacement: ReplacementLike) -> None:
    """Whether ``found`` is ``tokens`` with as many other ones in the subject's place, and nothing else changed."""
    first, after = subject.positions[0], subject.positions[-1] + 1
    end = len(found) - (len(tokens) - after)
    if len(found) != len(tokens):
        raise UsageError(
            f"the replacement {replacement!r} is {end - first} tokens {list(found.pieces[first:end])}, the subject {subject.text!r} "
            f"is {after - first} {list(tokens.pieces[first:after])}; give a subject of as many tokens"
        )
    around = found.ids[:first] + found.ids[after:], tokens.ids[:first] + tokens.ids[after:]
    if around[0] != around[1]:
        raise UsageError(
            f"the replacement {replacement!r} changes tokens outside the subject: the prompt is {list(tokens.pieces)}, with the "
            f"replacement it is {list(found.pieces)}; give one that leaves the others as they are"
        )
    if found.ids == tokens.ids:
        raise UsageError(f"the replacement {replacement!r} is the subject itself; give another one")
