"""``interp edit eval``: the scores of an edit on cases, before and after, with what it changed besides."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from interp.errors import UsageError

from .ablate_texts import read_texts
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
    from interp.editing.cases import EditCase
    from interp.editing.edit import Edit
    from interp.editing.evaluation_result import EditScores
    from interp.results import Estimate

NO_EDIT = "none"
_SIDE_EFFECTS_SHOWN = 10


def evaluate(
    edit: Annotated[
        str, typer.Argument(metavar="EDIT", help="A saved edit, or 'none': the scores of the model as it is.")
    ],
    cases: Annotated[
        Path,
        typer.Option("--cases", "-c", metavar="FILE", help="CounterFact, EasyEdit's flat form or zsRE; JSON or JSONL."),
    ],
    texts: Annotated[
        Path | None,
        typer.Option("--texts", metavar="FILE", help="Held-out texts for the perplexity, one a line, or .jsonl."),
    ] = None,
    unrelated: Annotated[
        Path | None,
        typer.Option("--unrelated", metavar="FILE", help="Prompts that should not change, one a line, or .jsonl."),
    ] = None,
    neighbours: Annotated[
        int,
        typer.Option(
            "--neighbours",
            metavar="N",
            min=0,
            help="Add to each case up to N prompts of other cases with its template and true object.",
        ),
    ] = 0,
    known: Annotated[
        bool, typer.Option("--known", help="Draw cases, by --seed, whose true object the model gives.")
    ] = False,
    every_case: Annotated[
        bool, typer.Option("--all", help="Ask all cases, also those of facts that the edit does not hold.")
    ] = False,
    limit: Annotated[int | None, typer.Option("--limit", "-n", metavar="N", min=1, help="At most N cases.")] = None,
    generate: Annotated[
        bool, typer.Option("--generate", help="Continue prompts too, for the generation entropy. Slow.")
    ] = False,
    model: ModelOption = DEFAULT_MODEL,
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
    """Score an edit on cases, before and after.

    Of the cases in the file only those of the edit's own facts are asked, unless --all says otherwise. A score for which nothing was given
    (no paraphrases, no texts) is not shown.
    With -o every number goes to a file: .html to look at, .safetensors to load again, .json, or .csv.
    """
    check_result_path(output)

    from interp.editing.cases import read_cases, with_neighbours
    from interp.editing.edit_file import load_edit

    loaded = None if edit == NO_EDIT else load_edit(edit)
    chosen = with_neighbours(read_cases(cases), neighbours)
    if loaded is not None and not every_case:
        chosen = _own_cases(loaded, chosen, cases)
    held_out, others = ([] if path is None else read_texts(path) for path in (texts, unrelated))
    speaker = Output(command="edit eval", as_json=as_json, path=output, quiet=quiet)
    opened = open_model(
        speaker, model, device=device, device_map=device_map, dtype=dtype, revision=revision, offline=offline
    )

    from interp.editing.evaluation import evaluate_edit
    from interp.editing.known_cases import known_cases

    with speaker.progress() as step:
        if known:
            chosen = known_cases(opened, chosen, limit, seed, progress=step)
        scores = evaluate_edit(
            opened,
            loaded,
            chosen[:limit],
            texts=held_out,
            unrelated=others,
            generate=generate,
            seed=seed,
            progress=step,
        )
    if output is not None:
        save_result(scores, output)
    speaker.show(_payload(scores), lambda console: _draw(console, scores), to_stdout=True)
    if output is not None:
        speaker.note(f"wrote {output}")


def _own_cases(edit: "Edit", cases: "Sequence[EditCase]", path: Path) -> "tuple[EditCase, ...]":
    """The cases of the edit's facts. Raises UsageError where there is none."""
    own = {(fact.prompt, fact.target.strip()) for fact in edit.facts}
    found = tuple(case for case in cases if (case.fact.prompt, case.fact.target.strip()) in own)
    if not found:
        raise UsageError(
            f"none of the {len(cases)} cases of {path} is of a fact of the edit, such as {edit.facts[0].prompt!r} -> "
            f"{edit.facts[0].target!r}; give a file with its cases, or --all to ask these"
        )
    return found


