"""``interp store``: what an activation store holds, and whether its files are whole."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .options import Json, OutputPath, Quiet
from .output import Output, check_writable, table

if TYPE_CHECKING:
    from interp.scale.store import ActivationStore

app = typer.Typer(rich_markup_mode=None, add_completion=False)


@app.command()
def store(
    folder: Annotated[str, typer.Argument(metavar="FOLDER", help="The store: a folder, or a URL such as s3://...")],
    verify: Annotated[bool, typer.Option("--verify", help="Read every file and compare its SHA-256.")] = False,
    as_json: Json = False,
    output: OutputPath = None,
    quiet: Quiet = False,
) -> None:
    """Describe an activation store, and check its files.

    With --verify a damaged file ends it with exit code 3 and is named.
    """
    check_writable(output)
    speaker = Output(command="store", as_json=as_json, path=output, quiet=quiet)

    from interp.scale.store import open_store

    found = open_store(folder)
    if verify:
        with speaker.progress() as step:
            found.verify(step)
    payload = {**store_payload(found), "verified": verify}
    speaker.show(payload, lambda console: draw_store(console, payload))


def store_payload(found: "ActivationStore") -> dict[str, Any]:
    """What a store holds, JSON-safe."""
    settings, origin, done = found.manifest.settings, found.manifest.origin, found.manifest.complete
    return {
        "store": found.name,
        "complete": found.complete,
        "model": found.provenance[-1].model if found.provenance else None,
        "weights_sha256": origin.weights_sha256,
        "edits": origin.edits,
        "corpus": origin.corpus,
        "corpus_sha256": origin.corpus_sha256,
        "sites": found.sites,
        "positions": settings.positions,
        "skip_bos": settings.skip_bos,
        "dtype": settings.dtype,
        "texts": None if done is None else done.texts,
        "tokens": None if done is None else done.tokens,
        "rows": found.n_rows,
        "shards": found.n_shards,
        "shard_rows": settings.shard_rows,
        "batch_tokens": [settings.batch_tokens, *(tokens for *_, tokens in found.manifest.smaller)],
        "bytes": found.bytes,
    }


def draw_store(console: Any, payload: Mapping[str, Any]) -> None:
    """The same as a table."""
    state = "" if payload["complete"] else ", unfinished"
    console.print(f"{payload['store']} ({payload['bytes'] / 1e6:,.2f} MB{state})", soft_wrap=True)
    rows = [
        ("model", payload["model"]),
        ("corpus", payload["corpus"]),
        ("sites", ", ".join(payload["sites"])),
        ("positions", payload["positions"] + (", without begin-of-text" if payload["skip_bos"] else "")),
    ]
    if payload["tokens"] is not None:
        rows.append(("read", f"{payload['tokens']:,} tokens in {payload['texts']:,} texts"))
    rows.append(("rows", f"{payload['rows']:,} in {payload['dtype']}, in {payload['shards']:,} shards"))
    if payload.get("tokens_per_second"):
        rows.append(("speed", f"{payload['tokens_per_second']:,.0f} tokens a second"))
    if payload.get("verified"):
        rows.append(("verified", "every file has its SHA-256"))
    console.print(table(("", ""), rows, header=False))
