"""``interp attention``: where each head of each layer looks in a prompt."""

import math
from typing import TYPE_CHECKING, Annotated, Any

import typer

from interp.errors import UsageError

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
    System,
)
from .output import Output, table
from .prompt import read_prompt
from .saving import check_result_path, save_result

if TYPE_CHECKING:
    from interp.analyzers.attention_patterns import AttentionPatternsResult
    from interp.runner.model import Model

app = typer.Typer(rich_markup_mode=None, add_completion=False)

SORTS = {
    "layer": (("layer", "head"), True),
    "previous": (("previous_token_mass",), False),
    "first": (("first_token_mass",), False),
    "own": (("own_token_mass",), False),
    "entropy": (("entropy_nats",), True),
    "distance": (("distance_tokens",), False),
}
"""Columns of the table of heads to sort by, and whether the least comes first."""


@app.command()
def attention(
    prompt: PromptArgument,
    model: ModelOption = DEFAULT_MODEL,
    layer: Annotated[
        str | None, typer.Option("--layer", "-l", metavar="LAYERS", help="Only these layers: 5, 5,7, 0-4 or -1.")
    ] = None,
    head: Annotated[
        str | None,
        typer.Option("--head", metavar="HEADS", help="Only these heads of each layer: 3 or 3,5; L5H3 is one head."),
    ] = None,
    sort: Annotated[
        str, typer.Option("--sort", metavar="BY", help="layer, previous, first, own, entropy or distance.")
    ] = "layer",
    top_k: Annotated[
        int, typer.Option("--top-k", "-k", metavar="K", min=1, help="How many keys to name for each query.")
    ] = 3,
    scores: Annotated[
        bool, typer.Option("--scores", help="Keep the scores before the softmax in the file of -o.")
    ] = False,
    chat: Chat = False,
    system: System = None,
    device: Device = "auto",
    device_map: DeviceMap = None,
    dtype: Dtype = "auto",
    revision: Revision = None,
    offline: Offline = False,
    as_json: Json = False,
    output: OutputPath = None,
    quiet: Quiet = False,
) -> None:
    """Show where each head looks.

    One row a head: what the last token reads, and the head's habits averaged over the prompt. One head alone is shown query by
    query. With -o all patterns go to a file: .html to look at, .safetensors to load again, .json, or .csv.
    """
    check_result_path(output)
    if sort not in SORTS:
        raise UsageError(f"unknown order {sort!r}; valid: {', '.join(SORTS)}")
    asked = read_prompt(prompt, chat=chat, system=system)
    speaker = Output(command="attention", as_json=as_json, path=output, quiet=quiet)
    opened = open_model(
        speaker, model, device=device, device_map=device_map, dtype=dtype, revision=revision, offline=offline
    )

    from interp.analyzers.attention_patterns import attention_patterns

    layers, heads = _chosen(opened, layer, head)
    result = attention_patterns(opened, asked, layers=layers, heads=heads, top_k=top_k, scores=scores)
    if output is not None:
        save_result(result, output)
    alone = len(result.layers) * len(result.heads) == 1
    speaker.show(
        _payload(result, sort),
        lambda console: _draw_queries(console, result) if alone else _draw_heads(console, result, sort),
        to_stdout=True,
    )
    if output is not None:
        speaker.note(f"wrote {output}")


def _chosen(model: "Model", layer: str | None, head: str | None) -> tuple[list[int] | None, list[int] | None]:
    """The layers and heads that the options name; None for all."""
    from interp.heads import Head
    from interp.sites import read_layers

    atlas = model.atlas
    layers = None if layer is None else list(read_layers(layer, atlas.n_layers))
    if head is None:
        return layers, None
    if all(part.strip().removeprefix("-").isdecimal() for part in head.split(",")):
        return layers, [int(part) for part in head.split(",")]
    named = Head.parse(head, atlas.n_layers, atlas.n_heads)
    if layers is not None and layers != [named.layer]:
        raise UsageError(f"--head {head} is in layer {named.layer}, and --layer says {layer}; give one of them")
    return [named.layer], [named.head]


