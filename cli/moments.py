"""``interp moments``: the second moments that edits are weighed by."""

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
    ModelArgument,
    Offline,
    OutputPath,
    Quiet,
    Revision,
    Seed,
)
from .output import Output, check_writable, table
from .unfinished import Fresh, keeping

if TYPE_CHECKING:
    from collections.abc import Sequence

    from interp.editing.second_moments import SecondMoment
    from interp.runner.model import Model

    from .unfinished import Work

app = typer.Typer(rich_markup_mode=None, add_completion=False)

SAMPLED = "sampled"
SAMPLING = "sampling text"


@app.command()
def moments(
    model: ModelArgument = DEFAULT_MODEL,
    layers: Annotated[
        list[int] | None,
        typer.Option("--layer", "-l", metavar="N", help="A layer to measure; repeatable, all in one pass."),
    ] = None,
    corpus: Annotated[
        str,
        typer.Option(
            "--corpus",
            "-c",
            metavar="FILE",
            help="A text file (a text each line), a .jsonl or .parquet file, hf:NAME[:split[:field]], or 'sampled': text the model writes.",
        ),
    ] = SAMPLED,
    max_tokens: Annotated[
        int | None,
        typer.Option(
            "--max-tokens",
            metavar="N",
            min=1,
            help="Read at most N tokens; default: 100000, and of sampled text 16 for each dimension of the keys.",
        ),
    ] = None,
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
    """Measure the second moment of a layer's keys over a corpus.

    A key is what the MLP's output projection gets at a token; ``interp edit --moments FILE`` weighs an edit by it. Ctrl-C keeps what is
    done, and the same command goes on. With several layers -o NAME.safetensors writes NAME-layerN.safetensors for each. Without -o the
    default corpus is kept in the cache folder, where ``interp edit`` finds it.
    """
    if not layers:
        raise UsageError("no layer is given; give one or more, such as --layer 5")
    standard = corpus == SAMPLED and max_tokens is None
    if output is None and not standard:
        raise UsageError("the second moments would be lost; name a file for them, such as -o moments.safetensors")
    paths = _paths(output, layers)
    speaker = Output(command="moments", as_json=as_json, path=output, quiet=quiet)
    opened = open_model(
        speaker, model, device=device, device_map=device_map, dtype=dtype, revision=revision, offline=offline
    )

    from interp.editing.second_moment_work import tokens_kept

    asked = {"layers": layers, "corpus": corpus, "max_tokens": max_tokens, "seed": seed}
    with keeping(speaker, opened, fresh=fresh, unit="tokens", count=tokens_kept, **asked) as work:
        found = _measured(opened, work, output, standard, **asked)
    for moment, path in zip(found, paths, strict=False):
        moment.save(path)
    speaker.show(_payload(found, paths), lambda console: _draw(console, found), to_stdout=True)
    for path in paths:
        speaker.note(f"wrote {path}")


def _measured(
    model: "Model",
    work: "Work",
    output: Path | None,
    standard: bool,
    *,
    layers: "Sequence[int]",
    corpus: str,
    max_tokens: int | None,
    seed: int,
) -> "tuple[SecondMoment, ...]":
    from interp.editing.second_moments import cached_moments, second_moments

    def progress(what: str, done: int, total: int | None) -> None:
        # Sampled text is kept by itself, so only the tokens of the moment count as kept or not.
        (work.show if what == SAMPLING else work.progress)(what, done, total)

    if standard and output is None:
        return cached_moments(model, layers, seed=seed, checkpoint=work.checkpoint, progress=progress)
    return second_moments(
        model, layers, corpus, max_tokens=max_tokens, seed=seed, checkpoint=work.checkpoint, progress=progress
    )


def _paths(output: Path | None, layers: "Sequence[int]") -> list[Path]:
    """The file of each layer, all found writable before any work."""
    if output is None:
        return []
    if len(set(layers)) != len(layers):
        raise UsageError(f"a layer is given twice: {', '.join(map(str, layers))}; give each once")
    many = len(layers) > 1
    paths = [output.with_stem(f"{output.stem}-layer{layer}") if many else output for layer in layers]
    for path in paths:
        check_writable(path, (".safetensors",))
    return paths


def _payload(found: "Sequence[SecondMoment]", paths: "Sequence[Path]") -> dict[str, Any]:
    """Everything but the matrices, which are in the files."""
    return {
        "model": found[0].provenance.model,
        "weights_sha256": found[0].provenance.weights_sha256,
        "corpus": found[0].corpus,
        "corpus_sha256": found[0].corpus_sha256,
        "moments": [
            {
                "layer": moment.layer,
                "width": moment.width,
                "tokens": moment.n_tokens,
                "texts": moment.n_texts,
                "condition_number": moment.condition_number(),
                "shrinkage": moment.automatic_shrinkage,
                "shrunk_condition_number": moment.condition_number(None),
                "base_sha256": moment.base_sha256,
                "file": str(paths[index]) if paths else None,
            }
            for index, moment in enumerate(found)
        ],
    }


def _draw(console: Any, found: "Sequence[SecondMoment]") -> None:
    first = found[0]
    console.print(f"{first.n_tokens:,} tokens in {first.n_texts:,} texts: {first.corpus}", soft_wrap=True)
    rows = [
        [
            str(moment.layer),
            f"{moment.width:,}",
            f"{moment.n_tokens / moment.width:.1f}",
            _number(moment.condition_number()),
            f"{moment.automatic_shrinkage:.2g}",
            _number(moment.condition_number(None)),
        ]
        for moment in found
    ]
    columns = ["layer", "dimensions", "tokens for each", "condition number", "shrinkage", "then"]
    console.print(table(columns, rows, right=">>>>>>"))


def _number(value: float) -> str:
    return "infinite" if value == float("inf") else f"{value:.2g}"
