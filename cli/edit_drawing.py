"""What ``interp edit`` prints: the finding, then answers before and after, the course of the optimisation, and the undo."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from .output import table
from .text import one_line

if TYPE_CHECKING:
    from interp.editing.effect_result import Asked, EditEffect


_SOURCES = {
    "given": "as given",
    "table": "the best of a measured table",
    "sweep": "the best of a sweep on this model",
}


def payload(effect: "EditEffect") -> dict[str, Any]:
    """The finding and the numbers behind it as records, then the whole result."""
    row = effect.of("prompt")[0]
    return {
        "finding": finding(effect),
        "target": effect.target.text,
        "target_probability_before": row.target_before,
        "target_probability_after": row.target_after,
        "target_rank_after": row.target_rank_after,
        "old": effect.old.text,
        "top_before": _top(effect, "before"),
        "top_after": _top(effect, "after"),
        "prompts": effect.to_frame().to_dict("records"),
        "continuation_before": _text(effect.continuation_before),
        "continuation_after": _text(effect.continuation_after),
        "layers": effect.edit.to_frame().to_dict("records"),
        "layer_source": effect.edit.layer_source,
        "undo_exact": effect.undo_exact,
        "undo": [
            {
                "layer": proof.layer,
                "path": proof.path,
                "before_sha256": proof.before_sha256,
                "applied_sha256": proof.applied_sha256,
                "undone_sha256": proof.undone_sha256,
                "exact": proof.exact,
            }
            for proof in effect.proofs
        ],
        "seconds": effect.edit.seconds,
        "result": effect.to_json(),
    }


def finding(effect: "EditEffect") -> str:
    """What became of the target, and whether the undo gave the same bytes back, in a line."""
    row, target = effect.of("prompt")[0], repr(effect.target.text)
    if row.target_rank_after:
        said = f"{target} is not the first choice, but at rank {row.target_rank_after} (0 is the top)"
    else:
        said = (
            f"{target} is now the first choice" if row.target_rank_before else f"{target} was the first choice before"
        )
    undone = "undo gives back the same bytes" if effect.undo_exact else "undo does NOT give back the same bytes"
    return one_line(f"{said}: P {_number(row.target_before)} → {_number(row.target_after)}; {undone}")


def draw(console: Any, effect: "EditEffect") -> None:
    """The finding first, then what it rests on."""
    console.print(finding(effect), soft_wrap=True)
    console.print(_answers(effect))
    related = [*effect.of("paraphrase"), *effect.of("neighbour")]
    if related:
        console.print(_related(related))
    for when, text in (("before", effect.continuation_before), ("after", effect.continuation_after)):
        if text is not None:
            console.print(f"goes on {when}: {one_line(repr(text.text))}", soft_wrap=True)
    console.print(_made(effect), soft_wrap=True)
    console.print(_written(effect))


def _answers(effect: "EditEffect") -> Any:
    from interp.tokens import visible

    rows = [
        (visible(one), _number(p_one), visible(two), _number(p_two))
        for (one, p_one), (two, p_two) in zip(effect.top("before"), effect.top("after"), strict=True)
    ]
    return table(("before", "P", "after", "P"), rows, right=" > >")


def _related(rows: "Sequence[Asked]") -> Any:
    from interp.tokens import visible

    cells = [
        (
            row.role,
            row.tokens.text,
            f"{visible(row.before_token)} {_number(row.before_probability)}",
            f"{visible(row.after_token)} {_number(row.after_probability)}",
            f"{_number(row.target_before)} → {_number(row.target_after)}",
            row.verdict,
        )
        for row in rows
    ]
    return table(("", "prompt", "before", "after", "target", "first choice"), cells)


def _made(effect: "EditEffect") -> str:
    """How the value was found, in a line."""
    edit = effect.edit
    index = edit.facts.index(effect.fact)
    layers = ", ".join(str(change.layer) for change in edit.layers)
    chosen = _SOURCES.get(edit.layer_source, edit.layer_source)
    words = f"{edit.method} in layer{'s'[: len(edit.layers) != 1]} {layers} ({chosen}), {edit.seconds:.1f} s"
    if index >= len(edit.curves):
        return words
    curve = edit.curves[index]
    course = (
        f"target P {_number(float(curve.probability[0]))} → {_number(float(curve.probability[-1]))} over the contexts"
    )
    size = f"|delta| {float(curve.delta_norm[-1]):.3g} of |v0| {curve.start_norm:.3g}"
    return f"{words}; {len(curve.loss_nats)} forward passes, {course}, {size}"


def _written(effect: "EditEffect") -> Any:
    rows = [
        (
            change.layer,
            change.path,
            change.rank,
            f"{change.relative_norm:.2%}",
            proof.before_sha256[:12],
            proof.applied_sha256[:12],
            f"{proof.undone_sha256[:12]} {'same' if proof.exact else 'DIFFERENT'}",
        )
        for change, proof in zip(effect.edit.layers, effect.proofs, strict=True)
    ]
    columns = ("layer", "matrix", "rank", "|dW|/|W|", "SHA-256 before", "applied", "undone")
    return table(columns, rows, right="> >>")


def _top(effect: "EditEffect", when: str) -> list[dict[str, Any]]:
    return [{"token": piece, "probability": probability} for piece, probability in effect.top(when)]


def _text(found: Any) -> str | None:
    return None if found is None else found.text


def _number(value: float) -> str:
    return (
        f"{value:.2f}" if 0.01 <= value < 0.995 or value == 0 else f"{value:.3f}" if value >= 0.995 else f"{value:.1g}"
    )
