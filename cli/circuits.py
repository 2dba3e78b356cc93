"""``interp circuits``: what one head reads, matches and writes, from its weights."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

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
    from interp.analyzers.circuit_tokens import CircuitTable
    from interp.analyzers.head_circuits import HeadCircuitsResult
    from interp.heads import Head
    from interp.results import Estimate

app = typer.Typer(rich_markup_mode=None, add_completion=False)


@app.command()
def circuits(
    head: Annotated[str, typer.Argument(metavar="HEAD", help="The head, written L5H3 or 5.3: layer 5, head 3.")],
    model: ModelOption = DEFAULT_MODEL,
    directions: Annotated[
        int, typer.Option("--directions", metavar="N", min=1, help="Singular directions to list tokens for.")
    ] = 3,
    top_k: Annotated[
        int, typer.Option("--top-k", "-k", metavar="K", min=1, help="How many tokens to show at each end.")
    ] = 6,
    partners: Annotated[
        int, typer.Option("--partners", metavar="N", min=1, help="How many heads to show a kind of composition.")
    ] = 4,
    all_tokens: Annotated[
        bool, typer.Option("--all-tokens", help="Copying scores over the whole vocabulary, not a draw of it.")
    ] = False,
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
    """Show a head's circuits from its weights.

    W_QK and W_OV by singular values and the tokens that they connect and promote, whether the head copies, which heads it
    composes with, and what weights alone leave out. With -o all of it goes to a file: .safetensors, .json, .csv or .html.
    """
    check_result_path(output)
    speaker = Output(command="circuits", as_json=as_json, path=output, quiet=quiet)
    opened = open_model(
        speaker, model, device=device, device_map=device_map, dtype=dtype, revision=revision, offline=offline
    )

    from interp.analyzers.head_circuits import COPY_TOKENS, head_circuits

    drawn = None if all_tokens else COPY_TOKENS
    result = head_circuits(opened, head, directions=directions, top_k=top_k, copy_tokens=drawn, seed=seed)
    if output is not None:
        save_result(result, output)
    speaker.show({"result": result.to_json()}, lambda console: _draw(console, result, partners), to_stdout=True)
    if output is not None:
        speaker.note(f"wrote {output}")


def _draw(console: Any, result: "HeadCircuitsResult", partners: int) -> None:
    shared = ", ".join(map(str, result.shared_with))
    console.print(
        f"{result.head} of {result.provenance.model}" + (f"; keys and values shared with {shared}" if shared else "")
    )
    console.print(
        _directions("W_QK: queries on the left attend to keys on the right", result, result.qk, "query", "key")
    )
    console.print(
        _directions("W_OV: tokens on the left promote those on the right", result, result.ov, "reads", "promotes")
    )
    console.print(_scores(result))
    if result.profile is None:
        console.print(f"W_QK by distance: {result.no_profile}\n")
    else:
        console.print(_distances(result))
    console.print(_partners(result, partners))
    console.print("Left out:")
    for text in result.left_out:
        console.print(f"  {text}")


def _directions(title: str, result: "HeadCircuitsResult", circuit: "CircuitTable", read: str, write: str) -> Any:
    from interp.tokens import visible

    rows = []
    for direction in range(circuit.read_ids.shape[0]):
        for pole in range(2):
            words = [
                "  ".join(visible(result.vocabulary[str(number)]) for number in ids[direction, pole].tolist())
                for ids in (circuit.read_ids, circuit.write_ids)
            ]
            value = f"{float(circuit.singular_values[direction]):.3g}" if pole == 0 else ""
            rows.append([str(direction) if pole == 0 else "", value, "+-"[pole], *words])
    rest = circuit.singular_values.square()
    share = float(rest[: circuit.read_ids.shape[0]].sum() / rest.sum())
    title = f"{title}; these directions hold {share:.0%} of the squared norm"
    return table(["", "singular value", "end", read, write], rows, title=title, right=">>")


def _scores(result: "HeadCircuitsResult") -> Any:
    copying = result.copying
    rows = [
        ["W_OV eigenvalues, sum / sum of moduli", f"{result.ov.eigenvalue_score:+.3f}", "1 copies, -1 suppresses"],
        ["same, less each token's mean logit", f"{result.ov.eigenvalue_score_centred:+.3f}", "as a softmax sees it"],
        ["W_QK eigenvalues, sum / sum of moduli", f"{result.qk.eigenvalue_score:+.3f}", "1 looks for its own token"],
        ["tokens that promote themselves most", _share(copying.top), f"of {copying.top.n:,} tokens"],
        ["tokens that are in their own best 1 %", _share(copying.top_percent), "chance 1 %"],
        ["others that a token promotes less than itself", _share(copying.percentile), "chance 50 %"],
    ]
    return table(["copying and matching, from token to token", "score", ""], rows, right=" >")


def _share(estimate: "Estimate") -> str:
    if estimate.lower == estimate.upper:
        return f"{estimate.value:.1%}"
    return f"{estimate.value:.1%} ({estimate.lower:.1%} to {estimate.upper:.1%})"


def _distances(result: "HeadCircuitsResult") -> Any:
    assert result.profile is not None
    shown = [index for index, distance in enumerate(result.distances) if distance in (0, 1, 2, 4, 8, 16, 32, 64)]
    rows = [
        [
            f"direction {direction}",
            *(f"{float(result.profile.directions[index, direction]):.3g}" for index in shown),
        ]
        for direction in range(min(3, result.profile.directions.shape[1]))
    ]
    rows.append(
        [
            "own token less any",
            *(f"{float((result.profile.same_token - result.profile.any_token)[index]):.3g}" for index in shown),
        ]
    )
    columns = ["key lies ... positions back", *(str(result.distances[index]) for index in shown)]
    return table(
        columns, rows, title="W_QK by distance (rotation), before divisors and scale", right=" " + ">" * len(shown)
    )


def _partners(result: "HeadCircuitsResult", count: int) -> Any:
    rows = []
    for partner in result.partners:
        sides = {
            True: f"reads through its {_NAMES[partner.through]}",
            False: f"is read by {_NAMES[partner.through]} of",
        }
        best = partner.strongest(count)
        if best:
            cells = "  ".join(f"{head} {_value(partner, head)}" for head in best)
            rows.append([sides[partner.reads], cells, f"{partner.typical:.3f}"])
    if not rows:
        return table(["composition"], [["this model has no other layer"]])
    title = (
        f"composition, with standard deviations above a random rotation ({result.draws} draws); "
        f"random matrices: {result.shape_mean:.3f}"
    )
    return table(["", "strongest", "median head"], rows, title=title, right="  >")


_NAMES = {"q": "queries", "k": "keys", "v": "values"}


def _value(partner: Any, head: "Head") -> str:
    z = float(partner.z[head.layer, head.head])
    return f"{float(partner.composition[head.layer, head.head]):.3f} ({z:+.0f})"
