"""Causal tracing (Meng et al. 2022): which states of a run carry a fact, found by restoring them in runs with a corrupted subject."""

import os
from collections.abc import Sequence
from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor

from interp.analyzers.answers import AnswerLike, Question, ask
from interp.analyzers.causal_trace_corruption import (
    Corruption,
    ReplacementLike,
    Subject,
    SubjectLike,
    check_replaced,
    find_subject,
    foil,
    with_noise,
    with_tokens,
)
from interp.analyzers.causal_trace_result import KINDS, CausalTraceResult
from interp.analyzers.causal_trace_rows import Restorer, clean_sites, corrupted_sites, filled
from interp.analyzers.metrics import Metric, metric_of
from interp.analyzers.sweep import read_metrics, request_key, sweep
from interp.checkpoint import Checkpoint
from interp.errors import NumericsError, UsageError, unknown
from interp.models.cache import Step
from interp.models.progress import silent
from interp.prompts import PromptLike
from interp.runner.model import Model
from interp.runner.run import Run
from interp.tokens import Tokens, leading_space_hint


def causal_trace(
    model: Model,
    prompt: PromptLike | Tokens,
    subject: SubjectLike,
    target: AnswerLike | None = None,
    *,
    against: AnswerLike | None = None,
    noise: float = 3.0,
    samples: int = 10,
    window: int = 10,
    kinds: str | Sequence[str] = ("resid", "mlp", "attn"),
    replacements: ReplacementLike | Sequence[ReplacementLike] | None = None,
    seed: int = 0,
    confidence: float = 0.95,
    checkpoint: str | os.PathLike[str] | None = None,
    progress: Step | None = None,
) -> CausalTraceResult:
    """Traces an answer through the model: clean run, corrupted runs, and runs with one state restored (Meng et al. 2022, section 2).

    In the corrupted runs the model does not see what the subject is. In such a run the state at (layer, position) is put back to what
    it was in the clean run, and everything after it computed again. The indirect effect of the state is the answer's probability
    then, less that of the corrupted run, averaged over samples; the total effect is clean less corrupted.

    The kinds of state are

    - ``resid``: the residual stream leaving the layer;
    - ``mlp``, ``attn``: what the MLPs or attentions of a window of layers write at the position;
    - ``resid-mlp-severed``, ``resid-attn-severed``: ``resid``, with what the MLPs or attentions of all later layers write at that
      position held at the corrupted value (the paper's figure 3): what is lost against ``resid`` went through them.

    Nothing is run in full for a cell: only the layers and positions that the state can reach (``interp.runner.resume``), many cells
    at once. Cells before the subject, and what the last layer writes before the prompt's last position, cannot change the answer and hold
    the corrupted value. The numbers equal those of one full forward a cell up to rounding.

    It departs from the authors' code in three ways: noise is in standard deviations of the model's own embedding matrix, not of the
    embeddings of a set of subjects; answers may have several tokens; each sample keeps its own value, so that effects have intervals.

    Args:
        model: the model.
        prompt: text, a conversation or token ids that the answer follows.
        subject: text that occurs once in the prompt (found by character offsets), or the positions of its tokens.
        target: the answer as text, a token id or several; None is the model's most likely next token. Of several tokens each is scored
            with those before it given, and the probability is the product.
        against: the answer of the logit difference; None is the token, other than the answer's first, that the corrupted runs
            give the greatest mean probability.
        noise: the noise's standard deviation, in multiples of that of all entries of the token embeddings (``embedding_std``).
        samples: draws of noise, each with its own corrupted run. The same draws serve every cell.
        window: how many layers ``mlp`` and ``attn`` restore together: from ``layer - window // 2`` on.
        kinds: which states to restore, in this order.
        replacements: corrupts with tokens, not noise: another subject of as many tokens, or several, each a sample.
        seed: of the noise.
        confidence: of the intervals (Student t over samples, paired).
        checkpoint: a file that keeps finished work when the trace is stopped; the same call goes on from it, to the same numbers.
        progress: called with (what, rows done, rows in all).

    Returns:
        Every sample's probability and logit difference: clean, corrupted and restored in each cell. Nothing is divided by the total
        effect, and a trace whose corruption costs nothing is returned as it is (and said to the model's listener).

    Raises:
        UsageError: the subject is not in the prompt or is there twice; a replacement with another number of tokens, or whose answer is the
            target too; target and ``against`` that begin alike; a bad option, or a checkpoint of other work.
        NumericsError: NaN or infinity in the logits.
        MemoryLimitError: the runs do not fit in memory.

    """
    chosen = _checked_kinds(kinds)
    if window < 1:
        raise UsageError(f"window is {window}; give 1 layer or more")
    if not 0 < confidence < 1:
        raise UsageError(f"confidence is {confidence}; valid: between 0 and 1, both excluded")
    tokens = model.tokens(prompt)
    found = find_subject(tokens, subject)
    hint = leading_space_hint(model.tokenizer, target) if isinstance(target, str | int) else None
    if hint:
        model.notify(hint)
    question = ask(model, tokens, target, against)
    if replacements is None:
        corruption = with_noise(model, question, found, noise=noise, samples=samples, seed=seed)
    else:
        corruption = with_tokens(model, prompt, question, found, replacements)
    scored = list(range(-question.n_answer, 0))
    clean = model.run([question.asked], clean_sites(chosen), logits=scored, cache_device=model.together)
    corrupted = model.run(
        list(corruption.asked), corrupted_sites(chosen), corruption.changes, logits=scored, resumable=True
    )
    last = _finite(corrupted)
    if corruption.name == "tokens":
        check_replaced(corruption, question.answer, last)
    if question.against is None:
        question = replace(question, against=foil(model, last[:, 0], question.answer.ids[0]))
    metrics = _metrics([question] * len(corruption.asked))
    key = request_key(
        model,
        analysis="causal_trace",
        asked=[item.ids for item in (question.asked, *corruption.asked)],
        subject=found.positions,
        answers=[question.answer.ids, question.against and question.against.ids],
        corruption=[corruption.name, corruption.noise, seed],
        window=window,
    )
    base = read_metrics(corrupted, metrics)
    cells = list(Restorer(model, clean, corrupted, window).parts(chosen, found.positions[0], len(tokens)))
    with Checkpoint(checkpoint, key) as kept:
        values = sweep(
            corrupted,
            [item.part for item in cells],
            metrics,
            what="causal trace",
            progress=progress or silent,
            kept=kept,
        )
    restored = filled(cells, values, base, chosen, model.atlas.n_layers, len(tokens))
    result = _result(
        model,
        question,
        found,
        corruption,
        window=window,
        kinds=chosen,
        clean=read_metrics(clean, _metrics([question]))[0],
        corrupted=base,
        restored=restored,
        confidence=confidence,
        seed=seed,
    )
    _tell(model, result)
    return result


