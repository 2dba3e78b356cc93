"""``interp generate``: the loop from prompt to text, open to view."""

import math
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
)
from .output import Output, table
from .prompt import read_prompt
from .saving import check_result_path, save_result
from .text import inert

if TYPE_CHECKING:
    from interp.runner.generation import Generation

app = typer.Typer(rich_markup_mode=None, add_completion=False)


@app.command()
def generate(
    prompt: PromptArgument,
    model: ModelOption = DEFAULT_MODEL,
    max_new_tokens: Annotated[
        int, typer.Option("--max-new-tokens", "-n", metavar="N", min=1, help="How many tokens at most.")
    ] = 40,
    temperature: Annotated[
        float, typer.Option("--temperature", metavar="T", min=0.0, help="0 takes the likeliest token each time.")
    ] = 0.0,
    top_k: Annotated[
        int | None, typer.Option("--top-k", metavar="K", min=1, help="Draw from the K likeliest tokens.")
    ] = None,
    top_p: Annotated[
        float | None,
        typer.Option("--top-p", metavar="P", help="Draw from the likeliest tokens that hold P of the probability."),
    ] = None,
    steps: Annotated[bool, typer.Option("--steps", help="Show every generated token with its probability.")] = False,
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
    """Continue a prompt; show the loop's times and memory.

    Prefill (one forward over the prompt) and decoding (one forward a token) are timed apart. With -o the result goes to a file
    too: .safetensors, .json, .csv or .html.
    """
    check_result_path(output)
    asked = read_prompt(prompt, chat=chat, system=system)
    speaker = Output(command="generate", as_json=as_json, path=output, quiet=quiet)
    opened = open_model(
        speaker, model, device=device, device_map=device_map, dtype=dtype, revision=revision, offline=offline
    )
    options: dict[str, Any] = {"temperature": temperature, "top_k": top_k, "top_p": top_p, "seed": seed}
    result = opened.generate(asked, max_new_tokens=max_new_tokens, **options)
    if temperature == 0.0 and (top_k is not None or top_p is not None):
        speaker.warn(
            "--top-k and --top-p do nothing at temperature 0, which takes the likeliest token; add --temperature 1"
        )
    if output is not None:
        save_result(result, output)
    payload = {
        "text": result.text,
        "kv_cache_bytes": result.cache_bytes,
        "kv_cache_formula": [layers.formula for layers in result.cached_layers],
        "kv_cache_bytes_multi_head": result.multi_head_bytes,
        "result": result.to_json(),
    }
    speaker.show(payload, lambda target: _draw(target, result, steps), to_stdout=True)
    if output is not None:
        speaker.note(f"wrote {output}")


def _draw(target: Any, result: "Generation", steps: bool) -> None:
    from interp.tokens import visible

    target.out(inert(result.text), highlight=False)
    if steps:
        read = " ".join(visible(piece) for piece in result.tokens.pieces)
        target.print(f"\nread, {len(result.tokens)} tokens: {read}", soft_wrap=True, markup=False, highlight=False)
        target.print(_steps(result))
    target.print(table(("", "", ""), _summary(result), header=False, right=" >"))


def _steps(result: "Generation") -> Any:
    from interp.tokens import visible

    numbers = zip(
        result.pieces,
        result.log_probs_nats.exp().tolist(),
        result.entropy_nats.tolist(),
        (result.prefill_seconds, *result.decode_seconds),
        strict=True,
    )
    rows = []
    for index, (piece, prob, entropy, seconds) in enumerate(numbers):
        other = result.runner_up(index)
        beside = "" if other is None else f"{visible(other[0])} {math.exp(other[1]):.3f}"
        rows.append((index, visible(piece), f"{prob:.3f}", beside, f"{entropy:.3f}", f"{seconds * 1e3:.1f}"))
    return table(
        ("step", "token", "probability", "likeliest other", "entropy (nats)", "forward (ms)"), rows, right="> > >>"
    )


def _summary(result: "Generation") -> list[tuple[str, str, str]]:
    prompt, made = len(result.tokens), len(result.ids)
    ends = {"length": "reached -n", "end": "the model ended the text", "context": "the context is full"}
    rows = [
        (
            "prefill",
            f"{result.prefill_seconds * 1e3:,.1f} ms",
            f"{prompt} tokens, {prompt / result.prefill_seconds:,.0f} tokens/s",
        ),
    ]
    rate = result.decode_tokens_per_second
    if rate is not None:
        spent = sum(result.decode_seconds)
        rows.append(("decode", f"{spent * 1e3:,.1f} ms", f"{len(result.decode_seconds)} tokens, {rate:,.1f} tokens/s"))
    size = f"{result.cache_bytes:,} bytes"
    for index, layers in enumerate(result.cached_layers):
        rows.append(("KV cache" if index == 0 else "", size if index == 0 else "", layers.formula))
    if result.multi_head_bytes > result.cache_bytes:
        shared = f"with keys and values for all {result.n_heads} query heads, not {result.n_kv_heads}"
        rows.append(("", f"{result.multi_head_bytes:,} bytes", shared))
    rows.append(("generated", f"{made} tokens", ends.get(result.stop_reason, result.stop_reason)))
    return rows
