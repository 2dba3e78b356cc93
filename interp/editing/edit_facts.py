"""Writes facts into a model's MLP weights, as an edit that can be saved, applied and undone."""

import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from typing import Literal

import torch
from torch import Tensor

from interp.editing.contexts import sample_contexts
from interp.editing.edit import Edit, ValueCurve
from interp.editing.kept_facts import kept_keys
from interp.editing.layers import choose_layers
from interp.editing.maker import EditMaker
from interp.editing.matrix import output_matrix
from interp.editing.memit import Solve, spread_changes
from interp.editing.rewrite import Rewrite, rewrite_of
from interp.editing.rome import Rewritten, rome_change
from interp.editing.second_moments import SecondMoment, cached_moments
from interp.editing.settings import MOMENT_SHARE, EditSettings, settings_of
from interp.editing.stack import applied
from interp.errors import NumericsError, UsageError
from interp.maths.rank_one import LowRank, joined, null_space, null_space_change, sum_outer, weighted_change
from interp.models.progress import Step as Progress
from interp.models.progress import silent
from interp.prompts import Fact
from interp.runner.model import Model
from interp.sites import read_layer


def edit_facts(
    model: Model,
    facts: Fact | Sequence[Fact],
    method: str = "rome",
    *,
    layers: int | Sequence[int] | Literal["auto"] = "auto",
    moments: SecondMoment | Sequence[SecondMoment] | None = None,
    settings: EditSettings | None = None,
    contexts: Sequence[str] | None = None,
    keep: Sequence[Fact] = (),
    seed: int = 0,
    allow_known: bool = False,
    progress: Progress | None = None,
) -> Edit:
    """Finds the change of MLP output projections after which the model states ``facts``. The model itself is left as it was.

    - ``rome`` (Meng et al. 2022, with the averaged key everywhere, Gupta et al. 2024): one layer; several facts one after another. It
      departs from both in what its key direction hears: see ``rome_change``.
    - ``rome-original``: the same with the bare prompt's key in the update, as in the paper's code; it can disable a model.
    - ``memit`` (Meng et al. 2023): all facts at once, spread over several layers.
    - ``alphaedit`` (Fang et al. 2025): as ``memit``, only in directions that ordinary keys do not use.

    Edits that are applied to the model stay applied, and the new one is computed on top of them.

    Args:
        model: the model; any family with a dense MLP whose output projection the atlas knows.
        facts: subject, template and new target (with its leading space, where text has one); a target may have several tokens.
        method: one of the four.
        layers: one layer for ``rome``, one or several for the others; "auto" takes them from a table of measured models, else from a
            sweep on these facts, and the edit says which. A causal trace does not tell them (Hase et al. 2023).
        moments: second moments of the keys, one for each layer; by default of text sampled from the model itself, kept in the cache.
        settings: see ``EditSettings``; by default ``settings_of(method)``.
        contexts: texts to put before the prompt; by default sampled from the model with ``seed``.
        keep: facts whose value at the edited layers should stay as it is now, such as those of edits that are applied; how much they
            count is ``settings.keep_weight``. AlphaEdit calls their keys K_p (Fang et al. 2025, eq. 14). Facts about a subject that is
            edited are left out: at the subject's last token their key is the one that is to change.
        seed: seed of everything that is sampled.
        allow_known: edit also facts that the model states already.
        progress: called with (what, done, total).

    Raises:
        UsageError: no fact, a bad method or layer, an empty target, a target that the model gives already, a layer of experts, a
            second moment of too few tokens, or facts to keep where ``keep_weight`` is 0 (as in ``rome-original``).
        ModelError: a second moment of another model or layer.
        NumericsError: the optimisation or the solution is not finite.

    """
    started = time.perf_counter()
    told = progress or silent
    wanted = (facts,) if isinstance(facts, Fact) else tuple(facts)
    defaults = settings_of(method)
    settings = settings or defaults
    if not wanted:
        raise UsageError("there is no fact to edit; give at least one")
    if keep and not settings.keep_weight:
        raise UsageError(f"facts to keep need a keep_weight above 0 in the settings; {method} has 0 here")
    _check_layers(model, layers, method)
    before = list(contexts) if contexts is not None else sample_contexts(model, settings, seed)
    rewrites = [rewrite_of(model, fact, before, seed) for fact in wanted]
    if not allow_known:
        refuse_known(model, rewrites)
    chosen, source = choose_layers(model, rewrites, method, layers, settings, seed=seed, progress=told)
    _check_reach(model, rewrites, chosen)
    found = _moments_of(model, chosen, moments, settings, seed, told)
    maker = EditMaker(model, wanted, method, settings, source, tuple(_described(moment) for moment in found))
    subjects = {fact.subject for fact in wanted}
    others = [fact for fact in keep if fact.subject not in subjects]
    made = (
        _one_by_one(maker, rewrites, found, others, told)
        if method.startswith("rome")
        else _together(maker, rewrites, found, others, told)
    )
    return maker.edit(made.changes, made.curves, time.perf_counter() - started)


def refuse_known(model: Model, rewrites: Sequence[Rewrite]) -> None:
    """Raises UsageError for a fact whose target the model ranks first already, token by token."""
    for rewrite in rewrites:
        tokens = rewrite.prompts[0]
        logits = model.run(tokens, logits=rewrite.columns[0]).logits
        assert logits is not None, "logits were asked for"
        if not bool(torch.isfinite(logits).all()):
            raise NumericsError(f"the model's logits for {tokens.text!r} hold NaN or infinity; nothing can be edited")
        if logits[0].argmax(-1).tolist() == list(rewrite.target.ids):
            raise UsageError(
                f"the model already goes on with {rewrite.target.text!r} after {rewrite.fact.prompt!r}, so there is nothing to edit; "
                "give another target, or allow_known=True to edit all the same"
            )


