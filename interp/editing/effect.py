"""Measures what an edit changes: the same questions before it and while it is applied, and whether the undo gives the bytes back."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from interp.analyzers.answers import Answer, AnswerLike, first_choice, read_answer
from interp.analyzers.logit_lens import logit_lens
from interp.editing.answer_scores import Heard, Probe, hear
from interp.editing.edit import Edit
from interp.editing.effect_result import EditEffect, Predictions, UndoProof
from interp.editing.matrix import output_matrix, sha256_of
from interp.editing.rewrite import last_token
from interp.editing.stack import applied, applied_edits, check_base
from interp.errors import UsageError, out_of_range
from interp.models.progress import Step, silent
from interp.prompts import PromptLike
from interp.runner.generation import Generation
from interp.runner.model import Model
from interp.tokens import Tokens, vocabulary

_WORK = "measuring the edit"
_PARTS = 6
"""Answers, lens and continuation, before and after."""


def edit_effect(
    model: Model,
    edit: Edit,
    *,
    fact: int = 0,
    old: AnswerLike | None = None,
    paraphrases: Sequence[PromptLike] = (),
    neighbours: Sequence[PromptLike] = (),
    max_new_tokens: int = 40,
    top_k: int = 5,
    other_base: bool = False,
    progress: Step | None = None,
) -> EditEffect:
    """Asks the model the same things without an edit and with it, and takes it back.

    The model is left as it was, which is measured: the SHA-256 of each edited matrix is taken before, while the edit is applied, and
    after it was taken back. Other edits that are applied stay applied throughout.

    Args:
        model: the model; the edit must not be applied to it.
        edit: the edit, from ``interp.edit_facts`` or a file.
        fact: which of the edit's facts is asked about, from 0.
        old: the answer that the target takes the place of; None: the model's first choice before.
        paraphrases: prompts that ask for the same fact in other words; the edit should reach them.
        neighbours: prompts about other subjects; the edit should leave their answers.
        max_new_tokens: length in tokens of the greedy continuations of the prompt; 0 makes none.
        top_k: how many of the likeliest next tokens to keep.
        other_base: measure also on a model with other base weights than the edit was made for.
        progress: called with (what, done, total).

    The lens is that of the target's first token (nostalgebraist 2020). Probabilities of answers with several tokens are of all of
    them, those before each given.

    Raises:
        UsageError: an empty prompt or answer, a fact that the edit does not have, or an edit that is applied already.
        ModelError: the edit was made for other weights.
        NumericsError: NaN or infinite logits, before or after.

    """
    if not -len(edit.facts) <= fact < len(edit.facts):
        raise out_of_range("fact", fact, len(edit.facts))
    for name, value, least in (("max_new_tokens", max_new_tokens, 0), ("top_k", top_k, 1)):
        if value < least:
            raise UsageError(f"{name} is {value}; valid: {least} or more")
    if edit in applied_edits(model):
        raise UsageError("this edit is applied already, so there is no before; undo it first: edit.undo(model)")
    check_base(model, edit, other_base=other_base)
    chosen = edit.facts[fact]
    prompt = model.tokens(chosen.prompt)
    asked = _Questions(
        model=model,
        prompts=(prompt, *map(model.tokens, paraphrases), *map(model.tokens, neighbours)),
        target=read_answer(model, chosen.target),
        old=first_choice(model, prompt) if old is None else read_answer(model, old),
        max_new_tokens=max_new_tokens,
        top_k=min(top_k, model.atlas.d_vocab),
    )
    told = progress or silent
    hashes = [_hashes(model, edit)]
    before = asked.answered(told, 0)
    with applied(model, edit, other_base=other_base):
        hashes.append(_hashes(model, edit))
        after = asked.answered(told, _PARTS // 2)
    hashes.append(_hashes(model, edit))
    end = chosen.template.index("{}") + len(chosen.subject)
    ids = torch.cat([before.predictions.top_ids[0], after.predictions.top_ids[0]]).unique()
    return EditEffect(
        provenance=model.provenance(),
        edit=edit,
        fact=chosen,
        prompt=prompt,
        subject_position=last_token(prompt, end),
        target=asked.target,
        old=asked.old,
        paraphrases=asked.prompts[1 : 1 + len(paraphrases)],
        neighbours=asked.prompts[1 + len(paraphrases) :],
        before=before.predictions,
        after=after.predictions,
        answer_ids=ids,
        answers_before_nats=before.log_probs[ids],
        answers_after_nats=after.log_probs[ids],
        continuation_before=before.continuation,
        continuation_after=after.continuation,
        lens_before_nats=before.lens_nats,
        lens_after_nats=after.lens_nats,
        proofs=_proofs(edit, hashes),
        vocabulary=_words(model, before.predictions, after.predictions),
    )


@dataclass(frozen=True, kw_only=True, eq=False)
class _Answered:
    """What the model made of all questions at once. ``log_probs`` are those of the next token after the prompt."""

    predictions: Predictions
    log_probs: Float[Tensor, " d_vocab"]
    lens_nats: Float[Tensor, "layer pos"]
    continuation: Generation | None


@dataclass(frozen=True, kw_only=True, eq=False)
class _Questions:
    """What is asked before and after; the edited prompt is the first of ``prompts``."""

    model: Model
    prompts: tuple[Tokens, ...]
    target: Answer
    old: Answer
    max_new_tokens: int
    top_k: int

    def answered(self, told: Step, done: int) -> _Answered:
        heard = hear(self.model, [Probe(prompt=prompt, answers=(self.target, self.old)) for prompt in self.prompts])
        told(_WORK, done + 1, _PARTS)
        lens = logit_lens(self.model, self.prompts[0].ids, target=self.target.ids[0])
        told(_WORK, done + 2, _PARTS)
        continuation = None
        if self.max_new_tokens:
            continuation = self.model.generate(self.prompts[0], max_new_tokens=self.max_new_tokens)
        told(_WORK, done + 3, _PARTS)
        return _Answered(
            predictions=self._predictions(heard),
            log_probs=heard[0].log_probs.cpu(),
            lens_nats=lens.target_log_prob_nats,
            continuation=continuation,
        )

    def _predictions(self, heard: Sequence[Heard]) -> Predictions:
        log_probs = torch.stack([one.log_probs for one in heard]).cpu()
        best = log_probs.topk(self.top_k)
        first = log_probs[:, self.target.ids[0], None]
        return Predictions(
            top_ids=best.indices,
            top_log_probs_nats=best.values,
            target_log_prob_nats=torch.tensor([-one.nats[0] * len(self.target.ids) for one in heard]),
            target_rank=(log_probs > first).sum(1),
            old_log_prob_nats=torch.tensor([-one.nats[1] * len(self.old.ids) for one in heard]),
        )


def _hashes(model: Model, edit: Edit) -> list[str]:
    """The SHA-256 of each edited matrix as it is stored now."""
    return [sha256_of(output_matrix(model, change.layer).stored) for change in edit.layers]


def _proofs(edit: Edit, hashes: Sequence[Sequence[str]]) -> tuple[UndoProof, ...]:
    return tuple(
        UndoProof(layer=change.layer, path=change.path, before_sha256=first, applied_sha256=then, undone_sha256=last)
        for change, first, then, last in zip(edit.layers, *hashes, strict=True)
    )


def _words(model: Model, *found: Predictions) -> dict[str, str]:
    return vocabulary(model.tokenizer, torch.cat([one.top_ids.flatten() for one in found]).tolist())
