"""Many edits, one after another or in batches, with a watch on what they do to the model together.

Sequential editing wears a model out: ROME's own code from some 30 edits on (Meng et al. 2023), mostly as the weights grow. So after every
few edits this measures what a single edit's scores do not show: whether earlier facts still hold, the perplexity of held-out texts, and
|dW| / |W| of all edits together.
"""

import os
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float64
from torch import Tensor

from interp.checkpoint import Checkpoint
from interp.editing.cases import EditCase
from interp.editing.contexts import sample_contexts
from interp.editing.edit import Edit
from interp.editing.edit_facts import edit_facts
from interp.editing.edit_sequence_kept import KeptSequence, sequence_key
from interp.editing.edit_sequence_limits import Limits
from interp.editing.edit_sequence_result import EditSequence, join_edits
from interp.editing.edit_sequence_watch import Watch
from interp.editing.perplexity import windows_of
from interp.editing.second_moments import SecondMoment, cached_moments
from interp.editing.settings import EditSettings, sequence_settings_of
from interp.editing.stack import applied
from interp.errors import UsageError
from interp.models.cache import Step
from interp.models.progress import silent
from interp.prompts import Fact, PromptLike
from interp.runner.model import Model

_ON_LIMIT = ("warn", "stop")


def edit_sequence(
    model: Model,
    facts: Sequence[Fact],
    method: str = "rome",
    *,
    batch: int = 1,
    cases: Sequence[EditCase] = (),
    texts: Sequence[PromptLike] = (),
    every: int = 10,
    limit_norm_ratio: float | None = None,
    limit_perplexity_ratio: float | None = None,
    on_limit: Literal["warn", "stop"] = "warn",
    layers: int | Sequence[int] | Literal["auto"] = "auto",
    moments: SecondMoment | Sequence[SecondMoment] | None = None,
    settings: EditSettings | None = None,
    contexts: Sequence[str] | None = None,
    seed: int = 0,
    allow_known: bool = True,
    confidence: float = 0.95,
    checkpoint: str | os.PathLike[str] | None = None,
    progress: Step | None = None,
) -> EditSequence:
    """Edits facts in turn, each batch on the model with the earlier ones, and leaves the model as it was.

    ``result.edits`` are the edits and ``result.edit`` is all of them as one, to apply, save or evaluate. Layers and contexts are chosen
    once, for the first edit on the model without edits of this call, and second moments are always the unedited model's. Each edit keeps
    the facts of the earlier ones as far as ``settings.keep_weight`` says.

    With a ``checkpoint`` an interrupt or a kill loses no edit and no check that was finished: the same call goes on to the same result.

    Args:
        model: the model; edits that are applied to it stay.
        facts: what to write, in this order.
        method: see ``edit_facts``.
        batch: facts in one edit: 1 is sequential editing, as many as there are facts is one edit.
        cases: the cases of the facts, in the same order, for their true objects. Without them only the argmax is checked.
        texts: held-out texts for the perplexity.
        every: a check each time at least this many facts more are edited; always one before the first edit and one after the last.
        limit_norm_ratio: |dW| / |W| of all edits together that no layer should pass.
        limit_perplexity_ratio: perplexity over that before the first edit that no check should pass.
        on_limit: "warn" says so once (``model.notify`` and ``result.warnings``) and goes on; "stop" ends the sequence: before the edit
            that would pass the norm limit, at the check that finds the perplexity too high.
        layers: see ``edit_facts``.
        moments: see ``edit_facts``.
        settings: see ``edit_facts``; by default ``sequence_settings_of(method)``, which write no more than one of many facts needs.
        contexts: see ``edit_facts``.
        seed: of everything that is sampled.
        allow_known: edit also facts that the model gives already, perhaps thanks to an earlier edit. False makes such a fact an error.
        confidence: of the intervals.
        checkpoint: a file that gets each edit and each check as soon as it is done; the same call goes on from it when this was stopped,
            to the same numbers. It is removed at the end.
        progress: called with (what, done, total).

    Raises:
        UsageError: no fact, a batch or ``every`` below 1, cases of other facts, a limit that is not above 0, a
            checkpoint of other work, and all of ``edit_facts``.
        ModelError: a checkpoint that is damaged, and what ``edit_facts`` raises it for.
        NumericsError: an edit that is not finite, or a model that gives NaN.

    """
    _check(facts, cases, batch, every, limit_norm_ratio, limit_perplexity_ratio, on_limit, confidence)
    settings = settings or sequence_settings_of(method)
    windows = windows_of(model, texts)
    limits = Limits(model=model, norm=limit_norm_ratio, perplexity=limit_perplexity_ratio, stop=on_limit == "stop")
    asked = {
        "method": method,
        "batch": batch,
        "every": every,
        "limits": [limit_norm_ratio, limit_perplexity_ratio, on_limit],
        "layers": [layers] if isinstance(layers, int | str) else list(layers),
        "contexts": None if contexts is None else list(contexts),
        "seed": seed,
        "allow_known": allow_known,
    }
    key = {} if checkpoint is None else sequence_key(model, facts, cases, windows, moments, settings, **asked)
    with Checkpoint(checkpoint, key, at_once=True) as file:
        kept = KeptSequence(file)
        maker = _Maker(
            model=model,
            method=method,
            layers=layers,
            moments=moments,
            settings=settings,
            contexts=kept.contexts(lambda: sample_contexts(model, settings, seed)) if contexts is None else contexts,
            seed=seed,
            allow_known=allow_known,
            kept=kept,
        )
        watch = Watch(model=model, facts=tuple(facts), cases=tuple(cases), windows=windows, kept=kept)
        done, drift = _edit_all(maker, watch, limits, batch, every, progress or silent)
        moved_layers, moved = _by_layer(drift)
        return EditSequence(
            provenance=model.provenance(seed=seed),
            facts=tuple(facts),
            method=method,
            batch=batch,
            edits=tuple(done),
            layers=moved_layers,
            drift=moved,
            checked=torch.tensor(watch.checked),
            accuracy=torch.tensor(watch.accuracy, dtype=torch.float64),
            new_nats=torch.tensor(watch.new_nats, dtype=torch.float64),
            true_nats=torch.tensor(watch.true_nats, dtype=torch.float64) if cases else None,
            perplexity=torch.tensor(watch.perplexities, dtype=torch.float64) if windows else None,
            n_texts=len(texts),
            stop_reason=limits.reason,
            warnings=tuple(limits.warnings),
            confidence=confidence,
            seconds=kept.seconds,
        )


