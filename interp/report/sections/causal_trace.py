"""Causal tracing: what corrupting the subject costs, and which states bring the answer back."""

from typing import Any

from interp.analyzers.causal_trace_sites import best_layers, lowered
from interp.figures.causal_trace import TraceMap, trace_lines, trace_lines_follow, trace_map
from interp.report.blocks import Axis, Block, Line, LinkedTable, Picture, Place, Section, Table, Version
from interp.report.markup import Child, Html, element, join, token
from interp.report.sections.causal_trace_words import (
    answer_token,
    bounds_of,
    change_of,
    findings,
    layers_of,
    number_of,
    place_of,
    samples_of,
    spread_of,
    without_interval,
)

_LABELS = {
    "resid": "Stream",
    "mlp": "MLPs",
    "attn": "Attention",
    "resid-mlp-severed": "Stream, MLPs severed",
    "resid-attn-severed": "Stream, attention severed",
}
_UNITS = {"probability": "the answer's probability", "logit_difference": "its logit difference"}
_SHOWN = 5


def build(result: Any, prompt: str) -> Section | None:
    """The runs, a map for each kind of state, its course through the layers at the selected token, and the strongest sites."""
    severed = " The [[severed]] maps do it with later MLPs or attention of that token held as they were." * any(
        "severed" in kind for kind in result.kinds
    )
    lead = (
        "Which states carry the answer? The prompt is run as it is ([[clean run]]) and with its subject garbled ([[corrupted run]]); the "
        "loss of the answer is the [[total effect]]. Then one state of the garbled run at a time is put back to its clean value "
        f"([[restored]]): what comes back is the [[indirect effect]] of that state.{severed}"
    )
    blocks: list[Block] = [_asked(result), *([] if lowered(result) else [_nothing_lost(result)]), *_severed(result)]
    blocks += [_runs(result), _maps(result, prompt, "probability"), _lines(result, prompt), _selected(result, prompt)]
    if lowered(result):
        blocks.append(_sites(result, prompt))
    blocks.append(_maps(result, prompt, "logit_difference"))
    return Section(
        name="causal-trace",
        title="Causal trace",
        label="Causal trace",
        lead=lead,
        place=70,
        blocks=blocks,
        findings=findings(result),
    )


def _runs(result: Any) -> Table:
    """Clean, corrupted and what was lost, by both measures."""
    rows: list[list[Child]] = []
    for name, read in (
        ("clean", lambda measure: without_interval(result.clean(measure))),
        ("corrupted", result.corrupted),
        ("lost (total effect)", result.total_effect),
    ):
        probability, logits = read("probability"), read("logit_difference")
        rows.append(
            [name, number_of(probability.value), bounds_of(probability), number_of(logits.value), bounds_of(logits)]
        )
    interval = f"{result.confidence:.0%} interval"
    return Table(
        columns=("run", "probability", interval, "logit difference", interval),
        rows=rows,
        numeric=frozenset({1, 2, 3, 4}),
        caption="The answer in the clean run and in the corrupted runs",
    )


def _asked(result: Any) -> Html:
    """What is traced and how it is garbled."""
    first = [token(result.answer.pieces[0]), "'s logit less that of ", token(result.against.pieces[0])]
    return element(
        "p",
        "The answer is ",
        answer_token(result.answer),
        "; the logit difference is ",
        *first,
        ". Garbled: ",
        *_corruption(result),
        ".",
        class_="lead",
    )


def _corruption(result: Any) -> list[Child]:
    subject = join([token(result.prompt.pieces[position]) for position in result.subject_positions], " ")
    if result.corruption == "tokens":
        others = join([token(text) for text in result.replacements], ", ")
        return ["the subject ", subject, " replaced by ", others]
    return [
        f"noise of {result.noise:g} standard deviations of the embeddings ({result.noise:g} × {result.noise_std:.3g}) "  # noqa: RUF001
        "added to the embeddings of ",
        subject,
        f", {samples_of(result)}",
    ]


def _nothing_lost(result: Any) -> Html:
    said = (
        "The corruption did not measurably lower the answer, so there is nothing to bring back: the maps below hold what was measured, "
        f"and no state is named. {_remedy(result)}"
    )
    return element("p", said, class_="lead")


def _remedy(result: Any) -> str:
    if result.corruption == "tokens":
        return "Another replacement may say more."
    return "More noise, more samples, or an answer that the model is surer of may say more."


def _trace_map(result: Any, kind: str, measure: str) -> TraceMap:
    effect, restored = result.indirect_effect(kind, measure), result.restored(kind, measure)
    parts = {"effect": effect.value, "lower": effect.lower, "upper": effect.upper, "restored": restored.value}
    return TraceMap(kind=kind, **{name: values.double().numpy() for name, values in parts.items()})


def _axes(result: Any) -> tuple[Axis, Axis]:
    layers = tuple(range(result.n_layers))
    return Axis(of="layer", layers=layers, labels=tuple(map(str, layers))), Axis(of="token")


def _start(result: Any) -> tuple[int, int]:
    """What to show first: the best cell among the subject's tokens, of the first kind."""
    sites = best_layers(result, result.kinds[0], result.subject_positions)
    return (sites[0].layer, sites[0].position) if sites else (0, result.subject_positions[-1])


