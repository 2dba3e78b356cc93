"""Attention patterns: where every head looks, all of them at once and one in detail."""

from typing import Any

import numpy as np
import torch

from interp.figures.attention import attention_heatmap
from interp.maths.attention import pack
from interp.report.blocks import Evidence, Finding, HeadMosaic, HeadScore, Section
from interp.report.sections.numbers import percent

_HEIGHT = 560
_SINK = 0.5
_PREVIOUS = 0.5


def build(result: Any, prompt: str) -> Section | None:
    """The mosaic of all heads, which can be sorted by what they attend to, with the selected head and token beside it."""
    lead = (
        "An [[attention head]] lets each token read from itself and the tokens before it. Each small square is one head's "
        "[[attention pattern]]: a row for each token that reads, from top to bottom, and a column for each token that is read. "
        "A line next to the diagonal is a head that reads the previous token, a bright first column one that "
        "rests on the first token (an [[attention sink]]). Choose a head to see it large, and a token to see what it reads there."
    )
    return Section(
        name="attention",
        title="Attention patterns",
        label="Attention",
        lead=lead,
        place=35,
        blocks=(_mosaic(result, prompt),),
        findings=_findings(result),
    )


def _mosaic(result: Any, prompt: str) -> HeadMosaic:
    codes = (pack(result.patterns) if result.patterns.is_floating_point() else result.patterns).numpy()
    n_pos = len(result.tokens)
    detail = attention_heatmap(np.zeros((n_pos, n_pos)), tokens=result.tokens.labels)
    detail.update_traces(z=None, hovertext=None)
    detail.update_layout(height=_HEIGHT)
    return HeadMosaic(
        codes=codes,
        layers=result.layers,
        heads=result.heads,
        kv_heads=result.kv_heads,
        windows=result.windows,
        norms=None if result.output_norms is None else result.output_norms.numpy(),
        scores=_scores(result),
        start=_most_previous(result)[:2],
        detail=detail,
        caption=_caption(result),
        prompt=prompt,
    )


def _caption(result: Any) -> str:
    words = [
        "Layers upwards, heads from left to right; weights from 0 (dark) to 1, to the nearest 255th, in colours that tell small "
        "ones apart."
    ]
    if result.n_kv_heads > 1 and len(set(result.kv_heads)) < len(result.heads):
        words.append("Heads that stand together share their keys and values; a wider gap parts the groups.")
    elif result.n_kv_heads == 1:
        words.append("All heads of a layer share one set of keys and values.")
    sliding = [window for window in result.windows if window is not None]
    if sliding:
        words.append(f"A ~ marks layers that see only a window of {sliding[0]} tokens.")
    if result.output_norms is not None:
        words.append(
            "“Times what would be written” multiplies each weight by the norm of what the head would write from that token: a token "
            "that gets much weight but gives little fades."
        )
    return " ".join(words)


def _scores(result: Any) -> tuple[HeadScore, ...]:
    means = {name: values.numpy() for name, values in result.means().items()}
    return (
        HeadScore(label="Previous token", values=means["previous"]),
        HeadScore(label="First token", values=means["first"]),
        HeadScore(label="Itself", values=means["own"]),
        HeadScore(label="Entropy (nats)", values=means["entropy_nats"], least_first=True),
        HeadScore(label="Mean distance (tokens)", values=means["distance_tokens"]),
    )


def _findings(result: Any) -> tuple[Finding, ...]:
    """How many heads rest on the first token, and which reads the previous one most; nothing for prompts too short to tell."""
    if len(result.tokens) < 4:
        return ()
    means = result.means()
    found = []
    resting, total = int((means["first"] > _SINK).sum()), means["first"].numel()
    if resting:
        text = f"{resting} of {total} attention heads put more than half of their weight on the first token."
        share = resting / total
        found.append(Finding(text=text, rank=Evidence.HABIT, strength=share, value=share, unit="share of heads"))
    layer, head, mass = _most_previous(result)
    if mass > _PREVIOUS:
        text = f"Head L{layer}H{head} reads the previous token most: {percent(mass)} of its weight on average."
        found.append(Finding(text=text, rank=Evidence.HABIT, strength=mass, value=mass, unit="share of attention"))
    return tuple(found)


def _most_previous(result: Any) -> tuple[int, int, float]:
    """The layer and head that read the previous token most, and how much of their weight that is."""
    previous = result.means()["previous"]
    row, column = divmod(int(torch.argmax(previous)), len(result.heads))
    return result.layers[row], result.heads[column], float(previous[row, column])
