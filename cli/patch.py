"""``interp patch``: which states of a run carry the difference between two prompts."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from interp.errors import unknown

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
from .output import Output
from .patch_drawing import draw, records
from .patch_pairs import Pairs, read_pairs
from .saving import check_result_path, save_result
from .unfinished import Fresh, keeping

if TYPE_CHECKING:
    from interp.analyzers.activation_patching_result import ActivationPatchingResult
    from interp.runner.model import Model

app = typer.Typer(rich_markup_mode=None, add_completion=False)

SITES = {
    "position": "resid_pre,attn_out,mlp_out",
    "layer": "attn_out,mlp_out",
    "head": "attn.z",
    "head_position": "attn.z",
}
"""For each way of cutting a site, the sites that are patched where none are named."""


@app.command()
def patch(
    clean: Annotated[
        str | None, typer.Option("--clean", metavar="PROMPT", help="The prompt that has the answer; '-' is stdin.")
    ] = None,
    corrupted: Annotated[
        str | None,
        typer.Option("--corrupted", metavar="PROMPT", help="One of as many tokens, that has another answer."),
    ] = None,
    target: Annotated[
        str | None, typer.Option("--target", "-t", metavar="TEXT", help="The answer; default: the model's own.")
    ] = None,
    against: Annotated[
        str | None,
        typer.Option("--against", metavar="TEXT", help="The other answer; default: the model's own to the corrupted."),
    ] = None,
    pairs: Annotated[
        Path | None,
        typer.Option(
            "--pairs", metavar="FILE", help="Many pairs: a .jsonl file with clean, corrupted, target and against."
        ),
    ] = None,
    metric: Annotated[
        str, typer.Option("--metric", metavar="NAME", help="logit_difference, probability, log_prob or kl.")
    ] = "logit_difference",
    sites: Annotated[
        str | None,
        typer.Option(
            "--sites",
            "-s",
            metavar="SITE,SITE",
            help="resid_pre, resid_mid, resid_post, attn_out, mlp_out, z, q, k, v, pattern.",
        ),
    ] = None,
    by: Annotated[
        str, typer.Option("--by", metavar="BY", help="What is patched at a time: position, head, head_position, layer.")
    ] = "position",
    direction: Annotated[
        str,
        typer.Option("--direction", metavar="WAY", help="denoising (clean into corrupted) or noising (the reverse)."),
    ] = "denoising",
    layer: Annotated[
        str | None, typer.Option("--layer", "-l", metavar="LAYERS", help="Only these layers: 5, 5,7, 0-4 or -1.")
    ] = None,
    attribution: Annotated[
        bool, typer.Option("--attribution", help="Estimate by gradients, and check the estimate on some patches.")
    ] = False,
    top: Annotated[int, typer.Option("--top", metavar="N", min=1, help="How many patches of each site to show.")] = 10,
    model: ModelOption = DEFAULT_MODEL,
    seed: Seed = 0,
    device: Device = "auto",
    device_map: DeviceMap = None,
    dtype: Dtype = "auto",
    revision: Revision = None,
    offline: Offline = False,
    fresh: Fresh = False,
    as_json: Json = False,
    output: OutputPath = None,
    quiet: Quiet = False,
) -> None:
    """Show which states carry an answer, by patching.

    States of the run on one prompt are put into the run on another, one at a time. The effect is what that changes as a share of what
    changing the prompt changes. With -o every patch goes to a file: .html to look at, .safetensors to load again, .json, or .csv.
    """
    check_result_path(output)
    if by not in SITES:
        raise unknown("way of cutting a site", by, SITES)
    asked = read_pairs(pairs, clean, corrupted, target, against, metric)
    speaker = Output(command="patch", as_json=as_json, path=output, quiet=quiet)
    opened = open_model(
        speaker, model, device=device, device_map=device_map, dtype=dtype, revision=revision, offline=offline
    )
    settings: dict[str, Any] = {
        "metric": metric,
        "sites": [site.strip() for site in (SITES[by] if sites is None else sites).split(",")],
        "by": by,
        "direction": direction,
        "layers": _layers(opened, layer),
        "seed": seed,
    }
    result = _patched(speaker, opened, asked, settings, attribution=attribution, fresh=fresh)
    if output is not None:
        save_result(result, output)
    payload = {"strongest": records(result, top), "result": result.to_json()}
    speaker.show(payload, lambda console: draw(console, result, top), to_stdout=True)
    if output is not None:
        speaker.note(f"wrote {output}")


def _layers(model: "Model", text: str | None) -> list[int] | None:
    from interp.sites import read_layers

    return None if text is None else list(read_layers(text, model.atlas.n_layers))


def _patched(
    speaker: Output, model: "Model", asked: Pairs, settings: dict[str, Any], *, attribution: bool, fresh: bool
) -> "ActivationPatchingResult":
    """The sweep, which an interrupt does not lose; or its estimate, which is quick."""
    answers = {"target": asked.target, "against": asked.against}
    if attribution:
        from interp.analyzers.attribution_patching import attribution_patching

        with speaker.progress() as step:
            return attribution_patching(model, asked.clean, asked.corrupted, **answers, **settings, progress=step)
    from interp.analyzers.activation_patching import activation_patching

    with keeping(speaker, model, fresh=fresh, **asked.request(), **settings) as work:
        return activation_patching(
            model,
            asked.clean,
            asked.corrupted,
            **answers,
            **settings,
            checkpoint=work.checkpoint,
            progress=work.progress,
        )
