"""``interp trace``: which states of a run carry an answer."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from interp.errors import UsageError, unknown

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
    PromptArgument,
    Quiet,
    Revision,
    Seed,
    System,
)
from .output import Output, table
from .prompt import read_prompt
from .saving import check_result_path, save_result
from .unfinished import Fresh, keeping

if TYPE_CHECKING:
    from interp.analyzers.causal_trace_result import CausalTraceResult
    from interp.analyzers.causal_trace_sites import Site
    from interp.results import Estimate

app = typer.Typer(rich_markup_mode=None, add_completion=False)

NOISE, SAMPLES = 3.0, 10
SEVERED = ("resid-mlp-severed", "resid-attn-severed")
TITLES = {
    "resid": "stream leaving a layer",
    "mlp": "MLPs of a window of {window} layers",
    "attn": "attention of a window of {window} layers",
    "resid-mlp-severed": "stream leaving a layer, later MLPs severed",
    "resid-attn-severed": "stream leaving a layer, later attention severed",
}


@app.command()
def trace(
    prompt: PromptArgument,
    subject: Annotated[
        str, typer.Option("--subject", "-s", metavar="TEXT", help="What the prompt is about; it occurs in it once.")
    ],
    target: Annotated[
        str | None,
        typer.Option(
            "--target",
            "-t",
            metavar="TEXT",
            help="The answer, such as ' Paris', of one token or several; default: what the model answers.",
        ),
    ] = None,
    against: Annotated[
        str | None,
        typer.Option(
            "--against",
            metavar="TEXT",
            help="The answer of the logit difference; default: what the corrupted runs answer.",
        ),
    ] = None,
    model: ModelOption = DEFAULT_MODEL,
    noise: Annotated[
        float | None,
        typer.Option(
            "--noise", metavar="X", help=f"Noise in standard deviations of the embeddings; default: {NOISE:g}."
        ),
    ] = None,
    samples: Annotated[
        int | None, typer.Option("--samples", metavar="N", min=1, help=f"Draws of the noise; default: {SAMPLES}.")
    ] = None,
    replace: Annotated[
        list[str] | None,
        typer.Option(
            "--replace", metavar="TEXT", help="Put this subject in place, not noise: as many tokens; repeatable."
        ),
    ] = None,
    window: Annotated[
        int, typer.Option("--window", metavar="N", min=1, help="Layers of MLPs or attention restored together.")
    ] = 10,
    kinds: Annotated[
        str, typer.Option("--kinds", metavar="KINDS", help="What to restore: resid, mlp, attn.")
    ] = "resid,mlp,attn",
    severed: Annotated[
        bool,
        typer.Option("--severed", help="Also restore the stream with later MLPs, or attention, held as corrupted."),
    ] = False,
    top_k: Annotated[
        int, typer.Option("--top-k", "-k", metavar="K", min=1, help="How many tokens to show for each kind.")
    ] = 4,
    seed: Seed = 0,
    fresh: Fresh = False,
    chat: Chat = False,
    system: System = None,
    device: Device = "auto",
    device_map: DeviceMap = None,
    dtype: Dtype = "auto",
    revision: Revision = None,
    offline: Offline = False,
    as_json: Json = False,
    output: OutputPath = None,
    quiet: Quiet = False,
) -> None:
    """Find the states that carry an answer, by causal tracing.

    The subject is garbled by noise or replaced, then one state at a time is put back to what it was: what brings the answer back
    carries it. Ctrl-C keeps what is done, and the same command goes on. With -o everything goes to a file: .html, .safetensors,
    .json or .csv.
    """
    check_result_path(output)
    if replace and (noise is not None or samples is not None):
        raise UsageError(
            "--replace puts other tokens in place, --noise and --samples are of noise; give one or the other"
        )
    chosen = _kinds(kinds, severed)
    asked = read_prompt(prompt, chat=chat, system=system)
    speaker = Output(command="trace", as_json=as_json, path=output, quiet=quiet)
    opened = open_model(
        speaker, model, device=device, device_map=device_map, dtype=dtype, revision=revision, offline=offline
    )

    from interp.analyzers.causal_trace import causal_trace

    options = {
        "subject": subject,
        "target": target,
        "against": against,
        "noise": NOISE if noise is None else noise,
        "samples": SAMPLES if samples is None else samples,
        "replacements": replace or None,
        "window": window,
        "kinds": chosen,
        "seed": seed,
    }
    with keeping(speaker, opened, fresh=fresh, prompt=repr(asked), **options) as work:
        result = causal_trace(opened, asked, **options, checkpoint=work.checkpoint, progress=work.progress)
    if output is not None:
        save_result(result, output)
    speaker.show(_payload(result, top_k), lambda console: _draw(console, result, top_k), to_stdout=True)
    if output is not None:
        speaker.note(f"wrote {output}")


def _kinds(text: str, severed: bool) -> list[str]:
    """The kinds that ``--kinds`` lists, then those of ``--severed``."""
    from interp.analyzers.causal_trace_result import KINDS

    listed = [part.strip() for part in text.split(",") if part.strip()]
    if not listed and not severed:
        raise UsageError(f"--kinds names nothing to restore; valid: {', '.join(KINDS)}")
    for kind in listed:
        if kind not in KINDS:
            raise unknown("kind", kind, KINDS)
    return list(dict.fromkeys([*listed, *(SEVERED if severed else ())]))


def _payload(result: "CausalTraceResult", top_k: int) -> dict[str, Any]:
    """The runs and the sites as records, then the whole result."""
    from interp.analyzers.causal_trace_sites import best_layers, lowered

    return {
        "prompt_tokens": list(result.prompt.pieces),
        "subject_positions": list(result.subject_positions),
        "answer": result.answer.text,
        "against": result.against.text,
        "clean_probability": result.clean_probability,
        "corrupted_probability": _record(result.corrupted()),
        "total_effect": _record(result.total_effect()),
        "lowered": lowered(result),
        "sites": {
            kind: [
                {
                    "position": site.position,
                    "token": result.prompt.pieces[site.position],
                    "layer": site.layer,
                    "layers": list(site.layers),
                    "probability": site.restored.value,
                    "effect": _record(site.effect),
                }
                for site in best_layers(result, kind)[:top_k]
            ]
            for kind in result.kinds
        }
        if lowered(result)
        else {},
        "result": result.to_json(),
    }


def _record(estimate: "Estimate") -> dict[str, float | int]:
    return {"value": estimate.value, "lower": estimate.lower, "upper": estimate.upper, "n": estimate.n}


def _draw(console: Any, result: "CausalTraceResult", top_k: int) -> None:
    """The three runs, then for each kind the tokens that bring back most."""
    from interp.analyzers.causal_trace_sites import best_layers, lowered

    console.print(_about(result), soft_wrap=True)
    console.print(_runs(result))
    if not lowered(result):
        console.print(
            "the corruption did not measurably lower the answer: there is nothing to bring back, and no state is named",
            soft_wrap=True,
        )
        return
    for kind in result.kinds:
        console.print(_sites(result, kind, best_layers(result, kind)[:top_k]))
    console.print(
        "* a token of the subject; each token at its best layer, so its interval flatters it a little", soft_wrap=True
    )


def _runs(result: "CausalTraceResult") -> Any:
    from interp.tokens import visible

    interval = f"{result.confidence:.0%} interval"
    corrupted, total = result.corrupted(), result.total_effect()
    logits, lost_logits = result.corrupted("logit_difference"), result.total_effect("logit_difference")
    rows = [
        ["clean", _number(result.clean_probability), "", f"{result.clean_logit_difference:+.2f}", ""],
        ["corrupted", _number(corrupted.value), _bounds(corrupted), f"{logits.value:+.2f}", _bounds(logits, "+.2f")],
        ["lost", _number(total.value), _bounds(total), f"{lost_logits.value:+.2f}", _bounds(lost_logits, "+.2f")],
    ]
    columns = [
        "run",
        f"P({visible(result.answer.text)})",
        interval,
        f"logit less that of {visible(result.against.pieces[0])}",
    ]
    return table([*columns, interval], rows, right=" >>>>")


def _about(result: "CausalTraceResult") -> str:
    from interp.tokens import visible

    subject = visible(result.subject)
    if result.corruption == "tokens":
        return f"corrupted: {subject} replaced by {', '.join(visible(text) for text in result.replacements)}"
    draws = f"{result.n_samples} draw{'s'[: result.n_samples != 1]}"
    return f"corrupted: noise on {subject} of {result.noise:g} standard deviations of the embeddings, {draws}"


def _sites(result: "CausalTraceResult", kind: str, sites: "list[Site]") -> Any:
    from interp.tokens import visible

    rows = [
        [
            f"{visible(result.prompt.pieces[site.position])} ({site.position}){'*' * (site.position in result.subject_positions)}",
            str(site.layer) if len(site.layers) == 1 else f"{site.layers[0]}-{site.layers[-1]}",
            _number(site.restored.value),
            f"{site.effect.value:+.3f}",
            _bounds(site.effect, "+.3f"),
        ]
        for site in sites
    ]
    columns = ["token", "layer" if kind not in ("mlp", "attn") else "layers", "probability", "brought back"]
    title = f"restored: {TITLES[kind].format(window=result.window)}"
    return table([*columns, f"{result.confidence:.0%} interval"], rows, title=title, right=" >>>>")


def _number(value: float) -> str:
    return f"{value:.3f}" if value >= 0.001 or value == 0 else f"{value:.1e}"


def _bounds(estimate: "Estimate", form: str = ".3f") -> str:
    if estimate.lower != estimate.lower:
        return "one sample" if estimate.n == 1 else "-"
    return f"{estimate.lower:{form}} to {estimate.upper:{form}}"