def _checked_kinds(kinds: str | Sequence[str]) -> tuple[str, ...]:
    chosen = (kinds,) if isinstance(kinds, str) else tuple(dict.fromkeys(kinds))
    if not chosen:
        raise UsageError(f"there is no kind of state to restore; valid: {', '.join(KINDS)}")
    for kind in chosen:
        if kind not in KINDS:
            raise unknown("kind", kind, KINDS)
    return chosen


def _finite(run: Run) -> Float[Tensor, "batch pos d_vocab"]:
    assert run.logits is not None, "logits were asked for"
    if not torch.isfinite(run.logits).all():
        raise NumericsError("the model's logits hold NaN or infinity; check the weights, or use dtype='float32'")
    return run.logits


def _metrics(questions: Sequence[Question]) -> tuple[Metric, Metric]:
    return metric_of("probability", questions), metric_of("logit_difference", questions)


def _result(
    model: Model,
    question: Question,
    subject: Subject,
    corruption: Corruption,
    *,
    window: int,
    kinds: tuple[str, ...],
    clean: Float[Tensor, " metric"],
    corrupted: Float[Tensor, "sample metric"],
    restored: Float[Tensor, "metric kind layer pos sample"],
    confidence: float,
    seed: int,
) -> CausalTraceResult:
    assert question.against is not None, "it was chosen if it was not given"
    return CausalTraceResult(
        provenance=model.provenance(seed=seed),
        prompt=question.prompt,
        subject=subject.text,
        subject_positions=subject.positions,
        answer=question.answer,
        against=question.against,
        corruption=corruption.name,
        noise=corruption.noise,
        noise_std=corruption.noise_std,
        replacements=corruption.replacements,
        window=window,
        kinds=kinds,
        clean_probability=float(clean[0]),
        clean_logit_difference=float(clean[1]),
        corrupted_probability=corrupted[:, 0].clone(),
        corrupted_logit_difference=corrupted[:, 1].clone(),
        restored_probability=restored[0].clone(),
        restored_logit_difference=restored[1].clone(),
        confidence=confidence,
    )


def _tell(model: Model, result: CausalTraceResult) -> None:
    """Says to the model's listener what limits the result."""
    total = result.total_effect()
    if result.n_samples < 2:
        model.notify("one sample gives no interval; give several")
    if not (total.value > 0 if result.n_samples < 2 else total.lower > 0):
        model.notify(
            f"corrupting the subject does not clearly lower the probability of {result.answer.text!r} ({result.clean_probability:.4f} "
            f"clean, {result.corrupted().value:.4f} corrupted): there is little to restore"
        )
