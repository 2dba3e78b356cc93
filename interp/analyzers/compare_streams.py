"""What can be compared of lenses, residual stories and attributions: quantities of the stream, layer by layer and token by token."""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from interp.analyzers.compare_axes import Aligner, Shared
from interp.analyzers.compare_tables import on_shared, one_column
from interp.analyzers.comparison import Quantity, Summary
from interp.analyzers.direct_logit_attribution import AttributionResult
from interp.analyzers.logit_lens import LensResult
from interp.analyzers.residual_story import MEASURES, StoryResult
from interp.figures.rows import site_rows
from interp.tokens import visible

_STORY_TITLES = {
    "stream_norm": "norm of the stream",
    "attn_norm": "norm of what attention wrote",
    "mlp_norm": "norm of what the MLP wrote",
    "attn_cos_stream": "cosine of attention's update with the stream",
    "mlp_cos_stream": "cosine of the MLP's update with the stream",
    "attn_cos_final": "cosine of attention's update with the final state",
    "mlp_cos_final": "cosine of the MLP's update with the final state",
    "stream_cos_final": "cosine of the stream with its final state",
}


def lenses(a: LensResult, b: LensResult, axes: Aligner) -> list[Quantity]:
    """Probability, log-probability and rank of the target, then of the top token, entropy and divergence, over sites and tokens."""
    named = site_rows(a.sites)
    rows = axes.by_name(a.sites, b.sites, named.labels, "layers", named.layers)
    columns = axes.positions(a.tokens, b.tokens, a.positions, b.positions)
    if rows is None or columns is None:
        return []
    targets_a, targets_b = ([one.vocabulary.get(str(i), str(i)) for i in one.target_ids.tolist()] for one in (a, b))
    same = torch.tensor([targets_a[i] == targets_b[j] for i, j in zip(columns.a, columns.b, strict=True)])
    if not bool(same.all()):
        axes.refuse(
            f"the target at {int((~same).sum())} of {len(same)} tokens: each side follows its own there; give both the same target"
        )
    every: list[Quantity] = []
    told = (
        (
            "target_probability",
            "probability of the target",
            "probability",
            a.target_log_prob_nats.exp(),
            b.target_log_prob_nats.exp(),
        ),
        ("target_log_prob", "log-probability of the target", "nats", a.target_log_prob_nats, b.target_log_prob_nats),
        ("target_rank", "rank of the target", "rank (0 is the top)", a.target_rank.float(), b.target_rank.float()),
    )
    at_target = (lambda _, column: targets_a[column], lambda _, column: targets_b[column])
    if bool(same.any()):
        every += [
            on_shared(
                name,
                rows,
                columns,
                one,
                two,
                title=title,
                unit=unit,
                axes=("layer", "token"),
                same=same,
                texts=at_target,
            )
            for name, title, unit, one, two in told
        ]
    tops = (a.top_log_probs_nats[..., 0].exp(), b.top_log_probs_nats[..., 0].exp())
    every.append(
        on_shared(
            "top_probability",
            rows,
            columns,
            *tops,
            title="probability of the top token",
            unit="probability",
            axes=("layer", "token"),
            texts=(_top(a), _top(b)),
        )
    )
    for name, title in (("entropy_nats", "entropy"), ("kl_nats", "divergence from the end")):
        one, two = getattr(a, name), getattr(b, name)
        every.append(on_shared(name, rows, columns, one, two, title=title, unit="nats", axes=("layer", "token")))
    return every


def lens_summaries(a: LensResult, b: LensResult) -> list[Summary]:
    """What each lens ends in at the last token, from where on, and how unsure it is."""
    tops = [(_top(one)(len(one.sites) - 1, len(one.tokens) - 1), one) for one in (a, b)]
    probs = [float(one.top_log_probs_nats[-1, -1, 0].exp()) for one in (a, b)]
    texts = {"a_text": tops[0][0], "b_text": tops[1][0]}
    return [
        Summary(
            name="top token of the last row, after the last token", unit="probability", a=probs[0], b=probs[1], **texts
        ),
        Summary(
            name="share of the rows in which it is on top to the end",
            unit="share",
            a=_settled(a),
            b=_settled(b),
            **texts,
        ),
        Summary(
            name="entropy of the last row, after the last token",
            unit="nats",
            a=float(a.entropy_nats[-1, -1]),
            b=float(b.entropy_nats[-1, -1]),
        ),
    ]


def stories(a: StoryResult, b: StoryResult, axes: Aligner) -> list[Quantity]:
    """The likeliest next tokens of both, then norms and cosines over layers and tokens."""
    every = [_next_tokens(a, b)]
    rows = axes.layers(range(a.stream_norm.shape[0]), range(b.stream_norm.shape[0]))
    columns = axes.positions(a.tokens, b.tokens, range(len(a.tokens)), range(len(b.tokens)))
    if rows is not None and columns is not None:
        for name in MEASURES:
            unit = "norm" if name.endswith("_norm") else "cosine"
            one, two = getattr(a, name), getattr(b, name)
            every.append(
                on_shared(name, rows, columns, one, two, title=_STORY_TITLES[name], unit=unit, axes=("layer", "token"))
            )
    return every


