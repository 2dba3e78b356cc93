"""MEMIT: many facts at once, over several layers (Meng et al. 2023, algorithm 1). AlphaEdit does the same with another solver."""

from collections.abc import Callable, Mapping, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from interp.editing.matrix import output_matrix
from interp.editing.rewrite import Rewrite
from interp.editing.rome import Rewritten
from interp.editing.settings import EditSettings
from interp.editing.value import optimise_value
from interp.maths.rank_one import LowRank
from interp.models.atlas import module_at
from interp.models.norms import read_norm
from interp.models.progress import Step as Progress
from interp.models.progress import silent
from interp.runner.model import Model

Solve = Callable[[int, Tensor, Tensor], LowRank]
"""(layer, keys [d_mlp fact], residuals [d_model fact]) -> the change of that layer's matrix."""


def spread_changes(
    model: Model,
    rewrites: Sequence[Rewrite],
    layers: Sequence[int],
    solve: Solve,
    settings: EditSettings,
    write: Callable[[Mapping[int, LowRank]], None],
    progress: Progress | None = None,
) -> Rewritten:
    """Changes of all ``layers`` that together bring the stream after the last of them to where each fact's value asks.

    For each fact the stream at the subject's last token after the last layer is optimised. Then, layer by layer, each takes an equal
    share of what is still missing, with keys and streams of the model as edited so far; ``write`` puts the changes so far into it.
    """
    told = progress or silent
    last = layers[-1]
    wanted, curves = [], []
    for index, rewrite in enumerate(rewrites):
        value = optimise_value(model, rewrite, last, settings, place="block")
        wanted.append(value.start + value.delta)
        curves.append(value.curve)
        told("optimising values", index + 1, len(rewrites))
    changes: dict[int, LowRank] = {}
    for done, layer in enumerate(layers):
        keys, values, streams = _state(model, rewrites, layer, last)
        missing = (torch.stack(wanted, 1) - streams) / (len(layers) - done)
        # Second moments lie on the CPU, and float64 is not to be had on every device.
        changes[layer] = solve(layer, keys.cpu(), value_change(model, layer, values, missing).cpu())
        write(changes)
        told("editing layers", done + 1, len(layers))
    return Rewritten(changes=changes, curves=tuple(curves))


def value_change(
    model: Model, layer: int, values: Float[Tensor, "d_model fact"], updates: Float[Tensor, "d_model fact"]
) -> Float[Tensor, "d_model fact"]:
    """By how much the MLP's output must change so that what it adds to the stream changes by ``updates``.

    The same, but for a scale, where the output is added as it is. Where a norm lies between (gemma2, olmo2 and others) only the
    direction of the output counts: the new output points where the wanted update does, and is as long as the old.
    """
    block = model.atlas.blocks[layer]
    updates = updates / block.mlp_scale
    if block.ln2_post is None:
        return updates
    module = module_at(model.hf, block.ln2_post)
    assert module is not None, "the atlas checked this path"
    norm = read_norm(module)
    wanted = norm(values.T).T + updates
    if norm.bias is not None:
        wanted = wanted - norm.bias.float()[:, None]
    if norm.weight is not None:
        weight = norm.weight.detach().float()[:, None]
        wanted = wanted * weight / weight.square().clamp(min=1e-8 * float(weight.square().max()))
    return wanted * (values.norm(dim=0) / wanted.norm(dim=0)) - values


def _state(
    model: Model, rewrites: Sequence[Rewrite], layer: int, last: int
) -> tuple[Float[Tensor, "d_mlp fact"], Float[Tensor, "d_model fact"], Float[Tensor, "d_model fact"]]:
    """Each fact's key at ``layer``; the bare prompt's MLP output there and its stream after the layer ``last``.

    The key is the average of the bare prompt's and the mean over the sampled contexts, as in the paper's code, which averages
    within kinds of contexts first.
    """
    down = module_at(model.hf, output_matrix(model, layer).path)
    assert down is not None, "the matrix has a module"
    keys, values, streams = [], [], []
    for rewrite in rewrites:
        run = model.run(list(rewrite.prompts), capture=[f"mlp.post@{layer}", f"resid_post@{last}"], logits=False)
        own = run.cache[f"mlp.post@{layer}"][torch.arange(len(rewrite.prompts)), rewrite.positions]
        bare, others = own[0].float(), own[1:].float()
        keys.append((bare + others.mean(0)) / 2 if len(others) else bare)
        with torch.no_grad():
            values.append(down(own[0]).float())
        streams.append(run.cache[f"resid_post@{last}"][0, rewrite.positions[0]].float())
    return torch.stack(keys, 1), torch.stack(values, 1), torch.stack(streams, 1)
