"""Runs prompts, and shuffles of them, and keeps of every pattern row only its measures."""

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from einops import rearrange
from jaxtyping import Float, Int
from torch import Generator, Tensor
from torch.nn.functional import pad

from interp.errors import is_out_of_memory
from interp.maths.head_profiles import (
    CONTENT,
    SHAPE,
    content_targets,
    explained_by_position,
    offset_sums,
    permuted_keys,
    prompt_means,
    row_measures,
    row_names,
    visible_keys,
)
from interp.models.cache import Step
from interp.runner.model import Model
from interp.runner.plan import Capture
from interp.sites import Site
from interp.tokens import Tokens

_NUMBERS_AT_ONCE = 1 << 24
"""Numbers kept of the rows of one run: 64 MB in fp32."""


@dataclass(frozen=True, kw_only=True, eq=False)
class PromptRows:
    """Of every prompt and its shuffles the means of the row measures, and what the other formulas need, on the CPU.

    ``draw`` 0 is the prompt as it is, the others are its shuffles. ``means`` and ``permuted`` are in the order of ``row_names``
    without its last two; ``permuted`` is NaN for content. ``first`` is each row's mass on position 0, ``sums`` the mass by distance,
    ``squares`` and ``spread`` each pattern's sum of squares about 0 and about the rows' means, first row left out.
    """

    means: Float[Tensor, "sample draw layer head measure"]
    permuted: Float[Tensor, "sample layer head measure"]
    first: Float[Tensor, "sample draw layer head query_pos"]
    sums: Float[Tensor, "sample draw layer head distance"]
    squares: Float[Tensor, "sample draw layer head"]
    spread: Float[Tensor, "sample draw layer head"]
    lengths: Int[Tensor, " sample"]

    def samples(
        self,
    ) -> tuple[
        Float[Tensor, "sample measure layer head"],
        Float[Tensor, "sample measure layer head"],
        Float[Tensor, "sample measure layer head"],
    ]:
        """Value, null and value on shuffled content of each prompt, the measures in the order of ``measures_of``."""
        every = torch.cat([self.means.double(), self._explained()[..., None]], -1)
        value, shuffled = every[:, 0], every[:, 1:].mean(1)
        null = torch.cat([self.permuted.double(), shuffled[..., -1:]], -1)
        content = slice(-1 - len(SHAPE) - len(CONTENT), -1 - len(SHAPE))
        null[..., content] = shuffled[..., content]
        order = "sample layer head measure -> sample measure layer head"
        value, null, shuffled = (rearrange(part, order) for part in (value, null, shuffled))
        return value, null, shuffled

    def _explained(self) -> Float[Tensor, "sample draw layer head"]:
        """``explained_by_position`` of every draw among the same draw of the other prompts; a layer at a time bounds the memory."""
        found = []
        for layer in range(self.squares.shape[2]):
            first, sums = self.first[:, :, layer].flatten(1, 2), self.sums[:, :, layer].flatten(1, 2)
            squares, spread = self.squares[:, :, layer].flatten(1), self.spread[:, :, layer].flatten(1)
            found.append(explained_by_position(first, sums, squares, spread, self.lengths))
        return torch.stack(found, 2).unflatten(1, (self.squares.shape[1], -1)).transpose(2, 3)


def measured_rows(
    model: Model,
    tokens: Sequence[Tokens],
    layers: Sequence[int],
    *,
    n_back: int,
    local: int,
    n_shuffles: int,
    generator: Generator,
    progress: Step | None,
) -> PromptRows:
    """Runs all prompts, those of like length together, as many at once as keep what is kept of them small.

    A run that does not fit in memory is made again in halves, and the model's listener is told.
    """
    shuffles = [_shuffles(model, item, n_shuffles, generator) for item in tokens]
    order = sorted(range(len(tokens)), key=lambda index: len(tokens[index]))
    waiting = _buckets(tokens, order, len(layers) * model.atlas.n_heads * len(row_names(n_back)))
    found: dict[int, PromptRows] = {}
    while waiting:
        bucket = waiting.pop(0)
        reader = _Reader(model, [tokens[index] for index in bucket], layers, n_back, local)
        try:
            rows = reader.rows([[shuffles[index][draw] for index in bucket] for draw in range(n_shuffles)])
        except (MemoryError, RuntimeError) as error:
            if len(bucket) == 1 or not is_out_of_memory(error):
                raise
            half = len(bucket) // 2
            waiting[:0] = [bucket[:half], bucket[half:]]
            model.notify(f"{len(bucket)} prompts at once do not fit in memory; going on with {half}")
            continue
        found |= {index: _row(rows, place) for place, index in enumerate(bucket)}
        if progress is not None:
            progress("profiling prompts", len(found), len(tokens))
    return _joined([found[index] for index in range(len(tokens))])


