"""``interp report``: one prompt, every analysis, one HTML file."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from interp.errors import UsageError

from .model import open_model
from .options import (
    DEFAULT_MODEL,
    Chat,
    Device,
    Dtype,
    Json,
    ModelOption,
    Offline,
    Quiet,
    Revision,
    Seed,
    System,
    Target,
)
from .output import Output, check_writable, table
from .prompt import read_prompt

if TYPE_CHECKING:
    from interp.results import Result

app = typer.Typer(rich_markup_mode=None, add_completion=False)

GENERATED = 16
"""Tokens that the page shows the model going on with, at most."""

ReportPath = Annotated[Path, typer.Option("--output", "-o", metavar="FILE", help="The HTML file to write.")]


@app.command()
def report(
    prompt: Annotated[
        str | None, typer.Argument(metavar="PROMPT", help="As for the other commands; left out with --from.")
    ] = None,
    model: ModelOption = DEFAULT_MODEL,
    target: Target = None,
    saved: Annotated[
        list[Path] | None,
        typer.Option("--from", metavar="FILE", help="Make the page from saved results, without a model; repeatable."),
    ] = None,
    chat: Chat = False,
    system: System = None,
    seed: Seed = 0,
    device: Device = "auto",
    dtype: Dtype = "auto",
    revision: Revision = None,
    offline: Offline = False,
    as_json: Json = False,
    output: ReportPath = Path("report.html"),
    quiet: Quiet = False,
) -> None:
    """Run a prompt and write one HTML file about it.

    The page holds the tokens, the embeddings, positions, who reads whom, the residual story, the logit lens, what each component adds
    to the answer, the tensors of the model, and where the figures come from. It opens offline and makes no request.
    """
    check_writable(output, (".html",))
    speaker = Output(command="report", as_json=as_json, quiet=quiet)
    if saved:
        if prompt is not None:
            raise UsageError("a prompt and --from were both given; give one of them")
        results = _load(saved)
    elif prompt is None:
        raise UsageError("a prompt is needed, such as: interp report 'The Eiffel Tower is located in the city of'")
    else:
        asked = read_prompt(prompt, chat=chat, system=system)
        opened = open_model(speaker, model, device=device, dtype=dtype, revision=revision, offline=offline)
        results = _analyse(speaker, opened, asked, target)

    from interp.report.page import report as make_report

    page = make_report(results)
    page.save(output)
    for note in page.notes:
        speaker.warn(note)
    summary = _summary(results)
    payload = {
        "path": output.resolve(),
        "bytes": output.stat().st_size,
        "kinds": [result.kind for result in results],
        **summary,
    }
    speaker.show(payload, lambda console: _draw(console, output, summary), to_stdout=True)


def _analyse(speaker: Output, model: Any, prompt: Any, target: str | None) -> "list[Result]":
    """The analyses that the page is about, in the order the data moves; those that the model has nothing for are left out."""
    import interp

    shown = len(model.sites.available.get("attn.pattern", ())) == model.atlas.n_layers
    if not shown:
        model.notify("this model shows no attention patterns, so the page does not say who reads whom")
    routed = any(block.router for block in model.atlas.blocks)
    todo = (
        ("residual story", lambda: interp.residual_story(model, prompt)),
        ("embeddings", lambda: interp.embedding_geometry(model, prompt)),
        ("positions", lambda: interp.position_encoding(model)),
        *((("attention", lambda: interp.attention_summary(model, prompt)),) if shown else ()),
        *((("experts", lambda: interp.expert_routing(model, prompt)),) if routed else ()),
        ("logit lens", lambda: interp.logit_lens(model, prompt, target=target)),
        ("attribution", lambda: interp.direct_logit_attribution(model, prompt, target=target)),
        ("logits", lambda: interp.next_token_logits(model, prompt)),
        ("decoding choices", lambda: interp.decoding_choices(model, prompt)),
        ("generation", lambda: model.generate(prompt, max_new_tokens=GENERATED)),
        *([("losses", lambda: interp.token_losses(model, prompt))] if len(model.tokens(prompt)) > 1 else []),
        ("tensors", lambda: interp.architecture(model)),
    )
    results: list[Result] = []
    with speaker.progress() as step:
        for done, (name, analyse) in enumerate(todo):
            step(name, done, len(todo))
            results.append(analyse())
    return results


def _load(paths: Sequence[Path]) -> "list[Result]":
    import interp

    return [interp.load_result(path) for path in paths]


def _summary(results: "Sequence[Result]") -> dict[str, Any]:
    """What the page says first, from whichever results are there."""
    summary: dict[str, Any] = {"model": results[0].provenance.model}
    for known in results:
        result: Any = known  # which fields it has depends on its kind
        if result.kind == "residual_story":
            pieces = [result.vocabulary[str(number)] for number in result.final_ids.tolist()]
            summary["tokens"] = len(result.tokens)
            summary["next_tokens"] = [
                {"piece": piece, "prob": prob} for piece, prob in zip(pieces, result.final_probs.tolist(), strict=True)
            ]
        elif result.kind == "logit_lens":
            tops = result.top_ids[:, -1, 0].tolist()
            first = len(tops) - 1
            while first and tops[first - 1] == tops[-1]:
                first -= 1
            summary["on_top_from"] = result.sites[first]
        elif result.kind == "direct_logit_attribution":
            best = int(result.contributions.argmax())
            summary["largest_part"] = {
                "component": result.components[best],
                "logit": float(result.contributions[best]),
                "of": float(result.logit),
                "target": result.target_piece,
            }
    return summary


def _draw(console: Any, path: Path, summary: dict[str, Any]) -> None:
    from interp.tokens import visible

    rows = [("model", summary["model"])]
    if "tokens" in summary:
        rows.append(("prompt", f"{summary['tokens']} tokens"))
        best = summary["next_tokens"][:3]
        rows.append(("next token", "  ".join(f"{visible(token['piece'])} {token['prob']:.2f}" for token in best)))
    if "on_top_from" in summary:
        rows.append(("on top from", summary["on_top_from"]))
    if "largest_part" in summary:
        part = summary["largest_part"]
        rows.append(
            ("largest part", f"{part['component']} {part['logit']:+.2f} of {visible(part['target'])} {part['of']:.2f}")
        )
    console.print(f"{path} ({path.stat().st_size / 1e6:.2f} MB)", soft_wrap=True)
    console.print(table(("", ""), rows, header=False))
