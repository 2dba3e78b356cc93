"""The maps of activation patching: layers by positions, or by heads, and lines over whole layers."""

from typing import Any

import numpy as np

from interp.figures.activation_patching import Bounded, Measured, patching_lines, patching_map
from interp.figures.style import short
from interp.report.blocks import Axis, Line, LinkedTable, Picture, Version
from interp.report.sections.activation_patching_words import Patched, capital, site_name

_LABEL = 24


def picture(patched: Patched, prompt: str) -> Picture:
    """A map for each site; by head and position one of the strongest positions and one for each position; by layer a line a site."""
    result = patched.result
    versions: dict[str, Version] = {}
    if result.by == "layer":
        series = {site_name(site): patched.arrays(site) for site in patched.measured}
        figure = patching_lines(series, result.layers, title=_title(patched))
        versions["By layer"] = Version(figure=figure, x=_layers(result))
    elif result.by == "head_position":
        for site in patched.measured:
            versions |= _by_position(patched, site)
    elif result.by == "head":
        for site in patched.measured:
            versions[capital(site_name(site))] = _heads(patched, site, patched.arrays(site), patched.means(site))
    else:
        for site in patched.measured:
            versions[capital(site_name(site))] = _places(patched, site, prompt)
    return Picture(versions=versions, caption=_caption(patched), prompt=prompt, start=_start(patched, prompt))


def selected(patched: Patched, prompt: str) -> LinkedTable | None:
    """The effects of all sites at the selected head, or token; None where nothing can be selected."""
    result = patched.result
    sites = [site for site in patched.measured if not patched.shared_heads(site)]
    if not sites or (result.by != "head" and not (result.by == "position" and prompt)):
        return None
    several = result.n_pairs > 1
    lines = []
    for site in sites:
        effect, lower, upper = patched.arrays(site)
        numbers = (effect, *((lower, upper) if several else ()), patched.means(site))
        cells = (site_name(site), *(part.astype(np.float32) for part in numbers))
        lines.append(Line(cells=cells, rows=range(len(result.layers))))
    by = "head" if result.by == "head" else "token"
    interval = f"; lower and upper bound the {result.confidence:.0%} interval over pairs" if several else ""
    return LinkedTable(
        columns=("site", "effect", *(("lower", "upper") if several else ()), patched.metric_with_unit),
        lines=lines,
        layers=result.layers,
        caption=f"Patches at the selected layer and {by}{interval}",
        prompt=prompt,
        by=by,
    )


def _by_position(patched: Patched, site: str) -> dict[str, Version]:
    """Layers by heads: at the position that does most for each head, then at each position that does anything."""
    name = capital(site_name(site))
    parts = (*patched.arrays(site), patched.means(site))
    size = np.where(np.isfinite(parts[0]), np.abs(parts[0]), -1.0)
    best = size.argmax(-1)
    picked = [np.take_along_axis(part, best[..., None], -1)[..., 0] for part in parts]
    notes = [[f"at {patched.places[position]} ({position})" for position in row] for row in best.tolist()]
    versions = {
        f"{name}: strongest position": _heads(patched, site, (picked[0], picked[1], picked[2]), picked[3], notes)
    }
    for position, label in enumerate(patched.places):
        if size[..., position].max() > 0:
            at = [part[..., position] for part in parts]
            versions[f"{name} at {label} ({position})"] = _heads(patched, site, (at[0], at[1], at[2]), at[3])
    return versions


def _places(patched: Patched, site: str, prompt: str) -> Version:
    """Layers by positions; a click selects the token where the page has the prompt."""
    figure = patching_map(
        *patched.arrays(site),
        _rows(patched),
        patched.places,
        row_title="layer",
        column_title="token",
        title=_title(patched),
        measured=_measured(patched, patched.means(site)),
    )
    # Every label: the page leaves out those that have no room, and its table needs them all.
    figure.update_xaxes(
        tickvals=list(range(len(patched.places))), ticktext=[short(label, _LABEL) for label in patched.places]
    )
    return Version(figure=figure, x=Axis(of="token") if prompt else None, y=_layers(patched.result))


def _heads(
    patched: Patched, site: str, effects: Bounded, means: np.ndarray, notes: list[list[str]] | None = None
) -> Version:
    """Layers by heads; a click selects the head, but not one that stands for several."""
    count, shared = means.shape[1], patched.shared_heads(site)
    figure = patching_map(
        *effects,
        _rows(patched),
        [f"H{head}" if not shared else f" kv {head}" for head in range(count)],
        row_title="layer",
        column_title="head",
        title=_title(patched),
        measured=_measured(patched, means),
        notes=notes,
    )
    if shared:
        figure.update_xaxes(title={"text": "key/value head"})
    return Version(
        figure=figure, x=None if shared else Axis(of="head", heads=tuple(range(count))), y=_layers(patched.result)
    )


def _start(patched: Patched, prompt: str) -> tuple[int, int] | None:
    """The strongest patch of the first site, for the page to select first."""
    if patched.result.by != "position" or not prompt:
        return None
    best = patched.result.strongest(patched.measured[0], 1)[0]
    return best.layer, best.position


def _rows(patched: Patched) -> list[str]:
    return [f"L{layer}" for layer in patched.result.layers]


def _measured(patched: Patched, means: np.ndarray) -> Measured:
    return Measured(values=means, name=patched.metric_with_unit)


def _layers(result: Any) -> Axis:
    return Axis(of="layer", layers=result.layers, labels=tuple(str(layer) for layer in result.layers))


def _title(patched: Patched) -> str:
    return f"share {'restored' if patched.denoising else 'taken away'}{', estimated' if patched.estimated else ''}"


def _caption(patched: Patched) -> str:
    result = patched.result
    ends = (
        "0 leaves the corrupted run as it is, 1 restores the clean one"
        if patched.denoising
        else "0 leaves the clean run as it is, 1 takes away all that the corrupted prompt does"
    )
    effect = "Estimated effect" if patched.estimated else "Effect"
    parts = [f"{effect} of one patch on the {patched.metric}: {ends}, below 0 it goes the other way."]
    if result.by != "layer":
        parts.append("Each map has its own colours, up to its greatest effect.")
    if result.by == "position":
        parts.append("Two tokens under a column are the clean and the corrupted one.")
    if result.n_pairs > 1:
        parts.append(f"{result.confidence:.0%} intervals are from a bootstrap over {result.n_pairs} pairs.")
    else:
        parts.append("One pair has no interval.")
    return " ".join(parts)
