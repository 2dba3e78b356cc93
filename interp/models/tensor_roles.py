"""What each tensor of a loaded model is for, in plain words, from the atlas: a tensor belongs to the innermost part that holds it."""

from dataclasses import dataclass

from torch import nn

from interp.models.atlas import Atlas, BlockMap

PARTS = ("embedding", "positions", "attention", "MLP", "experts", "router", "norm", "unembedding", "other")

_BLOCK_ROLES: dict[str, tuple[str, str, str]] = {
    "q": ("attention", "makes each head's query: what a token looks for", "the queries"),
    "k": ("attention", "makes the keys: what a token is found by", "the keys"),
    "v": ("attention", "makes the values: what is read from a token", "the values"),
    "qkv": ("attention", "makes queries, keys and values in one map", "queries, keys and values"),
    "o": ("attention", "writes what the heads have read to the stream", "what attention writes"),
    "q_norm": ("norm", "scales the queries before they meet the keys", "the scaled queries"),
    "k_norm": ("norm", "scales the keys before they meet the queries", "the scaled keys"),
    "ln1": ("norm", "scales the stream that attention reads", "the stream that attention reads"),
    "ln1_post": ("norm", "scales what attention writes before it is added", "what attention writes"),
    "ln2": ("norm", "scales the stream that the MLP reads", "the stream that the MLP reads"),
    "ln2_post": ("norm", "scales what the MLP writes before it is added", "what the MLP writes"),
    "gate": ("MLP", "decides how far each hidden unit is open", "how far each hidden unit is open"),
    "up": ("MLP", "makes what each hidden unit lets through", "what each hidden unit lets through"),
    "gate_up": ("MLP", "makes the hidden units: how far each is open, and what it lets through", "the hidden units"),
    "mlp_in": ("MLP", "makes the hidden units from the stream", "the hidden units"),
    "down": ("MLP", "writes the hidden units to the stream", "what the MLP writes"),
    "router": ("router", "scores the experts for each token", "the scores"),
    "experts": (
        "experts",
        "the MLPs of all experts, of which each token passes the chosen few",
        "what the experts put out",
    ),
    "shared_expert": ("experts", "an expert that every token passes", "what the shared expert puts out"),
    "mlp": ("MLP", "part of the MLP", "part of the MLP"),
    "attn": ("attention", "part of attention", "part of attention"),
    "block": ("other", "part of the block", "part of the block"),
}
"""For each part of a block what it belongs to, what it does, and what a bias of it is added to.

Where one lies inside another the innermost counts."""


@dataclass(frozen=True, kw_only=True)
class TensorRole:
    """One tensor of a model in memory: its name, shape, dtype and bytes, and what it does there.

    ``part`` is one of ``PARTS``; ``layer`` is None outside the blocks. ``pattern`` is the name with an asterisk in place of the layer.
    """

    name: str
    pattern: str
    layer: int | None
    shape: tuple[int, ...]
    dtype: str
    parameters: int
    bytes: int
    part: str
    role: str


def tensor_roles(hf: nn.Module, atlas: Atlas) -> list[TensorRole]:
    """Every parameter of the model, each once, in the order in which the model holds them. Tied tensors count where they come first."""
    roles = _roles(atlas)
    found = []
    tied = getattr(hf, "all_tied_weights_keys", {})
    for name, tensor in hf.named_parameters():
        if tensor.is_meta and name in tied:  # offloaded, ties are known by name only
            continue
        path = name.rpartition(".")[0]
        owner = _innermost(name, roles)
        layer, part, words, output = roles[owner] if owner is not None else _UNMAPPED
        block = None if layer is None else atlas.blocks[layer].block
        if name.endswith(".bias") and owner == path:
            words = f"adds a constant to {output}"
        found.append(
            TensorRole(
                name=name,
                pattern=name if block is None else f"{block.rpartition('.')[0]}.*{name.removeprefix(block)}",
                layer=layer,
                shape=tuple(tensor.shape),
                dtype=str(tensor.dtype).removeprefix("torch."),
                parameters=tensor.numel(),
                bytes=tensor.numel() * tensor.element_size(),
                part=part,
                role=words,
            )
        )
    return found


_Role = tuple[int | None, str, str, str]
_UNMAPPED: _Role = (None, "other", "not on the map of this model's parts", "it")


def _roles(atlas: Atlas) -> dict[str, _Role]:
    """Layer, part, what it does and what a bias is added to, for each path of the atlas."""
    logit = "has a row for each token, whose product with the stream is its logit"
    start = "has a row for each token: the vector that starts its stream"
    both = f"{start}; its product with the stream at the end is the token's logit"
    roles: dict[str, _Role] = {
        atlas.unembed: (None, "unembedding", logit, "the logits"),
        atlas.embed: (None, "embedding", both if atlas.tied_embeddings else start, "the embedding"),
    }
    if atlas.pos_embed:
        roles[atlas.pos_embed] = (
            None,
            "positions",
            "has a row for each place, added to the embedding",
            "the embedding",
        )
    if atlas.embed_norm:
        roles[atlas.embed_norm] = (None, "norm", "scales the embeddings before the first block", "the embeddings")
    if atlas.ln_final:
        roles[atlas.ln_final] = (None, "norm", "scales the stream before it is read out", "what is read out")
    for layer, block in enumerate(atlas.blocks):
        for field, role in _BLOCK_ROLES.items():
            path = getattr(block, field)
            if path is not None:
                roles.setdefault(path, (layer, *_adapted(block, field, role)))
    return roles


def _adapted(block: BlockMap, field: str, role: tuple[str, str, str]) -> tuple[str, str, str]:
    """One norm serves attention and MLP where a parallel block has no second; a layer of experts is no plain MLP."""
    if field == "ln1" and block.ln2 is None and block.parallel:
        return "norm", "scales the stream that attention and the MLP read", "the stream that both read"
    if field == "mlp" and block.experts is not None:
        return "experts", "part of the layer of experts", "part of the layer of experts"
    return role


def _innermost(name: str, roles: dict[str, _Role]) -> str | None:
    """The longest path that holds the tensor."""
    path = name
    while path:
        if path in roles:
            return path
        path = path.rpartition(".")[0]
    return None
