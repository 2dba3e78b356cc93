"""The residual story: what attention and the MLP of each block wrote to the stream, and what came out at the end."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import torch
from jaxtyping import Float, Int
from torch import Tensor

from interp.analyzers.verification import check_log_probs
from interp.errors import UsageError, unknown
from interp.maths.attribution import through_norm
from interp.maths.ranking import top_lowest_first
from interp.maths.residual import PushedTokens, pushed_tokens, stream_geometry
from interp.models.vocabulary import embedding_scale
from interp.prompts import PromptLike
from interp.results import Result
from interp.runner.model import Model
from interp.tokens import Tokens, vocabulary

if TYPE_CHECKING:
    from pandas import DataFrame
    from plotly.graph_objects import Figure

MEASURES = (
    "stream_norm",
    "attn_norm",
    "mlp_norm",
    "attn_cos_stream",
    "mlp_cos_stream",
    "attn_cos_final",
    "mlp_cos_final",
    "stream_cos_final",
)


@dataclass(frozen=True, kw_only=True, eq=False)
class StoryResult(Result):
    """What each block wrote at each position, from the embedding to the chosen token.

    Norms are in the units of the stream, after the block for ``stream_norm``; ``embed_norm`` is that of what enters the first block:
    the token's row of the embedding, times ``embed_scale``, with a position's vector added where ``embed_position`` says so, and
    normed where ``embed_normed`` does.
    ``cos_stream`` is the cosine with the stream that a part was added to, ``cos_final`` with the final stream. ``promoted`` and
    ``suppressed`` are the tokens whose logits an update raises and lowers most through the final norm (its divisor held) and the
    unembedding, the strongest first, with the change in logits. The ``final_*`` are the likeliest next tokens after the last position.
    """

    kind: ClassVar[str] = "residual_story"
    schema_version: ClassVar[int] = 2

    tokens: Tokens
    embed_norm: Float[Tensor, " pos"]
    embed_scale: float
    embed_position: bool
    embed_normed: bool
    stream_norm: Float[Tensor, "layer pos"]
    attn_norm: Float[Tensor, "layer pos"]
    mlp_norm: Float[Tensor, "layer pos"]
    attn_cos_stream: Float[Tensor, "layer pos"]
    mlp_cos_stream: Float[Tensor, "layer pos"]
    attn_cos_final: Float[Tensor, "layer pos"]
    mlp_cos_final: Float[Tensor, "layer pos"]
    stream_cos_final: Float[Tensor, "layer pos"]
    attn_promoted_ids: Int[Tensor, "layer pos k"]
    attn_promoted_logits: Float[Tensor, "layer pos k"]
    attn_suppressed_ids: Int[Tensor, "layer pos k"]
    attn_suppressed_logits: Float[Tensor, "layer pos k"]
    mlp_promoted_ids: Int[Tensor, "layer pos k"]
    mlp_promoted_logits: Float[Tensor, "layer pos k"]
    mlp_suppressed_ids: Int[Tensor, "layer pos k"]
    mlp_suppressed_logits: Float[Tensor, "layer pos k"]
    final_ids: Int[Tensor, " row"]
    final_logits: Float[Tensor, " row"]
    final_probs: Float[Tensor, " row"]
    chosen_id: int
    vocabulary: dict[str, str]

    def to_frame(self) -> "DataFrame":
        """One line for each layer and position."""
        import pandas as pd

        def words(ids: Int[Tensor, " k"]) -> str:
            return " ".join(repr(self.vocabulary[str(index)]) for index in ids.tolist())

        lines = [
            {"layer": layer, "position": position, "token": piece}
            | {name: float(getattr(self, name)[layer, position]) for name in MEASURES}
            | {
                f"{part}_{way}": words(getattr(self, f"{part}_{way}_ids")[layer, position])
                for part in ("attn", "mlp")
                for way in ("promoted", "suppressed")
            }
            for layer in range(self.stream_norm.shape[0])
            for position, piece in enumerate(self.tokens.pieces)
        ]
        return pd.DataFrame(lines)

    def figure(self, measure: str = "stream_norm") -> "Figure":
        """A heatmap of one of the norms (log scale) or cosines over layers and tokens."""
        from interp.figures.story import story_heatmap

        if measure not in MEASURES:
            raise unknown("measure", measure, MEASURES)
        is_norm = measure.endswith("_norm")
        return story_heatmap(
            getattr(self, measure).double().numpy(),
            rows=[str(layer) for layer in range(self.stream_norm.shape[0])],
            tokens=self.tokens.labels,
            title=measure.replace("_", " "),
            signed=not is_norm,
            log=is_norm,
        )


def residual_story(model: Model, prompt: PromptLike, *, top_k: int = 6, final_k: int = 10) -> StoryResult:
    """Follows the residual stream of a prompt from the embedding to the chosen token.

    Args:
        model: the model.
        prompt: text, token ids or a conversation.
        top_k: how many tokens that each update pushes up, and down, to keep.
        final_k: how many of the likeliest next tokens to keep.

    Raises:
        UsageError: a bad prompt or number of tokens.
        NumericsError: NaN or infinite activations.
        VerificationError: the final stream does not give the model's logits.

    """
    d_vocab = model.unembedding.weight.shape[0]
    for name, value in (("top_k", top_k), ("final_k", final_k)):
        if not 1 <= value <= d_vocab:
            raise UsageError(f"{name} is {value}; valid: 1 to {d_vocab}, the size of the vocabulary")
    tokens = model.tokens(prompt)
    run = model.run(
        tokens, ["resid_pre@0", "attn_out", "mlp_out", "resid_post"], logits="last", cache_device=model.together
    )
    embedded = run.cache["resid_pre@0"][0]
    attn, mlp, post = (run.cache.stack(kind)[:, 0] for kind in ("attn_out", "mlp_out", "resid_post"))
    pre = torch.cat([embedded[None], post[:-1]])
    final_ids, final_logits, final_probs = _final(model, post[-1, -1:], run.last_logits, final_k)
    pushes = {"attn": _pushed(model, attn, post[-1], top_k), "mlp": _pushed(model, mlp, post[-1], top_k)}
    pushed = {
        name: value for part, push in pushes.items() for name, value in _named(part, push, attn.shape[:2]).items()
    }
    every = [final_ids.unique(), *(value.unique() for name, value in pushed.items() if name.endswith("_ids"))]
    geometry = stream_geometry(pre, attn, mlp, post, parallel=model.atlas.blocks[0].parallel)
    return StoryResult(
        provenance=model.provenance(),
        tokens=tokens,
        embed_norm=embedded.float().norm(dim=-1).cpu(),
        embed_scale=embedding_scale(model.hf, model.atlas, tokens.ids[-1]),
        embed_position=model.atlas.pos_embed is not None,
        embed_normed=model.atlas.embed_norm is not None,
        **{name: getattr(geometry, name).cpu() for name in MEASURES},
        **pushed,
        final_ids=final_ids,
        final_logits=final_logits,
        final_probs=final_probs,
        chosen_id=int(final_ids[0]),
        vocabulary=vocabulary(model.tokenizer, torch.cat(every).tolist()),
    )


def _final(
    model: Model, stream: Float[Tensor, "1 d_model"], logits: Float[Tensor, "1 d_vocab"], k: int
) -> tuple[Int[Tensor, " row"], Float[Tensor, " row"], Float[Tensor, " row"]]:
    """The likeliest next tokens, after the model's logits have been found again from the final stream."""
    read = model.unembedding.logits(model.final_norm(stream).to(model.unembedding.weight.dtype)).float()
    values, ids = top_lowest_first(read.log_softmax(-1), k)
    check_log_probs(ids, values, logits, what="the final stream read through norm and unembedding")
    best, ids = top_lowest_first(logits.float(), k)
    probs = logits.float().softmax(-1).gather(1, ids)
    return ids[0].cpu(), best[0].cpu(), probs[0].cpu()


def _pushed(
    model: Model, updates: Float[Tensor, "layer pos d_model"], final: Float[Tensor, "pos d_model"], k: int
) -> PushedTokens:
    normed = through_norm(updates, final[None], model.final_norm_parts)
    return pushed_tokens(normed.flatten(0, 1), model.unembedding, k)


def _named(part: str, push: PushedTokens, shape: torch.Size) -> dict[str, Tensor]:
    values = {
        "promoted_ids": push.promoted_ids,
        "promoted_logits": push.promoted,
        "suppressed_ids": push.suppressed_ids,
        "suppressed_logits": push.suppressed,
    }
    return {f"{part}_{name}": value.unflatten(0, tuple(shape)).cpu() for name, value in values.items()}
