"""The logit lens: each layer's stream read as if it were the last (nostalgebraist 2020), or through a tuned lens (Belrose et al. 2023)."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from jaxtyping import Float, Int
from torch import Tensor

from interp.analyzers.tuned_lens import TunedLens
from interp.analyzers.verification import check_log_probs
from interp.errors import UsageError, unknown
from interp.maths.attribution import through_norm
from interp.maths.lens import LensRows, lens_statistics
from interp.prompts import PromptLike
from interp.results import Result
from interp.runner.model import Model
from interp.runner.selection import resolve_positions
from interp.sites import Site
from interp.tokens import Tokens, leading_space_hint, target_id, vocabulary

if TYPE_CHECKING:
    from pandas import DataFrame
    from plotly.graph_objects import Figure

STREAMS = ("resid_pre", "resid_mid", "resid_post")
UPDATES = ("attn_out", "mlp_out")
COMPONENTS = ("resid_pre@0", *UPDATES)


@dataclass(frozen=True, kw_only=True, eq=False)
class LensResult(Result):
    """What each site of the stream would predict at each position.

    ``sites`` names the rows (axis layer), ``positions`` the columns, of which ``tokens`` are the tokens. Natural logarithms.
    ``target_rank`` counts the tokens with a greater logit: 0 is the top. ``kl_nats`` is KL(final || lens). ``vocabulary`` gives the text
    of every token id that occurs. ``tuned`` says whether a tuned lens was used.
    """

    kind: ClassVar[str] = "logit_lens"
    schema_version: ClassVar[int] = 1

    tokens: Tokens
    positions: tuple[int, ...]
    sites: tuple[str, ...]
    tuned: bool
    top_ids: Int[Tensor, "layer pos k"]
    top_log_probs_nats: Float[Tensor, "layer pos k"]
    entropy_nats: Float[Tensor, "layer pos"]
    kl_nats: Float[Tensor, "layer pos"]
    target_ids: Int[Tensor, " pos"]
    target_log_prob_nats: Float[Tensor, "layer pos"]
    target_rank: Int[Tensor, "layer pos"]
    vocabulary: dict[str, str]

    def to_frame(self) -> "DataFrame":
        """One line for each site and position, with the top token. See ``top_frame`` for the best k."""
        import pandas as pd

        ids = self.target_ids.tolist()
        lines = [
            {
                "site": site,
                "position": position,
                "token": self.tokens.pieces[column],
                "top_token": self.vocabulary[str(int(self.top_ids[row, column, 0]))],
                "top_log_prob_nats": float(self.top_log_probs_nats[row, column, 0]),
                "entropy_nats": float(self.entropy_nats[row, column]),
                "kl_nats": float(self.kl_nats[row, column]),
                "target_token": self.vocabulary[str(ids[column])],
                "target_log_prob_nats": float(self.target_log_prob_nats[row, column]),
                "target_rank": int(self.target_rank[row, column]),
            }
            for row, site in enumerate(self.sites)
            for column, position in enumerate(self.positions)
        ]
        return pd.DataFrame(lines)

    def top_frame(self) -> "DataFrame":
        """One line for each site, position and place among the best k (0 is the top)."""
        import pandas as pd

        lines = [
            {
                "site": site,
                "position": position,
                "rank": rank,
                "token_id": int(self.top_ids[row, column, rank]),
                "token": self.vocabulary[str(int(self.top_ids[row, column, rank]))],
                "log_prob_nats": float(self.top_log_probs_nats[row, column, rank]),
            }
            for row, site in enumerate(self.sites)
            for column, position in enumerate(self.positions)
            for rank in range(self.top_ids.shape[2])
        ]
        return pd.DataFrame(lines)

    def figure(self, measure: str = "probability") -> "Figure":
        """A heatmap of sites by tokens; ``measure`` is probability (of the top token), log_prob, rank, entropy or kl."""
        from interp.figures.lens import lens_heatmap
        from interp.figures.rows import site_rows
        from interp.tokens import visible

        values = {
            "probability": self.top_log_probs_nats[..., 0].exp(),
            "log_prob": self.target_log_prob_nats,
            "rank": self.target_rank,
            "entropy": self.entropy_nats,
            "kl": self.kl_nats,
        }
        if measure not in values:
            raise unknown("measure", measure, values)
        return lens_heatmap(
            values[measure].double().cpu().numpy(),
            measure,
            rows=site_rows(self.sites).labels,
            tokens=self.tokens.labels,
            top_tokens=[
                [[visible(self.vocabulary[str(i)]) for i in best] for best in row] for row in self.top_ids.tolist()
            ],
            top_probs=self.top_log_probs_nats.double().exp().cpu().numpy(),
            positions=self.positions,
        )


def logit_lens(
    model: Model,
    prompt: PromptLike,
    *,
    target: str | int | None = None,
    sites: str | Sequence[str] = "resid_post",
    positions: int | Sequence[int] | None = None,
    top_k: int = 5,
    lens: TunedLens | None = None,
) -> LensResult:
    """Reads sites of the residual stream as predictions of the next token, at every position.

    Args:
        model: the model.
        prompt: text, token ids or a conversation.
        target: a token (text that is one token, or an id) whose log-probability and rank are followed. None: at each position the token
            that follows it, at the last one the model's own top token.
        sites: ``resid_pre``, ``resid_mid``, ``resid_post``, ``attn_out``, ``mlp_out``, each with layers if wanted
            (``resid_post@0-4``), or ``components`` for the embedding and every update. A stream goes through the final norm; an update
            is only a part of one and is divided by the final stream's divisor, so that it counts as much as it does in the end.
        positions: the positions to read, all if None.
        top_k: how many of the likeliest tokens to keep.
        lens: a tuned lens; only for ``resid_post``.

    Softcap and logit scale are applied as the model does. The final stream is always read too and checked against the model's logits.

    Raises:
        UsageError: a bad prompt, target, site, position or top_k; the message names the valid values.
        NumericsError: NaN or infinite logits.
        VerificationError: the reading of the final stream is not the model's logits.

    """
    options: dict[str, Any] = {"sites": sites, "positions": positions, "top_k": top_k, "lens": lens}
    return logit_lenses(model, [prompt], targets=[target], **options)[0]


def logit_lenses(
    model: Model,
    prompts: Sequence[PromptLike | Tokens],
    *,
    targets: Sequence[str | int | None] | None = None,
    sites: str | Sequence[str] = "resid_post",
    positions: int | Sequence[int] | None = None,
    top_k: int = 5,
    lens: TunedLens | None = None,
) -> tuple[LensResult, ...]:
    """``logit_lens`` of several prompts in one forward, side by side: each is that of the prompt alone, up to rounding.

    ``targets`` has one for each prompt; positions are each prompt's own. The rest, and what is raised, is as there.
    """
    tokens = [model.tokens(prompt) for prompt in prompts]
    lengths = [len(own) for own in tokens]
    columns = tuple(map(tuple, map(range, lengths))) if positions is None else resolve_positions(positions, lengths)
    wanted = _sites(model, sites)
    if lens is not None:
        lens.check(model, wanted)
    asked = [None] * len(tokens) if targets is None else targets
    chosen = [None if target is None else chosen_id(model, target) for target in asked]
    final = Site("resid_post", model.atlas.n_layers - 1)
    shown = "all" if positions is None else positions
    run = model.run(tokens, [*wanted, final], positions=positions, logits=shown, cache_device=model.together)
    assert run.logits is not None
    logits = [run.logits[row, : len(own)] for row, own in enumerate(columns)]
    ids = torch.cat([_target_ids(*each) for each in zip(tokens, columns, chosen, logits, strict=True)])
    streams = {site: _real(run.cache[site.name], columns) for site in (*wanted, final)}
    rows = [_normed(model, site, stream, streams[final]) for site, stream in streams.items() if site in wanted]
    if lens is not None:
        rows = list(lens.apply(torch.stack(rows), [site.layer or 0 for site in wanted]))
    if wanted[-1] != final:
        rows.append(model.final_norm(streams[final]))
    statistics = lens_statistics(torch.stack(rows), model.unembedding, ids, k=top_k)
    found, start = [], 0
    for own, kept, expected in zip(tokens, columns, logits, strict=True):
        part, start = slice(start, start + len(kept)), start + len(kept)
        check_log_probs(
            torch.cat([statistics.top_ids[-1, part], ids[part, None].to(statistics.top_ids)], 1),
            torch.cat([statistics.top_log_probs[-1, part], statistics.target_log_prob[-1, part, None]], 1),
            expected,
            what="the last row of the lens",
        )
        found.append(_result(model, own, kept, wanted, ids[part], statistics, part, lens is not None))
    return tuple(found)


def _real(stream: Float[Tensor, "batch pos d_model"], columns: Sequence[Sequence[int]]) -> Float[Tensor, "row d_model"]:
    """The positions of all prompts one behind the other, without what only pads."""
    return torch.cat([stream[row, : len(own)] for row, own in enumerate(columns)])


def _sites(model: Model, specs: str | Sequence[str]) -> tuple[Site, ...]:
    """The sites to read, in the order of a forward. Raises UsageError for one that is no stream or update."""
    names = (specs,) if isinstance(specs, str) else tuple(specs)
    if not names:
        raise UsageError(f"no sites given; valid: {', '.join((*STREAMS, *UPDATES, 'components'))}")
    spelt = [part for name in names for part in (COMPONENTS if name == "components" else (name,))]
    found = model.sites.sites(spelt)
    for site in found:
        if site.kind not in (*STREAMS, *UPDATES):
            raise unknown("site of a lens", site.kind, (*STREAMS, *UPDATES, "components"))
    return found


def chosen_id(model: Model, target: str | int) -> int:
    """The id of a target token, in range; a hint goes to the model's listener where a leading space seems to be missing."""
    chosen = target_id(model.tokenizer, target)
    if not 0 <= chosen < model.unembedding.weight.shape[0]:
        raise UsageError(f"the target id {chosen} is out of range; valid: 0 to {model.unembedding.weight.shape[0] - 1}")
    hint = leading_space_hint(model.tokenizer, target)
    if hint:
        model.notify(hint)
    return chosen


