"""``interp sweep``: an analyzer over many items, models or settings, with the rows kept as they are done."""

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from interp.errors import UsageError

from .guard import Interrupted
from .options import Address, EngineName, Json, Quiet, Workers
from .output import Output, table

if TYPE_CHECKING:
    from interp.scale.sweep_result import SweepResult

app = typer.Typer(rich_markup_mode=None, add_completion=False)

SUMMARY, PAGE = "summary.safetensors", "report.html"
_SHOWN = 10


@app.command()
def sweep(
    config: Annotated[Path, typer.Argument(metavar="CONFIG", help="What to run: a .toml, .yaml or .yml file.")],
    output: Annotated[
        str | None,
        typer.Option(
            "--output", "-o", metavar="FOLDER", help="Where the rows go; a path or s3://...; default: CONFIG's name."
        ),
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with the sweep in FOLDER, where there is one.")
    ] = False,
    retry_failed: Annotated[
        bool, typer.Option("--retry-failed", help="Go on, and do the tasks again that failed.")
    ] = False,
    workers: Workers = None,
    engine: EngineName = "embedded",
    address: Address = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Run an analyzer over many prompts, facts, models or settings.

    Every item's rows are kept as soon as it is done; Ctrl-C loses none, and --resume goes on. At the end FOLDER holds rows.parquet,
    a summary (report.html to look at, summary.safetensors to load), and what was run (sweep.json, items.jsonl).
    """
    from interp.scale.sweep_config import read_config

    asked = read_config(config)
    target = output if output is not None else config.stem
    if "://" not in target and Path(target).expanduser().is_file():
        raise UsageError(f"the output {target} is a file; name a folder with -o")
    speaker = Output(command="sweep", as_json=as_json, quiet=quiet)

    from interp.report.page import report
    from interp.scale.sweep import sweep as run
    from interp.scale.sweep_folder import SweepFolder

    with speaker.progress() as step:
        try:
            result = run(
                asked,
                target,
                resume=resume,
                retry_failed=retry_failed,
                engine=engine,
                workers=workers,
                address=address,
                progress=step,
                notify=speaker.note,
            )
        except KeyboardInterrupt as error:
            kept = len(SweepFolder(target).parts())
            raise Interrupted(_kept(kept, asked.n_tasks, config, target, engine, workers, address)) from error
    folder = SweepFolder(target)
    folder.write(PAGE, report([result]).html().encode())
    folder.save(SUMMARY, result.save)
    if result.summary.n_failed:
        speaker.warn(
            f"{result.summary.n_failed:,} of {result.n_tasks:,} tasks failed; their rows say why in 'error', --retry-failed does them again"
        )
    speaker.show(_payload(result), lambda console: _draw(console, result, target), to_stdout=True)


def _kept(
    kept: int, total: int, config: Path, target: str, engine: str, workers: int | None, address: str | None
) -> str:
    """What an interrupt leaves, and the command that goes on."""
    options = ["-o", target]
    options += [] if engine == "embedded" else ["--engine", engine]
    options += [] if workers is None else ["--workers", str(workers)]
    options += [] if address is None else ["--address", address]
    command = shlex.join(["interp", "sweep", str(config), *options, "--resume"])
    return f"interrupted; {kept:,} of {total:,} tasks are kept in {target}; go on with: {command}"


def _payload(result: "SweepResult") -> dict[str, Any]:
    summary = result.summary
    return {
        "folder": result.folder,
        "rows": result.table_path,
        "report": f"{result.folder}/{PAGE}",
        "n_tasks": result.n_tasks,
        "n_done": result.n_done,
        "n_failed": summary.n_failed,
        "n_rows": summary.n_rows,
        "failures": [
            {"task": one.task, "item": one.item, "where": one.where, "what": one.what, "reason": one.reason}
            for one in summary.failures
        ],
        "means": result.to_frame().to_dict("records"),
    }


def _draw(console: Any, result: "SweepResult", target: str) -> None:
    """Where everything is, the greatest mean of each line or map, and the first failures."""
    summary = result.summary
    about = [
        ("analyzer", result.analyzer),
        ("models", ", ".join(result.sources)),
        ("tasks", f"{result.n_done:,} of {result.n_tasks:,} done, {summary.n_rows:,} rows"),
        ("rows", f"{target}/rows.parquet"),
        ("report", f"{target}/{PAGE}"),
    ]
    console.print(table(("", ""), about, header=False))
    peaks = [
        [name or result.analyzer, ", ".join(map(str, place)), _number(mean.value), _interval(mean), f"{mean.n:,}"]
        for name, place, mean in result.peaks()
    ]
    if peaks:
        axes = result.axis if result.across is None else f"{result.axis}, {result.across}"
        title = f"greatest mean {result.words[summary.measures[0]]}"
        columns = ("of", axes, "mean", f"{result.confidence:.0%} interval", "items")
        console.print(table(columns, peaks[:_SHOWN], title=title, right="  >>>"))
        if len(peaks) > _SHOWN:
            console.print(f"and {len(peaks) - _SHOWN} more; the report shows all", soft_wrap=True)
    if summary.failures:
        rows = [[str(one.item), one.what, one.where, one.reason] for one in summary.failures[:_SHOWN]]
        title = f"{summary.n_failed:,} failed" + (f", the first {_SHOWN}" if summary.n_failed > _SHOWN else "")
        console.print(table(("item", "what", "where", "why"), rows, title=title))


def _number(value: float) -> str:
    return f"{value:.3f}" if 0.01 <= abs(value) < 1000 or value == 0 else f"{value:.3g}"


def _interval(mean: Any) -> str:
    return "" if mean.lower != mean.lower else f"{_number(mean.lower)} to {_number(mean.upper)}"
