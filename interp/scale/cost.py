"""What work costs on paper: floating-point operations and bytes, from the sizes of a model and of a prompt.

Counted are matrix products, two operations a multiply-add; attention as its whole square, masked half included, as
``torch.utils.flop_counter`` counts it. Norms, softmax and element-wise work are left out; they are a few per cent of the time of a
large model. Tests hold each formula against a count of the real work on the default model.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from interp.runner.model import Model


@dataclass(frozen=True, kw_only=True)
class ModelSize:
    """The sizes that costs depend on; ``mlp_matrices`` is 3 for a gated MLP, else 2."""

    n_layers: int
    d_model: int
    n_heads: int
    n_kv_heads: int
    d_head: int
    d_mlp: int
    d_vocab: int
    mlp_matrices: int = 3
    tied: bool = False

    @classmethod
    def of(cls, model: Model) -> "ModelSize":
        """The sizes of a model with dense MLPs."""
        atlas = model.atlas
        return cls(
            n_layers=atlas.n_layers,
            d_model=atlas.d_model,
            n_heads=atlas.n_heads,
            n_kv_heads=atlas.n_kv_heads,
            d_head=atlas.d_head,
            d_mlp=atlas.d_mlp or 0,
            d_vocab=atlas.d_vocab,
            mlp_matrices=3 if atlas.blocks[0].gate is not None else 2,
            tied=atlas.tied_embeddings,
        )

    @property
    def attention_weights(self) -> int:
        """Numbers in the matrices of one layer's attention."""
        return self.d_model * self.d_head * 2 * (self.n_heads + self.n_kv_heads)

    @property
    def mlp_weights(self) -> int:
        """Numbers in the matrices of one MLP."""
        return self.mlp_matrices * self.d_model * self.d_mlp

    @property
    def weights(self) -> int:
        """Numbers in all matrices."""
        embeddings = self.d_vocab * self.d_model * (1 if self.tied else 2)
        return self.n_layers * (self.attention_weights + self.mlp_weights) + embeddings

    @property
    def block(self) -> int:
        """Operations of one block for one token, without the products of queries, keys and values."""
        return 2 * (self.attention_weights + self.mlp_weights)

    @property
    def unembed(self) -> int:
        """Operations of the logits at one position."""
        return 2 * self.d_model * self.d_vocab

    def attention(self, queries: int, keys: int) -> int:
        """Operations of one layer's scores and weighted values."""
        return 4 * self.n_heads * self.d_head * queries * keys

    @property
    def kv_numbers(self) -> int:
        """Numbers that the KV cache keeps of one token."""
        return 2 * self.n_layers * self.n_kv_heads * self.d_head


def forward(size: ModelSize, length: int, *, n_layers: int | None = None, unembedded: int | None = None) -> int:
    """A forward of one text through ``n_layers`` blocks (None: all), with the logits of ``unembedded`` positions (None: all)."""
    layers = size.n_layers if n_layers is None else n_layers
    positions = length if unembedded is None else unembedded
    return layers * (length * size.block + size.attention(length, length)) + positions * size.unembed


def collect(size: ModelSize, length: int, last_layer: int) -> int:
    """A text of a corpus whose streams are stored up to the one that leaves block ``last_layer``: no logits."""
    return forward(size, length, n_layers=last_layer + 1, unembedded=0)


def stored_bytes(size: ModelSize, tokens: int, streams: int, itemsize: int) -> int:
    """The rows of ``streams`` residual streams of so many tokens."""
    return tokens * streams * size.d_model * itemsize


def logit_lens(size: ModelSize, length: int) -> int:
    """The forward with its logits, which the last row is checked against, and an unembedding of each layer's stream."""
    return forward(size, length) + size.n_layers * length * size.unembed


def tuned_lens(size: ModelSize, length: int) -> int:
    """A logit lens whose streams each go through their translator first."""
    return logit_lens(size, length) + size.n_layers * length * 2 * size.d_model**2


def fit_tuned_lens(size: ModelSize, lengths: Sequence[int]) -> int:
    """Texts without logits, the products of every layer's stream with itself and with the last, and what each layer's fit explains.

    Solving, cubic in the width as well, is not counted.
    """
    runs = sum(forward(size, length, unembedded=0) for length in lengths)
    return runs + size.n_layers * (4 * size.d_model**2 * sum(lengths) + 2 * size.d_model**3)


