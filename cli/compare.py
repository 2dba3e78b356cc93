"""``interp compare``: two prompts, two models, or a model before and after an edit, side by side with their differences."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from interp.errors import UsageError, unknown

from .compare_drawing import draw, payload
from .model import open_model
from .options import (
    DEFAULT_MODEL,
    Chat,
    Device,
    DeviceMap,
    Dtype,
    Json,
    ModelOption,
    Offline,
    OutputPath,
    Quiet,
    Seed,
    System,
)
from .output import Output
from .prompt import read_prompt
from .report_analyses import ANALYSES, Asked
from .saved import check_only_files, is_saved, load_saved, showing
from .saving import check_result_path, save_result

if TYPE_CHECKING:
    from interp.analyzers.comparison import Comparison
    from interp.models.cache import Step
    from interp.results import Result
    from interp.runner.model import Model

app = typer.Typer(rich_markup_mode=None, add_completion=False)

WHAT = ("lens", "story", "attribution", "attention", "trace", "heads")
"""The analyses that can be compared, by their names in ``interp report --sections``."""
WITHOUT_PROMPT = "heads"
ONE_TARGET = ("lens", "attribution")
"""Of these both sides follow one token, A's answer unless another is asked for."""


@dataclass(frozen=True, kw_only=True)
class Side:
    """What one side runs: which model, what is asked of it, and the edit that is applied meanwhile."""

    model: str
    asked: Asked
    edit: Path | None = None


@app.command()
def compare(
    context: typer.Context,
    asked: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="A B", help="Two prompts; one prompt with --model-b or --edit; or two saved results of one kind."
        ),
    ] = None,
    model: ModelOption = DEFAULT_MODEL,
    model_b: Annotated[
        str | None, typer.Option("--model-b", metavar="MODEL", help="The prompt on --model and on this one.")
    ] = None,
    edit: Annotated[
        Path | None,
        typer.Option("--edit", metavar="FILE", help="The prompt before and after an edit that interp edit -o wrote."),
    ] = None,
    what: Annotated[
        str, typer.Option("--what", "-w", metavar="NAME,NAME", help=f"What to compare: {', '.join(WHAT)}.")
    ] = "lens",
    target: Annotated[
        str | None,
        typer.Option("--target", "-t", metavar="TEXT", help="The token that both follow; default: A's answer."),
    ] = None,
    subject: Annotated[
        str | None, typer.Option("--subject", "-s", metavar="TEXT", help="Of a trace: what the prompt is about.")
    ] = None,
    subject_b: Annotated[
        str | None, typer.Option("--subject-b", metavar="TEXT", help="The same of B, where it is another.")
    ] = None,
    chat: Chat = False,
    system: System = None,
    seed: Seed = 0,
    device: Device = "auto",
    device_map: DeviceMap = None,
    dtype: Dtype = "auto",
    offline: Offline = False,
    as_json: Json = False,
    output: OutputPath = None,
    quiet: Quiet = False,
) -> None:
    """Put two prompts, two models, or before and after, side by side.

    Layers, heads and tokens are matched where they mean the same in both; prompts of different length from the end. What has no counterpart
    is named and left out. With -o everything goes to a file: .html to look at, .safetensors, .json or .csv.
    """
    check_result_path(output)
    names = _names(what)
    if output is not None and output.suffix != ".html" and len(names) > 1:
        raise UsageError(
            f"{output.suffix} holds one comparison and --what names {len(names)}; write .html, or name one"
        )
    speaker = Output(command="compare", as_json=as_json, path=output, quiet=quiet)
    files = asked if asked and any(map(is_saved, asked)) else []
    if files:
        check_only_files(context)
        found = [_of_files(files)]
    else:
        base = Asked(prompt="", target=target, subject=subject, seed=seed)
        a, b = _sides(asked or [], base, names, model, model_b, edit, subject_b, chat=chat, system=system)
        options = {"device": device, "device_map": device_map, "dtype": dtype, "offline": offline}
        found = _compared(speaker, a, b, names, options)
    with showing(files):
        if output is not None:
            _save(found, output)
        speaker.show(payload(found), lambda console: draw(console, found), to_stdout=True)
    if output is not None:
        speaker.note(f"wrote {output}")


def _names(what: str) -> list[str]:
    names = list(dict.fromkeys(part.strip() for part in what.split(",") if part.strip()))
    if not names:
        raise UsageError(f"--what names nothing to compare; valid: {', '.join(WHAT)}")
    for name in names:
        if name not in WHAT:
            raise unknown("thing to compare", name, WHAT)
    return names


