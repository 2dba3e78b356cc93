"""The interventions of path patching: what is exchanged in the first pass, and what the receivers get in the second."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from torch import Tensor

from interp.analyzers.path_patching_result import Receiver
from interp.analyzers.sweep import Part
from interp.heads import Head
from interp.interventions import Intervention, Patch
from interp.runner.plan import Capture
from interp.runner.run import Run
from interp.sites import Site


@dataclass(frozen=True, kw_only=True, eq=False)
class Reading:
    """Which tensors the receivers read: for each site the heads of that site."""

    heads: Mapping[Site, tuple[int, ...]]

    @classmethod
    def of(cls, receivers: Sequence[Receiver], share: int) -> "Reading":
        found: dict[Site, set[int]] = {}
        for receiver in receivers:
            index = receiver.head.head if receiver.input == "q" else receiver.head.head // share
            found.setdefault(Site(f"attn.{receiver.input}", receiver.head.layer), set()).add(index)
        return cls(heads={site: tuple(sorted(found[site])) for site in sorted(found, key=lambda site: site.order)})

    def behind(self, layer: int) -> "Reading":
        """Those in layers behind this one."""
        return Reading(heads={site: heads for site, heads in self.heads.items() if (site.layer or 0) > layer})


class Paths:
    """The interventions of the paths, made once and shared by all rows.

    ``base`` is resumable and holds attn.z (and mlp_out, to freeze it), ``source`` holds attn.z. ``columns`` are the positions at which
    the sender is patched.
    """

    def __init__(self, base: Run, source: Run, columns: Sequence[int], reading: Reading, *, freeze_mlps: bool) -> None:
        self.base, self.source, self.reading = base, source, reading
        self.columns, self.n_pairs = list(columns), len(base.tokens)
        self.reached = range(min(self.columns), len(base.tokens[0]))
        n_layers = base.model.atlas.n_layers
        self.end = n_layers if not reading.heads else max(site.layer or 0 for site in reading.heads)
        self._heads = {layer: self._held("attn.z", layer) for layer in range(1, self.end)}
        self._mlps = {layer: self._held("mlp_out", layer) for layer in range(self.end)} if freeze_mlps else {}

    def _held(self, kind: str, layer: int) -> Patch:
        """A site held at its value in the base run wherever the sender can reach."""
        value = self.base.cache[Site(kind, layer)][:, self.reached.start :]
        return Patch(Site(kind, layer).name, value, positions=tuple(self.reached), by_prompt=True)

    def first_pass(self, head: Head) -> list[Intervention]:
        """The sender from the source run; every later head, and frozen MLPs, from the base run."""
        site = Site("attn.z", head.layer)
        value = self.source.cache[site][:, self.columns, head.head : head.head + 1]
        row: list[Intervention] = [
            Patch(site.name, value, positions=tuple(self.columns), heads=head.head, by_prompt=True)
        ]
        for layer in range(head.layer, self.end):
            if layer > head.layer:
                row.append(self._heads[layer])
            if layer in self._mlps:
                row.append(self._mlps[layer])
        return row

    def part(self, name: str, heads: Sequence[Head], token_budget: int, *, known: bool = False) -> Part:
        """The rows whose logits are read, for senders of one layer: sender by sender, pair by pair.

        Empty ones where the part is ``known``: they are not run again.
        """
        rows: list[list[Intervention]] = [[] if known else self.first_pass(head) for head in heads]
        if self.reading.heads and not known:
            rows = self._second_pass(rows, self.reading.behind(heads[0].layer), token_budget)
        return Part(
            name=name,
            rows=[row for row in rows for _ in range(self.n_pairs)],
            prompts=list(range(self.n_pairs)) * len(rows),
        )

    def _second_pass(
        self, rows: Sequence[list[Intervention]], reading: Reading, token_budget: int
    ) -> list[list[Intervention]]:
        """What the receivers' inputs were in the first pass goes into the receivers of the base run and nowhere else."""
        received = self.base.resume(
            [row for row in rows for _ in range(self.n_pairs)],
            prompts=list(range(self.n_pairs)) * len(rows),
            logits=False,
            capture=[Capture(site, partial(_chosen, heads)) for site, heads in reading.heads.items()],
            token_budget=token_budget,
        )
        assert received.first_position == self.reached.start, "captures begin where the sender is patched first"
        found: list[list[Intervention]] = [[] for _ in rows]
        for site, heads in reading.heads.items():
            values = received.cache[site].unflatten(0, (len(rows), self.n_pairs))
            for row, value in zip(found, values, strict=True):
                row.append(Patch(site.name, value, positions=tuple(self.reached), heads=heads, by_prompt=True))
        return found


def _chosen(heads: tuple[int, ...], tensor: Tensor, site: Site) -> Tensor:
    return tensor[:, :, list(heads)]
