"""An induction circuit whose weights are set by hand, so that every score of its heads is known before anything is measured.

``build()`` is a GPT-2 of two layers with four heads each (``interp.Model(build())`` runs it). Its stream is a sum of orthonormal
features in five separate subspaces: which token stands here (``tok``), at which position (``pos``), which token stands before
(``prev``), what comes next (``out``, the only one the unembedding reads) and one that nobody reads (``void``). A feature is the pair
(1, -1) / sqrt(2) in two coordinates, so every stream vector has mean zero; the epsilon of each LayerNorm is so large, and its gain
so much the square root of it, that it returns its input (to 1e-6 relative). The MLPs write exactly zero.

| head | attends to | writes |
| --- | --- | --- |
| L0H0 | the previous token; position 0 to itself | its token into ``prev`` |
| L0H1 | every position up to its own, evenly | its token into ``void`` |
| L0H2 | position 0 | the next token id's logit (cyclic shift over the ids that are no BOS) |
| L0H3 | its own position | its token into ``void`` |
| L1H0 | the tokens behind earlier copies of its own token, evenly; position 0 where there is none | its token into ``out`` |
| L1H1 | every position up to its own, evenly | its token into ``void`` |
| L1H2 | position 0 | its token into ``out`` with a minus |
| L1H3 | its own token, here and earlier, evenly | its token into ``void`` |

The values of L0H2, L1H0 and L1H2 are zero for ``BOS`` (id 0), so attending to it writes nothing, as in a real sink. The model has no
tokenizer: where BOS is wanted in front it must be asked for (``first_token=BOS``). Without it position 0, having nothing before it,
counts as its own predecessor, and the two sinks add to the logits of the token there.

On ``repeated(period, repeats)``, which is BOS and then ``repeats`` copies of ``period`` distinct tokens, with V ids in the
vocabulary and the logit scale c (``LOGIT_SCALE``):

* attention of L1H0 on the earlier tokens behind a copy of the current one (prefix matching, Olsson et al. 2022, section on
  head scores), from queries in the second copy on: 1, and with ``sink=s`` m (1 - s) / (m (1 - s) + s) in copy m, counted from 0;
  what is left lies on position 0. In the first copy all of it lies on position 0.
* the stripe ``period - 1`` back of L1H0 in copy m: 1 / m of that. With two copies: 1, or 1 - s.
* previous-token mass of L0H0: 1; of L1H2 and L0H2: 1 at the second position, 0 after it.
* mass on position 0 of L0H2 and L1H2: 1; of L0H1 and L1H1 at position i: 1 / (i + 1).
* eigenvalue copying score of W_E W_V W_O W_U, sum(λ) / sum(|λ|) (Elhage et al. 2021): L1H0 1, L1H2 -1, L0H2 0 (roots of unity);
  0 / 0 for the others, which write nothing that is read.
* K-composition of L0H0 with L1H0, ‖W_QK W_OV‖ / (‖W_QK‖ ‖W_OV‖): 1 / sqrt(V), the greatest that two maps of V equal singular values
  can have; of the other heads of layer 0 with L1H0: 0.
* loss where the next token stood behind an earlier copy of this one: log(1 + (V - 1) exp(-c w)), w being the attention above; log V
  everywhere else, also at the last token of the first copy.

``cut``: L0H0 writes into ``void``, so K-composition is 0, L1H0 always rests on position 0 and the loss is log V everywhere, while
its OV circuit still copies. ``positional``: L1H0 reads the position ``POSITIONAL_OFFSET`` back, which is the stripe of the period
``POSITIONAL_OFFSET + 1`` and of no other: a trap for a detector that looks at one period.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from transformers import GPT2Config, GPT2LMHeadModel

VOCABULARY = 32
CONTEXT = 128
N_HEADS = 4
D_HEAD = 128
D_MODEL = N_HEADS * D_HEAD
BOS = 0
LOGIT_SCALE = 8.0
MATCH = 60.0
"""Score of what a head looks for; e to the minus this is nothing in fp32."""
REST = MATCH / 2
"""Score of position 0 for a head that rests there when it finds nothing."""
POSITIONAL_OFFSET = 15

PREVIOUS, INDUCTION = (0, 0), (1, 0)
UNIFORM = ((0, 1), (1, 1))
SINK = ((0, 2), (1, 2))
CURRENT, DUPLICATE = (0, 3), (1, 3)
EIGENVALUE_SCORE = {(1, 0): 1.0, (1, 2): -1.0, (0, 2): 0.0}
"""By (layer, head); heads that are not here write nothing that is read."""
K_COMPOSITION = 1 / math.sqrt(VOCABULARY)

Kind = Literal["induction", "cut", "positional"]
KINDS: tuple[Kind, ...] = ("induction", "cut", "positional")

_EPSILON = 1e6
_SUBSPACES = {"tok": VOCABULARY, "pos": CONTEXT, "prev": VOCABULARY, "out": VOCABULARY, "void": VOCABULARY}


def _features() -> dict[str, Tensor]:
    """For each subspace its orthonormal features, [feature d_model]."""
    count = sum(_SUBSPACES.values())
    pairs = torch.zeros(count, D_MODEL)
    rows = torch.arange(count)
    pairs[rows, 2 * rows], pairs[rows, 2 * rows + 1] = math.sqrt(0.5), -math.sqrt(0.5)
    return dict(zip(_SUBSPACES, pairs.split(list(_SUBSPACES.values())), strict=True))


@dataclass(frozen=True, kw_only=True, eq=False)
class _Head:
    """The matrices of one head in the stream's coordinates; the query and key widths are those of GPT-2."""

    W_Q: Tensor
    W_K: Tensor
    W_V: Tensor
    W_O: Tensor
    query_bias: Tensor


