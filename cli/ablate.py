"""``interp ablate``: what the model loses without each of its heads, MLPs, attentions or blocks."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from interp.errors import UsageError

from .ablate_texts import Asked, read_asked, read_texts
from .model import open_model
from .options import (
    DEFAULT_MODEL,
    Device,
    DeviceMap,
    Dtype,
    Json,
    ModelOption,
    Offline,
    OutputPath,
    Quiet,
    Revision,
    Seed,
)
from .output import Output, table
from .saving import check_result_path, save_result
from .unfinished import Fresh, keeping

if TYPE_CHECKING:
    from interp.analyzers.ablation_result import AblationResult
    from interp.results import Estimate

_FINE = 0.01
"""Numbers below this are shown by their digits, not by their decimals."""

app = typer.Typer(rich_markup_mode=None, add_completion=False)


@app.command()
def ablate(
    prompts: Annotated[
        list[str] | None,
        typer.Argument(metavar="PROMPT...", help="One or several texts, each in quotes; '-' reads one from stdin."),
    ] = None,
    text: Annotated[
        Path | None,
        typer.Option(
            "--text",
            metavar="FILE",
            help="Texts, one a line; or a .jsonl file with prompt and, if asked, target, against.",
        ),
    ] = None,
    units: Annotated[
        str, typer.Option("--units", "-u", metavar="UNITS", help="What to take out: heads, attention, mlps, layers.")
    ] = "heads",
    method: Annotated[
        str,
        typer.Option(
            "--method", metavar="METHOD", help="What an output becomes: zero, its mean, or resample: another text's."
        ),
    ] = "mean",
    metric: Annotated[
        str | None,
        typer.Option(
            "--metric",
            metavar="NAME",
            help="loss, probability, log_prob, logit_difference or kl; default: loss, or with --target log_prob.",
        ),
    ] = None,
    target: Annotated[
        str | None, typer.Option("--target", "-t", metavar="TEXT", help="The answer that is scored, such as ' Paris'.")
    ] = None,
    against: Annotated[
        str | None, typer.Option("--against", metavar="TEXT", help="The other answer of the logit difference.")
    ] = None,
    reference: Annotated[
        Path | None,
        typer.Option(
            "--reference", metavar="FILE", help="Texts for mean and resample; default: the prompts themselves."
        ),
    ] = None,
    layer: Annotated[
        str | None, typer.Option("--layer", "-l", metavar="LAYERS", help="Only these layers: 5, 5,7, 0-4 or -1.")
    ] = None,
    position: Annotated[
        str | None,
        typer.Option("--position", metavar="N,N", help="Only at these positions; -1 is the last; default: all."),
    ] = None,
    samples: Annotated[int, typer.Option("--samples", metavar="N", min=1, help="Draws of resample.")] = 5,
    context: Annotated[
        int | None,
        typer.Option("--context", metavar="N", help="Longest piece a text is cut into, in tokens; default: 1,024."),
    ] = None,
    top_k: Annotated[
        int, typer.Option("--top-k", "-k", metavar="K", min=1, help="How many of each kind of unit to show.")
    ] = 10,
    model: ModelOption = DEFAULT_MODEL,
    seed: Seed = 0,
    fresh: Fresh = False,
    device: Device = "auto",
    device_map: DeviceMap = None,
    dtype: Dtype = "auto",
    revision: Revision = None,
    offline: Offline = False,
    as_json: Json = False,
    output: OutputPath = None,
    quiet: Quiet = False,
) -> None:
    """Show what the model loses without each part.

    Heads, or the attention, MLP or whole block of a layer, are taken out one at a time: the change is the loss of the text, or the score of
    an answer, without the part less that of the whole model. Ctrl-C keeps what is done, and the same command goes on. With -o every
    part goes to a file: .html to look at, .safetensors to load again, .json, or .csv.
    """
    check_result_path(output)
    asked = read_asked(prompts or [], text, target, against)
    options: dict[str, Any] = {
        "units": [unit.strip() for unit in units.split(",")],
        "method": method,
        "metric": metric,
        "target": asked.target,
        "against": asked.against,
        "reference": None if reference is None else read_texts(reference),
        "positions": None if position is None else _numbers(position),
        "samples": samples,
        "context": context,
        "seed": seed,
    }
    speaker = Output(command="ablate", as_json=as_json, path=output, quiet=quiet)
    opened = open_model(
        speaker, model, device=device, device_map=device_map, dtype=dtype, revision=revision, offline=offline
    )

    from interp.analyzers.ablation import ablation
    from interp.sites import read_layers

    options["layers"] = None if layer is None else list(read_layers(layer, opened.atlas.n_layers))
    request: dict[str, Any] = options | {"prompts": repr(asked.prompts), "reference": repr(options["reference"])}
    with keeping(speaker, opened, fresh=fresh, **request) as work:
        result = ablation(opened, asked.prompts, **options, checkpoint=work.checkpoint, progress=work.progress)
    if output is not None:
        save_result(result, output)
    speaker.show(_payload(result, top_k), lambda console: _draw(console, result, asked, top_k), to_stdout=True)
    if output is not None:
        speaker.note(f"wrote {output}")


def _numbers(text: str) -> list[int]:
    try:
        return [int(part) for part in text.split(",")]
    except ValueError as error:
        raise UsageError(f"cannot read the positions {text!r}; write numbers with commas, such as 0,-1") from error


def _payload(result: "AblationResult", top_k: int) -> dict[str, Any]:
    """The components of each kind that change most, then the whole result."""
    return {
        "whole": _record(result.whole_mean),
        "strongest": {
            unit: [
                {
                    "component": str(found.component),
                    "layer": found.component.layer,
                    "head": found.component.head,
                    "without": _record(found.without),
                    "change": _record(found.change),
                }
                for found in result.strongest(top_k, unit)
            ]
            for unit in result.units
        },
        "intervals_over": result.over,
        "result": result.to_json(),
    }


def _record(estimate: "Estimate") -> dict[str, float | int]:
    return {"value": estimate.value, "lower": estimate.lower, "upper": estimate.upper, "n": estimate.n}


def _draw(console: Any, result: "AblationResult", asked: Asked, top_k: int) -> None:
    """The whole model, then the components of each kind that change most."""
    console.print(_about(result), soft_wrap=True)
    bounded = bool(result.change(result.units[0]).lower.isfinite().any())
    name = result.metric.replace("_", " ")
    columns = ["without", name, "change", *([f"{result.confidence:.0%} interval of the change"] if bounded else [])]
    for unit in result.units:
        rows = [
            [
                str(found.component),
                _number(found.without.value),
                _signed(found.change.value),
                *([f"{_signed(found.change.lower)} to {_signed(found.change.upper)}"] if bounded else []),
            ]
            for found in result.strongest(top_k, unit)
        ]
        total = result.change(unit).value.numel()
        title = f"{unit} ({len(rows)} of {total})" if len(rows) < total else unit
        console.print(table(columns, rows, title=title, right=" >>" + ">" * bounded))
    console.print("change: without the part less the whole model; the greatest first", soft_wrap=True)
    if not bounded:
        more = (
            "several texts give intervals" if result.method != "resample" else "more texts, or samples, give intervals"
        )
        console.print(f"no intervals from one text; {more}", soft_wrap=True)


def _about(result: "AblationResult") -> str:
    from interp.tokens import visible

    whole, n = result.whole_mean, len(result.prompts)
    texts = f"{n} texts" if n > 1 else f"one text of {len(result.prompts[0])} tokens"
    name, unit = result.metric.replace("_", " "), _unit(result)
    answers = dict.fromkeys(visible(answer.text) for answer in result.answers)
    of = f" of {', '.join(list(answers)[:3])}{' …' * (len(answers) > 3)}" if answers and result.metric != "kl" else ""
    against = dict.fromkeys(visible(answer.text) for answer in result.against)
    of += f" against {', '.join(list(against)[:3])}" if against and result.metric == "logit_difference" else ""
    spread = f" ({_number(whole.lower)} to {_number(whole.upper)})" if whole.lower == whole.lower else ""
    return f"{_METHODS[result.method]} on {texts}; {name}{of} of the whole model: {_number(whole.value)}{unit}{spread}"


_METHODS = {
    "zero": "outputs set to zero",
    "mean": "outputs set to their mean",
    "resample": "outputs taken from other texts",
}


def _unit(result: "AblationResult") -> str:
    if result.metric == "loss":
        return " nats a token"
    return {"": "", "probability": ""}.get(result.metric_unit, f" {result.metric_unit}")


def _number(value: float) -> str:
    return "-" if value != value else f"{value:.3f}" if abs(value) >= _FINE else f"{value:.2g}"


def _signed(value: float) -> str:
    return "-" if value != value else f"{value:+.3f}" if abs(value) >= _FINE else f"{value:+.2g}"
