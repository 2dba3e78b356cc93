"""Measures an edit: does the fact hold, also in other words, and what else changed? After Meng et al. 2022, sections 4.1 and 4.2."""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

import torch
from jaxtyping import Float
from torch import Tensor

from interp.analyzers.ablation_texts import Item
from interp.editing.answer_scores import Heard, hear
from interp.editing.asked_prompts import AskedPrompts
from interp.editing.cases import EditCase
from interp.editing.edit import Edit
from interp.editing.evaluation_questions import Asked, Replied, gathered, questions_of, replies, unrelated_questions
from interp.editing.evaluation_result import EditScores
from interp.editing.generation_scores import generation_entropy, generations, inverse_frequencies, reference_score
from interp.editing.perplexity import TextLosses, text_losses, windows_of
from interp.editing.stack import applied, check_base
from interp.errors import UsageError
from interp.models.cache import Step
from interp.models.progress import silent
from interp.prompts import PromptLike
from interp.runner.model import Model
from interp.tokens import vocabulary

_KEPT_AT_ONCE = 1 << 26
"""Log-probabilities from before the edit that are kept for the divergence: 256 MB."""


def evaluate_edit(
    model: Model,
    edit: Edit | Sequence[Edit] | None,
    cases: EditCase | Sequence[EditCase],
    *,
    texts: Sequence[PromptLike] = (),
    unrelated: Sequence[PromptLike] = (),
    generate: bool = False,
    context: int | None = None,
    seed: int = 0,
    confidence: float = 0.95,
    progress: Step | None = None,
) -> EditScores:
    """Scores an edit before and after, and leaves the model as it was.

    Answers are scored by the mean of -ln p over their tokens, each with those before it given; the tokens of the prompt come first, then
    the answer's own. ES, PS and NS are shares of prompts at which the right one of the two objects is the likelier (a tie is a failure),
    EM, PM and NM the differences of their probabilities exp(-nats); each is the mean within a case first, then over cases. S is the
    harmonic mean of the means ES, PS and NS. Whatever was not given (paraphrases, texts, ...) is not measured, and its score is None. See
    ``EditScores.estimate`` for all scores and ``interp.editing.edit_metrics.METRICS`` for what each means.

    Args:
        model: the model, with the edits that are applied to it now: "before" is this state.
        edit: one edit that holds the facts of all cases; or one for each case, of which each is applied alone for its own case; None
            measures the model as it is.
        cases: what to ask; see ``read_cases``.
        texts: held-out texts for the perplexity, exp of the mean loss per predicted token. Longer ones are cut into windows.
        unrelated: prompts that have nothing to do with the facts; they are asked again of every edit.
        generate: whether to continue the generation prompts of each case (or where there are none its prompt and paraphrases) to 100
            tokens, for the generation entropy and, where reference texts are given, the reference score. Slow.
        context: tokens of the longest window of a text; None: the model's context, at most 1,024.
        seed: of the generations and of bootstrap intervals.
        confidence: of the intervals.
        progress: called with (what, done, total).

    Raises:
        UsageError: no case, edits that are not as many as the cases, an edit that is applied already, an answer or prompt that does not
            fit.
        ModelError: an edit for other base weights.
        NumericsError: the model, before or after an edit, gives NaN.

    """
    start = time.perf_counter()
    chosen = (cases,) if isinstance(cases, EditCase) else tuple(cases)
    edits = () if edit is None else (edit,) if isinstance(edit, Edit) else tuple(edit)
    one_each = not (edit is None or isinstance(edit, Edit))
    _check(model, edits, chosen, one_each=one_each, confidence=confidence)
    work = _Work(
        model=model,
        cases=chosen,
        edits=edits,
        one_each=one_each,
        unrelated=unrelated_questions(model, unrelated),
        windows=windows_of(model, texts, context),
        generate=generate,
        seed=seed,
        step=progress or silent,
    )
    work.ask()
    work.look_around()
    asked = gathered(work.replied)
    layers, drift = _drifts(edits)
    before, after = work.losses_before, work.losses_after
    return EditScores(
        provenance=model.provenance(seed=seed),
        cases=chosen,
        method=", ".join(dict.fromkeys(one.method for one in edits)) or "none",
        n_edits=len(edits),
        layers=layers,
        drift=drift,
        edit_seconds=torch.tensor([one.seconds for one in edits], dtype=torch.float64),
        asked=asked,
        entropy_before=_entropies(work.written_before),
        entropy_after=_entropies(work.written_after),
        reference_before=_references(work.written_before, chosen),
        reference_after=_references(work.written_after, chosen),
        text_tokens=None if before is None else before.n_tokens,
        text_nats_before=None if before is None else before.nats,
        text_nats_after=torch.stack([found.nats for found in after]) if after else None,
        vocabulary=_vocabulary(model, asked),
        seed=seed,
        confidence=confidence,
        seconds=time.perf_counter() - start,
    )


