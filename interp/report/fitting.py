"""A page that would be too large: the patterns of its heads are shown in squares of several tokens until it fits."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
from jaxtyping import UInt8

from interp.figures.attention import attention_heatmap
from interp.report.blocks import HeadMosaic, Prompt, Section
from interp.report.pack import squeezed

LIMIT = 25_000_000
"""Bytes of a page that browsers still open with ease."""
_FEWEST = 16
_SAMPLED_HEADS = 24
_AS_TEXT = 16 / 13


def step_for(sections: Sequence[Section], room: int) -> int:
    """How many tokens a row of a pattern must stand for so that all patterns take about ``room`` bytes; a power of two."""
    size = sum(_estimate(mosaic) for mosaic in _mosaics(sections))
    step = 1
    while size / step**2 > room and can_be_coarser(sections, step):
        step *= 2
    return step


def can_be_coarser(sections: Sequence[Section], step: int) -> bool:
    """Whether some pattern still has rows to put together when each stands for ``step`` tokens."""
    return any(_rows(mosaic) // step > _FEWEST for mosaic in _mosaics(sections))


def coarser(sections: Sequence[Section], step: int, prompts: Mapping[str, Prompt]) -> list[Section]:
    """The sections with every pattern in squares of ``step`` tokens a side."""
    if step == 1:
        return list(sections)
    made = []
    for section in sections:
        blocks = [_coarser(b, step, prompts[b.prompt]) if isinstance(b, HeadMosaic) else b for b in section.blocks]
        made.append(replace(section, blocks=tuple(blocks)))
    return made


def note_on(size: int, step: int, limit: int) -> str | None:
    """What the page says about its size: nothing where it fits as it is."""
    most = _megabytes(limit)
    if step > 1:
        said = (
            f"So that this page stays under {most}, attention patterns are shown in squares of {step} by {step} tokens, each with "
            "its greatest weight. The result that the page was made from holds every weight."
        )
        return said if size <= limit else f"{said} It is larger all the same: {_megabytes(size)}."
    if size <= limit:
        return None
    return (
        f"This page has {_megabytes(size)}, more than {most}: a browser may be slow to open it. Fewer tokens or fewer results make it "
        "smaller."
    )


def _megabytes(size: int) -> str:
    return f"{size / 1e6:.3g} MB"


def _mosaics(sections: Sequence[Section]) -> list[HeadMosaic]:
    return [block for section in sections for block in section.blocks if isinstance(block, HeadMosaic)]


def _rows(mosaic: HeadMosaic) -> int:
    return int(np.sqrt(2 * mosaic.codes.shape[2]))


def _estimate(mosaic: HeadMosaic) -> float:
    """About the bytes of a mosaic on the page, from some of its heads."""
    heads = mosaic.codes.reshape(-1, mosaic.codes.shape[2])
    sample = heads[:: -(-len(heads) // _SAMPLED_HEADS)]
    return len(squeezed(sample.tobytes())) * len(heads) / len(sample) * _AS_TEXT


def _coarser(mosaic: HeadMosaic, step: int, prompt: Prompt) -> HeadMosaic:
    labels = prompt.tokens.labels
    rows = -(-len(labels) // step)
    starts = range(0, len(labels), step)
    names = [f"{labels[start]}…{labels[min(start + step, len(labels)) - 1]}" for start in starts]
    detail = attention_heatmap(np.zeros((rows, rows)), tokens=names)
    detail.update_traces(z=None, hovertext=None)
    detail.update_layout(height=mosaic.detail.layout.height)
    return replace(
        mosaic,
        codes=np.stack([_greatest(layer, step) for layer in mosaic.codes]),
        norms=None,
        detail=detail,
        step=step,
        caption=f"{mosaic.caption} Each cell is the greatest weight in a square of {step} by {step} tokens.",
    )


def _greatest(codes: UInt8[np.ndarray, "head pair"], step: int) -> UInt8[np.ndarray, "head ..."]:
    """The greatest weight in each square of ``step`` queries and keys; the last row and column hold what is left."""
    heads, n_pos = len(codes), int(np.sqrt(2 * codes.shape[1]))
    rows = -(-n_pos // step)
    whole = np.zeros((heads, rows * step, rows * step), dtype=np.uint8)
    queries, keys = np.tril_indices(n_pos)
    whole[:, queries, keys] = codes
    squares = whole.reshape(heads, rows, step, rows, step).max(axis=(2, 4))
    queries, keys = np.tril_indices(rows)
    return squares[:, queries, keys]