def residual_story(size: ModelSize, length: int) -> int:
    """The forward with the last logits, those once more, and an unembedding of what attention and MLP of each layer write."""
    return forward(size, length, unembedded=1) + (1 + 2 * size.n_layers * length) * size.unembed


def token_losses(size: ModelSize, length: int) -> int:
    """The forward with the last logits, and those of all positions, part by part of the vocabulary."""
    return forward(size, length, unembedded=1) + length * size.unembed


def next_token_logits(size: ModelSize, length: int) -> int:
    """The forward with the last logits, and those once more from the stream."""
    return forward(size, length, unembedded=1) + size.unembed


def decoding_choices(size: ModelSize, length: int) -> int:
    """The forward with the last logits."""
    return forward(size, length, unembedded=1)


def direct_logit_attribution(size: ModelSize, length: int) -> int:
    """The forward with the logits of one position; each component is one product with one direction."""
    return forward(size, length, unembedded=1)


def attention_patterns(size: ModelSize, length: int) -> int:
    """The forward up to the last pattern, every pattern, and what every value writes through its head's output matrix (its norm)."""
    written = 2 * size.n_heads * size.d_head * size.d_model * length
    behind = written + 2 * size.mlp_weights * length
    return (
        forward(size, length, unembedded=0) - behind + size.n_layers * (written + size.attention(length, length) // 2)
    )


def resumed(
    size: ModelSize, length: int, layers: Sequence[int], positions: Sequence[int], *, unembedded: int = 1
) -> int:
    """A row for each layer and position: blocks from the layer on, at positions from that one on.

    In the last block the MLP runs only where logits are read.
    """
    total = 0
    for layer in layers:
        for position in positions:
            queries, blocks = length - position, size.n_layers - layer
            total += blocks * (queries * size.block + size.attention(queries, length)) + unembedded * size.unembed
            total -= 2 * size.mlp_weights * max(0, queries - unembedded) if blocks else 0
    return total


def causal_trace(size: ModelSize, length: int, samples: int, first: int = 0) -> int:
    """Restoring the stream behind each block at each position from ``first`` (of the subject) on, and the runs that it starts from."""
    rows = resumed(size, length, range(1, size.n_layers + 1), range(first, length))
    return samples * rows + (1 + samples) * forward(size, length, unembedded=1)


def activation_patching(size: ModelSize, length: int, first: int) -> int:
    """Patching the stream before each block at each position from ``first`` on, the one token that differs.

    Beside the cells there are the two runs, and once more the one that is resumed.

    The first block is patched only where the tokens differ: elsewhere nothing changes.
    """
    rows = resumed(size, length, range(1, size.n_layers), range(first, length)) + resumed(size, length, [0], [first])
    return rows + 3 * forward(size, length, unembedded=1)


def attribution_patching(size: ModelSize, length: int) -> int:
    """The two runs, and a backward through one of them to the streams, which costs as much as two forwards less the weights' share."""
    return 4 * forward(size, length, unembedded=1)


def second_moment(size: ModelSize, length: int, layer: int) -> int:
    """A text up to the keys of a layer's MLP, and their products with each other, on and below the diagonal (in float64)."""
    block = length * (size.block - 2 * size.d_mlp * size.d_model) + size.attention(length, length)
    return forward(size, length, n_layers=layer, unembedded=0) + block + length * size.d_mlp**2


def ablation_of_heads(size: ModelSize, length: int, *, first_layer_of_rows: int = 0) -> int:
    """A row for each head of each layer from ``first_layer_of_rows`` on: that layer's block and those behind it, all positions."""
    layers = range(first_layer_of_rows, size.n_layers)
    return size.n_heads * resumed(size, length, layers, [0]) + forward(size, length, unembedded=1)


def generate(size: ModelSize, length: int, new: int) -> int:
    """A prompt's forward with the logits of its last position, and a forward of one token for each further token."""
    steps = range(length + 1, length + new)
    decoding = sum(size.n_layers * (size.block + size.attention(1, n_keys)) + size.unembed for n_keys in steps)
    return forward(size, length, unembedded=1) + decoding


def kv_cache_bytes(size: ModelSize, length: int, new: int, itemsize: int) -> int:
    """What ``generate`` keeps at its end: keys and values of all tokens but the last, which is chosen and not read."""
    return size.kv_numbers * (length + new - 1) * itemsize


def patterns(size: ModelSize, length: int) -> int:
    """The forward up to the last layer's pattern, and the scores of every layer once more."""
    behind = length * (2 * size.n_heads * size.d_head * size.d_model + 2 * size.mlp_weights)
    return forward(size, length, unembedded=0) - behind + size.n_layers * size.attention(length, length) // 2


def head_profiles(size: ModelSize, length: int, shuffles: int) -> int:
    """The patterns of a prompt and of its shuffles."""
    return (1 + shuffles) * patterns(size, length)


def induction_scan(size: ModelSize, lengths: Sequence[int], seeds: int) -> int:
    """The patterns of repeated random tokens, texts of each length, and of as many texts without repeats."""
    return 2 * seeds * sum(patterns(size, length) for length in lengths)


def induction_ablation(size: ModelSize, length: int, seeds: int, layer: int) -> int:
    """The losses of the texts of one length without heads of which the lowest is in ``layer``: all positions, all logits."""
    return seeds * resumed(size, length, [layer], [0], unembedded=length)


def path_patching(size: ModelSize, length: int, first: int, receiver: int | None = None) -> int:
    """Every head as sender, to the logits of the last position, or to queries in layer ``receiver``; tokens differ from ``first`` on.

    To the logits nothing moves between positions, so only the last is run again. To a receiver each sender is run from its layer to the
    receiver's queries (which have a map of their own), and the receiver's layer and those behind it once more. Beside them there are the
    two runs, and one for the answers.
    """
    runs = 3 * forward(size, length, unembedded=1)
    if receiver is None:
        return runs + size.n_heads * resumed(size, length, range(size.n_layers), [length - 1])
    queries = length - first
    a_block = queries * size.block + size.attention(queries, length)
    reached = queries * 2 * size.d_model * size.n_heads * size.d_head
    there = sum((receiver - layer) * a_block + reached for layer in range(receiver))
    return runs + size.n_heads * (there + receiver * resumed(size, length, [receiver], [first]))


@dataclass(frozen=True, kw_only=True)
class EditShape:
    """The prompts of one fact in all contexts, and the essence prompt among them: how long they are, and where the subject ends.

    ``targets`` are the tokens of the target, ``columns`` the different places, counted from the subject's end, at which one is read.
    """

    lengths: tuple[int, ...]
    positions: tuple[int, ...]
    targets: int
    columns: int


def edit_value(size: ModelSize, shape: EditShape, layer: int, steps: int) -> int:
    """Finding the value of a fact at ``layer``: one run of all contexts, then forwards and backwards of what follows the subject.

    Each step runs the blocks behind the layer, from the subject's last token on, and reads the target's positions, of the essence prompt
    one; its backward goes to activations alone and costs as much. The last step has none.
    """
    rows, width = len(shape.lengths), max(n - p for n, p in zip(shape.lengths, shape.positions, strict=True))
    longest, blocks = max(shape.positions), size.n_layers - 1 - layer
    run = rows * (forward(size, max(shape.lengths), unembedded=1) + 2 * size.d_model * size.d_mlp)
    row = blocks * (width * size.block + size.attention(width, longest + width))
    row -= 2 * size.mlp_weights * max(0, width - shape.columns) if blocks else 0
    step = rows * row + ((rows - 1) * shape.targets + 1) * size.unembed
    return run + (2 * steps - 1) * step


def edit_bytes(size: ModelSize, itemsize: int) -> int:
    """What one edited layer takes: its second moment in float64, the matrix as it was before, the two factors in float32."""
    return 8 * size.d_mlp**2 + itemsize * size.d_mlp * size.d_model + 4 * (size.d_mlp + size.d_model)


def path_bytes(size: ModelSize, length: int, itemsize: int) -> int:
    """What path patching keeps of a pair: the outputs of all heads in both runs, and what the base run needs to be resumed."""
    heads = 2 * size.n_layers * size.n_heads * size.d_head
    return itemsize * length * (heads + (size.n_layers + 1) * size.d_model + size.kv_numbers)