@dataclass(kw_only=True, eq=False)
class _Work:
    """The forwards of an evaluation, and what they gave."""

    model: Model
    cases: tuple[EditCase, ...]
    edits: tuple[Edit, ...]
    one_each: bool
    unrelated: Sequence[Asked]
    windows: Sequence[Item]
    generate: bool
    seed: int
    step: Step
    replied: list[Replied] = field(default_factory=list)
    losses_before: TextLosses | None = None
    losses_after: list[TextLosses] = field(default_factory=list)
    written_before: list[tuple[str, ...]] = field(default_factory=list)
    written_after: list[tuple[str, ...]] = field(default_factory=list)

    def ask(self) -> None:
        """Asks the questions of all cases, some at a time, before and after their edit."""
        questions = [questions_of(self.model, index, case) for index, case in enumerate(self.cases)]
        done = 0
        for edit, chunk in self._chunks(questions):
            asked = [one for part in chunk for one in part]
            probes = [one.probe for one in asked]
            before, after = hear(self.model, probes), None
            if edit is not None:
                with applied(self.model, edit):
                    after = hear(self.model, probes)
            self.replied += replies(asked, before, after)
            done += len(chunk)
            self.step("cases asked", done, len(self.cases))

    def look_around(self) -> None:
        """Unrelated prompts, held-out texts and generations: before once, then after each edit."""
        if not (self.unrelated or self.windows or self.generate):
            return
        model, total = self.model, 1 + len(self.edits)
        probes = [one.probe for one in self.unrelated]
        heard = hear(model, probes)
        self.losses_before = text_losses(model, self.windows) if self.windows else None
        self.written_before = self._write(range(len(self.cases)))
        self.step("side effects", 1, total)
        for index, edit in enumerate(self.edits):
            with applied(model, edit):
                self._compare_unrelated(index, heard, hear(model, probes))
                self.losses_after += [text_losses(model, self.windows)] if self.windows else []
                self.written_after += self._write([index] if self.one_each else range(len(self.cases)))
            self.step("side effects", 2 + index, total)
        if not self.edits:
            self._compare_unrelated(0, heard, None)

    def _compare_unrelated(self, index: int, before: Sequence[Heard], after: Sequence[Heard] | None) -> None:
        self.replied += replies([replace(one, case=index) for one in self.unrelated], before, after)

    def _write(self, cases: Sequence[int]) -> list[tuple[str, ...]]:
        """Generations of some cases, each from its own seed."""
        return (
            [generations(self.model, self.cases[index], self.seed + index) for index in cases] if self.generate else []
        )

    def _chunks(self, questions: list[list[Asked]]) -> Iterator[tuple[Edit | None, list[list[Asked]]]]:
        """The questions by case, those of one edit together as far as memory for their log-probabilities goes."""
        if self.one_each:
            yield from zip(self.edits, ([part] for part in questions), strict=True)
            return
        edit = self.edits[0] if self.edits else None
        most = max(1, _KEPT_AT_ONCE // self.model.atlas.d_vocab)
        chunk: list[list[Asked]] = []
        for part in questions:
            if chunk and sum(map(len, chunk)) + len(part) > most:
                yield edit, chunk
                chunk = []
            chunk.append(part)
        yield edit, chunk


def _check(
    model: Model, edits: Sequence[Edit], cases: Sequence[EditCase], *, one_each: bool, confidence: float
) -> None:
    if not cases:
        raise UsageError("there is no case to evaluate; give at least one, such as those of interp.read_cases")
    if one_each and len(edits) != len(cases):
        raise UsageError(f"{len(edits)} edits for {len(cases)} cases; give one edit for all of them, or one for each")
    if not 0 < confidence < 1:
        raise UsageError(f"confidence is {confidence}; valid: between 0 and 1, both excluded")
    for edit in edits:
        check_base(model, edit)


def _drifts(edits: Sequence[Edit]) -> tuple[tuple[int, ...], Float[Tensor, "edit layer"]]:
    """The layers that any edit changes, and |dW| / |W| of each edit in each of them."""
    layers = tuple(sorted({change.layer for edit in edits for change in edit.layers}))
    drift = torch.zeros(len(edits), len(layers), dtype=torch.float64)
    for row, edit in enumerate(edits):
        for change in edit.layers:
            drift[row, layers.index(change.layer)] = change.relative_norm
    return layers, drift


def _entropies(written: Sequence[tuple[str, ...]]) -> Float[Tensor, " case"] | None:
    return torch.tensor([generation_entropy(texts) for texts in written], dtype=torch.float64) if written else None


def _references(written: Sequence[tuple[str, ...]], cases: Sequence[EditCase]) -> Float[Tensor, " case"] | None:
    documents = [text for case in cases for text in case.reference_texts]
    if not written or not documents:
        return None
    weights, otherwise = inverse_frequencies(documents)
    found = [
        reference_score(texts, case.reference_texts, weights, otherwise)
        for texts, case in zip(written, cases, strict=True)
    ]
    return torch.tensor(found, dtype=torch.float64)


def _vocabulary(model: Model, asked: dict[str, AskedPrompts]) -> dict[str, str]:
    states = [found for part in asked.values() for found in (part.before, part.after) if found is not None]
    return vocabulary(model.tokenizer, [index for found in states for index in found.top.tolist()])
