"""The forwards of an ablation: what stands in for the ablated outputs, and every prompt without every component."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from interp.analyzers.ablation_texts import LOSS, Item
from interp.analyzers.ablation_units import Component, components_of, sites_of, without
from interp.analyzers.metrics import Metric, MetricLike
from interp.analyzers.sweep import Part, read_metrics, request_key, sweep, tokens_at_once
from interp.checkpoint import Checkpoint
from interp.errors import UsageError
from interp.maths.ablation import PlaceMeans, drawn_sources, place_sums
from interp.models.cache import Step
from interp.models.progress import silent
from interp.runner.model import Model
from interp.runner.plan import Capture
from interp.runner.run import Run
from interp.sites import Site
from interp.tokens import Tokens

_LOGITS_AT_ONCE = 1024
"""Rows x positions whose logits over the whole vocabulary are held at once."""
_TOKENS_A_PART = 4096
"""Rows x positions of a part of the work that is kept when it is stopped. Fixed, so that the next call finds its parts again."""

Means = Mapping[Site, PlaceMeans]


@dataclass(frozen=True, kw_only=True, eq=False)
class Ablating:
    """One ablation of ``units`` in ``layers`` on ``items``.

    ``pool`` are the texts that means and draws come from; with ``own_pool`` they are the items themselves. ``positions`` are those
    ablated in each item, None for all.
    """

    model: Model
    items: Sequence[Item]
    metric: MetricLike
    units: Sequence[str]
    layers: Sequence[int]
    method: str
    pool: Sequence[Tokens]
    own_pool: bool
    positions: Sequence[tuple[int, ...] | None]
    samples: int
    seed: int
    step: Step

    def run(
        self, kept: Checkpoint
    ) -> tuple[Float[Tensor, " batch"], dict[str, Float[Tensor, "batch layer *head sample"]]]:
        """The metric of each prompt, of the whole model and, by unit, without each component."""
        means = self._means() if self.method == "mean" else None
        whole, rows, done = [], [], 0
        for index, drawn in enumerate(self.sources):
            own, found = self._item(index, means, kept, done)
            done += 1 + found.numel()
            order = sorted(set(drawn))
            whole.append(own)
            rows.append(found[:, [order.index(source) for source in drawn]])
        return self._by_prompt(torch.stack(whole)), self._by_unit(self._by_prompt(torch.stack(rows)))

    def key(self) -> Mapping[str, Any]:
        """What this work is, for its checkpoint."""
        return request_key(
            self.model,
            what="ablation",
            items=[(item.tokens.ids, item.scored_from, item.answer_ids) for item in self.items],
            pool=[] if self.method == "zero" else [text.ids for text in self.pool],
            metric=self.metric if isinstance(self.metric, str) else "custom",
            units=tuple(self.units),
            layers=tuple(self.layers),
            method=self.method,
            positions=tuple(self.positions),
            sources=self.sources,
        )

    @cached_property
    def components(self) -> tuple[Component, ...]:
        """Everything that is taken out, in the order of its rows."""
        n_heads = self.model.atlas.n_heads
        return tuple(found for unit in self.units for found in components_of(unit, self.layers, n_heads))

    @cached_property
    def sources(self) -> list[tuple[int, ...]]:
        """For each item the text of the pool that each draw takes; one nominal source where nothing is drawn."""
        if self.method != "resample":
            return [(0,)] * len(self.items)
        lengths, pool = [len(item.tokens) for item in self.items], [len(text) for text in self.pool]
        generator = torch.Generator().manual_seed(self.seed)
        found = drawn_sources(lengths, pool, self.samples, generator, same=self.own_pool)
        for item, length, drawn in zip(self.items, lengths, found, strict=True):
            if not drawn:
                others = "the prompts have no other" if self.own_pool else f"the longest has {max(pool)}"
                raise UsageError(
                    f"no reference text is as long as prompt {item.prompt}, {length} tokens ({others}); "
                    "give reference= texts that are, or method='mean'"
                )
        return found

    @cached_property
    def _sites(self) -> tuple[Site, ...]:
        return sites_of(self.units, self.layers)

    @cached_property
    def _total(self) -> int:
        """Runs in all: each item whole, and without each component for each of its sources."""
        return sum(1 + len(self.components) * len(set(drawn)) for drawn in self.sources)

    def _item(self, index: int, means: Means | None, kept: Checkpoint, done: int) -> tuple[Tensor, Tensor]:
        """The metric of one item, whole [] and without each component [component source], its distinct sources in order.

        ``done`` runs of all were made before.
        """
        sources = sorted(set(self.sources[index]))
        size = max(1, _TOKENS_A_PART // len(self.items[index].tokens))
        firsts = range(0, len(self.components), size)
        names = [f"{index}/whole", *(f"{index}/{source}/{first}" for source in sources for first in firsts)]
        if any(kept.get(name) is None for name in names):
            self._measure(index, sources, size, means, kept, done)
        whole, *parts = (_known(kept, name) for name in names)
        return whole[0, 0], torch.cat(parts)[:, 0].unflatten(0, (len(sources), -1)).T

    def _measure(
        self, index: int, sources: Sequence[int], size: int, means: Means | None, kept: Checkpoint, done: int
    ) -> None:
        """Puts into ``kept`` what it has not of one item, in parts of ``size`` components."""
        run, whole, metric = self._whole(self.items[index])
        kept.put(f"{index}/whole", whole)
        done += 1
        for source in sources:
            values = self._values(index, source, means)
            rows = [without(component, values, self.positions[index]) for component in self.components]
            chunks = {first: rows[first : first + size] for first in range(0, len(rows), size)}
            parts = [
                Part(name=f"{index}/{source}/{first}", rows=chunk, prompts=[0] * len(chunk), start=self._start)
                for first, chunk in chunks.items()
            ]
            told = partial(self._tell, done)
            sweep(run, parts, [metric], what="ablation", progress=told, kept=kept, token_budget=self._budget(run))
            done += len(rows)

    def _tell(self, before: int, what: str, done: int, _: int | None) -> None:
        self.step(what, before + done, self._total)

    @property
    def _start(self) -> tuple[int, int] | None:
        """The loss is of every token, so that all positions run again."""
        return (self.model.atlas.n_layers, 0) if self.metric == LOSS else None

    def _budget(self, run: Run) -> int | None:
        return min(tokens_at_once(run), _LOGITS_AT_ONCE) if self.metric == LOSS else None

    def _whole(self, item: Item) -> tuple[Run, Tensor, Metric]:
        """The resumable run of an item, its metric [1 1], and how that is read."""
        if item.question is None:
            run, metric = self.model.run(item.tokens, resumable=True, logits=False), item.metric(self.metric, None)
            nothing = Part(name="whole", rows=[[]], prompts=[0], start=self._start)
            found = sweep(run, [nothing], [metric], what="", progress=silent, kept=Checkpoint(None, {}))
            return run, found["whole"], metric
        n_logits = 1 if callable(self.metric) else item.question.n_answer
        run = self.model.run(item.tokens, resumable=True, logits=list(range(-n_logits, 0)))
        metric = item.metric(self.metric, run.logits)
        return run, read_metrics(run, [metric]), metric

    def _values(self, index: int, source: int, means: Means | None) -> dict[Site, Tensor] | None:
        """What stands in for each site at every position of an item; None for zeros."""
        n_pos = len(self.items[index].tokens)
        if means is not None:
            return {site: found.result(n_pos).to(self.model.device, self.model.dtype) for site, found in means.items()}
        if self.method == "zero":
            return None
        cut = [Capture(site, lambda value, _: value[0, :n_pos].clone()) for site in self._sites]
        cache = self.model.run(self.pool[source], cut, logits=False).cache
        return {site: cache[site.name] for site in self._sites}

    def _means(self) -> Means:
        """The means of every site over the pool, each text of which runs once."""
        if max(map(len, self.pool)) < 2 <= max(len(item.tokens) for item in self.items):
            raise UsageError("every reference text has one token, so later positions have no mean; give longer ones")
        means = {site: PlaceMeans() for site in self._sites}
        for done, text in enumerate(self.pool):
            self.step("reference texts", done, len(self.pool))
            cache = self.model.run(
                text, [Capture(site, lambda value, _: place_sums(value)) for site in means], logits=False
            ).cache
            for site, mean in means.items():
                mean.update(cache[site.name], len(text))
        self.step("reference texts", len(self.pool), len(self.pool))
        return means

    def _by_prompt(self, values: Tensor) -> Tensor:
        """Items [item ...] as prompts [batch ...]: the pieces of a text count by the tokens that are scored in them."""
        places = torch.tensor([item.prompt for item in self.items])
        weights = torch.zeros(int(places.max()) + 1, len(self.items), dtype=torch.float64)
        weights[places, range(len(self.items))] = torch.tensor([float(item.weight) for item in self.items]).double()
        return torch.tensordot(weights / weights.sum(1, keepdim=True), values.double(), dims=1).float()

    def _by_unit(self, values: Tensor) -> dict[str, Tensor]:
        """[batch component sample] as [batch layer *head sample] of each unit."""
        counts = [sum(component.unit == unit for component in self.components) for unit in self.units]
        return {
            unit: part.unflatten(1, (len(self.layers), self.model.atlas.n_heads) if unit == "heads" else (-1,)).clone()
            for unit, part in zip(self.units, values.split(counts, 1), strict=True)
        }


def _known(kept: Checkpoint, name: str) -> Tensor:
    part = kept.get(name)
    assert part is not None, f"the part {name} was measured"
    return part