def _target_ids(
    tokens: Tokens, columns: Sequence[int], chosen: int | None, logits: Float[Tensor, "pos d_vocab"]
) -> Int[Tensor, " pos"]:
    """The target of each position: the one given, or the next token; after the last token the model's own choice."""
    if chosen is not None:
        return torch.full((len(columns),), chosen)
    last = len(tokens) - 1
    ids = [tokens.ids[column + 1] if column < last else int(logits[row].argmax()) for row, column in enumerate(columns)]
    return torch.tensor(ids)


def _normed(
    model: Model, site: Site, stream: Float[Tensor, "pos d_model"], final: Float[Tensor, "pos d_model"]
) -> Float[Tensor, "pos d_model"]:
    if site.kind in STREAMS:
        return model.final_norm(stream)
    norm = model.final_norm_parts
    update = through_norm(stream, final, norm)
    update = update if norm is None or norm.bias is None else update + norm.bias.detach()
    return update.to(stream.dtype)


def _result(
    model: Model,
    tokens: Tokens,
    columns: tuple[int, ...],
    sites: Sequence[Site],
    ids: Int[Tensor, " pos"],
    statistics: LensRows,
    part: slice,
    tuned: bool,
) -> LensResult:
    """The result of one prompt, whose positions are ``part`` of the statistics."""
    rows = slice(len(sites)), part
    top_ids = statistics.top_ids[rows].cpu()
    return LensResult(
        provenance=model.provenance(),
        tokens=narrowed(tokens, columns),
        positions=columns,
        sites=tuple(site.name for site in sites),
        tuned=tuned,
        top_ids=top_ids,
        top_log_probs_nats=statistics.top_log_probs[rows].cpu(),
        entropy_nats=statistics.entropy[rows].cpu(),
        kl_nats=statistics.kl[rows].cpu(),
        target_ids=ids.cpu(),
        target_log_prob_nats=statistics.target_log_prob[rows].cpu(),
        target_rank=statistics.target_rank[rows].cpu(),
        vocabulary=vocabulary(model.tokenizer, [*top_ids.unique().tolist(), *ids.tolist()]),
    )


def narrowed(tokens: Tokens, columns: Sequence[int]) -> Tokens:
    """The tokens at some positions only, with the whole text."""
    return Tokens(
        text=tokens.text,
        ids=tuple(tokens.ids[column] for column in columns),
        pieces=tuple(tokens.pieces[column] for column in columns),
        spans=tuple(tokens.spans[column] for column in columns),
    )