def _payload(scores: "EditScores") -> dict[str, Any]:
    from interp.editing.asked_prompts import WHEN
    from interp.editing.evaluation_result import SCORES, unit_of

    found: dict[str, dict[str, Any]] = {}
    for name in SCORES:
        states = {when: _record(scores, name, when) for when in WHEN}
        if any(states.values()):
            found[name] = {"unit": unit_of(name)} | states
    return {
        "cases": len(scores.cases),
        "method": scores.method,
        "scores": found,
        "weight_drift": {
            str(layer): scores.weight_drift(layer).value for layer in (scores.layers if scores.n_edits else ())
        },
        "side_effects": scores.side_effects().to_dict("records"),
        "result": scores.to_json(),
    }


def _record(scores: "EditScores", name: str, when: str) -> dict[str, Any] | None:
    estimate = scores.estimate(name, when)
    if estimate is None:
        return None
    half = scores.papers_interval(name, when)
    bounds = {"value": estimate.value, "lower": estimate.lower, "upper": estimate.upper, "n": estimate.n}
    return bounds | {"papers_half_width": half}


def _draw(console: Any, scores: "EditScores") -> None:
    from interp.editing.evaluation_result import SCORES, meaning_of, unit_of

    edited = scores.n_edits > 0
    n = len(scores.cases)
    console.print(
        f"{n} case{'s' * (n > 1)}; {f'edited by {scores.method}' if edited else 'not edited'}", soft_wrap=True
    )
    rows, said = [], []
    for name in SCORES:
        before, after = scores.estimate(name, "before"), scores.estimate(name, "after")
        if before is None and after is None:
            continue
        shown = after if after is not None else before
        cells = [_shown(before), _shown(after)] if edited else [_shown(before)]
        rows.append([name, *cells, _interval(shown), unit_of(name), str(shown.n) if shown else ""])
        said.append([name, meaning_of(name)])
    for layer in scores.layers if edited else ():
        drift = scores.weight_drift(layer)
        rows.append([f"weight drift L{layer}", "0", f"{drift.value:.3g}", "", "|dW|/|W|", str(drift.n)])
    columns = ["score", "before", *(["after"] if edited else []), f"{scores.confidence:.0%} interval", "unit", "n"]
    console.print(table(columns, rows, right=" >>" + ">" * edited))
    console.print(table(["score", "meaning"], said, header=False))
    console.print(
        "intervals: Student's t over cases, of S and of perplexity from the bootstrap; the papers' 1.96 std / sqrt(n) is in --json",
        soft_wrap=True,
    )
    if edited:
        _draw_side_effects(console, scores)


def _draw_side_effects(console: Any, scores: "EditScores") -> None:
    """The prompts that an edit should leave, and whose first choice it changed."""
    from interp.editing.evaluation_tables import BYSTANDERS
    from interp.tokens import visible

    changed = scores.side_effects().to_dict("records")
    asked = sum(len(scores.asked[role].texts) for role in BYSTANDERS if role in scores.asked)
    if not asked:
        console.print(
            "no prompt was asked that the edit should leave; --neighbours or --unrelated give some", soft_wrap=True
        )
        return
    rows = [
        [
            row["role"],
            row["prompt"],
            f"{visible(row['old_answer'])} {row['old_probability']:.3f}",
            f"{visible(row['new_answer'])} {row['new_probability']:.3f}",
            f"{row['kl_nats']:.3g}",
        ]
        for row in changed[:_SIDE_EFFECTS_SHOWN]
    ]
    title = f"side effects: {len(changed)} of {asked} prompts changed their first token"
    if rows:
        console.print(table(["role", "prompt", "before", "after", "KL (nats)"], rows, title=title, right="    >"))
    else:
        console.print(title, soft_wrap=True)


def _shown(estimate: "Estimate | None") -> str:
    return "-" if estimate is None else _number(estimate.value)


def _interval(estimate: "Estimate | None") -> str:
    if estimate is None or estimate.lower != estimate.lower:
        return ""
    return f"{_number(estimate.lower)} to {_number(estimate.upper)}"


def _number(value: float) -> str:
    return f"{value:.2f}" if abs(value) >= 0.1 or value == 0 else f"{value:.2g}"
