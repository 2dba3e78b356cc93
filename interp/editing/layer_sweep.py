"""A sweep over layers: a few facts are edited in each, and the layer is taken whose edits hold best and disturb least."""

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch.nn.functional import kl_div

from interp.editing.contexts import sample_contexts
from interp.editing.maker import EditMaker
from interp.editing.rewrite import Rewrite, rewrite_of
from interp.editing.rome import rome_change
from interp.editing.second_moments import cached_moments
from interp.editing.settings import EditSettings
from interp.editing.stack import applied
from interp.errors import NumericsError, UsageError
from interp.models.progress import Step as Progress
from interp.prompts import Fact
from interp.runner.model import Model

CANDIDATES = 6
"""Layers that are tried, spread over the lower DEPTH of the model."""
DEPTH = 0.6
FACTS = 3
"""Facts that are edited in each layer."""
BYSTANDERS = ("Marie Curie", "The Great Wall of China", "Toyota", "Sweden", "The Beatles", "Leonardo da Vinci")
"""Subjects put in place of the fact's own, to see what an edit does to others."""


def best_layer(
    model: Model, rewrites: Sequence[Rewrite], settings: EditSettings, *, seed: int, progress: Progress
) -> int:
    """The layer with the greatest mean of hold x exp(-disturbance) over a few of the facts.

    hold is the target's probability (geometric mean over its tokens and over contexts that the edit has not seen), disturbance the
    KL divergence (nats) of the next token's distribution for other subjects in the same prompt. Edits are made as ``rome`` makes them.

    Raises UsageError for a model without a dense MLP.
    """
    layers = _candidates(model)
    unseen = sample_contexts(model, replace(settings, contexts=5, context_lengths=(8,)), seed + 1)
    moments = cached_moments(model, layers, seed=seed, progress=progress)
    scores = []
    for index, (layer, moment) in enumerate(zip(layers, moments, strict=True)):
        shrunk = moment.shrunk(settings.shrinkage)
        scores.append(sum(_score(model, rewrite, layer, shrunk, settings, unseen) for rewrite in rewrites[:FACTS]))
        progress("trying layers", index + 1, len(layers))
    return layers[scores.index(max(scores))]


def _candidates(model: Model) -> list[int]:
    blocks = model.atlas.blocks
    reach = max(1, round(DEPTH * len(blocks)))
    dense = [layer for layer, block in enumerate(blocks) if block.down is not None and block.experts is None]
    if not dense:
        raise UsageError(f"all MLPs of {model.name} are mixtures of experts; there is no one matrix to edit")
    low = [layer for layer in dense if layer < reach] or dense
    step = max(1, -(-len(low) // CANDIDATES))
    return low[::step]


def _score(
    model: Model,
    rewrite: Rewrite,
    layer: int,
    moment: torch.Tensor,
    settings: EditSettings,
    unseen: Sequence[str],
) -> float:
    """The score of one fact edited in one layer; 0 where no finite edit was found."""
    others = [Fact(subject, rewrite.fact.template, rewrite.fact.target).prompt for subject in BYSTANDERS]
    tests = rewrite_of(model, rewrite.fact, unseen)
    try:
        made = rome_change(model, rewrite, layer, moment, settings)
        edit = EditMaker(model, (rewrite.fact,), "rome", settings, "sweep", ()).edit(made.changes)
    except NumericsError:
        return 0.0
    before = model.run(others, logits="last").last_logits.float().log_softmax(-1)
    with applied(model, edit):
        after = model.run(others, logits="last").last_logits.float().log_softmax(-1)
        hold = _probability(model, tests)
    return hold * float(torch.exp(-kl_div(after, before, reduction="batchmean", log_target=True)))


def _probability(model: Model, rewrite: Rewrite) -> float:
    """The target's probability, its geometric mean over tokens and contexts."""
    n = len(rewrite.target.ids)
    logits = model.run(list(rewrite.prompts), logits=list(range(-n, 0))).logits
    assert logits is not None, "logits were asked for"
    ids = torch.tensor(rewrite.target.ids, device=logits.device).expand(len(logits), -1)
    return float(logits.float().log_softmax(-1).gather(-1, ids[..., None]).mean().exp())