def _head(
    query: Sequence[tuple[Tensor, int]] = (),
    key: Sequence[tuple[Tensor, int]] = (),
    rest: tuple[Tensor, float] | None = None,
    reads: Tensor | None = None,
    writes: Tensor | None = None,
) -> _Head:
    """A head that scores MATCH where query and key features meet in one of its coordinates.

    ``query`` and ``key`` are features with the coordinate of their first. ``rest`` is a feature that any query scores as given.
    """
    scale = math.sqrt(MATCH * math.sqrt(D_HEAD))
    W_Q, W_K, W_V, W_O = (torch.zeros(D_MODEL, D_HEAD) for _ in range(4))
    query_bias = torch.zeros(D_HEAD)
    for matrix, parts in ((W_Q, query), (W_K, key)):
        for features, first in parts:
            matrix[:, first : first + len(features)] += features.T * scale
    if rest is not None:
        feature, score = rest
        W_K[:, -1] += feature
        query_bias[-1] = score * math.sqrt(D_HEAD)
    if reads is not None and writes is not None:
        W_V[:, : len(reads)], W_O[:, : len(writes)] = reads.T, writes.T
    return _Head(W_Q=W_Q, W_K=W_K, W_V=W_V, W_O=W_O.T, query_bias=query_bias)


def _layers(kind: Kind, sink: float) -> tuple[tuple[_Head, ...], tuple[_Head, ...]]:
    f = _features()
    tok, pos, void, first = f["tok"], f["pos"], f["void"], f["pos"][0]
    content, content_out = tok[1:], f["out"][1:]
    uniform = _head(reads=tok, writes=void)
    previous = _head([(pos[1:], 0)], [(pos[:-1], 0)], reads=tok, writes=void if kind == "cut" else f["prev"])
    shift = _head(rest=(first, MATCH), reads=content, writes=content_out.roll(-1, 0))
    current = _head([(pos, 0)], [(pos, 0)], reads=tok, writes=void)
    # Against one match, position 0 weighs sink / (1 - sink); without a sink it only catches what finds no match.
    rest = (first, MATCH + math.log(sink / (1 - sink)) if sink else REST)
    if kind == "positional":
        looks: dict[str, Sequence[tuple[Tensor, int]]] = {
            "query": [(pos[POSITIONAL_OFFSET:], 0)],
            "key": [(pos[: CONTEXT - POSITIONAL_OFFSET], 0)],
        }
    else:
        looks = {"query": [(tok, 0)], "key": [(f["prev"], 0)]}
    induction = _head(**looks, rest=rest, reads=content, writes=content_out)
    against = _head(rest=(first, MATCH), reads=content, writes=-content_out)
    duplicate = _head([(tok, 0)], [(tok, 0)], reads=tok, writes=void)
    return (previous, uniform, shift, current), (induction, uniform, against, duplicate)


def build(kind: Kind = "induction", sink: float = 0.0, attn: str | None = None) -> GPT2LMHeadModel:
    """The model in evaluation mode; ``sink`` is the mass that L1H0 leaves on position 0 beside one match."""
    config = GPT2Config(
        vocab_size=VOCABULARY,
        n_positions=CONTEXT,
        n_embd=D_MODEL,
        n_layer=2,
        n_head=N_HEADS,
        n_inner=4,
        layer_norm_epsilon=_EPSILON,
        bos_token_id=BOS,
        eos_token_id=BOS,
        tie_word_embeddings=False,
        attn_implementation=attn,
    )
    model = GPT2LMHeadModel(config).eval()
    f = _features()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
        for name, module in model.named_modules():
            if isinstance(module, torch.nn.LayerNorm):
                assert name.rpartition(".")[2] in ("ln_1", "ln_2", "ln_f")
                module.weight.fill_(math.sqrt(_EPSILON))
        model.transformer.wte.weight.copy_(f["tok"])
        model.transformer.wpe.weight.copy_(f["pos"])
        model.lm_head.weight.copy_(f["out"] * LOGIT_SCALE)
        for block, heads in zip(model.transformer.h, _layers(kind, sink), strict=True):
            parts = [torch.cat([getattr(head, name) for head in heads], 1) for name in ("W_Q", "W_K", "W_V")]
            block.attn.c_attn.weight.copy_(torch.cat(parts, 1))
            block.attn.c_attn.bias[:D_MODEL] = torch.cat([head.query_bias for head in heads])
            block.attn.c_proj.weight.copy_(torch.cat([head.W_O for head in heads]))
    return model


