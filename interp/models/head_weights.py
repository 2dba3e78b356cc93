"""The attention weights of a layer head by head, in the orientation of Elhage et al. 2021, whatever the family stores.

``q = x W_Q + query_bias`` and the same for k and v; ``result = z W_O``. Fused and grouped maps are taken apart, transformers' Conv1D and
Linear are told apart by their type. ``folded`` puts everything linear around the maps into them, so that they read the stream over
the norm's divisor and write what is added to the stream: the weight, bias and centring of the norm before attention, the weight of a
norm on queries and keys, the weight of a norm after attention, and the scale of the update. The divisors of these norms are not
linear, so no weight can hold them.
"""

from dataclasses import dataclass, replace

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from interp.errors import ModelError, out_of_range
from interp.maths.norms import Norm
from interp.models.atlas import Atlas, BlockMap, module_at
from interp.models.fused import split_qkv
from interp.models.norms import read_norm
from interp.models.offload import execution_device, read_weight


@dataclass(frozen=True, kw_only=True, eq=False)
class HeadWeights:
    """The four maps of every head of one layer, in fp32 at least; biases are None where the layer has none.

    Under grouped-query attention ``W_K`` and ``W_V`` have fewer heads than ``W_Q``: head h reads key/value head ``kv_head(h)``.
    """

    W_Q: Float[Tensor, "head d_model d_head"]
    W_K: Float[Tensor, "kv_head d_model d_head"]
    W_V: Float[Tensor, "kv_head d_model d_head"]
    W_O: Float[Tensor, "head d_head d_model"]
    query_bias: Float[Tensor, "head d_head"] | None = None
    key_bias: Float[Tensor, "kv_head d_head"] | None = None
    value_bias: Float[Tensor, "kv_head d_head"] | None = None
    output_bias: Float[Tensor, " d_model"] | None = None

    @property
    def group(self) -> int:
        """How many heads share a key/value head; 1 without grouping."""
        return self.W_Q.shape[0] // self.W_K.shape[0]

    def kv_head(self, head: int) -> int:
        """The key/value head that a head reads."""
        return head // self.group

    def expanded(self) -> "HeadWeights":
        """The same with keys and values repeated, so that index h means head h everywhere."""
        if self.group == 1:
            return self

        def repeat(x: Tensor | None) -> Tensor | None:
            return None if x is None else x.repeat_interleave(self.group, dim=0)

        return replace(
            self,
            W_K=self.W_K.repeat_interleave(self.group, dim=0),
            W_V=self.W_V.repeat_interleave(self.group, dim=0),
            key_bias=repeat(self.key_bias),
            value_bias=repeat(self.value_bias),
        )


@dataclass(frozen=True, kw_only=True, eq=False)
class HeadNorm:
    """What a norm on queries or keys multiplies each head by, and whether it takes the head's mean off first."""

    weight: Float[Tensor, "head d_head"]
    centred: bool

    def fold(self, x: Float[Tensor, "head *batch d_head"]) -> Float[Tensor, "head *batch d_head"]:
        """``x`` as the norm would leave it but for its divisor."""
        x = x - x.mean(-1, keepdim=True) if self.centred else x
        return x * self.weight.reshape(len(x), *(1 for _ in range(x.dim() - 2)), -1)


@torch.no_grad()
def read_head_weights(hf: nn.Module, atlas: Atlas, layer: int, *, folded: bool = True) -> HeadWeights:
    """The attention weights of one layer of a Hugging Face model.

    ``layer`` counts from 0. With ``folded`` the maps include what is linear around them (see the module); without, they are as stored.
    Raises UsageError for a layer out of range, ModelError for a family whose attention has no such maps.
    """
    if not 0 <= layer < atlas.n_layers:
        raise out_of_range("layer", layer, atlas.n_layers)
    block = atlas.blocks[layer]
    output, bias = _map(hf, atlas, block.o, "output")
    if output.shape != (atlas.n_heads * atlas.d_head, atlas.d_model):
        raise _odd_shape(atlas, block.o, output)
    q, k, v = _fused(hf, atlas, block) if block.qkv is not None else _separate(hf, atlas, block)
    weights = HeadWeights(
        W_Q=q[0],
        W_K=k[0],
        W_V=v[0],
        W_O=rearrange(output, "(head d_head) d_model -> head d_head d_model", d_head=atlas.d_head),
        query_bias=q[1],
        key_bias=k[1],
        value_bias=v[1],
        output_bias=bias,
    )
    return _folded(weights, hf, atlas, block) if folded else weights


_Part = tuple[Tensor, Tensor | None]


def _separate(hf: nn.Module, atlas: Atlas, block: BlockMap) -> list[_Part]:
    parts = []
    for name, path, heads in (
        ("query", block.q, atlas.n_heads),
        ("key", block.k, atlas.n_kv_heads),
        ("value", block.v, atlas.n_kv_heads),
    ):
        if path is None:
            raise ModelError(
                f"{block.attn} of {atlas.architecture} has no {name} map of its own, so its heads have no W_{name[0].upper()}; "
                f"circuits need one map each for queries, keys and values"
            )
        weight, bias = _map(hf, atlas, path, name)
        if weight.shape != (atlas.d_model, heads * atlas.d_head):
            raise _odd_shape(atlas, path, weight)
        weight = rearrange(weight, "d_model (head d_head) -> head d_model d_head", head=heads)
        parts.append((weight, None if bias is None else rearrange(bias, "(head d_head) -> head d_head", head=heads)))
    return parts


