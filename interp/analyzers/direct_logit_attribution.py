"""Direct logit attribution: which parts of the model wrote a logit (Elhage et al. 2021)."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from interp.analyzers.logit_lens import chosen_id
from interp.errors import NumericsError, VerificationError, unknown
from interp.maths.attribution import LogitReader, agrees, read_logit, through_norm
from interp.maths.norms import Norm
from interp.models.atlas import module_at
from interp.models.norms import read_norm
from interp.prompts import PromptLike
from interp.results import Result
from interp.runner.model import Model
from interp.runner.run import Run
from interp.tokens import Tokens, decode_pieces

if TYPE_CHECKING:
    from pandas import DataFrame
    from plotly.graph_objects import Figure

EMBED, NORM_BIAS, UNEMBED_BIAS = "hook_embed", "ln_final.bias", "unembed.bias"


@dataclass(frozen=True, kw_only=True, eq=False)
class AttributionResult(Result):
    """What each component adds to the logit of ``target_id`` after ``position``, or to its difference to that of ``against_id``.

    ``components`` are what enters the first block (``hook_embed``, position embeddings and scaling included), every attention and MLP
    update by its activation name, and the biases of final norm and unembedding where there are any. ``contributions`` sum to ``total``,
    ``logit`` is the same from the model's own normed stream: both before a softcap, which is not a sum. ``model_logit`` is what the
    model puts out, after its ``softcap`` if it has one. ``heads`` splits the attention updates further; with ``attn_bias``, what the
    output bias adds, each layer's heads sum to its attention component. All in logits.
    """

    kind: ClassVar[str] = "direct_logit_attribution"
    schema_version: ClassVar[int] = 1

    tokens: Tokens
    position: int
    target_id: int
    target_piece: str
    against_id: int | None
    against_piece: str | None
    components: tuple[str, ...]
    contributions: Float[Tensor, " component"]
    heads: Float[Tensor, "layer head"] | None
    attn_bias: Float[Tensor, " layer"] | None
    total: float
    logit: float
    model_logit: float
    softcap: float | None

    def to_frame(self) -> "DataFrame":
        """One line for each component; with heads, one for each head and for the attention bias of each layer instead of attention."""
        import pandas as pd

        lines: list[tuple[str, float]] = []
        values = dict(zip(self.components, self.contributions.tolist(), strict=True))
        for name, value in values.items():
            if self.heads is None or self.attn_bias is None or not name.endswith("hook_attn_out"):
                lines.append((name, value))
                continue
            layer = int(name.split(".")[1])
            lines += [(f"L{layer}H{head}", part) for head, part in enumerate(self.heads[layer].tolist())]
            lines.append((f"blocks.{layer}.attn.bias", float(self.attn_bias[layer])))
        return pd.DataFrame(lines, columns=["component", "contribution_logits"])

    def figure(self) -> "Figure":
        """A bar for each component."""
        from interp.figures.attribution import attribution_bars
        from interp.figures.rows import site_rows

        unit = "contribution to the logit" if self.against_id is None else "contribution to the logit difference"
        return attribution_bars(self.contributions.double().numpy(), site_rows(self.components).labels, unit=unit)


def direct_logit_attribution(
    model: Model,
    prompt: PromptLike,
    *,
    target: str | int | None = None,
    against: str | int | None = None,
    position: int = -1,
    by: Literal["component", "head"] = "component",
) -> AttributionResult:
    """Shares a logit out among everything that was written to the residual stream at a position.

    Args:
        model: the model.
        prompt: text, token ids or a conversation.
        target: the token (text that is one token, or an id) whose logit is attributed; None: the model's top token there.
        against: a second token; then the difference of the two logits is attributed, which is free of what both have in common.
        position: the position whose next token is meant.
        by: "component", or "head" to split attention further.

    The final norm's divisor is held at its actual value; with it the logit is exactly a sum. Families with a softcap (Gemma 2) put a
    tanh after it: there the parts sum to the logit before the softcap.

    Raises:
        UsageError: a bad prompt, target, position or ``by``.
        NumericsError: NaN or infinite activations.
        VerificationError: the parts do not sum to the model's logit.

    """
    if by not in ("component", "head"):
        raise unknown("way to attribute", by, ("component", "head"))
    tokens = model.tokens(prompt)
    position = tokens.position(position)
    chosen = [None if token is None else chosen_id(model, token) for token in (target, against)]
    sites = ["resid_pre@0", "attn_out", "mlp_out", "resid_post@-1", *(["attn.result"] if by == "head" else [])]
    run = model.run(tokens, sites, positions=position, logits=[position], cache_device=model.together)
    assert run.logits is not None
    logits = run.logits[0, 0].float()
    if not torch.isfinite(logits).all():
        raise NumericsError("the model's logits hold NaN or infinity; check the weights, or use dtype='float32'")
    target_token = int(logits.argmax()) if chosen[0] is None else chosen[0]
    readers = [_checked_reader(model, run, token, logits) for token in (target_token, chosen[1]) if token is not None]
    reader = readers[0] if len(readers) == 1 else readers[0].minus(readers[1])
    names, contributions = _contributions(model, run, reader)
    heads, attn_bias = _heads(model, run, reader) if by == "head" else (None, None)
    final = run.cache["resid_post@-1"][0, 0].cpu().double()
    model_logit = float(logits[target_token]) - (0.0 if chosen[1] is None else float(logits[chosen[1]]))
    pieces = decode_pieces(model.tokenizer, [target_token, *([] if chosen[1] is None else [chosen[1]])])
    return AttributionResult(
        provenance=model.provenance(),
        tokens=tokens,
        position=position,
        target_id=target_token,
        target_piece=pieces[0],
        against_id=chosen[1],
        against_piece=None if chosen[1] is None else pieces[1],
        components=names,
        contributions=contributions.float(),
        heads=heads,
        attn_bias=attn_bias,
        total=float(contributions.sum()),
        logit=float(reader.contributions(final)) + reader.norm_bias + reader.unembed_bias,
        model_logit=model_logit,
        softcap=model.unembedding.softcap,
    )


def _checked_reader(model: Model, run: Run, token: int, logits: Float[Tensor, " d_vocab"]) -> LogitReader:
    """The reader of one token's logit, after its parts have been found to sum to what the model puts out."""
    stream = run.cache["resid_post@-1"][0, 0]
    reader = read_logit(stream, model.final_norm_parts, model.unembedding, token)
    parts = _contributions(model, run, reader)[1]
    total = model.unembedding.cap(parts.sum())
    if not agrees(float(total), float(logits[token]), parts, model.dtype):
        raise VerificationError(
            f"the parts of the logit of token {token} sum to {float(total):.6g}, the model's logit is {float(logits[token]):.6g}"
        )
    return reader


