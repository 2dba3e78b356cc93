"""``interp edit show``, ``apply``, ``undo`` and ``export``: what can be done with a saved edit without making one."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeAlias

import typer

from interp.errors import UsageError

from .model import open_model
from .options import Json, Offline, Quiet, Revision
from .output import Output, table
from .text import one_line

if TYPE_CHECKING:
    from collections.abc import Sequence

    from interp.editing.edit import Edit, LayerEdit
    from interp.editing.folder_log import FolderEdit
    from interp.prompts import Fact

_FACTS_SHOWN = 10

EditFile: TypeAlias = Annotated[Path, typer.Argument(metavar="FILE", help="A saved edit, such as edit.safetensors.")]
ModelFolder: TypeAlias = Annotated[
    Path, typer.Argument(metavar="FOLDER", help="A folder of safetensors; its weights are changed in place.")
]
OtherBase: TypeAlias = Annotated[
    bool, typer.Option("--other-base", help="Allow a model with other weights than the edit was made for.")
]


def show(
    file: Annotated[
        Path, typer.Argument(metavar="FILE", help="A saved edit, or a model folder: then the edits that are in it.")
    ],
    as_json: Json = False,
) -> None:
    """Show what an edit changes and how it was made."""
    speaker = Output(command="edit show", as_json=as_json)
    if file.is_dir():
        from interp.editing.folder import folder_edits

        edits = folder_edits(file)
        speaker.show(
            {"folder": file, "edits": [_folder_record(edit) for edit in edits]}, lambda c: _draw_folder(c, edits)
        )
        return

    from interp.editing.edit_file import load_edit

    edit = load_edit(file)
    speaker.show(_record(edit), lambda console: _draw(console, edit, file))


def apply(
    file: EditFile, folder: ModelFolder, other_base: OtherBase = False, as_json: Json = False, quiet: Quiet = False
) -> None:
    """Write an edit into a model folder; undo brings the same bytes back.

    The bytes of the changed tensors are kept in FOLDER/interp-edits.safetensors. If the command is killed, the same command goes on and
    undo takes it back.
    """
    from interp.editing.edit_file import load_edit
    from interp.editing.folder import apply_to_folder

    edit = load_edit(file)
    done = apply_to_folder(folder, edit, other_base=other_base)
    speaker = Output(command="edit apply", as_json=as_json, quiet=quiet)
    if done.finished:
        speaker.note("a change of this folder had been stopped halfway; it is finished now")
    line = f"applied to {folder}: {_facts_in_short(edit.facts)}; {_size(edit.layers)}; {_count(done.edits)} in it now"
    payload = {"folder": folder, "written": done.written, "finished": done.finished}
    payload |= {"edits": [_folder_record(there) for there in done.edits]}
    speaker.show(payload, lambda console: console.print(one_line(line), soft_wrap=True))


def undo(
    folder: ModelFolder,
    file: Annotated[
        Path | None, typer.Argument(metavar="[FILE]", help="The edit to take back; by default the last one.")
    ] = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Take an edit out of a model folder, in any order.

    When none is left the files are those from before the first edit, byte for byte, which is checked.
    """
    from interp.editing.edit_file import load_edit
    from interp.editing.folder import undo_in_folder

    done = undo_in_folder(folder, None if file is None else load_edit(file))
    speaker = Output(command="edit undo", as_json=as_json, quiet=quiet)
    if done.finished:
        speaker.note("a change of this folder had been stopped halfway")
    what = f"took back {_facts_in_short(done.taken_back[0].facts)}" if done.taken_back else "finished the undo"
    if done.restored is None:
        rest = f"{_count(done.edits)} left in {folder}"
    else:
        hashes = ", ".join(f"{name} {sha256}" for name, sha256 in done.restored.items())
        rest = f"{folder} is as before any edit (SHA-256 {hashes})"
    payload = {
        "folder": folder,
        "written": done.written,
        "taken_back": [_folder_record(edit) for edit in done.taken_back],
        "edits": [_folder_record(edit) for edit in done.edits],
        "restored": done.restored,
    }
    speaker.show(payload, lambda console: console.print(one_line(f"{what}; {rest}"), soft_wrap=True))


