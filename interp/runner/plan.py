"""Compiles a request (captures, interventions, logits) into the visits of a session: hooks only where something is to be done."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal

from torch import Tensor

from interp.errors import UsageError
from interp.interventions import Intervention
from interp.models.atlas import Atlas
from interp.runner.ports import Binding, Port, available_sites
from interp.runner.selection import Selection, resolve, resolve_positions
from interp.runner.session import Change, Reducer, RowReducer, Visit
from interp.sites import Available, Site, parse_sites


@dataclass(frozen=True)
class Capture:
    """A request to capture a site, reduced as it is produced: ``reduce(tensor, site)`` is stored in place of the tensor.

    An analyzer that needs one number per head thus never stores a pattern. With ``by_query`` (``attn.pattern`` and ``attn.scores``)
    even one layer's pattern need not exist whole: ``reduce(rows, site, first_query)`` gets some consecutive queries at a time,
    ``rows`` [batch head query_pos key_pos], and returns a tensor with the same queries on axis 2, where the parts are joined.
    """

    site: str | Site
    reduce: Reducer | RowReducer | None = None
    by_query: bool = False


Request = str | Site | Capture | Iterable[str | Site | Capture]
Logits = Literal["all", "last"] | bool | int | Sequence[int]


@dataclass(frozen=True, eq=False)
class SiteTable:
    """What a model's sites are and where; made once for a model."""

    atlas: Atlas
    bindings: Mapping[Site, Binding]
    available: Available
    _parsed: dict[str, tuple[Site, ...]] = field(default_factory=dict)
    _watched: "dict[tuple[tuple[Any, ...], bool], Watched]" = field(default_factory=dict)

    @classmethod
    def of(cls, atlas: Atlas, bindings: dict[Site, Binding]) -> "SiteTable":
        """The table for these bindings."""
        return cls(atlas, bindings, available_sites(bindings))

    def sites(self, specs: str | Site | Iterable[str | Site]) -> tuple[Site, ...]:
        """The sites that ``specs`` name, in the order a forward reaches them."""
        if not isinstance(specs, str):
            return parse_sites(specs, self.available, self.atlas.n_layers)
        if specs not in self._parsed:
            self._parsed[specs] = parse_sites(specs, self.available, self.atlas.n_layers)
        return self._parsed[specs]

    def watched(
        self, capture: "Request", changes: Sequence[Intervention], lengths: Sequence[int], *, apart: bool
    ) -> "Watched":
        """What a run of prompts of these lengths watches; with ``apart`` its patterns are left to another forward.

        Captures by name alone are compiled once: for a short prompt that takes as long as taking them.
        """
        names = (capture,) if isinstance(capture, str) else capture if isinstance(capture, tuple | list) else ()
        by_name = bool(names) and not changes and all(isinstance(name, str) for name in names)
        key = (tuple(names), apart) if by_name else None
        if key is not None and key in self._watched:
            return self._watched[key]
        plan = Plan(self)
        captured = plan.capture(capture)
        for change in changes:
            plan.intervene(change, lengths)
        kept = plan.kept
        patterns = plan.take_out("attn.pattern") if apart else []
        watched = Watched(captured, kept, patterns, plan.visits(), plan.last_layer())
        if key is not None:
            self._watched[key] = watched
        return watched


@dataclass(frozen=True, eq=False)
class Watched:
    """A compiled request: ``captured`` sites, those ``kept`` as they are, patterns to be taken ``apart``, and what to do at each port.

    ``last_layer`` is the highest with a change: -1 for the embeddings, None if nothing is changed.
    """

    captured: tuple[Site, ...]
    kept: tuple[Site, ...]
    apart: list[Capture]
    visits: dict[Port, list[Visit]]
    last_layer: int | None


