"""Causal tracing: what corrupting the subject costs, and which states bring the answer back."""

from typing import Any

import numpy as np

from interp.analyzers.causal_trace_sites import Site, best_layers, half_back_from, lowered
from interp.figures.causal_trace import TraceMap, trace_lines, trace_lines_follow, trace_map
from interp.maths.estimates import Estimate
from interp.report.blocks import Axis, Block, Finding, Line, LinkedTable, Picture, Section, Table, Version
from interp.report.markup import Child, Html, element, join, token
from interp.report.sections.numbers import signed

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
        blocks.append(_sites(result))
    blocks.append(_maps(result, prompt, "logit_difference"))
    return Section(
        name="causal-trace",
        title="Causal trace",
        label="Causal trace",
        lead=lead,
        place=70,
        blocks=blocks,
        findings=_findings(result),
    )


def _runs(result: Any) -> Table:
    """Clean, corrupted and what was lost, by both measures."""
    rows: list[list[Child]] = []
    for name, read in (
        ("clean", lambda measure: _exact(result.clean(measure))),
        ("corrupted", result.corrupted),
        ("lost (total effect)", result.total_effect),
    ):
        probability, logits = read("probability"), read("logit_difference")
        rows.append([name, _number(probability.value), _bounds(probability), _number(logits.value), _bounds(logits)])
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
        _answer(result.answer),
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
        f", {_samples(result)}",
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
        f"{_samples(result)}."
    )
    return Picture(versions=versions, caption=caption, prompt=prompt, start=_start(result))


def _severed(result: Any) -> list[Block]:
    """What is left of the stream's best cell of the subject when later MLPs, or attention, are severed."""
    cut = {"resid-mlp-severed": "MLPs", "resid-attn-severed": "attention"}
    kinds = [kind for kind in cut if kind in result.kinds]
    if "resid" not in result.kinds or not kinds or not lowered(result):
        return []
    (site, *_) = best_layers(result, "resid", result.subject_positions)
    parts: list[Child] = ["At ", _place(result, site.position), f" after layer {site.layer} the stream brings back "]
    parts.append(f"{_number(site.effect.value)}{_spread(result, site.effect)}")
    for kind in kinds:
        effect = result.indirect_effect(kind).at(site.layer, site.position)
        parts.append(f"; with its later {cut[kind]} severed {_number(effect.value)}{_spread(result, effect)}")
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


def _sites(result: Any) -> Table:
    rows: list[list[Child]] = [
        [
            _LABELS[kind],
            _place(result, site.position),
            _layers(site),
            _number(site.restored.value),
            _signed(site.effect.value),
            _bounds(site.effect),
        ]
        for kind in result.kinds
        for site in best_layers(result, kind)[:_SHOWN]
    ]
    return Table(
        columns=("restored", "token", "layers", "probability", "effect", f"{result.confidence:.0%} interval"),
        rows=rows,
        numeric=frozenset({2, 3, 4, 5}),
        caption=(
            f"For each kind of state the {_SHOWN} tokens that bring back most, each at its best layer. An interval is that of its own "
            "cell; a best cell is chosen among many, which flatters it a little."
        ),
    )


def _findings(result: Any) -> tuple[Finding, ...]:
    """What was lost, then the strongest site of each kind; none where nothing was lost."""
    total, corrupted = result.total_effect(), result.corrupted()
    what = "noise" if result.corruption == "noise" else "other text"
    subject = join([token(result.prompt.pieces[position]) for position in result.subject_positions], " ")
    moved: list[Child] = [
        f" {_number(result.clean_probability)} without it and {_number(corrupted.value)}{_spread(result, corrupted)} with it"
    ]
    if not lowered(result):
        text = join(
            [
                f"With {what} in place of " if what == "other text" else "With noise on ",
                subject,
                " the answer ",
                _answer(result.answer),
                " is not measurably less likely:",
                *moved,
                "; so no state is named.",
            ]
        )
        return (Finding(text=text, rank=30),)
    text = join(
        [
            f"With {what} in place of " if what == "other text" else "With noise on ",
            subject,
            " the model loses the answer ",
            _answer(result.answer),
            ": its probability is",
            *moved,
            ".",
        ]
    )
    found = [Finding(text=text, rank=30)]
    found += [Finding(text=sentence, rank=31) for sentence in _claims(result, total)]
    return tuple(found)


