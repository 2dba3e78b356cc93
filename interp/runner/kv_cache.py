"""The key/value cache of a generation: made as Hugging Face's own ``generate`` makes it, and measured."""

from collections import Counter
from typing import Any

from torch import Tensor
from transformers.cache_utils import DynamicCache, DynamicLayer

from interp.maths.kv_cache import CachedLayers


def new_cache(hf: Any, *, whole: bool) -> DynamicCache:
    """An empty cache. Layers with a sliding window keep only what the next token can see, or with ``whole`` everything."""
    return DynamicCache() if whole else DynamicCache(config=hf.config)


def cached_layers(kv: DynamicCache) -> tuple[CachedLayers, ...]:
    """What the layers keep, from the shapes of their keys; layers that are alike are counted together."""
    shapes = Counter(
        (layer.keys.shape[1], layer.keys.shape[3], layer.keys.element_size(), layer.keys.shape[2])
        for layer in kv.layers
        if isinstance(layer, DynamicLayer) and layer.keys is not None
    )
    return tuple(
        CachedLayers(n_layers=count, n_kv_heads=heads, d_head=width, itemsize=size, n_tokens=tokens)
        for (heads, width, size, tokens), count in shapes.items()
    )


def cache_bytes(kv: DynamicCache) -> int:
    """The bytes of every tensor that the cache keeps of the text."""
    kept = [
        value
        for layer in kv.layers
        for name, value in vars(layer).items()
        if isinstance(value, Tensor) and not name.startswith("_")  # the layer's own settings, such as its window
    ]
    return sum(tensor.nbytes for tensor in kept)