def _edit_all(
    maker: "_Maker", watch: Watch, limits: Limits, batch: int, every: int, step: Step
) -> tuple[list[Edit], list[dict[int, float]]]:
    """The edits, in batches until the facts or a limit end them, and |dW| / |W| of each layer after each."""
    model, facts = maker.model, watch.facts
    done: list[Edit] = []
    drift: list[dict[int, float]] = []
    watch.check(0)
    for first in range(0, len(facts), batch):
        step("facts edited", first, len(facts))
        made = maker.make(facts[first : first + batch], done)
        edited = first + len(made.facts)
        together = join_edits([*done, made])
        moved = {change.layer: change.relative_norm for change in together.layers}
        if limits.norm_passed(moved, edited):
            break
        done.append(made)
        drift.append(moved)
        if edited - watch.checked[-1] >= every or edited == len(facts):
            with applied(model, together):
                watch.check(edited)
            if limits.perplexity_passed(watch.perplexities, edited):
                break
    edited = sum(len(edit.facts) for edit in done)
    step("facts edited", edited, len(facts))
    if watch.checked[-1] != edited:
        with _with_all(model, done):
            watch.check(edited)
    return done, drift


def _by_layer(drift: Sequence[dict[int, float]]) -> tuple[tuple[int, ...], Float64[Tensor, "edit layer"]]:
    """The layers that any edit moved, and how far each was moved after each edit; 0 where none had moved it yet."""
    layers = tuple(sorted({layer for moved in drift for layer in moved}))
    rows = [[moved.get(layer, 0.0) for layer in layers] for moved in drift]
    return layers, torch.tensor(rows, dtype=torch.float64).reshape(len(drift), len(layers))


@dataclass(kw_only=True, eq=False)
class _Maker:
    """Makes the edits. What the first one found out, on the model without the others, holds for all: its layers and second moments."""

    model: Model
    method: str
    layers: int | Sequence[int] | Literal["auto"]
    moments: SecondMoment | Sequence[SecondMoment] | None
    settings: EditSettings
    contexts: Sequence[str]
    seed: int
    allow_known: bool
    kept: KeptSequence

    def make(self, facts: Sequence[Fact], earlier: Sequence[Edit]) -> Edit:
        """An edit of these facts on the model with the earlier edits, unless it is kept."""
        made = self.kept.edit(len(earlier), lambda: self._made(facts, earlier))
        if not earlier:
            chosen = [change.layer for change in made.layers]
            self.layers = chosen if self.layers == "auto" else self.layers
            self.moments = cached_moments(self.model, chosen, seed=self.seed) if self.moments is None else self.moments
        return made

    def _made(self, facts: Sequence[Fact], earlier: Sequence[Edit]) -> Edit:
        with _with_all(self.model, earlier):
            return edit_facts(
                self.model,
                facts,
                self.method,
                layers=self.layers,
                moments=self.moments,
                settings=self.settings,
                contexts=self.contexts,
                keep=[fact for edit in earlier for fact in edit.facts] if self.settings.keep_weight else (),
                seed=self.seed,
                allow_known=self.allow_known,
            )


def _with_all(model: Model, edits: Sequence[Edit]) -> AbstractContextManager[None]:
    return applied(model, join_edits(edits)) if edits else nullcontext()


def _check(
    facts: Sequence[Fact],
    cases: Sequence[EditCase],
    batch: int,
    every: int,
    norm: float | None,
    perplexity: float | None,
    on_limit: str,
    confidence: float,
) -> None:
    if not facts:
        raise UsageError("there is no fact to edit; give at least one")
    for name, value, good, valid in (
        ("batch", batch, batch >= 1, "1 or more"),
        ("every", every, every >= 1, "1 or more"),
        ("limit_norm_ratio", norm, norm is None or norm > 0, "above 0, or None"),
        ("limit_perplexity_ratio", perplexity, perplexity is None or perplexity > 0, "above 0, or None"),
        ("on_limit", on_limit, on_limit in _ON_LIMIT, " or ".join(_ON_LIMIT)),
        ("confidence", confidence, 0 < confidence < 1, "between 0 and 1, both excluded"),
    ):
        if not good:
            raise UsageError(f"{name} is {value}; valid: {valid}")
    if cases and [case.fact for case in cases] != list(facts):
        raise UsageError(
            f"the cases are not those of the facts ({len(cases)} cases, {len(facts)} facts); give the case of each fact in the same order"
        )
