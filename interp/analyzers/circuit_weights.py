"""What the analyses of weights share: a layer's maps, the rotation that its queries get, the vocabulary's moments, what is left out."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, fields
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from interp.errors import UsageError
from interp.maths.head_circuits import Circuit, token_moment
from interp.models.head_weights import HeadWeights, read_head_weights
from interp.models.rotary import rotations
from interp.models.vocabulary import blocks_of_ids, embeddings, n_tokens, unembeddings
from interp.runner.model import Model

_CHECKED_POSITIONS = 4


def layer_weights(model: Model, layer: int) -> HeadWeights:
    """The folded weights of every head of a layer, keys and values repeated for the heads that share them.

    On the model's device, the first of several, or on the CPU where that device has no double precision.
    """
    weights = read_head_weights(model.hf, model.atlas, layer).expanded()
    place = model.device if model.device.type in ("cpu", "cuda") else torch.device("cpu")
    if weights.W_Q.device == place:
        return weights
    moved: dict[str, Any] = {
        field.name: None if (value := getattr(weights, field.name)) is None else value.to(place)
        for field in fields(weights)
    }
    return HeadWeights(**moved)


def qk_circuits(weights: HeadWeights, rotation: Float[Tensor, "d_head d_head"] | None = None) -> Circuit:
    """W_QK of every head of a layer, with queries rotated against keys where a rotation is given."""
    W_Q = weights.W_Q if rotation is None else weights.W_Q @ rotation.to(weights.W_Q)
    return Circuit(read=W_Q, write=weights.W_K)


def ov_circuits(weights: HeadWeights) -> Circuit:
    """W_OV of every head of a layer."""
    return Circuit(read=weights.W_V, write=weights.W_O.mT)


def one_of(circuits: Circuit, head: int) -> Circuit:
    """The circuit of one head of a layer."""
    return Circuit(read=circuits.read[head], write=circuits.write[head])


@dataclass(frozen=True, kw_only=True, eq=False)
class VocabularyMoments:
    """Second moments of the vocabulary: embeddings with unembeddings (``copying``) and with themselves (``matching``).

    ``mean_embedding`` and ``mean_unembedding`` are the means over the ``count`` tokens.
    """

    copying: Float[Tensor, "d_model d_model"]
    matching: Float[Tensor, "d_model d_model"]
    mean_embedding: Float[Tensor, " d_model"]
    mean_unembedding: Float[Tensor, " d_model"]
    count: int

    @property
    def copying_centred(self) -> Float[Tensor, "d_model d_model"]:
        """``copying`` with each logit taken relative to the mean over the vocabulary, which a softmax does not see."""
        return self.copying - torch.outer(self.mean_unembedding, self.mean_embedding)

    @property
    def matching_centred(self) -> Float[Tensor, "d_model d_model"]:
        """``matching`` with each score taken relative to the mean over the key's tokens."""
        return self.matching - torch.outer(self.mean_embedding, self.mean_embedding)


def vocabulary_moments(model: Model) -> VocabularyMoments:
    """The moments of a model's vocabulary, in one pass over its two tables, block by block."""
    count = n_tokens(model.hf, model.atlas)
    width = model.atlas.d_model
    sums = torch.zeros(2, width, dtype=torch.float64)

    def rows() -> Iterator[tuple[Tensor, Tensor]]:
        for ids in blocks_of_ids(count):
            e, u = embeddings(model.hf, model.atlas, ids), unembeddings(model.hf, model.atlas, ids)
            sums[0] += e.sum(0).cpu().double()
            sums[1] += u.sum(0).cpu().double()
            yield torch.cat([u.cpu(), e.cpu()], 1), e.cpu()

    both = token_moment(rows())
    return VocabularyMoments(
        copying=both[:width],
        matching=both[width:],
        mean_embedding=sums[0] / count,
        mean_unembedding=sums[1] / count,
        count=count,
    )


def embedding_blocks(model: Model) -> Iterator[tuple[Int[Tensor, " row"], Float[Tensor, "row d_model"]]]:
    """Ids and embeddings of the vocabulary, block by block."""
    for ids in blocks_of_ids(n_tokens(model.hf, model.atlas)):
        yield ids, embeddings(model.hf, model.atlas, ids)


def unembedding_blocks(model: Model) -> Iterator[tuple[Int[Tensor, " row"], Float[Tensor, "row d_model"]]]:
    """Ids and unembeddings (final norm's weight folded in) of the vocabulary, block by block."""
    for ids in blocks_of_ids(n_tokens(model.hf, model.atlas)):
        yield ids, unembeddings(model.hf, model.atlas, ids)


