"""Runs prompts through a model: tokens in, logits and captured activations out."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float
from torch import Tensor

from interp.cache import ActivationCache
from interp.errors import UsageError
from interp.interventions import Intervention
from interp.models.tl_cache import to_transformer_lens
from interp.runner.attention import attention_set_to
from interp.runner.batch import Batch
from interp.runner.forward import forward
from interp.runner.memory import check_memory
from interp.runner.plan import Capture, Logits, Plan, Request, logit_columns
from interp.runner.resume import Resumed, resume
from interp.runner.selection import resolve_positions
from interp.runner.session import Session, blank_padding
from interp.runner.snapshot import Recorder, Snapshot
from interp.sites import Site, read_layer
from interp.tokens import Tokens

if TYPE_CHECKING:
    from interp.runner.model import Model


@dataclass(frozen=True, kw_only=True, eq=False)
class Run:
    """One run of one or several prompts.

    ``logits`` are [batch pos d_vocab] for the wanted positions, None when none were wanted. ``positions`` lists the captured
    positions of each prompt. At positions that only pad a shorter prompt, captures and logits are NaN.
    """

    model: "Model" = field(repr=False)
    tokens: tuple[Tokens, ...]
    logits: Float[Tensor, "batch pos d_vocab"] | None
    cache: ActivationCache
    positions: tuple[tuple[int, ...], ...]
    snapshot: Snapshot | None = field(default=None, repr=False)

    @property
    def last_logits(self) -> Float[Tensor, "batch d_vocab"]:
        """The logits at each prompt's last position."""
        if self.logits is None:
            raise UsageError("this run has no logits; pass logits='last' or 'all' to model.run")
        if self.logits.shape[1] == 1:
            return self.logits[:, 0]
        ends = torch.tensor([len(tokens) - 1 for tokens in self.tokens], device=self.logits.device)
        if self.logits.shape[1] <= int(ends.max()):
            raise UsageError("the last position is not among the logits of this run; pass logits='last' or 'all'")
        return self.logits[torch.arange(len(self.tokens), device=ends.device), ends]

    def resume(self, rows: Sequence[Intervention | Sequence[Intervention]], **options: Any) -> Resumed:
        """Re-executes only what the interventions of each row can change. See ``interp.runner.resume.resume``."""
        return resume(self, rows, **options)

    def to_transformer_lens(self, model: Any = None) -> Any:
        """The cache as a ``transformer_lens.ActivationCache``. See ``interp.models.tl_cache.to_transformer_lens``."""
        return to_transformer_lens(self.cache, self.model.atlas, model)


def run(
    model: "Model",
    prompts: Any,
    capture: Request = (),
    interventions: Intervention | Iterable[Intervention] = (),
    logits: Logits = "all",
    positions: int | Sequence[int] | None = None,
    stop_at_layer: int | None = None,
    cache_device: str | torch.device | None = None,
    resumable: bool = False,
) -> Run:
    """See ``interp.Model.run``."""
    batch = Batch.of(model, prompts)
    changes = (interventions,) if isinstance(interventions, Intervention) else tuple(interventions)
    watched = model.sites.watched(capture, changes, batch.lengths, apart=model.separate_patterns)
    stop = None if stop_at_layer is None else _stop_layer(stop_at_layer, watched.captured, model.atlas.n_layers)
    wanted = False if stop is not None else logits
    columns = None if positions is None else resolve_positions(positions, batch.lengths)
    unembedded = None if wanted is False else logit_columns(wanted, batch.lengths, batch.n_pos)
    check_memory(model, batch, watched.kept, columns, wanted is not False, unembedded, resumable)
    settings: dict[str, Any] = {
        "n_rows": len(batch.lengths),
        "n_pos": batch.n_pos,
        "lengths": batch.lengths if batch.ragged else None,
        "columns": columns,
        "device": None if cache_device is None else torch.device(cache_device),
    }
    # A snapshot needs the whole forward, so a resumable run unembeds at least one position.
    session = Session(visits=watched.visits, needs_logits=wanted is not False or resumable, **settings)
    recorder = Recorder(model) if resumable else None
    output = None
    if session.visits or session.needs_logits:
        output = forward(
            model.hf,
            batch.ids,
            session,
            unembed=model.atlas.unembed,
            logit_columns=[[-1]] * len(batch.lengths) if resumable and wanted is False else unembedded,
            stop_block=None if stop in (None, model.atlas.n_layers) else model.atlas.blocks[stop].block,
            before=recorder.hooks if recorder else None,
            **(recorder.arguments() if recorder else {"use_cache": False}),
        )
    if watched.apart:
        session.captured.update(_patterns_apart(model, batch, watched.apart, changes, settings))
    for device in () if cache_device is None else model.devices:
        if device.type == "cuda":
            torch.cuda.synchronize(device)
    return Run(
        model=model,
        tokens=batch.tokens,
        logits=None if output is None or wanted is False else _blanked(output.logits, batch, unembedded),
        cache=ActivationCache(session.captured, model.atlas.n_layers),
        positions=columns if columns is not None else tuple(tuple(range(length)) for length in batch.lengths),
        snapshot=recorder.snapshot(batch, watched.last_layer) if recorder else None,
    )


def _patterns_apart(
    model: "Model", batch: Batch, apart: Sequence[Capture], changes: Sequence[Intervention], settings: dict[str, Any]
) -> dict[Site, Tensor]:
    """Patterns of a family that computes them only in its eager attention, from a forward of their own.

    So the main forward stays bit-equal to the plain model's.
    """
    plan = Plan(model.sites)
    plan.capture(apart)
    for intervention in changes:
        plan.intervene(intervention, batch.lengths)
    session = Session(visits=plan.visits(), needs_logits=False, **settings)
    with attention_set_to(model.hf, "eager"):
        forward(model.hf, batch.ids, session, unembed=model.atlas.unembed, use_cache=False, output_attentions=True)
    return session.captured


def _blanked(logits: Tensor, batch: Batch, columns: Sequence[Sequence[int]] | None) -> Tensor:
    """NaN logits at padding, where all positions of a ragged batch were unembedded."""
    return blank_padding(logits, 1, batch.lengths) if columns is None and batch.ragged else logits


def _stop_layer(stop_at_layer: int, captured: Sequence[Site], n_layers: int) -> int:
    """The first layer that does not run. Captures behind it would never be filled, so they are refused."""
    stop = stop_at_layer if stop_at_layer == n_layers else read_layer(stop_at_layer, n_layers)
    late = [site for site in captured if site.order > (stop, 0) and site.kind != "resid_pre"]
    late += [site for site in captured if site.kind == "resid_pre" and (site.layer or 0) > stop]
    if late:
        raise UsageError(f"{late[0].name} lies behind stop_at_layer={stop}; stop later or capture less")
    return stop
