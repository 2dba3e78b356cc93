"""The second moment of a layer's keys: ours, and a plain forward of the same batches that is cut behind that layer."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from experiments.benchmarks.config import SEED, Measured
from experiments.benchmarks.harness import Side, check_equal, measure
from experiments.benchmarks.rows import Row, timed_row
from experiments.benchmarks.sides import OURS
from experiments.benchmarks.tracing import in_words
from interp.editing.second_moment_work import token_batches
from interp.editing.second_moments import SecondMoment, second_moments
from interp.runner.model import Model

ROW = "moments"
PLAIN = "forward cut at the layer"
STORED = "every key stored"
TOLERANCE = 1e-5
"""Greatest distance of two rows of C over the norm of the reference."""


@dataclass(frozen=True, kw_only=True, eq=False)
class MomentWork:
    """The second moment of one layer over texts of unlike lengths."""

    model: Model
    layer: int
    texts: tuple[tuple[int, ...], ...]
    batch_tokens: int

    @classmethod
    def of(cls, model: Model, measured: Measured) -> "MomentWork":
        """Texts of random tokens, their lengths spread evenly between the bounds."""
        generator = torch.Generator().manual_seed(SEED)
        shortest, longest = measured.lengths
        lengths = torch.linspace(shortest, longest, measured.texts).long().tolist()
        texts = [torch.randint(model.atlas.d_vocab, (n,), generator=generator).tolist() for n in lengths]
        return cls(
            model=model,
            layer=measured.layer,
            texts=tuple(map(tuple, texts)),
            batch_tokens=measured.batch_tokens,
        )

    @property
    def n_tokens(self) -> int:
        """Tokens that count."""
        return sum(map(len, self.texts))

    @property
    def padded(self) -> list[tuple[Tensor, Tensor]]:
        """The batches of our own call as ids [batch pos], and which of them are no padding."""
        found = []
        for batch in token_batches(self.texts, self.batch_tokens):
            longest = max(map(len, batch))
            ids = torch.tensor([[*text, *[text[-1]] * (longest - len(text))] for text in batch])
            real = torch.arange(longest) < torch.tensor([[len(text)] for text in batch])
            found.append((ids, real))
        return found


class _Cut(Exception):
    """Ends the plain forward."""


def ours(work: MomentWork) -> Side:
    """The whole call: batches, forwards, float64 sums, the mean."""

    def call() -> SecondMoment:
        return second_moments(work.model, work.layer, work.texts, batch_tokens=work.batch_tokens)[0]

    return Side(row=ROW, name=OURS, call=call, read=lambda found: {"C": found.matrix})


def plain(work: MomentWork) -> Side:
    """Hugging Face's forward of the same batches through all of the layer's block and no further. It gives no numbers."""
    batches = work.padded

    def call() -> None:
        handle = work.model.hf.get_submodule(work.model.atlas.blocks[work.layer].block).register_forward_hook(_cut)
        try:
            for ids, _ in batches:
                _run(work.model.hf, ids)
        finally:
            handle.remove()

    return Side(row=ROW, name=PLAIN, call=call, read=lambda nothing: {})


def stored(work: MomentWork) -> Side:
    """The same forwards with every key kept, and one product in float64 at the end."""
    batches = work.padded
    path = work.model.atlas.blocks[work.layer].down
    assert path is not None, "the layer has a dense MLP"

    def call() -> Tensor:
        seen: list[Tensor] = []

        def keep(module: nn.Module, args: Any) -> None:
            seen.append(args[0])
            raise _Cut

        handle = work.model.hf.get_submodule(path).register_forward_pre_hook(keep)
        try:
            for ids, _ in batches:
                _run(work.model.hf, ids)
        finally:
            handle.remove()
        keys = torch.cat([kept.view(*real.shape, -1)[real] for kept, (_, real) in zip(seen, batches, strict=True)])
        return keys.double().T @ keys.double() / len(keys)

    return Side(row=ROW, name=STORED, call=call, read=lambda matrix: {"C": matrix})


def _run(hf: nn.Module, ids: Tensor) -> None:
    try:
        hf(input_ids=ids, use_cache=False)
    except _Cut:
        return


def _cut(module: nn.Module, args: Any, output: Any) -> None:
    raise _Cut


def rows(model: Model, measured: Measured, goals: Mapping[str, Mapping[str, Any]]) -> Iterator[Row]:
    """The one row."""
    work, goal = MomentWork.of(model, measured), goals[ROW]
    mine, other, baseline = ours(work), stored(work), plain(work)
    far = check_equal(mine, other, TOLERANCE)
    timings = measure([mine, other], baseline, measured.rounds, seed=SEED)
    shortest, longest = measured.lengths
    note = (
        f"{in_words(torch.get_num_threads())}, {work.n_tokens:,} tokens in {len(work.texts)} texts of {shortest} to {longest}. The other "
        f"runs the same padded batches through block {work.layer} and keeps nothing; a ratio of 1.11 is 0.9 of its throughput. Products "
        f"and sums are in float64. Rows of C are {far:.1e} at most from those of the keys stored (allowed {TOLERANCE:.0e})."
    )
    title = f"{goal['title']}, layer {work.layer} of {model.atlas.n_layers}"
    yield timed_row(ROW, title, goal, timings, (OURS, baseline.key), {}, far, note)
