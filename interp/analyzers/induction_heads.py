"""Induction heads: heads that look up what came after the last time and copy it (Elhage et al. 2021; Olsson et al. 2022)."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Generator

from interp.analyzers.induction_ablation import ablate_each, ablate_together
from interp.analyzers.induction_behaviour import HeadScores, head_scores
from interp.analyzers.induction_circuit import Mechanism, mechanisms
from interp.analyzers.induction_prompts import Texts, given_texts, random_texts
from interp.analyzers.induction_result import InductionResult, Verdict
from interp.analyzers.induction_scan import check_patterns
from interp.analyzers.induction_verdict import judged
from interp.errors import ModelError, UsageError
from interp.heads import Head, HeadLike, heads_of
from interp.models.cache import Step
from interp.models.progress import silent
from interp.runner.model import Model

_NULL_DRAWS = 100
PERIODS = (20, 40, 60)
THRESHOLD = 0.3
"""The least prefix-matching score of a candidate: of what it does not leave on the first token, three tenths go to the targets."""


def induction_heads(
    model: Model,
    prompts: Any = None,
    *,
    heads: "str | Head | Iterable[HeadLike] | None" = None,
    periods: Sequence[int] = PERIODS,
    copies: int = 2,
    seeds: int = 6,
    corpus: str | Sequence[str] | None = None,
    first_token: bool | int = True,
    threshold: float = THRESHOLD,
    rate: float = 0.05,
    draws: int = 3,
    scan_only: bool = False,
    seed: int = 0,
    progress: Step | None = None,
) -> InductionResult:
    """Finds the induction heads of a model, by what they attend to and by what the model loses without them.

    Args:
        model: the model.
        prompts: texts in which something comes again; None: random tokens, repeated.
        heads: the candidates, such as "L18H6" or ["17.3", "18.6"]; None: the heads that attend like one.
        periods: lengths of the repeated block in tokens. Ablations use the middle one.
        copies: how often the block stands in a text.
        seeds: independent draws of the random tokens; estimates and tests are over them.
        corpus: text whose token frequencies the random tokens have; None: all ordinary tokens alike.
        first_token: whether texts begin with the tokenizer's begin-of-text token, or the id of the token they begin with.
        threshold: the least prefix-matching score of a candidate.
        rate: false-discovery rate, over all heads for behaviour and over the candidates for cause (Benjamini and Hochberg 1995).
        draws: random heads of its layer that a candidate is compared with, and random groups that all together are.
        scan_only: only the scores of all heads: a forward for each text, no ablation and no weights.
        seed: of every random draw.
        progress: called with (what, done, total).

    A head attends like one if it attends to the tokens after earlier occurrences more than to the same places of text without repeats,
    its prefix-matching score reaches the threshold, and the attention peaks at the induction target whatever the period. It is called an
    induction head if, besides, mean ablation of it alone raises the loss on the tokens that the repeat foretells, by more than
    ablation of each other drawn head of its layer. Copying and the previous-token partner are evidence and decide nothing.

    Raises:
        UsageError: a prompt without repeats or of one token, a head, period or number out of range, a model without patterns.

    """
    if not 0 < threshold <= 1:
        raise UsageError(f"the threshold is {threshold}; valid: above 0, up to 1")
    if draws < 1:
        raise UsageError(f"draws is {draws}; valid: 1 or more")
    check_patterns(model)
    chosen = None if heads is None else list(heads_of(heads, model.atlas.n_layers, model.atlas.n_heads))
    generator = torch.Generator().manual_seed(seed)
    if prompts is None:
        texts = random_texts(
            model,
            periods=periods,
            copies=copies,
            seeds=seeds,
            corpus=corpus,
            first_token=first_token,
            generator=generator,
        )
    else:
        texts, copies = given_texts(model, prompts, first_token, generator), 0
    search = _Search(
        model=model,
        texts=texts,
        random=prompts is None,
        copies=copies,
        threshold=threshold,
        rate=rate,
        draws=draws,
        seed=seed,
        generator=generator,
        step=progress or silent,
    )
    return search.run(chosen, scan_only)


@dataclass(kw_only=True, eq=False)
class _Search:
    """One search for induction heads, from the scores of all heads to verdicts on a few."""

    model: Model
    texts: Sequence[Texts]
    random: bool
    copies: int
    threshold: float
    rate: float
    draws: int
    seed: int
    generator: Generator
    step: Step
    not_measured: list[str] = field(default_factory=list)

    def run(self, chosen: list[Head] | None, scan_only: bool) -> InductionResult:
        scores = head_scores(self.model, self.texts, random=self.random, rate=self.rate, step=self.step)
        candidates = scores.candidates(self.threshold) if chosen is None else chosen
        if scan_only:
            self.not_measured.append("losses, ablations and circuits: only the scores were asked for")
            verdicts = [judged(head, scores.behaviour(head), None, None, self.threshold) for head in candidates]
            return self._result(scores, verdicts)
        tested = self.texts[len(self.texts) // 2 :][:1] if self.random else self.texts
        found = ablate_each(
            self.model,
            tested,
            candidates,
            draws=self.draws,
            rate=self.rate,
            generator=self.generator,
            step=self.step,
        )
        evidence = zip(candidates, self._mechanisms(candidates, scores), found.causes, strict=True)
        verdicts = [
            judged(head, scores.behaviour(head), mechanism, cause, self.threshold)
            for head, mechanism, cause in evidence
        ]
        called = [verdict.head for verdict in verdicts if verdict.called]
        together, matched = ablate_together(
            found.ablator,
            called,
            candidates,
            n_heads=self.model.atlas.n_heads,
            draws=self.draws,
            generator=self.generator,
            step=self.step,
        )
        return self._result(scores, verdicts, losses=found.losses, together=together, matched=matched)

    def _mechanisms(self, candidates: Sequence[Head], scores: HeadScores) -> "Sequence[Mechanism | None]":
        self.step("circuits", 0, 1)
        try:
            found = mechanisms(self.model, candidates, scores.previous, draws=_NULL_DRAWS, seed=self.seed)
        except (
            ModelError
        ) as reason:  # a family whose weights are not those of heads; attention and ablation stand without
            self.not_measured.append(f"copying and partners: {reason}")
            return [None] * len(candidates)
        self.step("circuits", 1, 1)
        return found

    def _result(self, scores: HeadScores, verdicts: Sequence[Verdict], **measured: Any) -> InductionResult:
        nothing: dict[str, Any] = {"losses": None, "together": None, "matched": ()}
        return InductionResult(
            provenance=self.model.provenance(seed=self.seed),
            random=self.random,
            periods=tuple(text.period or 0 for text in self.texts),
            copies=self.copies,
            samples=len(self.texts[0].ids) if self.random else len(self.texts),
            seed=self.seed,
            threshold=self.threshold,
            rate=self.rate,
            stripe=scores.stripe,
            unrepeated=scores.unrepeated,
            prefix_matching=scores.prefix_matching,
            on_first=scores.on_first,
            diagonal=scores.diagonal,
            previous=scores.previous,
            around=scores.around,
            stripe_by_period=scores.stripe_by_period,
            p=scores.p,
            verdicts=tuple(verdicts),
            not_measured=tuple(self.not_measured),
            **(nothing | measured),
        )