def _maps(result: Any, prompt: str, measure: str) -> Picture:
    layers, tokens = _axes(result)
    versions = {
        _LABELS[kind]: Version(
            figure=trace_map(
                _trace_map(result, kind, measure),
                labels=result.prompt.labels,
                subject=result.subject_positions,
                window=result.window,
                n_samples=result.n_samples,
                clean=result.clean(measure),
                corrupted=result.corrupted(measure).value,
                measure=measure,
            ),
            x=layers,
            y=tokens,
        )
        for kind in result.kinds
    }
    caption = (
        f"How much of {_UNITS[measure]} comes back when one state is restored (orange: how much less there is): tokens from top to bottom, "
        "layers from left to right; a bar and * mark the subject."
    )
    if measure == "probability":
        caption += (
            " At the last token the stream of the last layer always brings everything back, because the answer is read from it; tokens "
            "before the subject bring nothing back, because nothing is garbled there."
        )
    return Picture(versions=versions, caption=caption, prompt=prompt, start=_start(result))


def _lines(result: Any, prompt: str) -> Picture:
    """The stream beside its severed variants, then the other kinds, each at the selected token."""
    corrupted = result.corrupted()
    severed = [kind for kind in result.kinds if kind.endswith("-severed")]
    layers, position = _axes(result)[0], _start(result)[1]
    versions = {}
    for kind in [kind for kind in result.kinds if kind not in severed] or severed:
        shown = [kind, *(severed if kind == "resid" else [])]
        maps = [_trace_map(result, name, "probability") for name in shown]
        restored = result.restored(kind)
        bounds = restored.lower.double().numpy(), restored.upper.double().numpy()
        versions[_LABELS[kind]] = Version(
            figure=trace_lines(
                maps,
                position,
                bounds=bounds,
                clean=result.clean_probability,
                corrupted=(corrupted.value, corrupted.lower, corrupted.upper),
            ),
            follow=trace_lines_follow(maps, bounds),
            x=layers,
        )
    caption = (
        f"The selected token, layer by layer, between the corrupted and the clean run. Bands are {result.confidence:.0%} intervals over "
        f"{samples_of(result)}."
    )
    return Picture(versions=versions, caption=caption, prompt=prompt, start=_start(result))


def _severed(result: Any) -> list[Block]:
    """What is left of the stream's best cell of the subject when later MLPs, or attention, are severed."""
    cut = {"resid-mlp-severed": "MLPs", "resid-attn-severed": "attention"}
    kinds = [kind for kind in cut if kind in result.kinds]
    if "resid" not in result.kinds or not kinds or not lowered(result):
        return []
    (site, *_) = best_layers(result, "resid", result.subject_positions)
    parts: list[Child] = ["At ", place_of(result, site.position), f" after layer {site.layer} the stream brings back "]
    parts.append(f"{number_of(site.effect.value)}{spread_of(result, site.effect)}")
    for kind in kinds:
        effect = result.indirect_effect(kind).at(site.layer, site.position)
        parts.append(f"; with its later {cut[kind]} severed {number_of(effect.value)}{spread_of(result, effect)}")
    return [element("p", *parts, ".", class_="lead")]


def _selected(result: Any, prompt: str) -> LinkedTable:
    layers = tuple(range(result.n_layers))
    lines = []
    for kind in result.kinds:
        for words, measure in (("probability", "probability"), ("logit difference", "logit_difference")):
            restored, effect = result.restored(kind, measure), result.indirect_effect(kind, measure)
            cells = [restored.value, effect.value, effect.lower, effect.upper]
            lines.append(
                Line(
                    cells=(_LABELS[kind], words, *(cell.float().numpy() for cell in cells), str(result.n_samples)),
                    rows=layers,
                )
            )
    return LinkedTable(
        columns=("restored", "measure", "value", "effect", "lower", "upper", "samples"),
        lines=lines,
        layers=layers,
        caption=(
            "The selected token restored at the selected layer: what is measured then, and the effect, its difference from the corrupted "
            f"runs; lower and upper bound the {result.confidence:.0%} interval of the effect."
        ),
        prompt=prompt,
    )


def _sites(result: Any, prompt: str) -> Table:
    sites = [(kind, site) for kind in result.kinds for site in best_layers(result, kind)[:_SHOWN]]
    rows: list[list[Child]] = [
        [
            _LABELS[kind],
            place_of(result, site.position),
            layers_of(site),
            number_of(site.restored.value),
            change_of(site.effect.value),
            bounds_of(site.effect),
        ]
        for kind, site in sites
    ]
    return Table(
        columns=("restored", "token", "layers", "probability", "effect", f"{result.confidence:.0%} interval"),
        rows=rows,
        numeric=frozenset({2, 3, 4, 5}),
        caption=(
            f"For each kind of state the {_SHOWN} tokens that bring back most, each at its best layer. An interval is that of its own "
            "cell; a best cell is chosen among many, which flatters it a little."
        ),
        places=[Place(token=site.position, layer=site.layer) for _, site in sites],
        prompt=prompt,
    )
