"""``interp lens``: what each layer would answer if it were the last."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

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
    Target,
)
from .output import Output, table
from .prompt import read_prompt
from .saving import check_result_path, save_result

if TYPE_CHECKING:
    from interp.analyzers.logit_lens import LensResult

app = typer.Typer(rich_markup_mode=None, add_completion=False)


@app.command()
def lens(
    prompt: PromptArgument,
    model: ModelOption = DEFAULT_MODEL,
    target: Target = None,
    site: Annotated[
        str,
        typer.Option(
            "--site", metavar="SITE", help="resid_pre, resid_mid, resid_post, attn_out, mlp_out, embed, components."
        ),
    ] = "resid_post",
    top_k: Annotated[
        int, typer.Option("--top-k", "-k", metavar="K", min=1, help="How many tokens to show a layer.")
    ] = 5,
    position: Annotated[
        int, typer.Option("--position", "-p", metavar="N", help="Position to show; negative counts from the end.")
    ] = -1,
    tuned: Annotated[
        Path | None,
        typer.Option("--tuned", metavar="FILE", help="Read through a tuned lens that fit_tuned_lens made and saved."),
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
    output: OutputPath = None,
    quiet: Quiet = False,
) -> None:
    """Show what each layer would answer.

    The logit lens reads the residual stream after each layer with the model's own final norm and unembedding. The table is
    about one position; with -o every position goes to a file: .safetensors, .json, .csv or .html.
    """
    check_result_path(output)
    asked = read_prompt(prompt, chat=chat, system=system)
    speaker = Output(command="lens", as_json=as_json, path=output, quiet=quiet)
    opened = open_model(
        speaker, model, device=device, device_map=device_map, dtype=dtype, revision=revision, offline=offline
    )
    shown = opened.tokens(asked).position(position)

    from interp.analyzers.logit_lens import logit_lens
    from interp.analyzers.tuned_lens import TunedLens

    fitted = None if tuned is None else TunedLens.load(tuned)
    result = logit_lens(opened, asked, target=target, sites=site, top_k=top_k, lens=fitted)
    if output is not None:
        save_result(result, output)
    payload = {"position": shown, "result": result.to_json()}
    speaker.show(payload, lambda console: _draw(console, result, shown), to_stdout=True)
    if output is not None:
        speaker.note(f"wrote {output}")


def _draw(console: Any, result: "LensResult", position: int) -> None:
    """A row a layer; the target's columns only where there is a target."""
    from interp.figures.rows import site_rows
    from interp.tokens import visible

    words = {int(number): visible(piece) for number, piece in result.vocabulary.items()}
    target = int(result.target_ids[position])
    followed = target in words
    columns = ["layer", "top", "prob", "next", "entropy", "KL", *(["p(target)", "rank"] if followed else [])]
    rows = []
    for index, label in enumerate(site_rows(result.sites).labels):
        ids = result.top_ids[index, position].tolist()
        probs = result.top_log_probs_nats[index, position].exp().tolist()
        others = " ".join(f"{words[number]} {prob:.3f}" for number, prob in zip(ids[1:], probs[1:], strict=True))
        row = [label, words[ids[0]], f"{probs[0]:.3f}", others]
        row += [f"{float(result.entropy_nats[index, position]):.2f}", f"{float(result.kl_nats[index, position]):.2f}"]
        if followed:
            row.append(f"{float(result.target_log_prob_nats[index, position].exp()):.3f}")
            row.append(f"{int(result.target_rank[index, position]):,}")
        rows.append(row)
    about = f"position {position} of {len(result.tokens)}, after {visible(result.tokens.pieces[position])}"
    title = f"{about}; target {words[target]}" if followed else about
    console.print(table(columns, rows, title=f"{title}; entropy and KL in nats, rank 0 is the top", right="> > >>>>"))
