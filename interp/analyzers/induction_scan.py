"""How every head attends on repeated text: one forward that stops after the last pattern, and no pattern is kept."""

from collections.abc import Callable
from dataclasses import fields

import torch
from jaxtyping import Int
from torch import Tensor

from interp.errors import UsageError
from interp.maths.induction import Masses, Places, mass_sums, masses
from interp.runner.model import Model
from interp.runner.plan import Capture
from interp.sites import Site
from interp.tokens import Tokens, from_ids


def scan(model: Model, ids: Int[Tensor, "batch pos"], places: Places) -> Masses:
    """The attention of every head at the places of induction, [batch layer head], for texts of one length.

    A family whose patterns come from its eager attention alone runs that in place of its own.
    Raises UsageError for a model that shows no attention patterns.
    """
    check_patterns(model)
    gathered: dict[int, Tensor] = {}
    # The keys on every device that has a layer: a copy for each layer would take longer than what is done with it.
    copies = {device: _moved(places, device) for device in model.devices}
    reduce = _summing(gathered, copies)
    model.run(as_tokens(model, ids), Capture("attn.pattern", reduce, by_query=True), logits=False)
    sums = torch.stack([gathered[layer].to(ids.device) for layer in range(model.atlas.n_layers)], 1)
    return _on_cpu(masses(sums, places))


def check_patterns(model: Model) -> None:
    """Raises UsageError where a layer of the model shows no attention pattern."""
    if len(model.sites.available.get("attn.pattern", ())) < model.atlas.n_layers:
        raise UsageError(
            f"{model.atlas.architecture} shows no attention patterns as it is set up, so heads cannot be looked for; "
            "load the model with attn_implementation='eager'"
        )


def as_tokens(model: Model, ids: Int[Tensor, "batch pos"]) -> list[Tokens]:
    """Rows of ids as prompts, without the time it takes to decode them."""
    return [from_ids(None, row) for row in ids]


def _summing(gathered: dict[int, Tensor], places: dict[torch.device, Places]) -> Callable[[Tensor, Site, int], Tensor]:
    def reduce(rows: Tensor, site: Site, first_query: int) -> Tensor:
        assert site.layer is not None, "a pattern has a layer"
        sums = mass_sums(rows.float(), places[rows.device], first_query)
        gathered[site.layer] = gathered[site.layer] + sums if site.layer in gathered else sums
        return rows[..., :0].clone()

    return reduce


def _moved(places: Places, device: torch.device) -> Places:
    return Places(**{field.name: getattr(places, field.name).to(device) for field in fields(places)})


def _on_cpu(found: Masses) -> Masses:
    return Masses(**{field.name: getattr(found, field.name).cpu() for field in fields(found)})
