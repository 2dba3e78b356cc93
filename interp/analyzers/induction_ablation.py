"""What the model loses on repeated text without some of its heads: mean ablation, by exact resuming."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby

import torch
from jaxtyping import Float
from torch import Generator, Tensor

from interp.analyzers.induction_prompts import Texts
from interp.analyzers.induction_result import Cause, GroupAblation, TextLosses
from interp.analyzers.induction_scan import as_tokens
from interp.heads import Head
from interp.interventions import MeanAblate
from interp.maths.estimates import Estimate
from interp.maths.induction import Losses, losses, token_losses
from interp.maths.statistics import benjamini_hochberg, mean_estimates, p_values
from interp.models.cache import Step
from interp.runner.model import Model
from interp.runner.plan import Capture
from interp.runner.run import Run
from interp.sites import Site

_TOKENS_AT_ONCE = 1024
"""Rows x positions whose logits over the whole vocabulary are held at once."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Change:
    """What an ablation changes in each sample, in nats a token: ablated less whole.

    ``second`` is of the loss on the tokens that a repeat foretells, ``late_less_early`` of the in-context-learning score.
    """

    second: Float[Tensor, " sample"]
    late_less_early: Float[Tensor, " sample"]


class Ablator:
    """The model on some texts, ready to run again without any of its heads.

    A head's z is replaced by its mean over ``reference`` texts: at the first position by the mean there, elsewhere by the mean over all
    later positions. So the head still adds what it adds on average, and nothing about the text. The first position is apart because
    begin-of-text gets a stream unlike any other.
    """

    def __init__(self, model: Model, texts: Sequence[Texts], layers: Iterable[int]) -> None:
        self._model, self._texts = model, tuple(texts)
        self._layers = sorted(set(layers))
        self._runs: list[tuple[Run, dict[int, Tensor]]] = []
        parts = []
        for text in self._texts:
            run = model.run(as_tokens(model, text.ids), resumable=True, logits=False)
            self._runs.append((run, self._means(text)))
            parts.append(self._losses(text, run, []))
        self.whole = _joined(parts)

    def without(self, heads: Sequence[Head]) -> Change:
        """What changes without these heads, all of them at once."""
        parts = []
        for text, (run, means) in zip(self._texts, self._runs, strict=True):
            row = [
                _ablation(means[layer], layer, [head.head for head in chosen], text.n_pos)
                for layer, chosen in groupby(sorted(heads), lambda head: head.layer)
            ]
            parts.append(self._losses(text, run, row))
        ablated = _joined(parts)
        return Change(
            second=ablated.second - self.whole.second,
            late_less_early=ablated.late_less_early - self.whole.late_less_early,
        )

    def _means(self, text: Texts) -> dict[int, Tensor]:
        captures = [Capture(f"attn.z@{layer}", _mean_by_place) for layer in self._layers]
        if not captures:
            return {}
        run = self._model.run(as_tokens(self._model, text.reference), captures, logits=False)
        return {layer: run.cache[f"attn.z@{layer}"] for layer in self._layers}

    def _losses(self, text: Texts, run: Run, row: "Sequence[MeanAblate]") -> Losses:
        n_rows, step = len(text.ids), max(1, _TOKENS_AT_ONCE // text.n_pos)
        start = None if row else (self._model.atlas.n_layers, 0)
        by_token = []
        for first in range(0, n_rows, step):
            chunk = range(first, min(first + step, n_rows))
            resumed = run.resume([row for _ in chunk], prompts=chunk, start=start, logits="all")
            assert resumed.logits is not None, "logits were asked for"
            by_token.append(token_losses(resumed.logits, text.ids[chunk.start : chunk.stop]))
        found = losses(text.ids, torch.cat(by_token), text.places)
        return Losses(first=found.first.cpu(), second=found.second.cpu(), late_less_early=found.late_less_early.cpu())


@dataclass(frozen=True, kw_only=True, eq=False)
class Ablations:
    """What was measured of the candidates one by one, and the ablator to go on with."""

    ablator: Ablator
    causes: tuple[Cause, ...]
    losses: TextLosses


def ablate_each(
    model: Model,
    texts: Sequence[Texts],
    candidates: Sequence[Head],
    *,
    draws: int,
    rate: float,
    generator: Generator,
    step: Step,
) -> Ablations:
    """Ablates each candidate alone, drawn peers of its layer, all candidates, and all but each."""
    controls = drawn_peers(candidates, model.atlas.n_heads, draws, generator)
    total = 2 * len(candidates) + sum(map(len, controls.values())) + 1
    done = 0

    def without(heads: Sequence[Head]) -> Change:
        nonlocal done
        step("ablation", done, total)
        done += 1
        return ablator.without(heads)

    ablator = Ablator(model, texts, {head.layer for head in candidates})
    peers_changes = {
        layer: torch.stack([without([head]).second for head in heads]) if heads else None
        for layer, heads in controls.items()
    }
    every = without(candidates) if candidates else None
    singles, restored, excess = [], [], []
    for head in candidates:
        change, others = without([head]), peers_changes[head.layer]
        singles.append(change)
        excess.append(change.second if others is None else change.second - others.mean(0))
        rest = [other for other in candidates if other != head]
        assert every is not None, "there are candidates"
        restored.append(every.second - without(rest).second if rest else every.second)
    step("ablation", total, total)
    p = p_values(torch.stack(excess, 1)) if candidates else torch.zeros(0)
    significant = benjamini_hochberg(p, rate)
    causes = tuple(
        _cause(
            singles[i], controls[head.layer], peers_changes[head.layer], float(p[i]), bool(significant[i]), restored[i]
        )
        for i, head in enumerate(candidates)
    )
    return Ablations(ablator=ablator, causes=causes, losses=_own_losses(ablator.whole))


def ablate_together(
    ablator: Ablator,
    heads: Sequence[Head],
    candidates: Sequence[Head],
    *,
    n_heads: int,
    draws: int,
    generator: Generator,
    step: Step,
) -> tuple[GroupAblation | None, tuple[GroupAblation, ...]]:
    """Some of the candidates at once, and groups of other heads of their layers. None for no heads."""
    if not heads:
        return None, ()
    found = []
    groups = [tuple(sorted(heads)), *drawn_groups(heads, candidates, n_heads, draws, generator)]
    for done, group in enumerate(groups):
        step("ablation together", done, len(groups))
        if group:
            change = ablator.without(group)
            second, late = estimate(change.second), estimate(change.late_less_early)
            found.append(GroupAblation(heads=group, second=second, late_less_early=late))
    step("ablation together", len(groups), len(groups))
    return found[0], tuple(found[1:])


def _cause(
    change: Change, controls: tuple[Head, ...], others: Tensor | None, p: float, significant: bool, restored: Tensor
) -> Cause:
    nothing = Estimate(value=math.nan, lower=math.nan, upper=math.nan, n=0)
    return Cause(
        second=estimate(change.second),
        late_less_early=estimate(change.late_less_early),
        peers=controls,
        peers_second=nothing if others is None else estimate(others.mean(0)),
        worst_peer=math.nan if others is None else float(others.mean(1).max()),
        p=p,
        significant=significant,
        restored=estimate(restored),
    )


def estimate(samples: Float[Tensor, " sample"]) -> Estimate:
    """The mean of one figure with its interval."""
    return mean_estimates(samples[:, None]).at(0)


def _own_losses(whole: Losses) -> TextLosses:
    return TextLosses(
        first=estimate(whole.first), second=estimate(whole.second), late_less_early=estimate(whole.late_less_early)
    )


def _mean_by_place(z: Tensor, site: Site) -> Tensor:
    """The mean z of each head at the first position and over all others, [2 head d_head]."""
    later = z[:, 1:].float().mean((0, 1))
    return torch.stack([z[:, 0].float().mean(0), later])


def _ablation(means: Float[Tensor, "2 head d_head"], layer: int, heads: Sequence[int], n_pos: int) -> MeanAblate:
    chosen = means[:, list(heads)]
    by_position = torch.cat([chosen[:1], chosen[1:].expand(n_pos - 1, -1, -1)])
    return MeanAblate(f"attn.z@{layer}", by_position, heads=tuple(heads))


def peers(candidates: Sequence[Head], layer: int, n_heads: int) -> tuple[Head, ...]:
    """The heads of a layer that are no candidates: what a candidate of that layer is compared with."""
    return tuple(Head(layer, head) for head in range(n_heads) if Head(layer, head) not in candidates)


def drawn_peers(
    candidates: Sequence[Head], n_heads: int, draws: int, generator: Generator
) -> dict[int, tuple[Head, ...]]:
    """For each layer with candidates, up to ``draws`` different peers at random."""
    return {
        layer: _drawn(peers(candidates, layer, n_heads), draws, generator)
        for layer in sorted({head.layer for head in candidates})
    }


def drawn_groups(
    heads: Sequence[Head], candidates: Sequence[Head], n_heads: int, draws: int, generator: Generator
) -> tuple[tuple[Head, ...], ...]:
    """``draws`` groups of peers, each with as many in each layer as ``heads`` has there, or as many as there are."""
    wanted = {layer: sum(head.layer == layer for head in heads) for layer in {head.layer for head in heads}}
    return tuple(
        tuple(
            head
            for layer, count in sorted(wanted.items())
            for head in sorted(_drawn(peers(candidates, layer, n_heads), count, generator))
        )
        for _ in range(draws)
    )


def _drawn(heads: Sequence[Head], count: int, generator: Generator) -> tuple[Head, ...]:
    return tuple(heads[place] for place in torch.randperm(len(heads), generator=generator)[:count].tolist())


def _joined(parts: Sequence[Losses]) -> Losses:
    return Losses(
        first=torch.cat([part.first for part in parts]),
        second=torch.cat([part.second for part in parts]),
        late_less_early=torch.cat([part.late_less_early for part in parts]),
    )
