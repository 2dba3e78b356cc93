"""An edit by itself: its facts, how their values were found, and what it writes into which matrices."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from interp.figures.edit_effect import course_lines
from interp.report.blocks import Block, Evidence, Finding, Picture, Section, Table, Version
from interp.report.markup import Child, Html, element, quoted, token
from interp.report.sections.edit_words import (
    LAYER_SOURCES,
    METHODS,
    layers_told,
    number_of,
    undo_told,
)
from interp.report.sections.numbers import brief
from interp.tokens import visible

_LINES = 6
"""Facts whose course is drawn."""
_STOPS = {
    "steps": "all steps were made",
    "loss": "the loss fell below its threshold",
    "likely": "all steps were made, and more without noise until the target was likely",
    "enough": "then shortened to what is enough",
}


def facts(result: Any, prompt: str) -> Section | None:
    """What the edit is to make the model say."""
    count = len(result.facts)
    many = f"{count} facts" if count != 1 else "one fact"
    lead = (
        f"An edit that writes {many} into the weights of a model, by {METHODS.get(result.method, result.method)}. It is a "
        "[[rank-one edit]] of the MLP's output projection, or several of them added up."
    )
    rows: list[list[Child]] = [
        [quoted(fact.subject), quoted(fact.template), token(fact.target)] for fact in result.facts
    ]
    caption = "The facts; {} stands for the subject"
    table = Table(columns=("subject", "prompt", "target"), rows=rows, caption=caption, long=True)
    changes = [f"{number_of(change.relative_norm)} of |W| in layer {change.layer}" for change in result.layers[:3]]
    finding = f"The edit writes {many} into {layers_told([change.layer for change in result.layers])}: |dW| is {', '.join(changes)}."
    return Section(
        name="edit",
        title="The edit",
        label="Edit",
        lead=lead,
        place=82,
        blocks=(table,),
        findings=(
            Finding(
                text=finding,
                rank=Evidence.ANSWER,
                value=result.layers[0].relative_norm if len(result.layers) == 1 else None,
                unit="|dW| / |W|",
            ),
        ),
    )


def value(result: Any, prompt: str) -> Section | None:
    """The course of the optimisation, all facts; None where the edit holds none."""
    return value_section(result, range(len(result.facts)), prompt)


def weights(result: Any, prompt: str) -> Section | None:
    """What is written, without a proof of the undo: that needs the model."""
    return weights_section(result, ())


def value_section(edit: Any, shown: Sequence[int], prompt: str) -> Section | None:
    """How the values of some facts, by number, were found."""
    found = [(edit.facts[index], edit.curves[index]) for index in shown if index < len(edit.curves)]
    if not found:
        return None
    one = len(found) == 1
    drawn = found[:_LINES]
    lead = (
        "Which [[value]] must the MLP write at the subject's last token so that the model goes on with the target? A change delta of it is "
        "optimised by gradient steps: the target becomes likely after several sampled contexts and after none, while the prediction "
        "for the [[essence]] of the subject stays, and delta stays small."
    )
    if edit.settings.get("overhearers"):
        lead += " Where other subjects that end alike would hear a part of it, what they predict stays, too."
    caption = (
        "Before each step, the target's probability per token: its geometric mean over all contexts, and that of the bare prompt. The loss "
        "is the sum of its parts: target, what stays, decay. The clamp is the greatest |delta| allowed."
        if one
        else "The target's probability per token, its geometric mean over all contexts, before each step; "
        f"{len(drawn)} of {len(found)} facts."
    )
    if edit.settings.get("noise"):
        caption += " Steps run under noise on the words behind the subject, so that the value does not lean on them: the course is ragged."
        if edit.settings.get("quiet_steps"):
            caption += " It ends without noise."
    versions = _one(edit, *found[0]) if one else _several(drawn)
    picture = Picture(versions=versions, caption=caption, prompt=prompt)
    return Section(
        name="edit-value",
        title="How the value was found",
        label="Value found",
        lead=lead,
        place=83,
        blocks=(picture, _ends(edit, found)),
    )


def _one(edit: Any, fact: Any, curve: Any) -> dict[str, Version]:
    arrays = {name: getattr(curve, name).double().numpy() for name in _QUANTITIES}
    probability = {"over the contexts": arrays["probability"], "bare prompt": arrays["bare_probability"]}
    parts = {
        "loss": "loss_nats",
        "target": "target_nats",
        "what stays": "essence_nats",
        "decay": "decay_nats",
    }
    figures = {
        "Probability": course_lines(probability, "probability of the target", top=1.02),
        "Loss": course_lines({title: arrays[name] for title, name in parts.items()}, "nats"),
        "Size of delta": course_lines({"|delta|": arrays["delta_norm"]}, "norm", limit=_clamp(edit, curve)),
    }
    return {name: Version(figure=figure) for name, figure in figures.items()}


_QUANTITIES = (
    "probability",
    "bare_probability",
    "loss_nats",
    "target_nats",
    "essence_nats",
    "decay_nats",
    "delta_norm",
)


def _several(found: Sequence[Any]) -> dict[str, Version]:
    lines = {
        f"{index + 1} {visible(fact.target)}": curve.probability.double().numpy()
        for index, (fact, curve) in enumerate(found)
    }
    return {"Probability": Version(figure=course_lines(lines, "probability of the target", top=1.02))}


def _clamp(edit: Any, curve: Any) -> float | None:
    """The greatest |delta| allowed; None where the settings do not say."""
    clamp = edit.settings.get("clamp")
    return float(clamp) * curve.start_norm if isinstance(clamp, int | float) and clamp else None


def _ends(edit: Any, found: Sequence[Any]) -> Table:
    """Where each optimisation ended."""
    rows: list[list[Child]] = []
    for fact, curve in found:
        clamp = _clamp(edit, curve)
        size = float(curve.delta_norm[-1])
        rows.append(
            [
                token(fact.target),
                str(len(curve.loss_nats)),
                f"{number_of(float(curve.probability[0]))} → {number_of(float(curve.probability[-1]))}",
                number_of(float(curve.loss_nats[-1])),
                f"{brief(size)} ({brief(size / curve.start_norm)} |v0|)",
                "none" if clamp is None else f"{brief(clamp)}{', reached' * bool(size >= 0.999 * clamp)}",
                _STOPS.get(curve.stop_reason) or str(curve.stop_reason),
            ]
        )
    columns = ("target", "forward passes", "probability", "last loss (nats)", "|delta|", "clamp", "ended because")
    return Table(
        columns=columns,
        rows=rows,
        numeric=frozenset({1, 2, 3}),
        caption="First and last step; v0 is the value before",
        long=True,
    )


def weights_section(edit: Any, proofs: Sequence[Any]) -> Section:
    """What is written into which matrices, by which settings, and the proof that it can be taken back."""
    layers = [change.layer for change in edit.layers]
    source = LAYER_SOURCES.get(edit.layer_source, edit.layer_source)
    lead = (
        f"The edit adds dW, of low rank, to the weight W of the MLP's output projection in {layers_told(layers)} ({source}): where the "
        "[[key]] of the subject comes in, the new value goes out, and other keys are met as little as the [[second moment]] of ordinary "
        "keys allows. "
        "|dW| / |W| says how large the change is, in Frobenius norms."
    )
    rows: list[list[Child]] = [
        [
            str(change.layer),
            element("code", quoted(change.path)),
            str(change.rank),
            brief(change.norm),
            brief(change.base_norm),
            _share(change.relative_norm),
        ]
        for change in edit.layers
    ]
    norms = Table(
        columns=("layer", "matrix", "rank", "|dW|", "|W|", "|dW| / |W|"),
        rows=rows,
        numeric=frozenset({0, 2, 3, 4, 5}),
        caption="What is written",
    )
    blocks: list[Block] = [norms, *([_undone(proofs)] if proofs else []), _settings(edit)]
    return Section(
        name="edit-weights",
        title="What was written, and taken back" if proofs else "What is written",
        label="Weights",
        lead=lead,
        place=85,
        blocks=blocks,
    )


def _share(value: float) -> str:
    return f"{value:.2%}" if np.isfinite(value) else "not measured"


def _undone(proofs: Sequence[Any]) -> Table:
    rows: list[list[Child]] = []
    for proof in proofs:
        rows += [
            [str(proof.layer), "before", _hash(proof.before_sha256)],
            [str(proof.layer), f"applied: {_compared(not proof.changed)}", _hash(proof.applied_sha256)],
            [str(proof.layer), f"after the undo: {_compared(proof.exact)}", _hash(proof.undone_sha256)],
        ]
    return Table(
        columns=("layer", "when", "SHA-256 of the bytes"),
        rows=rows,
        numeric=frozenset({0}),
        caption=undo_told(proofs),
        long=True,
    )


def _compared(equal: bool) -> str:
    return "equal" if equal else "different"


def _hash(digest: str) -> Html:
    return element("code", quoted(digest))


def _settings(edit: Any) -> Table:
    rows: list[list[Child]] = [
        ["method", quoted(METHODS.get(edit.method) or str(edit.method))],
        ["time to make it", f"{edit.seconds:.1f} s"],
        *([words, quoted(_plain(edit.settings[name]))] for name, words in _SETTINGS.items() if name in edit.settings),
        *(
            [name.replace("_", " "), quoted(_plain(other))]
            for name, other in sorted(edit.settings.items())
            if _counts(edit, name)
        ),
        *(["second moment", quoted(line)] for line in edit.moments),
    ]
    return Table(columns=("setting", "value"), rows=rows, caption="How it was made", long=True)


_SETTINGS = {
    "contexts": "sampled contexts of each length",
    "context_lengths": "lengths of the contexts (tokens)",
    "steps": "forward passes at most",
    "learning_rate": "learning rate (Adam)",
    "clamp": "clamp (times |v0|)",
    "kl_weight": "weight of the essence",
    "decay": "weight of the decay",
}
"""Settings that are named in words, in this order; others follow under their own names."""
_OF_METHOD = {"moment_weight": "memit", "null_threshold": "alphaedit", "ridge": "alphaedit"}
"""Settings that only one method has a use for."""


def _counts(edit: Any, name: str) -> bool:
    return name not in _SETTINGS and _OF_METHOD.get(name, edit.method) == edit.method


def _plain(value: object) -> str:
    if value is None:
        return "not set"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:g}" if isinstance(value, float) else str(value)