def _contributions(model: Model, run: Run, reader: LogitReader) -> tuple[tuple[str, ...], Float[Tensor, " component"]]:
    """Names and contributions of the components, in the order of a forward."""
    names, values = [EMBED], [reader.contributions(run.cache["resid_pre@0"][0, 0])]
    for site in run.cache.sites:
        if site.kind in ("attn_out", "mlp_out"):
            names.append(site.name)
            values.append(reader.contributions(run.cache[site.name][0, 0]))
    norm = model.final_norm_parts
    if norm is not None and norm.bias is not None:
        names.append(NORM_BIAS)
        values.append(torch.tensor(reader.norm_bias, dtype=torch.float64))
    if model.unembedding.bias is not None:
        names.append(UNEMBED_BIAS)
        values.append(torch.tensor(reader.unembed_bias, dtype=torch.float64))
    return tuple(names), torch.stack(values)


def _heads(model: Model, run: Run, reader: LogitReader) -> tuple[Float[Tensor, "layer head"], Float[Tensor, " layer"]]:
    """What each head adds, and what the output bias (and a norm after attention) adds in each layer."""
    heads, biases = [], []
    for layer, block in enumerate(model.atlas.blocks):
        result = run.cache[f"attn.result@{layer}"][0, 0]
        output = module_at(model.hf, block.o)
        assert output is not None, "the atlas checked this path"
        bias = getattr(output, "bias", None)
        bias = torch.zeros_like(result[0]) if bias is None else bias.detach()
        parts, constant = result, bias
        if block.ln1_post is not None:
            norm = _norm_at(model, block.ln1_post)
            whole = result.sum(0) + bias
            parts, constant = through_norm(result, whole, norm), through_norm(bias, whole, norm)
            constant = constant if norm.bias is None else constant + norm.bias.detach()
        by_head = reader.contributions(parts) * block.attn_scale
        by_bias = reader.contributions(constant) * block.attn_scale
        written = float(reader.contributions(run.cache[f"attn_out@{layer}"][0, 0]))
        total = by_head.sum() + by_bias
        if not agrees(float(total), written, by_head, model.dtype):
            raise VerificationError(
                f"the heads of layer {layer} sum to {float(total):.6g}, its attention adds {written:.6g}"
            )
        heads.append(by_head.float())
        biases.append(by_bias.float())
    return torch.stack(heads), torch.stack(biases)


def _norm_at(model: Model, path: str) -> Norm:
    module = module_at(model.hf, path)
    assert isinstance(module, nn.Module), "the atlas checked this path"
    return read_norm(module)
