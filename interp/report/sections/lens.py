"""The logit lens: what the model would say if it stopped after each layer."""

from typing import TYPE_CHECKING, Any

import numpy as np

from interp.figures import MEASURES, lens_heatmap, target_trajectory
from interp.figures.rows import Rows, site_rows
from interp.figures.style import short
from interp.report.arrays import Mapped, Words
from interp.report.blocks import Axis, Cells, Evidence, Finding, Line, LinkedTable, Picture, Section, Version
from interp.report.markup import join, token
from interp.report.sections.numbers import percent
from interp.tokens import visible

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

_SAME_NATS = 0.01
_HOVERED = 3
_SWITCH = {
    "Top token": "probability",
    "Target log-probability": "log_prob",
    "Target rank": "rank",
    "Entropy": "entropy",
    "KL to the end": "kl",
}


def build(result: Any, prompt: str) -> Section | None:
    """The lens over layers and tokens, and the target's way through the layers at the selected token."""
    rows = site_rows(result.sites)
    how = (
        "The [[tuned lens]] maps the stream after each layer to what it usually becomes by the last, and takes that to the "
        "final norm and the [[unembedding]]."
        if result.tuned
        else "The [[logit lens]] takes the stream after each layer straight to the final norm and the [[unembedding]], as if "
        "the remaining layers did nothing."
    )
    lead = how + (
        " Read a column upwards to see a prediction form: each cell shows the token that would come next"
        + (", and the top row is the model's own prediction. " if ends_in_model(result) else ". ")
        + "The colour shows the probability of that token, or the [[log-probability]] or [[rank]] of a target, "
        "the [[entropy]], or the [[KL divergence]] to the model's own prediction."
    )
    return Section(
        name="lens",
        title=_name(result).capitalize(),
        label=_name(result).capitalize(),
        lead=lead,
        place=40,
        blocks=(_map(result, rows, prompt), _ranked(result, rows, prompt), _trajectory(result, rows, prompt)),
        findings=_findings(result, rows),
    )


def ends_in_model(result: Any) -> bool:
    """Whether the rows are the stream itself and the last one is the model's own prediction."""
    streams = all(kind.startswith("resid_") for kind in site_rows(result.sites).kinds)
    return streams and bool((result.kl_nats[-1] < _SAME_NATS).all())


def _name(result: Any) -> str:
    return "tuned lens" if result.tuned else "logit lens"


def _values(result: Any) -> dict[str, np.ndarray]:
    return {
        "probability": result.top_log_probs_nats[..., 0].double().exp().numpy(),
        "log_prob": result.target_log_prob_nats.double().numpy(),
        "rank": result.target_rank.double().numpy(),
        "entropy": np.round(result.entropy_nats.double().numpy(), 2),
        "kl": np.round(result.kl_nats.double().numpy(), 2),
    }


def _words(result: Any) -> dict[int, str]:
    return {int(number): visible(piece) for number, piece in result.vocabulary.items()}


def _axis(rows: Rows) -> Axis:
    return Axis(of="layer", layers=rows.layers, labels=rows.labels)


def _map(result: Any, rows: Rows, prompt: str) -> Picture:
    words = _words(result)
    top = [[[words[number] for number in best] for best in row] for row in result.top_ids.tolist()]
    probs = result.top_log_probs_nats.double().exp().numpy()
    values = _values(result)
    cells = Cells(rows=rows.labels, link="after", best=_best(result), probs=_probs(result)[:_HOVERED])
    figures = {
        words_on_switch: lens_heatmap(
            values[name],
            name,
            rows=rows.labels,
            tokens=result.tokens.labels,
            top_tokens=top,
            top_probs=probs,
            positions=result.positions,
        )
        for words_on_switch, name in _SWITCH.items()
    }
    versions = {
        words_on_switch: Version(figure=_exact_ranks(figure), x=Axis(of="token"), y=_axis(rows), cells=cells)
        for words_on_switch, figure in figures.items()
    }
    return Picture(
        versions=versions,
        caption=(
            "Each cell is the likeliest next token at that layer, named where there is room; the colour is the quantity chosen above. "
            "The target of a position is the token that follows it, unless one was asked for."
        ),
        prompt=prompt,
    )


def _exact_ranks(figure: "Figure") -> "Figure":
    """A figure whose ranks show all their digits when hovered; other numbers keep four."""
    traces: Any = figure.data
    for trace in traces:
        trace.hovertemplate = trace.hovertemplate.replace("%{customdata:.4~g}", "%{customdata:,}")
    return figure


