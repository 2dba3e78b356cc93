"""Activation patching sweeps: ours beside TransformerLens' ``get_act_patch_*``, which runs one full forward for each cell."""

import contextlib
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from experiments.benchmarks.config import SEED, Config, Pair
from experiments.benchmarks.harness import (
    PEER_FAULTS,
    Side,
    Timing,
    check_equal,
    clock,
    difference,
    measure,
    timed_check,
)
from experiments.benchmarks.rows import Row, timed_row
from experiments.benchmarks.sides import OURS, copy_of
from experiments.benchmarks.tracing import in_words, listed, spread
from interp.analyzers.activation_patching import activation_patching
from interp.analyzers.activation_patching_result import ActivationPatchingResult
from interp.analyzers.answers import read_answer
from interp.analyzers.attribution_patching import attribution_patching
from interp.analyzers.attribution_patching_result import AttributionPatchingResult
from interp.maths.attribution_patching import rank_correlation
from interp.runner.model import Model
from interp.tokens import Tokens

PEER = "TransformerLens"
TOLERANCE = 1e-4
"""Greatest difference of the patched logit difference of any cell, in logits."""


@dataclass(frozen=True, kw_only=True, eq=False)
class PatchWork:
    """A sweep by the logit difference, over layers and positions (``by`` "position") or layers and heads ("head").

    TransformerLens does the cells ``layers`` by ``columns`` of it.
    """

    row: str
    name: str
    model: Model
    clean: Tokens
    corrupted: Tokens
    answer: int
    against: int
    by: str
    layers: tuple[int, ...]
    columns: tuple[int, ...]

    @classmethod
    def of(cls, row: str, model: Model, pair: Pair, by: str, every: tuple[int, int]) -> "PatchWork":
        """The sweep of a pair. ``every`` is the step between the layers, and the positions or heads, of the other side's cells."""
        clean, corrupted = model.tokens(pair.clean), model.tokens(pair.corrupted)
        return cls(
            row=row,
            name=pair.name,
            model=model,
            clean=clean,
            corrupted=corrupted,
            answer=read_answer(model, pair.answer).ids[0],
            against=read_answer(model, pair.against).ids[0],
            by=by,
            layers=spread(model.atlas.n_layers, every[0]),
            columns=spread(len(clean) if by == "position" else model.atlas.n_heads, every[1]),
        )

    @property
    def n_columns(self) -> int:
        """Positions or heads."""
        return len(self.clean) if self.by == "position" else self.model.atlas.n_heads

    @property
    def whole(self) -> "PatchWork":
        """The same with every cell done by the other side as well."""
        return replace(self, layers=tuple(range(self.model.atlas.n_layers)), columns=tuple(range(self.n_columns)))

    @property
    def n_cells(self) -> int:
        """Cells of the sweep."""
        return self.model.atlas.n_layers * self.n_columns

    @property
    def n_timed(self) -> int:
        """Cells that the other side does."""
        return len(self.layers) * len(self.columns)

    def read(self, swept: Tensor) -> dict[str, Tensor]:
        """The cells to compare, in one row, of a sweep [layer column]."""
        return {"patched": swept[list(self.layers)][:, list(self.columns)].flatten()}

    @property
    def site(self) -> str:
        """What is patched."""
        return "resid_pre" if self.by == "position" else "attn.z"


def exact(work: PatchWork) -> ActivationPatchingResult:
    """Our whole sweep."""
    return activation_patching(work.model, work.clean, work.corrupted, **_asked(work))


def estimated(work: PatchWork) -> AttributionPatchingResult:
    """The same cells estimated from gradients, none of them checked."""
    return attribution_patching(work.model, work.clean, work.corrupted, check=0, **_asked(work))


def _asked(work: PatchWork) -> dict[str, Any]:
    return {
        "target": work.answer,
        "against": work.against,
        "metric": "logit_difference",
        "sites": (work.site,),
        "by": work.by,
    }


def ours(work: PatchWork) -> Side:
    """Our sweep, all of it: both runs and every cell."""
    return Side(
        row=work.row,
        name=OURS,
        call=lambda: exact(work),
        read=lambda found: work.read(found.patched[work.site][0]),
    )