def checked_rotations(
    model: Model, layer: int, distances: Sequence[int]
) -> Float[Tensor, "distance d_head d_head"] | None:
    """R_n of a layer for each distance, found to be what the layer really does to its queries; None where it does not rotate.

    The check is a forward of one token repeated: each position then has the same query, and the model's own rotated queries must
    be these matrices' (up to what a norm on queries does first).

    Raises UsageError where a rotary layer's rotation is not available, with the reason.
    """
    block = model.atlas.blocks[layer]
    if not block.rotary:
        return None
    places = [*range(_CHECKED_POSITIONS), *distances]
    found = rotations(model.hf, model.atlas, layer, places)
    sites = model.sites.available
    if found is None or layer not in sites.get("attn.rot_q", ()):
        raise UsageError(
            f"{model.atlas.architecture} rotates queries and keys in a way that is only in its own attention"
        )
    cache = model.run([0] * _CHECKED_POSITIONS, [f"attn.q@{layer}", f"attn.rot_q@{layer}"], logits=False).cache
    q, rotated = (cache[f"{kind}@{layer}"][0].to(found.device).float() for kind in ("attn.q", "attn.rot_q"))
    first = found[:_CHECKED_POSITIONS]
    if block.q_norm is not None:  # a norm has no matrix: start from the query at position 0, where it has been through
        q, first = rotated[:1].expand_as(rotated), torch.linalg.inv(found[0]) @ first
    expected = torch.einsum("phd,pde->phe", q, first)
    tolerance = 1e-3 if rotated.dtype == model.dtype else 0.05
    if not torch.allclose(expected, rotated, rtol=0, atol=tolerance * float(rotated.abs().max())):
        raise UsageError(f"{model.atlas.architecture} does more to its queries than rotate them after their norm")
    return found[_CHECKED_POSITIONS:]


def left_out(model: Model, layers: Iterable[int], *, tokens: bool = True) -> tuple[str, ...]:
    """What the circuits of these layers do not contain, in phrases; with ``tokens``, also what reading them from tokens leaves out."""
    atlas = model.atlas
    blocks = [atlas.blocks[layer] for layer in layers]
    config = model.hf.config.get_text_config(decoder=True)
    weights = [read_head_weights(model.hf, atlas, layer) for layer in sorted(set(layers))[:1]]
    said = [
        (tokens, "earlier layers: tokens are read as their embeddings, not as what earlier layers make of them"),
        (
            any(block.ln1 for block in blocks) or atlas.ln_final is not None,
            "the norms' divisors: a stream is divided by its own size; the norms' weights and centring are in",
        ),
        (any(block.ln1_post for block in blocks), "the divisor of the norm after attention; its weight is in"),
        (
            any(block.q_norm for block in blocks),
            "the divisors (and biases) of the norms on queries and keys; their weights are in",
        ),
        (
            any(bias is not None for w in weights for bias in (w.query_bias, w.key_bias, w.value_bias, w.output_bias)),
            "biases of queries, keys, values, outputs and norms",
        ),
        (tokens and atlas.pos_embed is not None, "position embeddings, which are added to the tokens'"),
        (
            any(block.rotary for block in blocks),
            "the rotation of queries and keys by their positions: W_QK is the one at distance 0 unless a distance is named",
        ),
        (_alibi(config), "the penalty on distance that is added to the scores (ALiBi)"),
        (any(block.window is not None for block in blocks), "the sliding window beyond which a key is not seen"),
        (any(block.qkv_clip is not None for block in blocks), "the clamp on queries, keys and values"),
        (getattr(config, "attn_logit_softcapping", None) is not None, "the softcap on the scores"),
        (tokens and atlas.logits.softcap is not None, "the softcap on the logits"),
        (
            any(hasattr(model.hf.get_submodule(block.attn), "sinks") for block in blocks),
            "the learned sink of the softmax",
        ),
        (True, "the scale of the scores, which is the same for all tokens"),
    ]
    return tuple(text for holds, text in said if holds)


def _alibi(config: object) -> bool:
    inner = getattr(config, "attn_config", None)
    return (
        bool(getattr(config, "alibi", False))
        or bool(getattr(inner, "alibi", False))
        or getattr(config, "model_type", None) == "bloom"
    )
