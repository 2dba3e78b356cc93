"""``interp heads``: what each head does over a set of prompts, and which heads that gives a name."""

import math
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
    from interp.analyzers.head_profiles import HeadProfilesResult
    from interp.maths.estimates import Estimate
    from interp.prompts import PromptLike

app = typer.Typer(rich_markup_mode=None, add_completion=False)


@app.command()
def heads(
    model: ModelOption = DEFAULT_MODEL,
    prompts: Annotated[
        Path | None,
        typer.Option(
            "--prompts", metavar="FILE", help="Prompts, one a line, or a .jsonl file; default: texts of interp."
        ),
    ] = None,
    layer: Annotated[
        str | None, typer.Option("--layer", "-l", metavar="LAYERS", help="Only these layers: 5, 5,7, 0-4 or -1.")
    ] = None,
    head: Annotated[
        str | None, typer.Option("--head", metavar="HEAD", help="Show everything about one head, such as L5H3.")
    ] = None,
    top: Annotated[int, typer.Option("--top", metavar="N", min=1, help="How many heads of each class to show.")] = 10,
    margin: Annotated[
        float, typer.Option("--margin", metavar="SHARE", help="Least excess over the null that names a head.")
    ] = 0.15,
    shuffles: Annotated[
        int, typer.Option("--shuffles", metavar="N", min=1, help="Shuffles of each prompt for the null of content.")
    ] = 4,
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
    """Show which heads do one thing.

    Every head is measured over prompts: how much it looks at the previous token, the first one, duplicates, punctuation and so on. A
    head is named when that lies above its null by a margin, tested over prompts. With -o every measure of every head goes to a file:
    .html to look at, .safetensors to load again, .json, or .csv.
    """
    check_result_path(output)
    asked = None if prompts is None else _read(prompts)
    speaker = Output(command="heads", as_json=as_json, path=output, quiet=quiet)
    opened = open_model(
        speaker, model, device=device, device_map=device_map, dtype=dtype, revision=revision, offline=offline
    )

    from interp.analyzers.head_profiles import head_profiles
    from interp.heads import Head
    from interp.sites import read_layers

    layers = None if layer is None else read_layers(layer, opened.atlas.n_layers)
    single = None if head is None else Head.parse(head, opened.atlas.n_layers, opened.atlas.n_heads)
    if single is not None and layers is None:
        layers = (single.layer,)
    with speaker.progress() as step:
        result = head_profiles(
            opened, asked, layers=layers, margin=margin, n_shuffles=shuffles, seed=seed, progress=step
        )
    if output is not None:
        save_result(result, output)
    payload = {"named": _records(result), "result": result.to_json()}
    draw = _draw_named if single is None else _draw_head
    speaker.show(payload, lambda console: draw(console, result, top if single is None else str(single)), to_stdout=True)
    if output is not None:
        speaker.note(f"wrote {output}")


def _read(path: Path) -> "tuple[PromptLike, ...]":
    """The prompts of a file: JSON Lines by its ending, else one a line, blank lines left out."""
    from interp.prompts import read_prompts

    if path.suffix in (".jsonl", ".json"):
        found = read_prompts(path)
    else:
        try:
            found = tuple(line for line in path.read_text(encoding="utf-8").splitlines() if line.strip())
        except OSError as error:
            raise UsageError(f"cannot read {path}: {error.strerror}") from error
        except UnicodeDecodeError as error:
            raise UsageError(f"{path} is not UTF-8 text (byte {error.start})") from error
    if not found:
        raise UsageError(f"{path} holds no prompt; write one a line, or JSON objects with 'prompt'")
    return found


def _records(result: "HeadProfilesResult") -> list[dict[str, Any]]:
    """The named heads for --json."""
    return [
        {
            "head": str(found.head),
            "head_class": found.head_class,
            "measure": found.measure,
            "value": found.value.value,
            "lower": found.value.lower,
            "upper": found.value.upper,
            "n_prompts": found.value.n,
            "null": found.null.value,
            "p": found.p,
        }
        for found in result.named_heads()
    ]


def _draw_named(console: Any, result: "HeadProfilesResult", top: Any) -> None:
    """The heads of each class, the clearest first; of a large class the first ``top``."""
    rows, shown = [], dict.fromkeys((item.head_class for item in result.measures if item.head_class), 0)
    for found in result.named_heads():
        shown[found.head_class] += 1
        if shown[found.head_class] <= top:
            title = found.head_class if shown[found.head_class] == 1 else ""
            rows.append([title, str(found.head), *_figures(found.value), f"{found.null.value:.3f}", f"{found.p:.1e}"])
        elif shown[found.head_class] == top + 1:
            rows.append(["", "…", "", "", "", ""])
    counts = ", ".join(f"{count} {name}{'s' if count != 1 else ''}" for name, count in shown.items() if count)
    about = f"{len(result.lengths)} prompts of {min(result.lengths)} to {max(result.lengths)} tokens"
    if rows:
        console.print(
            table(["class", "head", "value", _interval(result), "null", "p"], rows, title=about, right="  >>>>")
        )
        console.print(f"{counts}; value and null are shares of attention")
    else:
        console.print(f"{about}: no head is named")


def _draw_head(console: Any, result: "HeadProfilesResult", head: Any) -> None:
    """Every measure of one head."""
    rows = [
        [measure.name, *_figures(value), _number(null.value), str(value.n), measure.unit]
        for measure, value, null in result.profile(head)
    ]
    names = [found.head_class for found in result.named_heads() if str(found.head) == head]
    columns = ["measure", "value", _interval(result), "null", "prompts", "unit"]
    console.print(table(columns, rows, title=f"{head}: {', '.join(names) or 'no class'}", right=" >>>>"))


def _interval(result: "HeadProfilesResult") -> str:
    return f"{result.confidence:.0%} interval"


def _figures(value: "Estimate") -> list[str]:
    interval = "-" if math.isnan(value.lower) else f"{_number(value.lower)} to {_number(value.upper)}"
    return [_number(value.value), interval]


def _number(value: float) -> str:
    return "-" if math.isnan(value) else f"{round(value, 3) + 0.0:.3f}"  # never -0.000
