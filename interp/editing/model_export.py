"""A model with an edit in it, written as a folder that loads anywhere."""

import json
import os
from typing import TYPE_CHECKING

from interp.editing import stack
from interp.editing.new_folder import check_new_folder, new_folder
from interp.errors import ModelError, UsageError
from interp.files import write_bytes
from interp.models.offload import save_weights
from interp.models.quiet import quiet_libraries
from interp.runner.model import Model, load

if TYPE_CHECKING:
    from interp.editing.edit import Edit

RECORD = "interp-edit.json"
"""What an exported folder says of its edits: the base model, and of each edit the facts, the method and the layers."""


def export_model(edit: "Edit", folder: str | os.PathLike[str], model: Model | None = None) -> None:
    """Writes the model with the edit, and with those that are applied already, into a new folder, all of it or nothing.

    The weights are in the model's dtype; logits of the folder's model equal those of ``model`` with the edit applied. Without a model
    the base is loaded by the name in the edit's provenance, in its dtype, on the CPU. The model is left as it was.
    Raises UsageError where the folder holds something or cannot be written, ModelError for another base model or one that is not found.
    """
    check_new_folder(folder)
    model = _base_of(edit) if model is None else model
    edits = () if edit in stack.applied_edits(model) else (edit,)
    with new_folder(folder) as building, stack.applied(model, *edits):
        with quiet_libraries():
            save_weights(model.hf, building)
            if model.tokenizer is not None:
                model.tokenizer.save_pretrained(building)
        write_bytes(building / RECORD, _record(model))


def _base_of(edit: "Edit") -> Model:
    origin = edit.provenance
    if origin.weights_sha256 is None:
        raise UsageError(
            f"the edit was made on a model in memory ({origin.model}), which has no file; give the model (--model)"
        )
    try:
        return load(origin.model, device="cpu", dtype=origin.dtype)
    except ModelError as error:
        raise ModelError(
            f"the edit's model {origin.model!r} cannot be loaded ({error}); give another name for it"
        ) from error


def _record(model: Model) -> bytes:
    origin = model.provenance()
    record = {
        "base_model": origin.model,
        "base_weights_sha256": origin.weights_sha256,
        "edits": [
            {
                "facts": [[fact.subject, fact.template, fact.target] for fact in edit.facts],
                "method": edit.method,
                "layers": [change.layer for change in edit.layers],
                "relative_norms": [change.relative_norm for change in edit.layers],
            }
            for edit in stack.applied_edits(model)
        ],
    }
    return (json.dumps(record, indent=1) + "\n").encode()
