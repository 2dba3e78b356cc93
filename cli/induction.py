"""``interp induction``: which heads look up what came after the last time, and what the model loses without them."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from interp.errors import UsageError

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

if TYPE_CHECKING:
    from interp.analyzers.induction_result import InductionResult, Verdict
    from interp.prompts import PromptLike
    from interp.results import Estimate

app = typer.Typer(rich_markup_mode=None, add_completion=False)


@app.command()
def induction(
    model: ModelOption = DEFAULT_MODEL,
    prompts: Annotated[
        Path | None,
        typer.Option(
            "--prompts",
            metavar="FILE",
            help="Texts in which something comes again, one a line, or a .jsonl file; default: repeated random tokens.",
        ),
    ] = None,
    heads: Annotated[
        str | None, typer.Option("--heads", metavar="HEADS", help="Judge these, such as L18H6,17.3, and no others.")
    ] = None,
    periods: Annotated[
        str, typer.Option("--periods", metavar="N,N", help="Lengths of the repeated block in tokens.")
    ] = "20,40,60",
    copies: Annotated[
        int, typer.Option("--copies", metavar="N", min=2, help="How often the block stands in a text.")
    ] = 2,
    seeds: Annotated[int, typer.Option("--seeds", metavar="N", min=1, help="Draws of the random tokens.")] = 6,
    draws: Annotated[
        int, typer.Option("--draws", metavar="N", min=1, help="Random heads, and groups, to compare ablations with.")
    ] = 3,
    threshold: Annotated[
        float, typer.Option("--threshold", metavar="X", help="Least prefix-matching score of a candidate, up to 1.")
    ] = 0.3,
    corpus: Annotated[
        Path | None,
        typer.Option("--corpus", metavar="FILE", help="Text whose token frequencies the random tokens have."),
    ] = None,
    scan_only: Annotated[
        bool, typer.Option("--scan-only", help="Only the attention scores: quick, and no head is called.")
    ] = False,
    fast: Annotated[
        bool,
        typer.Option("--quick", help="The middle period alone, three seeds, two draws: wider intervals, sooner."),
    ] = False,
    seed: Seed = 0,
    device: Device = "auto",
    device_map: DeviceMap = None,
    dtype: Dtype = "auto",
    revision: Revision = None,
    offline: Offline = False,
    as_json: Json = False,
    output: OutputPath = None,
    quiet: Quiet = False,
) -> None:
    """Find the heads that continue what came before, and prove it.

    A head is called an induction head when it attends to what followed the last time and the model predicts repeats worse
    without it, by more than without other heads of its layer. With -o the scores of all heads and the evidence go to a
    file: .safetensors, .json, .csv or .html.
    """
    check_result_path(output)
    lengths = _periods(periods)
    asked = None if prompts is None else _read_prompts(prompts)
    text = None if corpus is None else _read(corpus)
    if fast:
        lengths, seeds, draws = lengths[len(lengths) // 2 :][:1], min(seeds, 3), min(draws, 2)
    speaker = Output(command="induction", as_json=as_json, path=output, quiet=quiet)
    opened = open_model(
        speaker, model, device=device, device_map=device_map, dtype=dtype, revision=revision, offline=offline
    )

    from interp.analyzers.induction_heads import induction_heads

    with speaker.progress() as step:
        result = induction_heads(
            opened,
            asked,
            heads=heads,
            periods=lengths,
            copies=copies,
            seeds=seeds,
            corpus=text,
            threshold=threshold,
            draws=draws,
            scan_only=scan_only,
            seed=seed,
            progress=step,
        )
    if output is not None:
        save_result(result, output)
    payload = {"called": [str(head) for head in result.called], "result": result.to_json()}
    speaker.show(payload, lambda console: _draw(console, result), to_stdout=True)
    if output is not None:
        speaker.note(f"wrote {output}")


def _periods(text: str) -> list[int]:
    try:
        return [int(part) for part in text.split(",")]
    except ValueError as error:
        raise UsageError(f"cannot read the periods {text!r}; write numbers with commas, such as 20,40,60") from error


def _read_prompts(path: Path) -> "list[PromptLike]":
    """The prompts of a file: JSON Lines by its ending, else one a line, blank lines left out."""
    from interp.prompts import read_prompts

    if path.suffix == ".jsonl":
        found: list[PromptLike] = list(read_prompts(path))
    else:
        found = [line for line in _read(path).splitlines() if line.strip()]
    if not found:
        raise UsageError(f"{path} holds no prompt; write one a line")
    return found


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise UsageError(f"{path} is not UTF-8 text (byte {error.start})") from error


def _draw(console: Any, result: "InductionResult") -> None:
    columns = ["head", "stripe", "prefix", "on first", "copying", "partner", "loss", "peers", "p", "verdict"]
    rows = [_row(verdict) for verdict in result.verdicts]
    what = "induction heads" if rows else "no head attends like an induction head"
    console.print(table(columns, rows, title=f"{what}: {_about(result)}", right=" >>>> >>>"))
    for verdict in result.verdicts:
        if not verdict.called and result.losses is not None:
            console.print(f"{verdict.head} {verdict.reason}", soft_wrap=True)
    for line in _losses(result):
        console.print(line, soft_wrap=True)
    for reason in result.not_measured:
        console.print(f"not measured: {reason}", soft_wrap=True)


def _about(result: "InductionResult") -> str:
    if not result.random:
        return f"{result.samples} given prompt{'s'[: result.samples > 1]}"
    periods = ", ".join(str(period) for period in result.periods)
    return f"{result.copies} copies of {periods} random tokens, {result.samples} seeds; losses in nats a token"


def _row(verdict: "Verdict") -> list[str]:
    seen, weights, cause = verdict.behaviour, verdict.mechanism, verdict.cause
    partner = weights.partner if weights else None
    return [
        str(verdict.head),
        _interval(seen.stripe),
        _number(seen.prefix_matching.value),
        _number(seen.on_first.value),
        _number(weights.eigenvalue_score, "+.2f") if weights else "-",
        f"{partner.head} {partner.composition:.2f}" if partner else "-",
        _interval(cause.second, "+.2f") if cause else "-",
        _number(cause.peers_second.value, "+.2f") if cause else "-",
        _number(cause.p, ".1g") if cause else "-",
        "induction head"
        if verdict.called
        else "not tested"
        if cause is None and "not tested" in verdict.reason
        else "no",
    ]


def _losses(result: "InductionResult") -> list[str]:
    if result.losses is None:
        return []
    own = result.losses
    lines = [
        f"loss on new tokens {_interval(own.first, '.2f')}, on repeated ones {_interval(own.second, '.2f')}; "
        f"in-context-learning score {_interval(own.late_less_early, '+.2f')} (last quarter less first)"
    ]
    if result.together is not None:
        others = [group.second.value for group in result.matched]
        beside = f"; without as many random heads of their layers {_range(others)}" if others else ""
        lines.append(
            f"without {'all ' * (len(result.together.heads) > 1)}{len(result.together.heads)} called: loss on repeats "
            f"{_interval(result.together.second, '+.2f')}{beside}"
        )
    return lines


def _range(values: list[float]) -> str:
    least, most = min(values), max(values)
    return f"{least:+.2f}" if len(values) == 1 else f"{least:+.2f} to {most:+.2f} ({len(values)} draws)"


def _interval(estimate: "Estimate", form: str = ".3f") -> str:
    if estimate.value != estimate.value:
        return "-"
    if estimate.lower != estimate.lower:
        return f"{estimate.value:{form}}"
    return f"{estimate.value:{form}} ± {(estimate.upper - estimate.lower) / 2:{form.lstrip('+')}}"


def _number(value: float, form: str = ".3f") -> str:
    text = "-" if value != value else f"{value:{form}}"
    return "0.00" if text in ("-0.00", "+0.00") else text
