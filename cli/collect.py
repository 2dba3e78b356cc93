"""``interp collect``: the activations of a corpus, into a store."""

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from interp.errors import UsageError

from .guard import Interrupted
from .model import open_model
from .options import (
    DEFAULT_MODEL,
    Address,
    Device,
    DeviceMap,
    Dtype,
    EngineName,
    Json,
    ModelOption,
    Offline,
    Quiet,
    Revision,
    Workers,
)
from .output import Output
from .store import draw_store, store_payload

if TYPE_CHECKING:
    from .output import Step

app = typer.Typer(rich_markup_mode=None, add_completion=False)


@app.command()
def collect(
    sites: Annotated[
        list[str] | None,
        typer.Option(
            "--sites",
            "-s",
            metavar="SITES",
            help="What to store, such as resid_post@5 or resid_post@5,7; repeatable.",
        ),
    ] = None,
    corpus: Annotated[
        str,
        typer.Option(
            "--corpus",
            "-c",
            metavar="FILE",
            help="A text file (a text each line), a .jsonl or .parquet file, or hf:NAME[:split[:field]].",
        ),
    ] = "",
    store: Annotated[
        str, typer.Option("--output", "-o", metavar="FOLDER", help="The store: a folder, or a URL such as s3://...")
    ] = "",
    model: ModelOption = DEFAULT_MODEL,
    positions: Annotated[
        str,
        typer.Option(
            "--positions",
            metavar="WHICH",
            help="all, last, a position, or a slice such as 1: or :16 or ::4, in each text.",
        ),
    ] = "all",
    skip_bos: Annotated[bool, typer.Option("--skip-bos", help="Leave out a begin-of-text token.")] = False,
    store_dtype: Annotated[
        str, typer.Option("--store-dtype", metavar="DTYPE", help="Of the rows: auto, float32, float16 or bfloat16.")
    ] = "auto",
    field: Annotated[
        str, typer.Option("--field", metavar="NAME", help="The key or column that holds the text.")
    ] = "text",
    window: Annotated[
        int | None,
        typer.Option("--window", metavar="N", min=1, help="Cut texts into at most N tokens; default: 1024."),
    ] = None,
    max_tokens: Annotated[
        int | None, typer.Option("--max-tokens", metavar="N", min=1, help="Read at most N tokens.")
    ] = None,
    shard_rows: Annotated[
        int | None,
        typer.Option(
            "--shard-rows", metavar="N", min=1, help="Rows of a shard at most; default: about 128 MB of them."
        ),
    ] = None,
    batch_tokens: Annotated[
        int | None,
        typer.Option("--batch-tokens", metavar="N", min=1, help="Positions of a batch; default: what fits in memory."),
    ] = None,
    workers: Workers = None,
    engine: EngineName = "embedded",
    address: Address = None,
    threads: Annotated[
        int | None,
        typer.Option("--threads", metavar="N", min=1, help="Of each worker; default: all, 1 with --workers or ray."),
    ] = None,
    device: Device = "auto",
    device_map: DeviceMap = None,
    dtype: Dtype = "auto",
    revision: Revision = None,
    offline: Offline = False,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Store the activations of a corpus.

    A row for each kept token, a tensor for each site. Ctrl-C keeps the finished shards, and the same command does the others, to the
    same bytes, with any engine and any number of workers. ``interp store FOLDER`` describes and checks a store; ``interp.open_store``
    reads it.
    """
    if not sites:
        raise UsageError("no site is given; give one or more, such as --sites resid_post@5")
    if not corpus:
        raise UsageError("no corpus is given; give a file, such as --corpus texts.txt")
    if not store:
        raise UsageError("no store is given; name a folder for it, such as -o store/")
    speaker = Output(command="collect", as_json=as_json, quiet=quiet)
    _check(corpus, field, store)
    _check_engine(engine, workers, address)
    opened = open_model(
        speaker, model, device=device, device_map=device_map, dtype=dtype, revision=revision, offline=offline
    )

    from interp.scale.collect import collect as collect_activations

    with speaker.progress() as show:
        clock = _Clock(show)
        try:
            found = collect_activations(
                opened,
                corpus,
                sites,
                store,
                positions=positions,
                skip_bos=skip_bos,
                dtype=store_dtype,
                field=field,
                window=window,
                max_tokens=max_tokens,
                shard_rows=shard_rows,
                batch_tokens=batch_tokens,
                engine=engine,
                workers=workers,
                address=address,
                threads=threads,
                progress=clock.step,
            )
        except KeyboardInterrupt as error:
            raise Interrupted(_said(store)) from error
    payload = {**store_payload(found), "tokens_per_second": clock.speed}
    speaker.show(payload, lambda console: draw_store(console, payload))


class _Clock:
    """Passes progress on and takes the time between its first and its last step."""

    def __init__(self, show: "Step") -> None:
        self._show = show
        self._steps: list[tuple[float, int]] = []

    def step(self, what: str, done: int, total: int | None) -> None:
        """A step of the work."""
        self._steps[1:] = [(time.monotonic(), done)]
        self._show(what, done, total)

    @property
    def speed(self) -> float | None:
        """Tokens a second; None where there were not two steps."""
        if len(self._steps) < 2:
            return None
        (start, first), (end, last) = self._steps
        return (last - first) / (end - start) if end > start else None


def _check(corpus: str, field: str, store: str) -> None:
    """Fails before any work where there is no such corpus, or where another process writes to the store."""
    from interp.corpora import open_documents
    from interp.scale.collect_plan import check_place
    from interp.scale.store_files import place_of

    open_documents(corpus, field=field)
    place = place_of(store)
    if not place.shared and Path(place.name).exists():
        check_place(place)
        with place.writing():
            pass


def _check_engine(engine: str, workers: int | None, address: str | None) -> None:
    """Fails before any work where there is no such engine."""
    from interp.scale.engines import engine_of

    engine_of(engine, workers=workers, address=address)


def _said(store: str) -> str:
    from interp.scale.store import open_store

    try:
        kept: Any = open_store(store)
    except UsageError:
        kept = ()
    if not len(kept):
        return "interrupted before a shard was finished; the same command starts anew"
    return f"interrupted; {kept.n_shards:,} shards ({kept.n_rows:,} rows) are kept in {store}: the same command goes on from there"