class _Reader:
    """Reads the rows of a few prompts' patterns: once as they are, then at the same places of their shuffles."""

    def __init__(self, model: Model, tokens: Sequence[Tokens], layers: Sequence[int], n_back: int, local: int) -> None:
        self.model, self.tokens, self.layers = model, tokens, layers
        self.n_back, self.local = n_back, local
        self.lengths = torch.tensor([len(item) for item in tokens])
        self.windows = {layer: model.atlas.blocks[layer].window for layer in layers}
        self.n_pos = int(self.lengths.max())
        ids = torch.tensor([item.ids + (item.ids[-1],) * (self.n_pos - len(item)) for item in tokens])
        marks = torch.tensor([_punctuation(item) + [False] * (self.n_pos - len(item)) for item in tokens])
        self.targets = {
            window: content_targets(ids, marks, window).to(model.device) for window in set(self.windows.values())
        }

    def rows(self, shuffles: Sequence[Sequence[Tokens]]) -> PromptRows:
        """The measures of the prompts; each of ``shuffles`` is all of them with other tokens in place."""
        own, sums = self._run(self.tokens)
        permuted = [
            permuted_keys(part[..., -2], self.lengths, n_back=self.n_back, local=self.local, window=self.windows[layer])
            for layer, part in zip(self.layers, own, strict=True)
        ]
        draws = [self._draw(own, sums), *(self._draw(*self._run(shuffle)) for shuffle in shuffles)]
        means, first, masses, squares, spread = (torch.stack(parts, 1) for parts in zip(*draws, strict=True))
        return PromptRows(
            means=means,
            permuted=torch.stack(permuted, 1),
            first=first,
            sums=masses,
            squares=squares,
            spread=spread,
            lengths=self.lengths,
        )

    def _draw(self, rows: Sequence[Tensor], sums: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """What is kept of one run: means, first, sums, squares and spread of ``PromptRows``, [batch layer head ...]."""
        place = row_names(self.n_back).index("first_token")
        means, squares, spread = [], [], []
        for layer, part in zip(self.layers, rows, strict=True):
            row_sum, square = part[..., -2], part[..., -1]
            about_mean = square - row_sum.square() / visible_keys(self.n_pos, self.windows[layer])
            means.append(prompt_means(part[..., :-2], self.lengths))
            squares.append(square[..., 1:].nansum(-1))
            spread.append(about_mean[..., 1:].nansum(-1))
        kept = (means, [part[..., place] for part in rows], sums, squares, spread)
        return tuple(torch.stack(list(parts), 1) for parts in kept)

    def _run(self, tokens: Sequence[Tokens]) -> tuple[list[Tensor], list[Tensor]]:
        """Each layer's row measures [batch head query_pos measure] and mass by distance [batch head distance], on the CPU."""
        sums: dict[int, Tensor] = {}

        def reduce(rows: Tensor, site: Site, first_query: int) -> Tensor:
            assert site.layer is not None
            window, last = self.windows[site.layer], first_query + rows.shape[2]
            part = pad(offset_sums(rows, first_query), (0, self.n_pos - rows.shape[3])).cpu()
            sums[site.layer] = sums[site.layer] + part if site.layer in sums else part
            return row_measures(
                rows,
                self.targets[window][:, :, first_query:last, : rows.shape[3]].to(rows.device),
                first_query,
                n_back=self.n_back,
                local=self.local,
                window=window,
            )

        captures = [Capture(Site("attn.pattern", layer), reduce, by_query=True) for layer in self.layers]
        cache = self.model.run(list(tokens), captures, logits=False).cache
        rows = [cache[Site("attn.pattern", layer).name].cpu() for layer in self.layers]
        return rows, [sums[layer] for layer in self.layers]


def _shuffles(model: Model, tokens: Tokens, n_shuffles: int, generator: Generator) -> list[Tokens]:
    """The prompt with its tokens in another order; position 0 and special tokens stay where they are."""
    special = set(getattr(model.tokenizer, "all_special_ids", ()))
    free = [place for place in range(1, len(tokens)) if tokens.ids[place] not in special]
    shuffled = []
    for _ in range(n_shuffles):
        ids = list(tokens.ids)
        for place, source in zip(free, torch.randperm(len(free), generator=generator).tolist(), strict=True):
            ids[place] = tokens.ids[free[source]]
        shuffled.append(replace(tokens, ids=tuple(ids)))
    return shuffled


def _punctuation(tokens: Tokens) -> list[bool]:
    """Which tokens are punctuation: nothing but characters of Unicode's categories P, or line breaks, apart from spaces."""
    return [is_punctuation(piece) for piece in tokens.pieces]


def is_punctuation(piece: str) -> bool:
    """Whether a token's text is punctuation or a line break, with or without spaces around it."""
    core = piece.strip()
    return all(unicodedata.category(character)[0] == "P" for character in core) if core else "\n" in piece


def _buckets(tokens: Sequence[Tokens], order: Sequence[int], width: int) -> list[list[int]]:
    """Prompts of like length together; ``width`` numbers are kept of each position."""
    buckets: list[list[int]] = []
    for index in order:
        longest = len(tokens[index])
        rows = len(buckets[-1]) + 1 if buckets else 1
        if buckets and rows * longest * width <= _NUMBERS_AT_ONCE and longest <= 1.25 * len(tokens[buckets[-1][0]]):
            buckets[-1].append(index)
        else:
            buckets.append([index])
    return buckets


def _row(rows: PromptRows, place: int) -> PromptRows:
    """One prompt's part of a batch."""
    one = slice(place, place + 1)
    parts: dict[str, Any] = {name: getattr(rows, name)[one] for name in PromptRows.__dataclass_fields__}
    return PromptRows(**parts)


def _joined(rows: Sequence[PromptRows]) -> PromptRows:
    """Prompts side by side; what goes by position is filled up with zeros to the longest."""
    width = max(part.first.shape[-1] for part in rows)
    joined: dict[str, Any] = {}
    for name in PromptRows.__dataclass_fields__:
        values = [getattr(part, name) for part in rows]
        if name in ("first", "sums"):
            values = [pad(value, (0, width - value.shape[-1])) for value in values]
        joined[name] = torch.cat(values)
    return PromptRows(**joined)