def _fused(hf: nn.Module, atlas: Atlas, block: BlockMap) -> list[_Part]:
    """Rows of a weight are split as the output of the map is: they are what it puts out for a one-hot input."""
    assert block.qkv is not None
    weight, bias = _map(hf, atlas, block.qkv, "fused query, key and value")
    if weight.shape != (atlas.d_model, (atlas.n_heads + 2 * atlas.n_kv_heads) * atlas.d_head):
        raise _odd_shape(atlas, block.qkv, weight)
    weights = [rearrange(x[0], "row head d_head -> head row d_head") for x in split_qkv(weight[None], block, atlas)]
    if bias is None:
        return [(x, None) for x in weights]
    return [(x, b[0, 0]) for x, b in zip(weights, split_qkv(bias[None, None], block, atlas), strict=True)]


def _map(hf: nn.Module, atlas: Atlas, path: str, name: str) -> _Part:
    """Weight [in, out] and bias of a linear map, in fp32 at least."""
    module = module_at(hf, path)
    if not isinstance(module, nn.Linear | Conv1D):
        raise ModelError(
            f"the {name} map {path} of {atlas.architecture} is a {type(module).__name__}, not a plain linear map; "
            f"load the model without quantisation or adapters to read its weights"
        )
    weight, bias = read_weight(module), read_weight(module, "bias")
    assert weight is not None, "a linear map has a weight"
    bias = None if bias is None else at_least_fp32(bias)
    return at_least_fp32(weight if isinstance(module, Conv1D) else weight.T), bias


def _odd_shape(atlas: Atlas, path: str, weight: Tensor) -> ModelError:
    return ModelError(
        f"{path} of {atlas.architecture} maps {weight.shape[0]} to {weight.shape[1]}, which is not {atlas.n_heads} heads "
        f"({atlas.n_kv_heads} of keys and values) of width {atlas.d_head} on a stream of width {atlas.d_model}"
    )


def _folded(weights: HeadWeights, hf: nn.Module, atlas: Atlas, block: BlockMap) -> HeadWeights:
    read, after = norm_at(hf, block.ln1), norm_at(hf, block.ln1_post)
    parts = {}
    for name, bias, path in (
        ("W_Q", "query_bias", block.q_norm),
        ("W_K", "key_bias", block.k_norm),
        ("W_V", "value_bias", None),
    ):
        W, b = getattr(weights, name), getattr(weights, bias)
        W, b = _fold_read(W, b, read)
        norm = None if path is None else read_head_norm(hf, path, W.shape[0], atlas.d_head)
        parts[name] = W if norm is None else norm.fold(W)
        parts[bias] = b if norm is None or b is None else norm.fold(b)
    W_O, b_O = _fold_write(weights.W_O, weights.output_bias, after)
    scale = block.attn_scale
    return HeadWeights(**parts, W_O=W_O * scale, output_bias=None if b_O is None else b_O * scale)


def _fold_read(W: Tensor, b: Tensor | None, norm: Norm | None) -> _Part:
    """What the map reads from the stream over its divisor: the norm's weight and centring go in, its bias becomes a bias."""
    if norm is None:
        return W, b
    shift = None if norm.bias is None else at_least_fp32(norm.bias.detach()) @ W
    scaled = W if norm.weight is None else at_least_fp32(norm.weight.detach())[:, None] * W
    centred = norm.centre(scaled.transpose(-1, -2)).transpose(-1, -2)
    if shift is None:
        return centred, b
    return centred, shift if b is None else shift + b


def _fold_write(W: Tensor, b: Tensor | None, norm: Norm | None) -> _Part:
    """What is added to the stream, up to the divisor of a norm after attention. Its own bias is no head's and is left out."""
    if norm is None:
        return W, b
    weight = 1.0 if norm.weight is None else at_least_fp32(norm.weight.detach())
    return norm.centre(W) * weight, None if b is None else norm.centre(b) * weight


def read_head_norm(hf: nn.Module, path: str, heads: int, d_head: int) -> HeadNorm:
    """A norm on queries or keys: one for all heads, one each, or one over all heads side by side."""
    module = module_at(hf, path)
    assert module is not None, f"the atlas holds {path}, which is not in the model"
    each = getattr(module, "norms", None)
    if isinstance(each, nn.ModuleList):
        norms = [read_norm(norm) for norm in each]
        weight = torch.stack([torch.ones(d_head) if norm.weight is None else norm.weight.detach() for norm in norms])
        return HeadNorm(weight=at_least_fp32(weight), centred=norms[0].centred)
    weight = read_weight(module)
    if weight is not None and weight.dim() == 2:
        return HeadNorm(weight=at_least_fp32(weight), centred="RMS" not in type(module).__name__)
    norm = read_norm(module)
    if norm.weight is None:
        return HeadNorm(weight=torch.ones(heads, d_head, device=execution_device(module)), centred=norm.centred)
    weight = at_least_fp32(norm.weight.detach())
    if weight.numel() == d_head:
        return HeadNorm(weight=weight.expand(heads, d_head), centred=norm.centred)
    if norm.centred:
        raise ModelError(f"{path} takes a mean over all heads, so no head has a circuit of its own")
    return HeadNorm(weight=weight.reshape(heads, d_head), centred=False)


def norm_at(hf: nn.Module, path: str | None) -> Norm | None:
    """The norm at a path, taken apart; None where there is no norm."""
    module = None if path is None else module_at(hf, path)
    return None if module is None or isinstance(module, nn.Identity) else read_norm(module)


def at_least_fp32(x: Tensor) -> Tensor:
    """``x`` in fp32, or as it is in double precision."""
    return x if x.dtype == torch.float64 else x.float()