def _best(result: Any) -> Words:
    return Words(result.top_ids.numpy(), _words(result))


def _probs(result: Any) -> list[np.ndarray]:
    """The probability of the best, second best, ... token of each cell."""
    probs = result.top_log_probs_nats.double().exp().numpy()
    return [probs[..., rank] for rank in range(probs.shape[2])]


def _ranked(result: Any, rows: Rows, prompt: str) -> LinkedTable:
    """The best few tokens of the lens at the selected cell: what hovering shows, for narrow pages and screen readers."""
    layers = tuple(sorted({layer for layer in rows.layers if layer is not None}))
    places = {(kind, layer): row for row, (kind, layer) in enumerate(zip(rows.kinds, rows.layers, strict=True))}
    kinds = list(dict.fromkeys(kind for kind, layer in places if layer is not None))
    best, probs = _best(result), _probs(result)
    lines = [
        Line(
            cells=[*([kind] if len(kinds) > 1 else []), str(rank), Words(best.ids[..., rank], best.texts), prob],
            rows=[places.get((kind, layer)) for layer in layers],
        )
        for kind in kinds
        for rank, prob in enumerate(probs)
    ]
    return LinkedTable(
        columns=(*(["read from"] if len(kinds) > 1 else []), "rank", "next token", "probability"),
        lines=lines,
        layers=layers,
        caption="What the lens reads at the selected layer and token.",
        prompt=prompt,
    )


def _trajectory(result: Any, rows: Rows, prompt: str) -> Picture:
    words = _words(result)
    targets = [f"target {words.get(number, '(none)')}" for number in result.target_ids.tolist()]
    log_prob, rank = _values(result)["log_prob"], _values(result)["rank"]
    top = result.top_log_probs_nats[..., 0].double().numpy()
    other = "top token of the layer"
    unit = MEASURES["rank"].title
    last = {name: array[:, -1] for name, array in ((targets[-1], log_prob), (other, top))}
    figures = {
        "Probability": target_trajectory(
            {name: np.exp(array) for name, array in last.items()},
            rows=rows.labels,
            unit="probability",
            limits=(-0.02, 1.02),
        ),
        "Log-probability": target_trajectory(last, rows=rows.labels, unit="log-probability (nats)"),
        "Rank": target_trajectory({targets[-1]: rank[:, -1]}, rows=rows.labels, unit=unit, log=True),
    }
    follows: dict[str, list[dict[str, Any]]] = {
        "Probability": [{"y": Mapped(log_prob, "exp")}, {"y": _probs(result)[0]}],
        "Log-probability": [{"y": log_prob}, {"y": Mapped(_probs(result)[0], "log")}],
        "Rank": [{"y": Mapped(rank, "1 + value"), "customdata": rank}],
    }
    versions = {}
    for switch, figure in figures.items():
        _exact_ranks(figure)
        follow = follows[switch]
        follow[0]["name"] = [short(target, 40) for target in targets]
        versions[switch] = Version(figure=figure, follow=follow, x=_axis(rows))
    return Picture(
        versions=versions,
        caption="The target at the selected token, from the first layer to the last.",
        prompt=prompt,
    )


def _findings(result: Any, rows: Rows) -> tuple[Finding, ...]:
    """From which layer on the model's prediction stays on top, and where a target that is another token ends up."""
    if not ends_in_model(result):
        return ()
    pieces = {int(number): piece for number, piece in result.vocabulary.items()}
    tops = result.top_ids[:, -1, 0].tolist()
    final, first = tops[-1], len(tops) - 1
    while first > 0 and tops[first - 1] == final:
        first -= 1
    where = f"from layer {rows.labels[first]} to the end" if first < len(tops) - 1 else "in the last row only"
    seen = [f"The {_name(result)} has ", token(pieces[final]), " on top after ", token(result.tokens.pieces[-1])]
    found = [
        Finding(
            text=join([*seen, f" {where}."]),
            rank=Evidence.READ,
            strength=(len(tops) - first) / len(tops),
            value=float(first),
            unit="row of the lens",
        )
    ]
    target, rank = int(result.target_ids[-1]), int(result.target_rank[-1, -1])
    if target in pieces and target != final:
        prob = float(result.target_log_prob_nats[-1, -1].exp())
        end = f" ends at rank {rank} (0 is the top) with probability {percent(prob)}."
        text = join(["The target ", token(pieces[target]), end])
        found.append(Finding(text=text, rank=Evidence.READ, strength=prob, value=prob, unit="probability", block=2))
    return tuple(found)
