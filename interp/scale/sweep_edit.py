"""One fact edited and measured: what an ``edit`` sweep does with each item."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from interp.editing.cases import EditCase
from interp.editing.edit_facts import edit_facts
from interp.editing.evaluation import evaluate_edit
from interp.editing.evaluation_result import EditScores
from interp.editing.settings import settings_of
from interp.prompts import Fact
from interp.runner.model import Model


def edit(
    model: Model,
    subject: str,
    template: str,
    target: str,
    true: str,
    paraphrases: Sequence[str] = (),
    neighbours: Sequence[str] = (),
    portability: Sequence[Sequence[str]] = (),
    locality: Sequence[Sequence[str]] = (),
    generation_prompts: Sequence[str] = (),
    *,
    method: str = "rome",
    layers: int | Sequence[int] | str = "auto",
    allow_known: bool = False,
    generate: bool = False,
    seed: int = 0,
    **settings: Any,
) -> EditScores:
    """Edits one fact by itself and scores the edit on its own case, before and after; the model is then as it was.

    ``settings`` are those of ``EditSettings`` in place of the method's own. Raises like ``edit_facts`` and ``evaluate_edit``.
    """
    case = EditCase(
        fact=Fact(subject, template, target),
        true=true,
        paraphrases=tuple(paraphrases),
        neighbours=tuple(neighbours),
        portability=tuple((prompt, answer) for prompt, answer in portability),
        locality=tuple((prompt, answer) for prompt, answer in locality),
        generation_prompts=tuple(generation_prompts),
    )
    made: Any = edit_facts(
        model,
        case.fact,
        method,
        layers=layers,  # pyright: ignore[reportArgumentType] - checked there
        settings=replace(settings_of(method), **{name: _read(value) for name, value in settings.items()}),
        seed=seed,
        allow_known=allow_known,
    )
    return evaluate_edit(model, made, case, generate=generate, seed=seed)


def _read(value: Any) -> Any:
    """A setting as ``EditSettings`` holds it."""
    return tuple(value) if isinstance(value, list) else value