def _claims(result: Any, total: Estimate) -> list[Html]:
    """The early site of the stream, its late one, and the best window of MLPs and of attention."""
    claims = []
    if "resid" in result.kinds:
        early = best_layers(result, "resid", result.subject_positions)
        claims += [_claim(result, site, total) for site in early[:1]]
        last = len(result.prompt) - 1
        start = half_back_from(result, "resid", last)
        if last not in result.subject_positions and start is not None:
            effect = result.indirect_effect("resid").at(start, last)
            claims.append(
                join(
                    [
                        "At the last token ",
                        _place(result, last),
                        f" the stream brings back at least half from layer {start} on: after it "
                        f"{_number(effect.value)}{_spread(result, effect)}.",
                    ]
                )
            )
    for kind in ("mlp", "attn"):
        if kind in result.kinds:
            claims += [_claim(result, site, total) for site in best_layers(result, kind)[:1]]
    return claims


def _claim(result: Any, site: Site, total: Estimate) -> Html:
    """How much a site brings back, or that it brings back nothing that is told apart from 0."""
    among = ""
    if site.kind == "resid":
        among = " among the subject's tokens" if len(result.subject_positions) > 1 else ""
        where: list[Child] = ["Restoring the stream at ", _place(result, site.position), f" after layer {site.layer}"]
    else:
        what = "the MLPs" if site.kind == "mlp" else "attention"
        where = [f"Restoring {what} of {_named_layers(site)} at ", _place(result, site.position)]
    amount = f"{_number(site.effect.value)} of the {_number(total.value)} lost{_spread(result, site.effect)}"
    if site.clear:
        return join([*where, f" brings back {amount}{', the most' + among if among else ''}."])
    return join([*where, f" brings back most{among}, but not measurably more than nothing: {amount}."])


def _named_layers(site: Site) -> str:
    if len(site.layers) == 1:
        return f"layer {site.layers[0]}"
    return f"layers {site.layers[0]} to {site.layers[-1]}"


def _layers(site: Site) -> str:
    return str(site.layer) if len(site.layers) == 1 else f"{site.layers[0]} to {site.layers[-1]}"


def _place(result: Any, position: int) -> Html:
    return join([token(result.prompt.pieces[position]), f" ({position})"])


def _answer(answer: Any) -> Html:
    return join([token(piece) for piece in answer.pieces], " ")


def _samples(result: Any) -> str:
    if result.corruption == "tokens":
        return f"{result.n_samples} replacement{'s'[: result.n_samples != 1]}"
    return f"{result.n_samples} draw{'s'[: result.n_samples != 1]} of the noise"


def _spread(result: Any, estimate: Estimate) -> str:
    if not np.isfinite(estimate.lower):
        return " (one sample, so no interval)" if estimate.n == 1 else ""
    return f" ({result.confidence:.0%} interval {_number(estimate.lower)} to {_number(estimate.upper)})"


def _exact(value: float) -> Estimate:
    return Estimate(value=value, lower=float("nan"), upper=float("nan"), n=1)


def _number(value: float) -> str:
    """Two decimals; more of a number that would read 0.00."""
    if not np.isfinite(value):
        return "not measured"
    text = f"{value:.2f}" if abs(value) >= 0.01 or value == 0 else f"{value:.1g}"
    return text.replace("-", "−")  # noqa: RUF001


def _signed(value: float) -> str:
    return signed(value, 3) if np.isfinite(value) else "not measured"


def _bounds(estimate: Estimate) -> str:
    if not np.isfinite(estimate.lower):
        return ""
    return f"{_number(estimate.lower)} to {_number(estimate.upper)}"
