"""The size of a key/value cache: what each layer keeps, and what it would keep with a key and a value for every query head."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class CachedLayers:
    """Layers whose caches have one shape: ``n_tokens`` keys and as many values of ``d_head`` numbers for each of ``n_kv_heads`` heads.

    ``itemsize`` is the bytes of a number. ``n_tokens`` is all the tokens that were read, or in layers with a sliding window at most
    one less than the window: the token being read brings its own key and value.
    """

    n_layers: int
    n_kv_heads: int
    d_head: int
    itemsize: int
    n_tokens: int

    @property
    def n_bytes(self) -> int:
        """2 x layers x key/value heads x d_head x bytes x tokens; the 2 is for keys and values."""
        return 2 * self.n_layers * self.n_kv_heads * self.d_head * self.itemsize * self.n_tokens

    @property
    def formula(self) -> str:
        """The product with its numbers and what it comes to."""
        layers, heads = _counted(self.n_layers, "layer"), _counted(self.n_kv_heads, "kv head")
        size, tokens = _counted(self.itemsize, "byte"), _counted(self.n_tokens, "token")
        return f"2 x {layers} x {heads} x {self.d_head} d_head x {size} x {tokens} = {self.n_bytes:,}"


def multi_head_bytes(layers: tuple[CachedLayers, ...], n_heads: int) -> int:
    """What the same layers would take with a key and a value for each of ``n_heads`` query heads: multi-head attention."""
    return sum(group.n_bytes // group.n_kv_heads * n_heads for group in layers)


def _counted(count: int, word: str) -> str:
    return f"{count} {word}{'' if count == 1 else 's'}"