class Plan:
    """Visits by port, grown one capture or intervention at a time."""

    def __init__(self, table: SiteTable) -> None:
        self.table = table
        self._visits: dict[Site, Visit] = {}
        self._positions: list[int] = []

    def capture(self, request: Request) -> tuple[Site, ...]:
        """Adds captures and returns their sites."""
        items = (request,) if isinstance(request, str | Site | Capture) else tuple(request)
        found: list[Site] = []
        for item in items:
            asked = item if isinstance(item, Capture) else Capture(item)
            for site in self.table.sites(asked.site):
                if asked.by_query and (asked.reduce is None or "query_pos" not in site.info.axes):
                    raise UsageError(
                        f"by_query needs a reducer and a site with queries: attn.pattern or attn.scores; got {site.name}"
                    )
                visit = self._visit(site)
                visit.capture, visit.reduce, visit.by_query = True, asked.reduce, asked.by_query
                found.append(site)
        return tuple(dict.fromkeys(found))

    def intervene(
        self,
        intervention: Intervention,
        lengths: Sequence[int],
        *,
        rows: Sequence[int] | None = None,
        prompts: Sequence[int] | None = None,
        early: bool = False,
    ) -> None:
        """Adds an intervention for prompts of these lengths.

        ``rows`` places it in those rows of a resumed batch, which change the run's ``prompts``; lengths are then theirs. ``early``
        changes a block's output at the next block's input, where the same tensor enters, so that the block itself need not run.
        """
        if rows is not None and intervention.prompts is not None:
            raise UsageError("a resumed row is one prompt; leave prompts out of its interventions")
        for site in self.table.sites(intervention.site):
            n_heads = self.table.atlas.n_kv_heads if "kv_head" in site.info.axes else self.table.atlas.n_heads
            selection = resolve(intervention, site, lengths, n_heads)
            self._positions.append(selection.first_position)
            changed = range(len(lengths)) if selection.rows is None else selection.rows
            if rows is not None:
                selection = Selection(tuple(rows), selection.positions, selection.heads)
            values = partial(_values, intervention, site.name, tuple(changed if prompts is None else prompts))
            self._add(site, Change(site, selection, values, middle=site.kind == "resid_mid"), early)

    def _add(self, site: Site, change: Change, early: bool) -> None:
        at, layer = site, site.layer
        if site.kind == "resid_mid" and layer is not None:
            self._visit(Site("resid_pre", layer)).stash = True
            at = Site("attn_out", layer)
        elif early and site.kind == "resid_post" and layer is not None and layer + 1 < self.table.atlas.n_layers:
            at = Site("resid_pre", layer + 1)
        if self.table.bindings[at].computed:
            raise UsageError(
                f"the site {site.kind!r} can be captured but not changed; {_INSTEAD.get(site.kind, 'change resid_pre')}"
            )
        self._visit(at).changes.append(change)

    def _visit(self, site: Site) -> Visit:
        visit = self._visits.get(site)
        if visit is None:
            visit = self._visits[site] = Visit(self.table.bindings[site])
        return visit

    def take_out(self, kind: str) -> list[Capture]:
        """Removes the captures of one kind and returns them."""
        taken = [site for site, visit in self._visits.items() if site.kind == kind and visit.capture]
        visits = [(site, self._visits.pop(site)) for site in taken]
        return [Capture(site, visit.reduce, visit.by_query) for site, visit in visits]

    def visits(self) -> dict[Port, list[Visit]]:
        """Visits by port; at one port in the order of their sites."""
        ports: dict[Port, list[Visit]] = {}
        for _, visit in sorted(self._visits.items(), key=lambda item: item[0].order):
            ports.setdefault(visit.binding.port, []).append(visit)
        return ports

    def first_layer(self) -> int:
        """The lowest layer with a change: -1 for the embeddings, the number of layers if nothing is changed."""
        layers = [-1 if site.layer is None else site.layer for site, visit in self._visits.items() if visit.changes]
        return min(layers, default=self.table.atlas.n_layers)

    def last_layer(self) -> int | None:
        """The highest layer with a change: -1 for the embeddings, None if nothing is changed."""
        layers = [-1 if site.layer is None else site.layer for site, visit in self._visits.items() if visit.changes]
        return max(layers, default=None)

    def first_position(self, default: int) -> int:
        """The earliest position that a change touches."""
        return min(self._positions, default=default)

    @property
    def kept(self) -> tuple[Site, ...]:
        """The captured sites whose tensors are kept as they are, not reduced."""
        return tuple(site for site, visit in self._visits.items() if visit.capture and visit.reduce is None)


_INSTEAD = {
    "attn.result": "change attn.z, which it follows from",
    "attn.pattern": "this family computes attention inside its own module; change attn.z",
}


def _values(intervention: Intervention, name: str, prompts: Sequence[int], old: Tensor) -> Tensor:
    return intervention.values_of(old, name, prompts)


def logit_columns(logits: Logits, lengths: Sequence[int], n_pos: int) -> Sequence[Sequence[int]] | None:
    """The columns of each row to unembed; None for all. Raises UsageError for a position out of range."""
    if logits is True or (isinstance(logits, str) and logits == "all"):
        return None
    if isinstance(logits, str):
        if logits != "last":
            raise UsageError(
                f"unknown logits {logits!r}; valid: 'all', 'last', False, a position or a list of positions"
            )
        return None if n_pos == 1 else [[length - 1] for length in lengths]
    positions = (logits,) if isinstance(logits, int) else tuple(logits)
    return resolve_positions(positions, lengths)
