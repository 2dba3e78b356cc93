"""The circuits of one head, from its weights: what it matches, what it moves, and which heads it works with."""

from typing import Any

import numpy as np

from interp.figures.head_circuits import distance_lines, eigenvalue_plane, partner_map, singular_value_lines
from interp.report.blocks import Axis, Evidence, Finding, Picture, Section, Table, Version
from interp.report.markup import Child, Html, element, join, token
from interp.report.sections.numbers import percent

_NAMES = {"q": "queries", "k": "keys", "v": "values"}
_LISTED = 5
_FINDING_Z, _FINDING_TIMES = 10.0, 2.0


def build(result: Any, prompt: str) -> Section | None:
    """Composition with every head, the tokens that the circuits connect, copying, singular values, and what is left out."""
    lead = (
        f"What {result.head} can do, read from its weights without running the model. Its [[QK circuit]] says which tokens attend to "
        "which, its [[OV circuit]] what a token writes where it is attended to. [[Composition]] says which heads read what which earlier "
        "heads wrote. A prompt uses only a part of this, and weights do not show everything: the end of this section says what is left out."
    )
    blocks: list[Any] = [
        _partners(result, prompt),
        _strongest(result),
        _tokens(result, "QK"),
        _tokens(result, "OV"),
        _scores(result),
    ]
    blocks.append(_lines(result, prompt))
    blocks.append(element("p", element("strong", "Left out: "), "; ".join(result.left_out) + "."))
    return Section(
        name=f"circuits-{str(result.head).lower()}",
        title=f"Circuits of {result.head}",
        label=f"{result.head} circuits",
        lead=lead,
        place=66,
        blocks=tuple(blocks),
        findings=_findings(result),
    )


def _partners(result: Any, prompt: str) -> Picture:
    versions = {}
    for partner in sorted(result.partners, key=lambda p: (not p.reads, "kqv".index(p.through))):
        if bool(partner.composition.isnan().all()):
            continue
        n_layers, n_heads = partner.composition.shape
        layers = tuple(range(n_layers))
        figure = partner_map(
            partner.composition.double().numpy(),
            partner.z.double().numpy(),
            str(result.head),
            partner.through,
            reads=partner.reads,
        )
        words = (
            f"Read by its {_NAMES[partner.through]}" if partner.reads else f"Read by later {_NAMES[partner.through]}"
        )
        versions[words] = Version(
            figure=figure,
            x=Axis(of="head", heads=tuple(range(n_heads))),
            y=Axis(of="layer", layers=layers, labels=tuple(map(str, layers))),
        )
    caption = (
        "Composition with every head in an earlier (or a later) layer, by layer and head. "
        f"Random matrices give {result.shape_mean:.3f}; hovering shows standard deviations above a random rotation."
    )
    return Picture(versions=versions, caption=caption, prompt=prompt)


def _strongest(result: Any) -> Table:
    rows: list[list[Child]] = []
    for partner in result.partners:
        for head in partner.strongest(_LISTED):
            value, z = float(partner.composition[head.layer, head.head]), float(partner.z[head.layer, head.head])
            side = (
                f"its {_NAMES[partner.through]} read"
                if partner.reads
                else f"is read by the {_NAMES[partner.through]} of"
            )
            rows.append([side, str(head), f"{value:.3f}", f"{partner.typical:.3f}", f"{z:+.0f}"])
    columns = (str(result.head), "head", "composition", "median head", "sd above rotation")
    caption = f"The heads it composes with most, {_LISTED} of each kind."
    return Table(columns=columns, rows=rows, numeric=frozenset({2, 3, 4}), caption=caption, long=True)


def _tokens(result: Any, circuit: str) -> Table:
    table = result.qk if circuit == "QK" else result.ov
    rows: list[list[Child]] = []
    for direction in range(table.read_ids.shape[0]):
        for pole in range(2):
            value = f"{float(table.singular_values[direction]):.3g}" if pole == 0 else ""
            sides = [_chips(result, ids[direction, pole].tolist()) for ids in (table.read_ids, table.write_ids)]
            rows.append([value, "+-"[pole], *sides])
    words = ("query", "key it attends to") if circuit == "QK" else ("token attended to", "token promoted")
    caption = (
        f"W_{circuit}: tokens at the ends of its leading singular directions, by {result.by}. Directions need not be words: "
        "tokens without anything in common say that this one is none."
    )
    return Table(columns=("singular value", "end", *words), rows=rows, numeric=frozenset({0}), caption=caption)


def _chips(result: Any, ids: list[int]) -> Html:
    return join([token(result.vocabulary[str(number)]) for number in ids], " ")


def _scores(result: Any) -> Table:
    copying = result.copying
    rows: list[list[Child]] = [
        [
            "eigenvalues of W_OV, sum over sum of moduli",
            f"{result.ov.eigenvalue_score:+.3f}",
            "1 copies, -1 suppresses",
        ],
        [
            "the same, each token's mean logit taken off",
            f"{result.ov.eigenvalue_score_centred:+.3f}",
            "what a softmax sees",
        ],
        ["eigenvalues of W_QK", f"{result.qk.eigenvalue_score:+.3f}", "1 looks for its own token"],
        ["tokens that promote themselves most", _interval(copying.top), f"of {copying.top.n:,} tokens"],
        ["tokens among the best 1% of what they promote", _interval(copying.top_percent), "1% by chance"],
        ["other tokens that a token promotes less than itself", _interval(copying.percentile), "50% by chance"],
    ]
    caption = "Copying and matching, from token embedding to token."
    return Table(columns=("score", "value", "how to read it"), rows=rows, numeric=frozenset({1}), caption=caption)


def _interval(estimate: Any) -> str:
    if estimate.lower == estimate.upper:
        return percent(estimate.value)
    return f"{percent(estimate.value)} ({percent(estimate.lower)} to {percent(estimate.upper)})"


def _lines(result: Any, prompt: str) -> Picture:
    values = {
        name: table.singular_values.double().numpy() for name, table in (("W_QK", result.qk), ("W_OV", result.ov))
    }
    plane = eigenvalue_plane(result.ov.eigenvalues_real.double().numpy(), result.ov.eigenvalues_imag.double().numpy())
    versions = {
        "Singular values": Version(figure=singular_value_lines(values)),
        "Eigenvalues of W_OV": Version(figure=plane),
    }
    if result.profile is not None:
        lines = distance_lines(np.asarray(result.profile.directions.double()), result.distances)
        versions["W_QK by distance"] = Version(figure=lines)
    caption = (
        "Singular values of both circuits; eigenvalues of W_OV from token to token in the complex plane (right: copying); and, in a "
        "rotary layer, how the leading directions of W_QK score as the key moves away from the query."
    )
    return Picture(versions=versions, caption=caption, prompt=prompt)


def _findings(result: Any) -> tuple[Finding, ...]:
    """The head that its keys read most, where that stands out from the others and from the null."""
    partner = next(p for p in result.partners if p.reads and p.through == "k")
    best = partner.strongest(1)
    if not best:
        return ()
    value, z = (float(x[best[0].layer, best[0].head]) for x in (partner.composition, partner.z))
    if z < _FINDING_Z or value < _FINDING_TIMES * partner.typical:
        return ()
    text = (
        f"The keys of {result.head} read {best[0]} most: K-composition {value:.2f}, "
        f"where the median earlier head has {partner.typical:.2f}."
    )
    return (
        Finding(
            text=text,
            rank=Evidence.READ,
            strength=min(1.0, value),
            value=value,
            unit="composition",
            null=partner.typical,
        ),
    )