def _of_files(arguments: Sequence[str]) -> "Comparison":
    if len(arguments) != 2:
        raise UsageError(f"two saved results are compared, got {len(arguments)}")
    from interp.analyzers.compare import compare

    results = load_saved(arguments)
    if len(results) != 2:
        raise UsageError(f"two saved results are compared, and these hold {len(results)}; name one file on each side")
    with showing(arguments):
        return compare(*results)


def _sides(
    arguments: Sequence[str],
    base: Asked,
    names: Sequence[str],
    model: str,
    model_b: str | None,
    edit: Path | None,
    subject_b: str | None,
    *,
    chat: bool,
    system: str | None,
) -> tuple[Side, Side]:
    """What each side runs. Raises UsageError unless exactly one thing differs between them."""
    second = [name for name, value in (("--model-b", model_b), ("--edit", edit)) if value is not None]
    if len(arguments) > 2 or len(second) > 1 or (len(arguments) == 2 and second):
        raise UsageError(
            "one thing differs at a time: give two prompts, or one prompt with --model-b, or one prompt with --edit"
        )
    if not arguments and (not second or set(names) != {WITHOUT_PROMPT}):
        raise UsageError(f"a prompt is needed; only --what {WITHOUT_PROMPT} with --model-b or --edit goes without")
    if len(arguments) == 1 and not second:
        raise UsageError("one prompt alone has nothing beside it; give a second prompt, --model-b MODEL or --edit FILE")
    if len(arguments) == 2 and WITHOUT_PROMPT in names:
        raise UsageError(
            f"{WITHOUT_PROMPT} are measured over many prompts of their own; compare them with --model-b or --edit"
        )
    if "trace" in names and base.subject is None:
        raise UsageError("--what trace needs --subject, the words of the prompt that are corrupted")
    prompts = [read_prompt(text, chat=chat, system=system) for text in arguments] or [""]
    first = replace(base, prompt=prompts[0])
    other = replace(base, prompt=prompts[-1], subject=subject_b if subject_b is not None else base.subject)
    return Side(model=model, asked=first), Side(model=model_b or model, asked=other, edit=edit)


def _compared(speaker: Output, a: Side, b: Side, names: Sequence[str], options: dict[str, Any]) -> "list[Comparison]":
    """Runs both sides, the model loaded once where it is the same, and compares what they end in."""
    opened = open_model(speaker, a.model, **options)
    loaded = _edit_of(b, opened)
    from interp.analyzers.compare import compare

    with speaker.progress() as step:
        targets = _target(opened, a, loaded, names)
        ran = [_run(opened, name, a.asked, targets, step) for name in names]
    if b.model != a.model:
        targets = (
            None if targets is None else opened.tokens([targets]).pieces[0] if isinstance(targets, int) else targets
        )
        del opened
        opened = open_model(speaker, b.model, **options)
    with speaker.progress() as step, _applied(loaded, opened):
        ran_b = [_run(opened, name, b.asked, targets, step) for name in names]
    called = ("before", "after") if loaded is not None else None
    return [compare(one, two, names=called) for one, two in zip(ran, ran_b, strict=True)]


def _run(model: "Model", name: str, asked: Asked, target: str | int | None, step: "Step") -> "Result":
    request = replace(asked, target=target) if name in ONE_TARGET else asked
    return next(ANALYSES[name].run(model, request, step))


def _target(model: "Model", a: Side, edit: Any, names: Sequence[str]) -> str | int | None:
    """The token that both sides follow: the one asked for, else that of the edit, else A's answer."""
    if a.asked.target is not None or not set(names) & set(ONE_TARGET):
        return a.asked.target
    if edit is not None and edit.facts:
        return model.tokenizer(edit.facts[0].target, add_special_tokens=False)["input_ids"][0]
    return int(model.run(a.asked.prompt, logits="last").last_logits[0].argmax())


def _edit_of(side: Side, model: "Model") -> Any:
    if side.edit is None:
        return None
    from interp.editing.edit_file import load_edit

    return load_edit(side.edit, model)


@contextmanager
def _applied(edit: Any, model: "Model") -> Iterator[None]:
    """The model with the edit, if there is one; as before afterwards."""
    if edit is None:
        yield
        return
    with edit.applied(model):
        yield


def _save(found: "Sequence[Comparison]", path: Path) -> None:
    if path.suffix != ".html":
        save_result(found[0], path)
        return
    from interp.report.page import report

    report(found).save(path)
