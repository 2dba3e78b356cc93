"""Causal traces: ours, and one full forward for each cell as in the code of Meng et al. (2022)."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property, partial
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from experiments.benchmarks.config import SEED, Traced
from experiments.benchmarks.harness import Side, Timing, check_equal, difference, measure, timed_check
from experiments.benchmarks.rows import Row, timed_row
from experiments.benchmarks.sides import OURS, first
from interp.analyzers.causal_trace import causal_trace
from interp.analyzers.causal_trace_corruption import find_subject, noise_for
from interp.analyzers.causal_trace_result import CausalTraceResult
from interp.maths.tracing import window_layers
from interp.runner.model import Model
from interp.tokens import Tokens

NAIVE = "one full forward a cell"
TOLERANCE = 1e-5
"""Greatest difference of a restored probability of any cell and sample."""


@dataclass(frozen=True, kw_only=True, eq=False)
class TraceWork:
    """One causal trace, of one kind, and the cells of it that are done the naive way: ``layers`` by ``positions``."""

    row: str
    model: Model
    prompt: Tokens
    subject: tuple[int, ...]
    kind: str
    layers: tuple[int, ...]
    positions: tuple[int, ...]
    answer: int
    samples: int = 10
    window: int = 10

    @classmethod
    def of(cls, row: str, model: Model, traced: Traced, kind: str) -> "TraceWork":
        """The trace of the model's own answer."""
        tokens = model.tokens(traced.prompt)
        return cls(
            row=row,
            model=model,
            prompt=tokens,
            subject=find_subject(tokens, traced.subject).positions,
            kind=kind,
            layers=spread(model.atlas.n_layers, traced.every[0]),
            positions=spread(len(tokens), traced.every[1]),
            answer=int(model.run(tokens, logits="last").last_logits.argmax()),
        )

    @cached_property
    def noise(self) -> Tensor:
        """The noise of every sample, [sample pos d_model]: that which our trace draws with seed 0."""
        return noise_for(self.model, len(self.subject), samples=self.samples)

    @property
    def whole(self) -> "TraceWork":
        """The same with every cell done the naive way."""
        everywhere = range(len(self.prompt))
        return replace(self, layers=tuple(range(self.model.atlas.n_layers)), positions=tuple(everywhere))

    @property
    def n_cells(self) -> int:
        """Cells of the trace."""
        return self.model.atlas.n_layers * len(self.prompt)

    @property
    def n_naive(self) -> int:
        """Cells done the naive way."""
        return len(self.layers) * len(self.positions)


def spread(n: int, step: int) -> tuple[int, ...]:
    """Every ``step``-th of 0 to n - 1, and the last."""
    return tuple(sorted({*range(0, n, step), n - 1}))


def ours(work: TraceWork) -> Side:
    """Our trace, all of it: clean and corrupted runs and every cell."""

    def call() -> CausalTraceResult:
        return causal_trace(
            work.model,
            work.prompt,
            work.subject,
            work.answer,
            samples=work.samples,
            window=work.window,
            kinds=work.kind,
        )

    def read(found: CausalTraceResult) -> dict[str, Tensor]:
        return {"restored": found.restored_probability[0][list(work.layers)][:, list(work.positions)]}

    return Side(row=work.row, name=OURS, call=call, read=read)


def naive(work: TraceWork) -> Side:
    """The authors' way: for each cell a forward of the whole batch, a clean row and one a sample, with all logits.

    The seconds are those of the timed cells, scaled to all of them: every cell costs the same forward. The forwards that the authors
    need for the clean and the corrupted probability are left out.
    """

    def call() -> Tensor:
        rows = [torch.stack([_restored(work, layer, position) for position in work.positions]) for layer in work.layers]
        return torch.stack(rows)

    return Side(
        row=work.row,
        name=NAIVE,
        call=call,
        read=lambda found: {"restored": found},
        scale=work.n_cells / work.n_naive,
    )


