"""The sentences about an edit: what it did to the answers, and how its facts, layers and undo read."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from interp.report.blocks import Evidence, Finding
from interp.report.markup import Html, join, quoted, token
from interp.report.sections.numbers import counted

METHODS = {
    "rome": "ROME with the averaged key everywhere",
    "rome-original": "ROME as published",
    "memit": "MEMIT",
    "alphaedit": "AlphaEdit",
}
LAYER_SOURCES = {
    "given": "given by hand",
    "table": "taken from interp's table of measured models",
    "sweep": "chosen by a sweep measured on this model",
}


def findings(result: Any) -> tuple[Finding, ...]:
    """What became of the answer, of paraphrases and neighbours, and whether the undo was exact."""
    now = result.of("prompt")[0].target_after
    found = [
        Finding(text=_answered(result), rank=Evidence.ANSWER, strength=1.0, value=now, unit="probability", block=1)
    ]
    if result.paraphrases or result.neighbours:
        found.append(Finding(text=_reached(result), rank=Evidence.ANSWER, strength=0.5))
    return (*found, Finding(text=undo_told(result.proofs), rank=Evidence.CHECK, strength=1.0))


def _answered(result: Any) -> Html:
    """The target's new place, with its probability before and after."""
    row = result.of("prompt")[0]
    moved = f"probability {number_of(row.target_before)} before the edit, {number_of(row.target_after)} after it"
    if row.target_rank_after:
        place = f" is not the first choice after the edit, but at rank {row.target_rank_after} (0 is the top): "
        return join(["The target ", answer_token(result.target), place, moved, "."])
    if not row.target_rank_before:
        return join(["The target ", answer_token(result.target), " was the first choice already: ", moved, "."])
    took = [" is now the first choice in place of ", token(row.before_token), ": "]
    return join(["The target ", answer_token(result.target), *took, moved, "."])


def _reached(result: Any) -> str:
    """How many paraphrases give the target, and how many neighbours keep their answer."""
    told = []
    paraphrases, neighbours = result.of("paraphrase"), result.of("neighbour")
    if paraphrases:
        reached = sum(not row.target_rank_after for row in paraphrases)
        told.append(
            f"{reached} of {counted(len(paraphrases), 'paraphrase')} {_has(reached)} the target as first choice"
        )
    if neighbours:
        kept = sum(not row.changed for row in neighbours)
        told.append(
            f"{kept} of {counted(len(neighbours), 'neighbour')} {'keeps' if kept == 1 else 'keep'} the first choice"
        )
    return f"After the edit {', and '.join(told)}."


def _has(count: int) -> str:
    return "has" if count == 1 else "have"


def undo_told(proofs: Sequence[Any]) -> str:
    """Whether the bytes came back, as measured."""
    matrices = "the matrix" if len(proofs) == 1 else f"all {len(proofs)} matrices"
    if all(proof.exact for proof in proofs):
        unchanged = sum(not proof.changed for proof in proofs)
        note = f" ({unchanged} of them the edit did not change at all)" * bool(unchanged)
        return f"Undoing the edit is bit-exact: the bytes of {matrices} had the same SHA-256 before it and after its undo{note}."
    wrong = [str(proof.layer) for proof in proofs if not proof.exact]
    return f"Undoing the edit did not give back the same bytes in layer {', '.join(wrong)}: the SHA-256 differs."


def fact_told(fact: Any) -> Html:
    """The prompt, the target it is to go on with, and the subject."""
    return join(["“", quoted(fact.prompt), "” → ", token(fact.target), ", of the subject ", quoted(fact.subject)])


def layers_told(layers: Sequence[int]) -> str:
    """The edited layers in words."""
    if len(layers) == 1:
        return f"layer {layers[0]}"
    return f"layers {', '.join(map(str, layers[:-1]))} and {layers[-1]}"


def answer_token(answer: Any) -> Html:
    """An answer, token by token."""
    return join([token(piece) for piece in answer.pieces], " ")


def number_of(value: float) -> str:
    """Two decimals; a digit of a number that would read 0.00, or 1.00 and is not 1."""
    if not np.isfinite(value):
        return "not measured"
    if 0.995 <= value < 1:
        return f"{value:.3f}" if value < 0.9995 else "above 0.999"
    return (f"{value:.2f}" if abs(value) >= 0.01 or value == 0 else f"{value:.1g}").replace("-", "−")  # noqa: RUF001
