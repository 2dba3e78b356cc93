"""Hands captured activations on to TransformerLens, so that scripts written for its cache go on from there."""

from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

from torch import Tensor

from interp.errors import ModelError
from interp.models.atlas import Atlas


def to_transformer_lens(tensors: Mapping[str, Tensor], atlas: Atlas, model: Any = None) -> Any:
    """A ``transformer_lens.ActivationCache`` over the same tensors (not copied), keyed by the same names.

    ``model`` is a TransformerLens model for the helpers that need weights (such as ``logit_attrs``); without one the cache knows the
    sizes only, which is enough for ``stack_activation``, ``accumulated_resid`` and ``decompose_resid`` without a norm.

    Raises ModelError where TransformerLens is not installed.
    """
    try:
        from transformer_lens import ActivationCache
    except ImportError as error:
        raise ModelError("TransformerLens is not installed; run: pip install 'transformer-lens>=4.3,<4.4'") from error
    return ActivationCache(dict(tensors), _Sizes(atlas) if model is None else model, has_batch_dim=True)


class _Sizes:
    """Stands in for a TransformerLens model where only its sizes are asked for."""

    def __init__(self, atlas: Atlas) -> None:
        self.cfg = SimpleNamespace(
            n_layers=atlas.n_layers,
            n_heads=atlas.n_heads,
            n_key_value_heads=atlas.n_kv_heads,
            d_model=atlas.d_model,
            d_head=atlas.d_head,
            d_mlp=atlas.d_mlp,
            d_vocab=atlas.d_vocab,
            n_ctx=atlas.n_ctx,
            attn_only=False,
            parallel_attn_mlp=atlas.blocks[0].parallel,
            positional_embedding_type="standard" if atlas.pos_embed else "rotary",
            use_attn_result=False,
            ungroup_grouped_query_attention=False,
        )