def _check_layers(model: Model, layers: int | Sequence[int] | str, method: str) -> None:
    if isinstance(layers, str):
        if layers != "auto":
            raise UsageError(f"layers is {layers!r}; valid: 'auto', a layer, or a list of layers")
        return
    given = [layers] if isinstance(layers, int) else list(layers)
    if not given:
        raise UsageError("there is no layer to edit; give one, or 'auto'")
    for layer in given:
        output_matrix(model, layer)
    if method.startswith("rome") and len(given) > 1:
        raise UsageError(f"{method} edits one layer, got {given}; give one, or take method='memit'")


def _check_reach(model: Model, rewrites: Sequence[Rewrite], layers: Sequence[int]) -> None:
    """Raises UsageError where nothing that is written at the subject could reach the place where the target is predicted."""
    last = model.atlas.n_layers - 1
    for rewrite in rewrites:
        if layers[-1] == last and rewrite.positions[0] < rewrite.columns[0][-1]:
            raise UsageError(
                f"layer {last} is the last: what it writes at {rewrite.fact.subject!r} reaches no later token; choose one of 0 to "
                f"{last - 1}"
            )


def _moments_of(
    model: Model,
    layers: Sequence[int],
    moments: SecondMoment | Sequence[SecondMoment] | None,
    settings: EditSettings,
    seed: int,
    progress: Progress,
) -> list[SecondMoment]:
    """The second moment of each layer, in order, each checked against the model."""
    if moments is None:
        found = cached_moments(model, layers, seed=seed, progress=progress)
    else:
        given = [moments] if isinstance(moments, SecondMoment) else list(moments)
        by_layer = {read_layer(moment.layer, model.atlas.n_layers): moment for moment in given}
        missing = [layer for layer in layers if layer not in by_layer]
        if missing:
            raise UsageError(
                f"there is no second moment of layer {missing[0]}, only of {sorted(by_layer)}; give one for each edited layer "
                f"(interp moments MODEL --layer {missing[0]}), or choose layers={sorted(by_layer)}"
            )
        found = tuple(by_layer[layer] for layer in layers)
    for moment, layer in zip(found, layers, strict=True):
        moment.check(model, layer, settings.min_tokens)
    return list(found)


def _described(moment: SecondMoment) -> str:
    return f"layer {moment.layer}: {moment.n_tokens:,} tokens of {moment.corpus}"


def _one_by_one(
    maker: EditMaker,
    rewrites: Sequence[Rewrite],
    moments: Sequence[SecondMoment],
    keep: Sequence[Fact],
    progress: Progress,
) -> Rewritten:
    """ROME for one fact after another, each on the model with those before it, which it keeps."""
    (moment,) = moments
    shrunk = moment.shrunk(maker.settings.shrinkage)
    changes: list[LowRank] = []
    curves: list[ValueCurve] = []
    with ExitStack() as stack:
        for index, rewrite in enumerate(rewrites):
            if changes:
                stack.enter_context(applied(maker.model, maker.edit({moment.layer: changes[-1]})))
            earlier = (one.fact for one in rewrites[:index])
            kept = [*keep, *(fact for fact in earlier if fact.subject != rewrite.fact.subject)]
            made = rome_change(maker.model, rewrite, moment.layer, shrunk, maker.settings, kept)
            changes.append(made.changes[moment.layer])
            curves += made.curves
            progress("editing facts", index + 1, len(rewrites))
    return Rewritten(changes={moment.layer: joined(changes)}, curves=tuple(curves))


def _together(
    maker: EditMaker,
    rewrites: Sequence[Rewrite],
    moments: Sequence[SecondMoment],
    keep: Sequence[Fact],
    progress: Progress,
) -> Rewritten:
    """MEMIT and AlphaEdit: all facts at once."""
    with ExitStack() as stack:

        def write(changes: Mapping[int, LowRank]) -> None:
            layer = list(changes)[-1]
            stack.enter_context(applied(maker.model, maker.edit({layer: changes[layer]})))

        layers, solve = [moment.layer for moment in moments], _solver(maker, moments, keep)
        return spread_changes(maker.model, rewrites, layers, solve, maker.settings, write, progress)


def _solver(maker: EditMaker, moments: Sequence[SecondMoment], keep: Sequence[Fact]) -> Solve:
    """How a layer's change is found. The keys to be kept are read when it is that layer's turn, on the model as edited so far."""
    settings = maker.settings
    shrunk = {moment.layer: moment.shrunk(settings.shrinkage) for moment in moments}

    def kept(layer: int) -> Tensor:
        return settings.keep_weight**0.5 * kept_keys(maker.model, keep, layer)

    if maker.method == "memit":
        given = settings.moment_weight
        weight = {layer: MOMENT_SHARE * len(matrix) if given is None else given for layer, matrix in shrunk.items()}
        return lambda layer, keys, residuals: weighted_change(
            keys, residuals, shrunk[layer] + sum_outer(kept(layer)) / weight[layer], weight[layer]
        )
    projectors = {layer: null_space(matrix, settings.null_threshold) for layer, matrix in shrunk.items()}
    return lambda layer, keys, residuals: null_space_change(
        keys, residuals, projectors[layer], before=kept(layer).T, ridge=settings.ridge
    )