def export(
    file: EditFile,
    peft: Annotated[
        Path | None, typer.Option("--peft", metavar="FOLDER", help="Write a LoRA adapter that peft reads.")
    ] = None,
    model_folder: Annotated[
        Path | None, typer.Option("--model-folder", metavar="FOLDER", help="Write the whole model with the edit in it.")
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(
            "--model", "-m", metavar="MODEL", help="The base of --model-folder; default: what the edit names."
        ),
    ] = None,
    other_base: OtherBase = False,
    revision: Revision = None,
    offline: Offline = False,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Write an edit as a LoRA adapter, or the edited model as a folder.

    FOLDER must be new or empty; it is there whole or not at all.
    """
    if (peft is None) == (model_folder is None):
        raise UsageError(
            "say what to write: --peft FOLDER (a LoRA adapter) or --model-folder FOLDER (the edited model)"
        )
    if model is not None and model_folder is None:
        raise UsageError("--model is the base of --model-folder; an adapter needs no model")

    from interp.editing.edit_file import load_edit
    from interp.editing.new_folder import check_new_folder

    edit = load_edit(file)
    speaker = Output(command="edit export", as_json=as_json, quiet=quiet)
    target = check_new_folder(peft or model_folder or "")
    if peft is not None:
        edit.export_peft(target)
    elif model is None and edit.provenance.weights_sha256 is None:
        edit.export_model(target)  # made on a model in memory: says that --model is needed
    else:
        name, dtype = model or edit.provenance.model, edit.provenance.dtype
        base = open_model(speaker, name, device="cpu", dtype=dtype, revision=revision, offline=offline)
        load_edit(file, base, other_base=other_base).export_model(target, base)
    size = sum(path.stat().st_size for path in target.iterdir())
    what = "LoRA adapter" if peft is not None else "edited model"
    line = f"wrote {peft or model_folder}: {what}, {_bytes(size)}; {_facts_in_short(edit.facts)}"
    payload = {"path": target, "format": "peft" if peft is not None else "model", "bytes": size}
    speaker.show(payload, lambda console: console.print(one_line(line), soft_wrap=True))


def _record(edit: "Edit") -> dict[str, Any]:
    """The edit without its factors and curves, which stand in its file."""
    origin = edit.provenance
    return {
        "facts": [_fact(fact) for fact in edit.facts],
        "method": edit.method,
        "layers": edit.to_frame().to_dict("records"),
        "base_sha256": {change.layer: change.base_sha256 for change in edit.layers},
        "layer_source": edit.layer_source,
        "settings": edit.settings,
        "moments": edit.moments,
        "final_probability": [float(curve.probability[-1]) for curve in edit.curves],
        "steps": [len(curve.probability) for curve in edit.curves],
        "seconds": edit.seconds,
        "model": origin.model,
        "weights_sha256": origin.weights_sha256,
        "dtype": origin.dtype,
        "seed": origin.seed,
        "created": origin.created,
        "command_line": origin.command,
    }


def _folder_record(edit: "FolderEdit") -> dict[str, Any]:
    return {
        "name": edit.name,
        "facts": [_fact(fact) for fact in edit.facts],
        "method": edit.method,
        "model": edit.model,
        "layers": [change.layer for change in edit.layers],
        "relative_norms": [change.relative_norm for change in edit.layers],
        "tensors": edit.tensors,
    }


def _fact(fact: "Fact") -> dict[str, str]:
    return {"subject": fact.subject, "template": fact.template, "target": fact.target}


def _draw(console: Any, edit: "Edit", file: Path) -> None:
    """The facts, where the edit is from, and one line a layer."""
    origin = edit.provenance
    chances = [f"{float(curve.probability[-1]):.2f}" for curve in edit.curves] or ["-"] * len(edit.facts)
    rows = [(fact.prompt, fact.target, chance) for fact, chance in zip(edit.facts, chances, strict=True)]
    title = f"facts ({min(len(rows), _FACTS_SHOWN)} of {len(rows)})" if len(rows) > _FACTS_SHOWN else None
    console.print(table(("prompt", "target", "probability at the end"), rows[:_FACTS_SHOWN], title=title, right="  >"))
    about = [
        ("file", f"{file} ({_bytes(file.stat().st_size)})"),
        ("model", f"{origin.model} in {origin.dtype}"),
        ("weights SHA-256", origin.weights_sha256 or "made in memory"),
        ("method", f"{edit.method}; layers {edit.layer_source}; {edit.seconds:.1f} s"),
        *(("second moment", moment) for moment in edit.moments),
        ("made", origin.created + (f", seed {origin.seed}" if origin.seed is not None else "")),
    ]
    console.print(table(("", ""), about, header=False))
    console.print(_layers_table(edit.layers))


def _draw_folder(console: Any, edits: "Sequence[FolderEdit]") -> None:
    if not edits:
        console.print("no edit is in this folder", soft_wrap=True)
        return
    rows = [
        (number, edit.method, ", ".join(str(change.layer) for change in edit.layers), _facts_in_short(edit.facts))
        for number, edit in enumerate(edits, 1)
    ]
    console.print(table(("", "method", "layers", "facts"), rows, right=">"))


def _layers_table(layers: "Sequence[LayerEdit]") -> Any:
    rows = [
        (
            change.layer,
            change.rank,
            f"{change.norm:.3g}",
            f"{change.base_norm:.4g}",
            f"{change.relative_norm:.2%}",
            change.path,
        )
        for change in layers
    ]
    return table(("layer", "rank", "|dW|", "|W|", "|dW|/|W|", "matrix"), rows, right=">>>>> ")


def _facts_in_short(facts: "Sequence[Fact]") -> str:
    if not facts:
        return "an edit of no named fact"
    first = f"{facts[0].prompt!r} → {facts[0].target!r}"
    return first if len(facts) == 1 else f"{len(facts)} facts, the first {first}"


def _size(layers: "Sequence[LayerEdit]") -> str:
    most = max((change.relative_norm for change in layers), default=0.0)
    numbers = ", ".join(str(change.layer) for change in layers)
    return (
        f"layer{'s' if len(layers) > 1 else ''} {numbers}, |dW|/|W| {most:.2%}{' at most' if len(layers) > 1 else ''}"
    )


def _count(edits: "Sequence[FolderEdit]") -> str:
    return f"{len(edits)} edit{'s are' if len(edits) != 1 else ' is'}"


def _bytes(size: int) -> str:
    return f"{size / 1e6:,.1f} MB" if size >= 1e6 else f"{size / 1e3:,.1f} kB"
