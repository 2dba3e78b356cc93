"""Exact resuming: re-executes only the layers and positions that a change can reach.

A change at (layer, position) reaches later layers, and positions from its own on. A resumable run keeps the residual stream entering
each block and the attention keys and values (a ``Snapshot``). Resuming replays the model's own forward on the tokens from the first
changed position: keys and values before it come from the snapshot through the KV cache, blocks below the first changed layer are
passed over, and rows of the batch that start at a higher layer join when the forward gets there. Only wanted logits are unembedded.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from transformers.cache_utils import Cache

from interp.cache import ActivationCache
from interp.errors import UsageError, is_out_of_memory
from interp.interventions import Intervention
from interp.models.atlas import module_at
from interp.models.offload import arriving
from interp.runner.forward import forward
from interp.runner.last_block import only_at
from interp.runner.passing import passing_over
from interp.runner.plan import Logits, Plan, Request, logit_columns
from interp.runner.rows import Locator, Row, shared
from interp.runner.session import Session, blank_padding
from interp.runner.snapshot import PrefixLayer, Snapshot

if TYPE_CHECKING:
    from interp.runner.model import Model
    from interp.runner.run import Run

DEFAULT_TOKEN_BUDGET = 4096
"""Positions times rows that one resumed forward computes at once, unless told otherwise."""

_FIXED_BATCH = frozenset({"GPTBigCodeForCausalLM"})
"""Architectures that reshape to the batch they were called with, so that no row can join on the way."""


Read = Callable[[Float[Tensor, "batch pos d_vocab"], Sequence[int]], Tensor]
"""Takes what is wanted out of the logits of some rows, given the prompt of each; its first axis is the rows."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Resumed:
    """Rows of a resumed run, in the order they were asked for.

    ``logits`` are [batch pos d_vocab], a batch row for each row asked; where they were read instead, ``values`` [batch ...] is what
    was taken out of them. ``cache`` holds captures from ``first_position`` on.
    """

    logits: Float[Tensor, "batch pos d_vocab"] | None
    cache: ActivationCache
    first_position: int
    values: Float[Tensor, "batch ..."] | None = None


def resume(
    run: "Run",
    rows: Sequence[Intervention | Sequence[Intervention]],
    *,
    prompts: Sequence[int] | None = None,
    start: tuple[int, int] | None = None,
    logits: Logits = "last",
    capture: Request = (),
    token_budget: int = DEFAULT_TOKEN_BUDGET,
    read: Read | None = None,
    progress: Callable[[int], None] | None = None,
) -> Resumed:
    """Re-executes a resumable run once for each row of interventions, several rows at a time.

    ``prompts[i]`` is the prompt of the run that row i changes (default 0). ``start`` re-executes from that (layer, position) even
    where no change asks for it; ``rows=[[]]`` with a start is a plain restart. ``logits`` and ``capture`` are as in ``model.run``;
    logit positions before a row's first changed position do not exist in it and are an error. Captures begin at the earliest
    position of all rows. ``token_budget`` bounds rows x positions computed at once; running out of memory halves it. Logits of many
    rows are large: ``read(logits, prompts)`` takes what is wanted out of those of some rows at a time, and only that is kept.
    ``progress`` is told how many rows were just done. An intervention that several rows share, as one object, is applied to all of
    them at once.

    The numbers equal those of a full forward up to the rounding of other batch shapes: 1e-4 in fp32.
    Raises UsageError when the run was not made with ``resumable=True``.
    """
    if run.snapshot is None:
        raise UsageError("this run cannot be resumed; make it with model.run(..., resumable=True)")
    model, snapshot = run.model, run.snapshot
    origin = [0] * len(rows) if prompts is None else list(prompts)
    if len(origin) != len(rows) or not all(0 <= prompt < len(run.tokens) for prompt in origin):
        raise UsageError(f"prompts must give one of 0 to {len(run.tokens) - 1} for each of the {len(rows)} rows")
    captures = bool(Plan(model.sites).capture(capture))
    locate = Locator(model, snapshot.batch, start, early=not captures)
    layout = [locate.row(i, origin[i], row) for i, row in enumerate(rows)]
    earliest = min((row.position for row in layout), default=0)
    parts: dict[int, Tensor] = {}
    captured: dict[int, dict[Any, Tensor]] = {}
    together = captures or not (isinstance(logits, str) and logits == "last")
    for group in _groups(layout, together=together):
        first = earliest if together else group[0].position
        asked = _Asked(first, logits, capture if captures else (), read)
        _run_group(model, snapshot, group, asked, token_budget, progress or _unwatched, parts, captured)
    stacked = {site: torch.stack([captured[i][site] for i in range(len(rows))]) for site in captured.get(0, {})}
    found = torch.stack([parts[i] for i in range(len(rows))]) if parts else None
    return Resumed(
        logits=found if read is None else None,
        values=None if read is None else found,
        cache=ActivationCache(stacked, model.atlas.n_layers),
        first_position=earliest,
    )


def _unwatched(n_rows: int) -> None:
    """Progress that nobody follows."""


@dataclass(frozen=True, eq=False)
class _Asked:
    """What is wanted of some rows that run together from the position ``first`` on."""

    first: int
    logits: Logits
    capture: Request
    read: Read | None


def _groups(layout: Sequence[Row], *, together: bool) -> Iterator[list[Row]]:
    """Rows that run in one forward: those that start at the same position, or all.

    Rows that change the embeddings run apart: the model makes its mask for as many rows as enter there.
    """
    positions = {0} if together else sorted({row.position for row in layout})
    for position in positions:
        group = [row for row in layout if together or row.position == position]
        yield from filter(None, ([row for row in group if row.layer < 0], [row for row in group if row.layer >= 0]))