def _payload(result: "AttentionPatternsResult", sort: str) -> dict[str, Any]:
    """The tables as records; the patterns themselves are in the files of -o."""
    payload = {
        "prompt_tokens": list(result.tokens.pieces),
        "n_kv_heads": result.n_kv_heads,
        "heads": _sorted(result, sort).to_dict("records"),
    }
    if len(payload["heads"]) == 1:
        payload["queries"] = result.to_frame().to_dict("records")
    return payload


def _sorted(result: "AttentionPatternsResult", sort: str) -> Any:
    columns, ascending = SORTS[sort]
    # Stable, so that equal heads stay in the order of the layers.
    return result.heads_frame().sort_values(list(columns), ascending=ascending, kind="stable", na_position="last")


def _draw_heads(console: Any, result: "AttentionPatternsResult", sort: str) -> None:
    """A row a head; how far it sees only where that differs between layers."""
    from interp.tokens import visible

    windows = any(window is not None for window in result.windows)
    grouped = result.n_kv_heads > 1 and len(set(result.kv_heads)) < len(result.heads)
    last = len(result.tokens) - 1
    columns = ["head", *(["kv"] if grouped else []), *(["sees"] if windows else [])]
    right = " " + ">" * grouped + " " * windows
    columns += ["last token reads", "weight", "previous", "first", "itself", "entropy", "distance"]
    rows = []
    for line in _sorted(result, sort).to_dict("records"):
        row = [f"L{line['layer']}H{line['head']}", *([line["kv_head"]] if grouped else [])]
        row += [_reach(line["window_tokens"])] if windows else []
        row += [f"{visible(line['last_query_top_token'])} ({line['last_query_top_position']})"]
        row.append(_figure(line["last_query_top_weight"]))
        names = ("previous_token_mass", "first_token_mass", "own_token_mass", "entropy_nats", "distance_tokens")
        rows.append([*row, *(_figure(line[name]) for name in names)])
    shared = f"; kv: heads of a layer with the same number share their keys and values ({result.n_kv_heads} in all)"
    title = (
        f"the last token is {visible(result.tokens.pieces[last])} ({last}); weights averaged over the tokens from the second on, "
        f"entropy in nats, distance in tokens{shared if grouped else ''}"
    )
    console.print(table(columns, rows, title=title, right=right + " " + ">" * 6))


def _draw_queries(console: Any, result: "AttentionPatternsResult") -> None:
    """One head query by query: the keys it looks at most, and those it writes most from."""
    from interp.tokens import visible

    pieces = result.tokens.pieces

    def named(keys: Any, weights: Any) -> str:
        pairs = zip(keys.tolist(), weights.tolist(), strict=True)
        return "  ".join(f"{visible(pieces[key])} ({key}) {weight:.2f}" for key, weight in pairs if key >= 0)

    columns = ["", "token", "reads (weight)", "writes from (norm)", "entropy", "distance"]
    written = result.top_written_keys, result.top_written_norms
    assert written[0] is not None, "the command measures values"
    assert written[1] is not None, "the command measures values"
    rows = [
        [
            query,
            visible(piece),
            named(result.top_keys[0, 0, query], result.top_weights[0, 0, query]),
            named(written[0][0, 0, query], written[1][0, 0, query]),
            _figure(float(result.entropy_nats[0, 0, query])),
            _figure(float(result.distance_tokens[0, 0, query])),
        ]
        for query, piece in enumerate(pieces)
    ]
    kv = f", key/value head {result.kv_heads[0]} of {result.n_kv_heads}"
    title = f"L{result.layers[0]}H{result.heads[0]}: sees {_reach(result.windows[0])}{kv}; entropy in nats, distance in tokens"
    console.print(table(columns, rows, title=title, right=">   >>"))


def _reach(window: float | None) -> str:
    return "all before" if window is None or math.isnan(window) else f"{int(window)} tokens"


def _figure(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.2f}"