def story_summaries(a: StoryResult, b: StoryResult) -> list[Summary]:
    """The chosen token with its probability, and how long the last token's stream is in the end."""
    (one, p), (two, q) = (_chosen(result) for result in (a, b))
    norms = [float(result.stream_norm[-1, -1]) for result in (a, b)]
    return [
        Summary(name="chosen next token", unit="probability", a=p, b=q, a_text=one, b_text=two),
        Summary(name="norm of the last token's stream after the last layer", unit="norm", a=norms[0], b=norms[1]),
    ]


def attributions(a: AttributionResult, b: AttributionResult, axes: Aligner) -> list[Quantity]:
    """What each component adds to the logit, and each head where both have them."""
    logits = [_attributed(result) for result in (a, b)]
    if logits[0] == logits[1]:
        axes.note(f"both are about the logit of {logits[0]}")
    else:
        axes.note(f"A is about the logit of {logits[0]}, B about that of {logits[1]}: each component's part in its own")
    rows = axes.by_name(a.components, b.components, _names(a), "components", site_rows(a.components).layers)
    every = []
    if rows is not None:
        every.append(
            on_shared(
                "contribution",
                rows,
                one_column("logits"),
                a.contributions[:, None],
                b.contributions[:, None],
                title="contribution to the logit",
                unit="logits",
                axes=("component", "quantity"),
            )
        )
    if a.heads is not None and b.heads is not None:
        layers = axes.layers(range(a.heads.shape[0]), range(b.heads.shape[0]))
        heads = axes.heads(range(a.heads.shape[1]), range(b.heads.shape[1]))
        if layers is not None and heads is not None:
            title = "contribution of each head to the logit"
            every.append(
                on_shared(
                    "head_contribution",
                    layers,
                    heads,
                    a.heads,
                    b.heads,
                    title=title,
                    unit="logits",
                    axes=("layer", "head"),
                )
            )
    return every


def attribution_summaries(a: AttributionResult, b: AttributionResult) -> list[Summary]:
    """The whole logit, and what attention and MLPs add to it in all layers."""
    texts = {"a_text": _attributed(a), "b_text": _attributed(b)}
    found = [Summary(name="logit, the sum of all components", unit="logits", a=a.total, b=b.total, **texts)]
    for kind, words in (("attn_out", "attention"), ("mlp_out", "MLPs")):
        sums = [_sum_of(result, kind) for result in (a, b)]
        found.append(Summary(name=f"sum over {words}", unit="logits", a=sums[0], b=sums[1]))
    return found


def _top(lens: LensResult) -> Callable[[int, int], str]:
    ids = lens.top_ids[..., 0].tolist()
    return lambda row, column: lens.vocabulary.get(str(ids[row][column]), str(ids[row][column]))


def _settled(lens: LensResult) -> float:
    """In which share of the rows, counted from the last, the last row's top token stays on top after the last token."""
    tops = lens.top_ids[:, -1, 0].tolist()
    first = len(tops) - 1
    while first > 0 and tops[first - 1] == tops[-1]:
        first -= 1
    return (len(tops) - first) / len(tops)


def _next_tokens(a: StoryResult, b: StoryResult) -> Quantity:
    """The next tokens that either result lists; NaN in the one that does not list it."""
    listed = [
        dict(zip([one.vocabulary[str(i)] for i in one.final_ids.tolist()], one.final_probs.tolist(), strict=True))
        for one in (a, b)
    ]
    pieces = sorted(set(listed[0]) | set(listed[1]), key=lambda piece: -max(one.get(piece, 0.0) for one in listed))
    rows = Shared(labels=tuple(map(visible, pieces)), a=tuple(range(len(pieces))), b=tuple(range(len(pieces))))
    values: list[Tensor] = [torch.tensor([[one.get(piece, math.nan)] for piece in pieces]) for one in listed]
    return on_shared(
        "next_token",
        rows,
        one_column("probability"),
        *values,
        title="probability of the next token",
        unit="probability",
        axes=("token", "quantity"),
    )


def _chosen(story: StoryResult) -> tuple[str, float]:
    ids = story.final_ids.tolist()
    prob = float(story.final_probs[ids.index(story.chosen_id)]) if story.chosen_id in ids else math.nan
    return story.vocabulary[str(story.chosen_id)], prob


def _attributed(result: AttributionResult) -> str:
    less = "" if result.against_piece is None else f" less that of {visible(result.against_piece)}"
    return f"{visible(result.target_piece)}{less}"


def _names(result: AttributionResult) -> list[str]:
    rows = site_rows(result.components)
    return [
        f"{kind}@{layer}" if layer is not None else kind for kind, layer in zip(rows.kinds, rows.layers, strict=True)
    ]


def _sum_of(result: AttributionResult, kind: str) -> float:
    kinds = site_rows(result.components).kinds
    return sum(value for value, own in zip(result.contributions.tolist(), kinds, strict=True) if own == kind)