def products_alone(work: PatchWork, rounds: int = 3) -> float:
    """Seconds of the matrix products of our sweep with nothing around them, at the sizes that it has them: the least of the rounds.

    No sweep that multiplies as much can be faster.
    """
    sizes: list[tuple[nn.Linear, int]] = []

    def note(module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        assert isinstance(module, nn.Linear), "hooked for that"
        sizes.append((module, args[0].numel() // module.in_features))

    handles = [m.register_forward_hook(note) for m in work.model.hf.modules() if isinstance(m, nn.Linear)]
    try:
        exact(work)
    finally:
        for handle in handles:
            handle.remove()
    inputs = {(m.in_features, rows): torch.randn(rows, m.in_features) for m, rows in sizes}

    def multiply() -> None:
        for module, rows in sizes:
            nn.functional.linear(inputs[module.in_features, rows], module.weight)

    return min(clock(multiply) for _ in range(rounds))


def transformer_lens(work: PatchWork) -> Side:
    """TransformerLens' ``get_act_patch_resid_pre`` or ``get_act_patch_attn_head_out_all_pos``; ImportError where it is absent.

    Where only some cells are asked for they go to the function that both are made of, and the seconds are scaled to all cells: every
    cell costs the same forward. The run that fills the clean cache is part of the call.
    """
    import pandas as pd
    from transformer_lens import patching
    from transformer_lens.model_bridge.sources._bridge_builder import build_bridge_from_module

    twin, model = copy_of(work.model.hf), work.model
    bridge: Any = build_bridge_from_module(
        twin, model.atlas.architecture, hf_config=twin.config, tokenizer=model.tokenizer
    )
    bridge.eval()
    clean, corrupted = torch.tensor([work.clean.ids]), torch.tensor([work.corrupted.ids])
    place = "pos" if work.by == "position" else "head_index"
    cells = pd.DataFrame(
        [(layer, column) for layer in work.layers for column in work.columns], columns=["layer", place]
    )

    def difference(logits: Tensor) -> Tensor:
        return logits[0, -1, work.answer] - logits[0, -1, work.against]

    def call() -> Tensor:
        with open(os.devnull, "w") as nowhere, contextlib.redirect_stderr(nowhere):  # its progress bar
            _, cache = bridge.run_with_cache(clean)
            asked = (bridge, corrupted, cache, difference)
            if work.n_timed == work.n_cells:
                whole = {
                    "pos": patching.get_act_patch_resid_pre,
                    "head_index": patching.get_act_patch_attn_head_out_all_pos,
                }
                return whole[place](*asked).flatten()
            setters = {"pos": patching.layer_pos_patch_setter, "head_index": patching.layer_head_vector_patch_setter}
            name = "resid_pre" if place == "pos" else "z"
            return patching.generic_activation_patch(
                *asked, patch_setter=setters[place], activation_name=name, index_df=cells
            )

    return Side(
        row=work.row,
        name=PEER,
        call=call,
        read=lambda found: {"patched": found},
        scale=work.n_cells / work.n_timed,
    )


def rows(model: Model, config: Config, goals: Mapping[str, Mapping[str, Any]], failures: list[str]) -> Iterator[Row]:
    """The rows of both sweeps for each pair, heads for the last pair only; then attribution patching beside the exact sweeps of that."""
    works = [PatchWork.of("patch_resid", model, pair, "position", config.patch_every) for pair in config.pairs]
    works.append(PatchWork.of("patch_heads", model, config.pairs[-1], "head", config.patch_every))
    for work in works:
        yield _row(work, config, goals[work.row], failures)
    for work in works[-2:]:
        yield _attribution_row(work, config.patch_rounds, goals["attribution"])


def _row(work: PatchWork, config: Config, goal: Mapping[str, Any], failures: list[str]) -> Row:
    columns = f"{work.n_columns} {'positions' if work.by == 'position' else 'heads over all positions'}"
    title = f"{goal['title']}, {work.model.atlas.n_layers} layers x {columns}, {work.name}"
    side = ours(work)
    try:
        peer = transformer_lens(work)
        far = check_equal(side, peer, TOLERANCE, difference)  # and a warm-up
        timings: dict[tuple[str, str], Timing] = measure([side], peer, config.patch_rounds, seed=SEED, warm_up=0)
        text = _note(work, far)
        alone = products_alone(work)
        text += (
            f" The matrix products of our sweep, with nothing around them, take {alone:.2f} s: "
            f"{alone / timings[peer.key].seconds.median:.3f} of the other's time."
        )
        if config.patch_whole:
            far, seconds = timed_check(ours(work.whole), transformer_lens(work.whole), TOLERANCE, difference)
            text += (
                f" Once every cell was run by it: {seconds:.1f} s, where the timed cells scaled give "
                f"{timings[peer.key].seconds.median:.1f} s; the greatest difference is {far:.1e}."
            )
    except PEER_FAULTS as fault:
        failures.append(f"{PEER}, {title}: {type(fault).__name__}: {fault}".splitlines()[0][:200])
        return Row(key=work.row, title=title, unit="ratio", ours="nothing to compare with", goal=goal["goal"])
    return timed_row(work.row, title, goal, timings, (OURS, peer.key), {}, far, text)


def _note(work: PatchWork, far: float) -> str:
    """What the page says of the row under the table."""
    function = "get_act_patch_resid_pre" if work.by == "position" else "get_act_patch_attn_head_out_all_pos"
    columns = "positions" if work.by == "position" else "heads"
    return (
        f"{in_words(torch.get_num_threads())}. Ours is the whole sweep, both runs included. Of the {work.n_cells} cells of "
        f"TransformerLens' `{function}` {work.n_timed} are timed (layers {listed(work.layers)}; {columns} {listed(work.columns)}) and "
        f"scaled, since each costs the same forward. The logit differences in these cells differ by {far:.1e} at most "
        f"(allowed {TOLERANCE:.0e})."
    )


def _attribution_row(work: PatchWork, rounds: int, goal: Mapping[str, Any]) -> Row:
    swept, guessed = exact(work), estimated(work)
    changes = torch.stack([guessed.estimated(work.site), swept.patched[work.site] - swept.corrupted_metric])[
        :, 0
    ].flatten(1)
    changes = changes[:, (changes != 0).any(0)]  # elsewhere nothing can change, which both know
    ranks = float(rank_correlation(changes.T))
    side = Side(row="attribution", name=OURS, call=lambda: estimated(work), read=lambda _: {})
    baseline = replace(ours(work), row="attribution", name="our exact sweep")
    timings: dict[tuple[str, str], Timing] = measure([side], baseline, rounds, seed=SEED, warm_up=0)
    columns = f"{work.n_columns} {'positions' if work.by == 'position' else 'heads'}"
    title = f"{goal['title']} of `{work.site}`, {work.model.atlas.n_layers} layers x {columns}, {work.name}"
    text = (
        f"{in_words(torch.get_num_threads())}. Two forwards and a backward, no cell checked, beside our exact sweep of the same cells. "
        f"It is an estimate: its rank correlation (Spearman) with the exact changes is {ranks:.2f} over the {changes.shape[1]} cells "
        "in which anything can change."
    )
    return replace(timed_row("attribution", title, goal, timings, (OURS, baseline.key), {}, 0.0, text), agreement=None)
