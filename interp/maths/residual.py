"""The residual story: how long the stream and the updates to it are, where they point, and which tokens they push."""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from interp.errors import NumericsError
from interp.maths.lens import Tiling
from interp.maths.ranking import BlockRanking
from interp.maths.unembedding import Unembedding


@dataclass(frozen=True, kw_only=True, eq=False)
class StreamGeometry:
    """Norms in the units of the stream, cosines between -1 and 1, all in fp32. The cosine of a zero vector is 0."""

    stream_norm: Float[Tensor, "layer pos"]
    attn_norm: Float[Tensor, "layer pos"]
    mlp_norm: Float[Tensor, "layer pos"]
    attn_cos_stream: Float[Tensor, "layer pos"]
    mlp_cos_stream: Float[Tensor, "layer pos"]
    attn_cos_final: Float[Tensor, "layer pos"]
    mlp_cos_final: Float[Tensor, "layer pos"]
    stream_cos_final: Float[Tensor, "layer pos"]


def stream_geometry(
    pre: Float[Tensor, "layer pos d_model"],
    attn: Float[Tensor, "layer pos d_model"],
    mlp: Float[Tensor, "layer pos d_model"],
    post: Float[Tensor, "layer pos d_model"],
    *,
    parallel: bool = False,
) -> StreamGeometry:
    """Norms and cosines of each block's stream and of what was written to it.

    ``pre`` is the stream that enters a block, ``attn`` and ``mlp`` the two updates, ``post`` the stream that leaves it. ``cos_stream`` is
    taken with the stream that the part was added to: ``pre`` for attention; for the MLP ``pre + attn``, or ``pre`` too where the block is
    ``parallel``. ``final`` is the last layer of ``post``, before the final norm.
    """
    pre, attn, mlp, post = (tensor.float() for tensor in (pre, attn, mlp, post))
    final = post[-1:]
    return StreamGeometry(
        stream_norm=post.norm(dim=-1),
        attn_norm=attn.norm(dim=-1),
        mlp_norm=mlp.norm(dim=-1),
        attn_cos_stream=cosine(attn, pre),
        mlp_cos_stream=cosine(mlp, pre if parallel else pre + attn),
        attn_cos_final=cosine(attn, final),
        mlp_cos_final=cosine(mlp, final),
        stream_cos_final=cosine(post, final),
    )


def cosine(a: Float[Tensor, "*#batch d_model"], b: Float[Tensor, "*#batch d_model"]) -> Float[Tensor, "*batch"]:
    """The cosine of the angle between ``a`` and ``b``; 0 if one of them is zero."""
    a, b = torch.nn.functional.normalize(a, dim=-1), torch.nn.functional.normalize(b, dim=-1)
    return (a * b).sum(-1).clamp(-1.0, 1.0)


@dataclass(frozen=True, kw_only=True, eq=False)
class PushedTokens:
    """The tokens whose logits an update raises and lowers most, the strongest first, and by how much, in logits before any softcap."""

    promoted_ids: Int[Tensor, "row k"]
    promoted: Float[Tensor, "row k"]
    suppressed_ids: Int[Tensor, "row k"]
    suppressed: Float[Tensor, "row k"]


def pushed_tokens(
    updates: Float[Tensor, "row d_model"], unembedding: Unembedding, k: int, *, tiling: Tiling | None = None
) -> PushedTokens:
    """The best and the worst ``k`` tokens of ``scale * update W_Uᵀ``, without ever holding rows x vocabulary.

    ``updates`` are parts of the stream after the final norm with its divisor fixed (``attribution.through_norm``). Biases are no part of
    an update. Raises NumericsError for NaN or infinity.
    """
    tiling = tiling or Tiling.for_device(updates.device.type)
    parts = [_pushed(rows, unembedding, k, tiling) for rows in updates.split(tiling.rows)]
    names = PushedTokens.__dataclass_fields__
    return PushedTokens(**{name: torch.cat([getattr(part, name) for part in parts]) for name in names})


def _pushed(rows: Float[Tensor, "row d_model"], unembedding: Unembedding, k: int, tiling: Tiling) -> PushedTokens:
    x, d_vocab = rows.to(unembedding.weight.dtype), unembedding.weight.shape[0]
    up, down = (BlockRanking(len(rows), d_vocab, k, tiling.block, rows.device) for _ in range(2))
    for start in range(0, d_vocab, tiling.columns):
        stop = min(start + tiling.columns, d_vocab)
        logits = (x @ unembedding.weight[start:stop].T).float() * unembedding.scale
        spare = -(stop - start) % tiling.block
        up.update(torch.nn.functional.pad(logits, (0, spare), value=-torch.inf))
        down.update(torch.nn.functional.pad(-logits, (0, spare), value=-torch.inf))
    if not torch.isfinite(up.greatest() + down.greatest()).all():
        raise NumericsError(
            "an update of the residual stream has NaN or infinite logits; check the weights, or use dtype='float32'"
        )
    promoted, promoted_ids = up.best()
    suppressed, suppressed_ids = down.best()
    return PushedTokens(
        promoted_ids=promoted_ids, promoted=promoted, suppressed_ids=suppressed_ids, suppressed=-suppressed
    )
