"""The same facts written with each second moment: the value of a fact is found once, in such a way that it does not depend on C."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Float64
from torch import Tensor

from experiments.rome.workshop import Workshop
from experiments.second_moment_corpus.moments import Tried
from interp.editing.contexts import sample_contexts
from interp.editing.edit import Edit
from interp.editing.maker import EditMaker
from interp.editing.rewrite import Rewrite, rewrite_of
from interp.editing.rome import edit_direction
from interp.editing.settings import EditSettings, settings_of
from interp.editing.value import optimise_value
from interp.maths.rank_one import key_direction, rank_one_change
from interp.runner.model import Model


@dataclass(frozen=True, kw_only=True, eq=False)
class Written:
    """One fact's edits by the name of the second moment; ``plain`` are the directions C^-1 k, ``used`` those that the edits hear with."""

    edits: dict[str, Edit]
    plain: dict[str, Float64[Tensor, " d_mlp"]]
    used: dict[str, Float64[Tensor, " d_mlp"]]


def write_all(shop: Workshop, layer: int, tried: Sequence[Tried]) -> tuple[Written, ...]:
    """Every fact with every second moment, where each prompt is told all of a value and no near miss takes part: so it is one for all."""
    settings = replace(settings_of("rome"), as_heard=False, overhearers=0)
    contexts = sample_contexts(shop.model, settings, shop.config.seed)
    matrices = [one.matrix for one in tried]
    found = []
    for number, case in enumerate(shop.singles):
        found.append(write(shop.model, rewrite_of(shop.model, case.fact, contexts), layer, tried, matrices, settings))
        shop.say(f"{number + 1} of {len(shop.singles)} facts written")
    return tuple(found)


def write(
    model: Model,
    rewrite: Rewrite,
    layer: int,
    tried: Sequence[Tried],
    matrices: Sequence[Float[Tensor, "d_mlp d_mlp"]],
    settings: EditSettings,
) -> Written:
    """One fact with every second moment; the edits are those of ``interp.edit_facts``."""
    started = time.perf_counter()
    value = optimise_value(model, rewrite, layer, settings)
    edits, plain, used = {}, {}, {}
    for one, matrix in zip(tried, matrices, strict=True):
        direction = edit_direction(model, rewrite, layer, matrix, settings)
        change = rank_one_change(value.delta.cpu(), direction.vector, direction.key)
        shown = replace(settings, shrinkage=one.shrinkage)
        maker = EditMaker(model, (rewrite.fact,), "rome", shown, "table", (one.name,))
        edits[one.name] = maker.edit({layer: change}, (value.curve,), time.perf_counter() - started)
        plain[one.name], used[one.name] = key_direction(matrix, direction.key), direction.vector
    return Written(edits=edits, plain=plain, used=used)


def cosines(written: Sequence[Written], name: str, other: str, *, plain: bool) -> Float64[Tensor, " sample"]:
    """For each fact the cosine between the directions of two second moments."""
    pairs = [(one.plain if plain else one.used) for one in written]
    return torch.stack([torch.cosine_similarity(pair[name], pair[other], dim=0) for pair in pairs])
