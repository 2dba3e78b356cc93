"""``interp report``: one prompt, the analyses that were asked for, one HTML file; or the same page again from saved results."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from interp.errors import UsageError

from .edit import read_fact
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
    Quiet,
    Revision,
    Seed,
    System,
    Target,
)
from .output import Output, check_writable, table
from .prompt import read_prompt
from .report_analyses import ANALYSES, Asked, analyse, chosen
from .saved import check_only_files, is_saved, load_saved, showing
from .saving import check_result_folder, save_results

if TYPE_CHECKING:
    from interp.report.findings import Found
    from interp.report.page import Report
    from interp.results import Result

app = typer.Typer(rich_markup_mode=None, add_completion=False)

EXAMPLE = "interp report 'The Eiffel Tower is located in the city of'"

ReportPath = Annotated[Path, typer.Option("--output", "-o", metavar="FILE", help="The HTML file to write.")]


@app.command()
def report(
    context: typer.Context,
    asked: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="PROMPT|RESULT",
            help="One prompt, as for the other commands; or saved results: .safetensors, .json, or a folder of them.",
        ),
    ] = None,
    model: ModelOption = DEFAULT_MODEL,
    target: Target = None,
    sections: Annotated[
        str | None,
        typer.Option(
            "--sections",
            metavar="NAME,NAME",
            help=f"What to run: {', '.join(ANALYSES)}; or all, or default "
            f"({', '.join(name for name, analysis in ANALYSES.items() if analysis.default)} and what other options add).",
        ),
    ] = None,
    subject: Annotated[
        str | None,
        typer.Option("--subject", "-s", metavar="TEXT", help="What the prompt is about: adds a causal trace of it."),
    ] = None,
    corrupted: Annotated[
        str | None,
        typer.Option(
            "--corrupted", metavar="PROMPT", help="As many tokens with another answer: adds activation patching."
        ),
    ] = None,
    edit: Annotated[
        str | None,
        typer.Option(
            "--edit",
            metavar="TARGET",
            help="Write this answer for the subject, such as ' Rome': adds before and after. Undone at the end.",
        ),
    ] = None,
    chat: Chat = False,
    system: System = None,
    seed: Seed = 0,
    device: Device = "auto",
    device_map: DeviceMap = None,
    dtype: Dtype = "auto",
    revision: Revision = None,
    offline: Offline = False,
    as_json: Json = False,
    output: ReportPath = Path("report.html"),
    save: Annotated[
        Path | None,
        typer.Option(
            "--save",
            metavar="DIR",
            help="Save the results too: interp report DIR gives the page again without a model.",
        ),
    ] = None,
    quiet: Quiet = False,
) -> None:
    """Run a prompt and write one HTML file about it.

    The page opens with what was found and goes on with a section for each analysis, and where the figures come from. It opens offline and
    makes no request. Saved results, from --save, or from -o or --json of any command, give the page again without a model.
    """
    check_writable(output, (".html",))
    check_result_folder(save)
    speaker = Output(command="report", as_json=as_json, quiet=quiet)
    files = asked if asked and any(map(is_saved, asked)) else []
    if files:
        check_only_files(context)
        results = load_saved(files)
    else:
        request = Asked(
            prompt=read_prompt(_one_prompt(asked), chat=chat, system=system),
            target=target,
            subject=subject,
            corrupted=None if corrupted is None else read_prompt(corrupted, chat=chat, system=system),
            fact=_fact(asked, subject, edit, chat=chat or system is not None),
            seed=seed,
        )
        names = chosen(sections, request)
        opened = open_model(
            speaker, model, device=device, device_map=device_map, dtype=dtype, revision=revision, offline=offline
        )
        with speaker.progress() as step:
            results = analyse(opened, request, names, step)

    from interp.report.page import report as make_report

    with showing(files):
        page = make_report(results)
    if save is not None:
        save_results(results, save)
    page.save(output)
    for note in page.notes:
        speaker.warn(note)
    speaker.show(_payload(page, results, output), lambda console: _draw(console, page, results, output), to_stdout=True)


def _one_prompt(asked: Sequence[str] | None) -> str:
    if not asked:
        raise UsageError(f"a prompt is needed, such as: {EXAMPLE}; or saved results, such as lens.safetensors")
    if len(asked) > 1:
        raise UsageError(
            f"{len(asked)} arguments are neither one prompt nor saved results; put the prompt in quotes: {EXAMPLE}"
        )
    return asked[0]


def _fact(asked: Sequence[str] | None, subject: str | None, target: str | None, *, chat: bool) -> Any:
    """The fact that --edit writes; None without it."""
    if target is None:
        return None
    if subject is None:
        raise UsageError("--edit needs --subject, the words of the prompt that the fact is about")
    if chat:
        raise UsageError("--edit is of plain text; leave --chat and --system out")
    return read_fact(_one_prompt(asked), subject, target)


def _payload(page: "Report", results: "Sequence[Result]", path: Path) -> dict[str, Any]:
    return {
        "path": path.resolve(),
        "bytes": path.stat().st_size,
        "models": list(dict.fromkeys(result.provenance.model for result in results)),
        "kinds": [result.kind for result in results],
        "findings": [found.record() for found in page.findings],
    }


def _draw(console: Any, page: "Report", results: "Sequence[Result]", path: Path) -> None:
    """Where the page is, then what stands at its head."""
    from interp.tokens import visible

    models = dict.fromkeys(visible(result.provenance.model) for result in results)
    console.print(f"{path} ({path.stat().st_size / 1e6:.2f} MB), {', '.join(models)}", soft_wrap=True)
    rows = [_row(place, found) for place, found in enumerate(page.findings, start=1)]
    console.print(table(("", "found", "section"), rows) if rows else "nothing stands out in these results")


def _row(place: int, found: "Found") -> tuple[str, str, str]:
    return str(place), found.sentence, found.label