def repeated(period: int, repeats: int = 2, seed: int = 0) -> Tensor:
    """BOS and then ``repeats`` copies of ``period`` distinct ids, none of them BOS: [1 + period * repeats]."""
    drawn = torch.randperm(VOCABULARY - 1, generator=torch.Generator().manual_seed(seed))[:period] + 1
    return torch.cat([torch.tensor([BOS]), drawn.repeat(repeats)])


def attention(
    ids: Sequence[int], layer: int, head: int, kind: Kind = "induction", sink: float = 0.0
) -> list[list[float]]:
    """The pattern that a head has by its description: a row for each query, as long as the prompt."""
    return [_row(list(ids), i, (layer, head), kind, sink) for i in range(len(ids))]


def _row(ids: list[int], i: int, head: tuple[int, int], kind: Kind, sink: float) -> list[float]:
    if head == INDUCTION:
        return _induction_row(ids, i, kind, sink)
    chosen: list[int] = []
    for j in range(i + 1):
        if (
            head in UNIFORM
            or (head in SINK and j == 0)
            or (head == PREVIOUS and j == max(i - 1, 0))
            or (head == CURRENT and j == i)
            or (head == DUPLICATE and ids[j] == ids[i])
        ):
            chosen.append(j)
    return [1 / len(chosen) if j in chosen else 0.0 for j in range(len(ids))]


def _induction_row(ids: list[int], i: int, kind: Kind, sink: float) -> list[float]:
    if kind == "positional":
        matches = [i - POSITIONAL_OFFSET] if i >= POSITIONAL_OFFSET else []
    elif kind == "cut":
        matches = []
    else:
        # Position 0 has nothing before it and stands for its own predecessor.
        matches = [j for j in range(i + 1) if ids[max(j - 1, 0)] == ids[i]]
    weights = [0.0] * len(ids)
    if not matches or 0 in matches:  # where position 0 matches as well, its two scores add up and it takes everything
        weights[0] = 1.0
        return weights
    for j in matches:
        weights[j] = 1.0
    weights[0] = sink / (1 - sink)
    return [weight / sum(weights) for weight in weights]


def logits(ids: Sequence[int], kind: Kind = "induction", sink: float = 0.0) -> list[list[float]]:
    """The model's logits by the description of its heads."""
    ids = list(ids)
    found = []
    for i in range(len(ids)):
        row = [0.0] * VOCABULARY
        for j, weight in enumerate(_row(ids, i, INDUCTION, kind, sink)):
            if ids[j] != BOS:
                row[ids[j]] += LOGIT_SCALE * weight
        if ids[0] != BOS:  # the two heads that rest on position 0
            row[ids[0] % (VOCABULARY - 1) + 1] += LOGIT_SCALE
            row[ids[0]] -= LOGIT_SCALE
        found.append(row)
    return found


def losses(ids: Sequence[int], kind: Kind = "induction", sink: float = 0.0) -> list[float]:
    """The loss in nats at each position but the last, which predicts the token behind it."""
    rows = logits(ids, kind, sink)
    totals = [sum(math.exp(value) for value in row) for row in rows]
    return [math.log(totals[i]) - rows[i][int(ids[i + 1])] for i in range(len(ids) - 1)]


def matched_mass(copy: int, sink: float = 0.0) -> float:
    """Attention of L1H0 on the tokens behind the ``copy`` earlier copies of a token (``copy`` counted from 0)."""
    return copy * (1 - sink) / (copy * (1 - sink) + sink) if copy else 0.0


def stripe(repeats: int, sink: float = 0.0) -> float:
    """Mean attention of L1H0 exactly ``period - 1`` back, over all queries from the second copy on."""
    return sum(matched_mass(copy, sink) / copy for copy in range(1, repeats)) / (repeats - 1)


def prefix_matching(repeats: int, sink: float = 0.0) -> float:
    """Mean attention of L1H0 on all tokens behind earlier copies of the query's, over all queries from the second copy on."""
    return sum(matched_mass(copy, sink) for copy in range(1, repeats)) / (repeats - 1)


def predicted_loss(copy: int, sink: float = 0.0) -> float:
    """Loss in nats at a token of copy ``copy``; in the first copy, counted 0, and where it is cut, nothing is known: log V."""
    return math.log(1 + (VOCABULARY - 1) * math.exp(-LOGIT_SCALE * matched_mass(copy, sink)))


UNPREDICTED_LOSS = math.log(VOCABULARY)
"""Loss in nats where no head knows anything."""