def _restored(work: TraceWork, layer: int, position: int) -> Tensor:
    """The answer's probability in each sample with one cell restored, [sample]."""
    hf = work.model.hf
    ids = torch.tensor([work.prompt.ids]).expand(work.samples + 1, -1)
    handles = [
        hf.get_submodule(work.model.atlas.embed).register_forward_hook(
            partial(_corrupt, list(work.subject), work.noise)
        )
    ]
    for path in _paths(work, layer):
        handles.append(hf.get_submodule(path).register_forward_hook(partial(_restore, position)))
    try:
        logits = hf(ids, use_cache=False).logits
    finally:
        for handle in handles:
            handle.remove()
    return logits[1:, -1].softmax(-1)[:, work.answer]


def _paths(work: TraceWork, layer: int) -> Iterable[str]:
    """The modules whose outputs are restored for a cell of this layer."""
    blocks = work.model.atlas.blocks
    if work.kind == "resid":
        return [blocks[layer].block]
    layers = window_layers(layer, work.window, len(blocks))
    return [blocks[index].attn if work.kind == "attn" else str(blocks[index].mlp) for index in layers]


def _corrupt(subject: list[int], noise: Tensor, module: nn.Module, args: Any, output: Tensor) -> Tensor:
    changed = output.clone()
    changed[1:, subject] += noise
    return changed


def _restore(position: int, module: nn.Module, args: Any, output: Any) -> None:
    """In place, as the authors do it: the first row is clean."""
    stream = first(output)
    stream[1:, position] = stream[0, position]


def rows(model: Model, traces: Iterable[Traced], goals: Mapping[str, Mapping[str, Any]]) -> Iterator[Row]:
    """The rows of all traces: ``trace_<kind>`` for the first of them, ``trace_long`` for the others."""
    for index, traced in enumerate(traces):
        for kind in traced.kinds:
            key = "trace_long" if index else f"trace_{kind}"
            yield _row(TraceWork.of(key, model, traced, kind), traced, goals[key], whole=kind == traced.kinds[0])


def _row(work: TraceWork, traced: Traced, goal: Mapping[str, Any], *, whole: bool) -> Row:
    side, baseline = ours(work), naive(work)
    far = check_equal(side, baseline, TOLERANCE, difference)  # and a warm-up
    timings: dict[tuple[str, str], Timing] = measure([side], baseline, traced.rounds, seed=SEED, warm_up=0)
    text = _note(work, far)
    if whole and traced.whole:
        far, seconds = timed_check(ours(work.whole), naive(work.whole), TOLERANCE, difference)
        scaled = timings[baseline.key].seconds.median
        text += (
            f" Once every cell was run in full: {seconds:.1f} s, where the timed cells scaled give {scaled:.1f} s; the greatest "
            f"difference is {far:.1e}."
        )
    title = f"{goal['title']}, {work.model.atlas.n_layers} layers x {traced.name} x {work.samples} samples"
    return timed_row(work.row, title, goal, timings, (OURS, baseline.key), {}, far, text)


def _note(work: TraceWork, far: float) -> str:
    """What the page says of the row under the table."""
    window = "" if work.kind == "resid" else f" in windows of {work.window} layers"
    return (
        f"{in_words(torch.get_num_threads())}. Ours is the whole trace{window}. The other is plain Hugging Face with hooks, a batch of "
        f"one clean and {work.samples} noisy rows, all logits; of its {work.n_cells} cells {work.n_naive} are timed (layers "
        f"{listed(work.layers)}; positions {listed(work.positions)}) and scaled, since each costs the same forward. The probabilities in "
        f"these cells, sample by sample, differ by {far:.1e} at most (allowed {TOLERANCE:.0e})."
    )


def in_words(n_threads: int) -> str:
    """A number of threads as the page has it."""
    return "one thread" if n_threads == 1 else f"{n_threads} threads"


def listed(indices: tuple[int, ...]) -> str:
    """Indices as text; a long run of neighbours by its ends."""
    together = all(after - before == 1 for before, after in pairwise(indices))
    return f"{indices[0]} to {indices[-1]}" if together and len(indices) > 3 else ", ".join(map(str, indices))
