"""TransformerLens' ``detect_head`` on this runner: the same numbers, without its cache of every activation."""

from collections.abc import Iterable
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from interp.errors import UsageError, unknown
from interp.heads import Head, HeadLike, heads_of
from interp.maths.detect_head import MEASURES, NAMES, detection_pattern, match_parts, match_scores
from interp.runner.batch import is_single_prompt
from interp.runner.model import Model
from interp.runner.plan import Capture
from interp.sites import Site
from interp.tokens import Tokens

LEFT_OUT = -1.0
"""What TransformerLens gives for a head that was not asked for."""


def detect_head(
    model: Model,
    prompt: Any,
    pattern: str | Float[Tensor, "query_pos key_pos"],
    *,
    heads: str | Head | Iterable[HeadLike] | None = None,
    exclude_bos: bool = False,
    exclude_current_token: bool = False,
    error_measure: str = "mul",
) -> Float[Tensor, "layer head"]:
    """How well every head's pattern matches a detection pattern: the numbers of TransformerLens 4.3's ``head_detector.detect_head``.

    For scripts that were written for it. ``interp.head_profiles`` says more: it averages over the queries that can show the behaviour,
    leaves the first-token sink out and compares with a null.

    Args:
        model: the model.
        prompt: text, a conversation or token ids; several for a named pattern, whose scores are averaged. TransformerLens puts a
            begin-of-text token in front of text itself; here the tokenizer decides, so give token ids to compare.
        pattern: ``previous_token_head``, ``duplicate_token_head``, ``induction_head``, or a lower triangular tensor as large as the
            prompt with the attention that is looked for.
        heads: the heads to score, all if None; the others get -1, as in TransformerLens.
        exclude_bos: leave attention to position 0 out.
        exclude_current_token: leave attention to the query's own token out.
        error_measure: ``mul``, the share of attention that goes where the pattern is 1; or ``abs``, one less the mean absolute
            difference of rows, rounded to three decimals, 1 for equal patterns and -1 at worst.

    Text without repeats has no place where duplicates or induction could show: the scores then are 0 (``mul``) as TransformerLens
    gives them, and the model's listener is told. A head whose attention is all excluded is NaN under ``mul``.

    Raises:
        UsageError: an unknown pattern or measure, a pattern of another shape, a head out of range, or a prompt of one token.

    """
    if error_measure not in MEASURES:
        raise unknown("error measure", error_measure, MEASURES)
    if isinstance(pattern, str) and pattern not in NAMES:
        raise unknown("detection pattern", pattern, NAMES)
    given = [prompt] if is_single_prompt(prompt) else list(prompt)
    if not given:
        raise UsageError("there is no prompt; give at least one")
    if len(given) > 1 and not isinstance(pattern, str):
        raise UsageError(f"a pattern of your own fits one prompt, got {len(given)}; score them one at a time")
    wanted = heads_of(heads, model.atlas.n_layers, model.atlas.n_heads)
    options = {"measure": error_measure, "exclude_bos": exclude_bos, "exclude_current_token": exclude_current_token}
    scores = [_scores(model, model.tokens(item), pattern, wanted, options) for item in given]
    chosen = torch.zeros(model.atlas.n_layers, model.atlas.n_heads, dtype=torch.bool)
    for head in wanted:
        chosen[head.layer, head.head] = True
    return torch.where(chosen, torch.stack(scores).mean(0), LEFT_OUT).float()


def _scores(
    model: Model, tokens: Tokens, pattern: str | Tensor, heads: Iterable[Head], options: dict[str, Any]
) -> Float[Tensor, "layer head"]:
    """The scores of one prompt, in the layers that have a wanted head; 0 elsewhere."""
    if len(tokens) < 2:
        raise UsageError(f"the prompt has one token ({tokens.labels[0]}); a head is detected over two or more")
    wanted = _wanted(model, tokens, pattern, options["measure"]).to(model.device)
    layers = sorted({head.layer for head in heads})

    def reduce(rows: Tensor, site: Site, first_query: int) -> Tensor:
        part = wanted[first_query : first_query + rows.shape[2], : rows.shape[3]].to(rows.device)
        return match_parts(rows, part, first_query, **options)

    captures = [Capture(Site("attn.pattern", layer), reduce, by_query=True) for layer in layers]
    cache = model.run(tokens, captures, logits=False).cache
    scores = torch.zeros(model.atlas.n_layers, model.atlas.n_heads, dtype=torch.float64)
    for layer in layers:
        parts = cache[Site("attn.pattern", layer).name]
        scores[layer] = match_scores(parts, options["measure"])[0]
    return scores


def _wanted(model: Model, tokens: Tokens, pattern: str | Tensor, measure: str) -> Float[Tensor, "query_pos key_pos"]:
    size = len(tokens)
    if isinstance(pattern, str):
        made = detection_pattern(pattern, torch.tensor(tokens.ids))
        if not bool(made.any()):
            model.notify(
                f"text without repeats: no token of the prompt has a place where a {pattern.replace('_', ' ')} would look, so the "
                "scores say nothing"
            )
        return made
    if pattern.shape != (size, size) or bool(pattern.triu(1).any()):
        raise UsageError(
            f"a detection pattern is a lower triangular matrix of {size} x {size}, as the prompt has {size} tokens; got "
            f"{list(pattern.shape)}{' with entries above the diagonal' if pattern.shape == (size, size) else ''}"
        )
    if measure == "mul" and not bool(((pattern == 0) | (pattern == 1)).all()):
        model.notify(
            "with error_measure='mul' a detection pattern should hold zeros and ones only; 'abs' takes any share"
        )
    return pattern.float()