def _run_group(
    model: "Model",
    snapshot: Snapshot,
    group: list[Row],
    asked: _Asked,
    token_budget: int,
    progress: Callable[[int], None],
    parts: dict[int, Tensor],
    captured: dict[int, dict[Any, Tensor]],
) -> None:
    """Runs a group in chunks that keep within the budget; out of memory halves the chunk and says so."""
    width = snapshot.batch.n_pos - asked.first
    ordered = sorted(group, key=lambda row: row.layer)
    size = max(1, token_budget // width)
    done = 0
    while done < len(ordered):
        chunk = ordered[done : done + size]
        try:
            output, session = _run_chunk(model, snapshot, chunk, asked)
            if output is not None and asked.read is not None:
                output = asked.read(output, [row.prompt for row in chunk])
        except (MemoryError, RuntimeError) as error:
            if size == 1 or not is_out_of_memory(error):
                raise
            size = max(1, min(size, len(chunk)) // 2)
            model.notify(f"out of memory: going on with {size} rows at once")
            continue
        for i, row in enumerate(chunk):
            if output is not None:
                parts[row.index] = output[i]
            captured[row.index] = {site: tensor[i] for site, tensor in session.captured.items()}
        done += len(chunk)
        progress(len(chunk))


def _run_chunk(model: "Model", snapshot: Snapshot, chunk: list[Row], asked: _Asked) -> tuple[Tensor | None, Session]:
    atlas, batch, first, logits = model.atlas, snapshot.batch, asked.first, asked.logits
    prompts = [row.prompt for row in chunk]
    lengths = [batch.lengths[prompt] for prompt in prompts]
    plan = Plan(model.sites)
    captured = plan.capture(asked.capture)
    for intervention, places in shared(chunk):
        changed = [prompts[place] for place in places]
        plan.intervene(
            intervention,
            [batch.lengths[prompt] for prompt in changed],
            rows=places,
            prompts=changed,
            early=not captured,
        )
    # Captured rows are present from the first layer on; otherwise a row joins at its own layer.
    joins = [row.layer for row in chunk]
    fixed = not atlas.routed_attention or atlas.architecture in _FIXED_BATCH
    if captured or fixed:
        joins = [min([*joins, *(site.order[0] for site in captured)])] * len(chunk)
    if snapshot.changed_layer is not None and snapshot.changed_layer >= min(joins):
        raise UsageError(
            f"the run has an intervention in layer {snapshot.changed_layer}, which resuming from layer {min(joins)} would undo; "
            "make the run without it and give it in each row"
        )
    columns = None if logits is False else logit_columns(logits, lengths, batch.n_pos)
    columns = columns and [[position - first for position in row] for row in columns]
    if columns and min(position for row in columns for position in [0, *row]) < 0:
        raise UsageError(f"logits before position {first} are not re-executed; take them from the run itself")
    session = Session(
        visits=plan.visits(),
        n_rows=len(chunk),
        n_pos=batch.n_pos - first,
        offset=first,
        lengths=lengths if min(lengths) < batch.n_pos else None,
        needs_logits=logits is not False,
    )
    wave = _Wave(snapshot, prompts, joins, first)
    # What the model itself embeds only stands in until rows join; masks made for one row serve any number of them.
    entering = len(chunk) if fixed or joins[0] < 0 else 1
    arguments: dict[str, Any] = {"use_cache": False}
    if first:
        layers = [PrefixLayer(pair, first, prompts) for pair in snapshot.keys_values]
        arguments = {"use_cache": True, "past_key_values": Cache(layers=list(layers))}
    if model.takes_position_ids:
        arguments["position_ids"] = torch.arange(first, batch.n_pos, device=batch.ids.device)[None]
    with passing_over(model, max(joins[0], 0), snapshot.block_returns):
        output = forward(
            model.hf,
            batch.ids[prompts[:entering], first:],
            session,
            unembed=atlas.unembed,
            logit_columns=columns,
            before=lambda: [*wave.hooks(model), *only_at(model, session, columns)],
            **arguments,
        )
    if output is None or logits is False:
        return None, session
    ragged = columns is None and session.lengths is not None
    return (blank_padding(output.logits, 1, lengths, first) if ragged else output.logits), session


class _Wave:
    """Feeds rows into a forward: each enters at its own layer with the snapshot's stream."""

    def __init__(self, snapshot: Snapshot, prompts: Sequence[int], joins: Sequence[int], first: int) -> None:
        self.snapshot, self.prompts, self.first = snapshot, list(prompts), first
        self.rows_at: dict[int, list[int]] = {}
        for place, layer in enumerate(joins):
            self.rows_at.setdefault(layer, []).append(place)
        self.lowest = min(joins)

    def hooks(self, model: "Model") -> list[Any]:
        """Registers the hooks that let rows in."""
        handles = []
        for layer in self.rows_at:
            if layer < 0:  # the embeddings are changed: these rows come in through the model's own
                continue
            path = model.atlas.blocks[layer].block if layer < model.atlas.n_layers else model.final_path
            module = module_at(model.hf, path)
            assert module is not None, "the atlas checked this path"
            handles.append(module.register_forward_pre_hook(partial(self._join, layer), with_kwargs=True))
        return handles

    def _join(self, layer: int, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        stream = self.snapshot.stream[layer][[self.prompts[place] for place in self.rows_at[layer]], self.first :]
        running = args[0] if args else kwargs["hidden_states"]
        # Where the blocks before this one are on another device, both are brought to this one's.
        parts = [stream] if layer == self.lowest else [running, stream]
        joined = torch.cat([arriving(module, part) for part in parts]) if len(parts) > 1 else arriving(module, stream)
        return ((joined, *args[1:]), kwargs) if args else (args, {**kwargs, "hidden_states": joined})
