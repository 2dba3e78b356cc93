"""``interp edit show``, ``apply``, ``undo`` and ``export`` on the files of a tiny model."""

import hashlib
import json
import shutil
from pathlib import Path

import pytest
import torch

import interp as library
import tiny_models
import word_model
from interp.editing import folder as edit_folder
from interp.prompts import Fact
from interp.runner.model import Model
from random_edit import FACT, random_edit

IDS = tiny_models.prompt_ids(2)


@pytest.fixture(autouse=True)
def _own_cache(empty_cache: Path) -> None:
    """Locks and digests stay out of the user's cache."""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    memory = word_model.build()
    memory.hf.save_pretrained(tmp_path / "model")
    memory.tokenizer.save_pretrained(tmp_path / "model")
    return tmp_path / "model"


@pytest.fixture
def model(folder: Path) -> Model:
    return library.load(str(folder), device="cpu", dtype="float32")


@pytest.fixture
def edits(model: Model, tmp_path: Path) -> list[Path]:
    """Two saved edits of the model."""
    paths = [tmp_path / "first.safetensors", tmp_path / "second.safetensors"]
    random_edit(model, [0, 2], size=0.25).save(paths[0])
    random_edit(model, [2], seed=1, facts=(FACT, Fact("Pisa", "The tower of {} is in", " Rome\x1b"))).save(paths[1])
    return paths


def hashes(folder: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir()}


def test_show(interp, edits: list[Path], model: Model) -> None:
    ended = interp("edit", "show", str(edits[0]))
    assert (ended.code, ended.stderr) == (0, "")
    for said in (
        "The Eiffel Tower is located in the city of",
        "model.layers.2.mlp.down_proj",
        "25.00%",
        "rome",
        "1.2 s",
    ):
        assert said in ended.stdout
    assert model.source is not None
    assert model.source.weights_sha256 in ended.stdout
    ended = interp("edit", "show", str(edits[1]), "--json")
    found = json.loads(ended.stdout)
    assert (found["command"], found["schema_version"]) == ("edit show", 1)
    assert found["facts"][1] == {"subject": "Pisa", "template": "The tower of {} is in", "target": " Rome\x1b"}
    assert [row["layer"] for row in found["layers"]] == [2]
    assert found["weights_sha256"] == model.source.weights_sha256
    assert len(found["final_probability"]) == 2
    assert "\x1b" not in interp("edit", "show", str(edits[1])).stdout


def test_apply_and_undo_in_any_order(interp, edits: list[Path], folder: Path, model: Model) -> None:
    before = hashes(folder)
    first, second = (library.load_edit(path) for path in edits)
    ended = interp("edit", "apply", str(edits[0]), str(folder))
    assert (ended.code, ended.stderr) == (0, "")
    assert ended.stdout == (
        f"applied to {folder}: 'The Eiffel Tower is located in the city of' → ' Rome'; "
        "layers 0, 2, |dW|/|W| 25.00% at most; 1 edit is in it now\n"
    )
    ended = interp("edit", "apply", str(edits[1]), str(folder), "--json")
    found = json.loads(ended.stdout)
    assert [len(edit["facts"]) for edit in found["edits"]] == [1, 2]
    assert found["written"] == ["model.safetensors"]
    with first.applied(model), second.applied(model), torch.no_grad():
        expected = model.hf(IDS).logits
    with torch.no_grad():
        assert torch.equal(library.load(str(folder), device="cpu", dtype="float32").hf(IDS).logits, expected)
    ended = interp("edit", "show", str(folder))
    assert "2 facts, the first" in ended.stdout
    assert len(json.loads(interp("edit", "show", str(folder), "--json").stdout)["edits"]) == 2
    ended = interp("edit", "undo", str(folder), str(edits[0]))
    assert ended.stdout == (
        f"took back 'The Eiffel Tower is located in the city of' → ' Rome'; 1 edit is left in {folder}\n"
    )
    ended = interp("edit", "undo", str(folder))
    assert ended.code == 0
    assert ended.stdout.startswith("took back 2 facts, the first ")
    assert ended.stdout.endswith(
        f"{folder} is as before any edit (SHA-256 model.safetensors {before['model.safetensors']})\n"
    )
    assert ended.stdout.count("\n") == 1
    assert hashes(folder) == before
    assert interp("edit", "show", str(folder)).stdout == "no edit is in this folder\n"


def test_a_stopped_apply_goes_on_with_the_same_command(interp, edits, folder: Path, monkeypatch) -> None:
    before = hashes(folder)

    def stop(*arguments):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(edit_folder, "replace_tensors", stop)
        ended = interp("edit", "apply", str(edits[0]), str(folder))
        assert (ended.code, ended.stdout) == (130, "")
    ended = interp("edit", "apply", str(edits[0]), str(folder))
    assert ended.code == 0
    assert ended.stderr == "a change of this folder had been stopped halfway; it is finished now\n"
    with monkeypatch.context() as patch:
        patch.setattr(edit_folder, "replace_tensors", stop)
        assert interp("edit", "undo", str(folder)).code == 130
    ended = interp("edit", "undo", str(folder))
    assert ended.stdout.startswith(f"finished the undo; {folder} is as before any edit")
    assert ended.stderr == "a change of this folder had been stopped halfway\n"
    assert hashes(folder) == before


def test_export(interp, edits: list[Path], folder: Path, model: Model, tmp_path: Path) -> None:
    ended = interp("edit", "export", str(edits[0]), "--peft", str(tmp_path / "lora"))
    assert ended.code == 0, ended.stderr
    assert ended.stdout.startswith(f"wrote {tmp_path / 'lora'}: LoRA adapter, ")
    assert ended.stdout.count("\n") == 1
    assert {path.name for path in (tmp_path / "lora").iterdir()} == {"adapter_config.json", "adapter_model.safetensors"}
    edit = library.load_edit(edits[0])
    with edit.applied(model), torch.no_grad():
        expected = model.hf(IDS).logits
    ended = interp("edit", "export", str(edits[0]), "--model-folder", str(tmp_path / "edited"), "--json", "-q")
    assert (ended.code, ended.stderr) == (0, "")
    found = json.loads(ended.stdout)
    assert found["bytes"] == sum(path.stat().st_size for path in (tmp_path / "edited").iterdir())
    shutil.move(folder, tmp_path / "moved")
    ended = interp(
        "edit", "export", str(edits[0]), "--model-folder", str(tmp_path / "again"), "-m", str(tmp_path / "moved")
    )
    assert ended.code == 0, ended.stderr
    for name in ("edited", "again"):
        with torch.no_grad():
            found = library.load(str(tmp_path / name), device="cpu", dtype="float32").hf(IDS).logits
        assert torch.equal(found, expected)


def test_mistakes_are_one_line_that_says_what_to_do(interp, edits, folder: Path, model: Model, tmp_path: Path) -> None:
    other = tmp_path / "other"
    memory = word_model.build(seed=1)
    memory.hf.save_pretrained(other)
    memory.tokenizer.save_pretrained(other)
    (tmp_path / "plain").mkdir()
    (tmp_path / "cut.safetensors").write_bytes(edits[0].read_bytes()[:200])
    library.residual_story(model, (1, 2, 3)).save(tmp_path / "story.safetensors")
    random_edit(word_model.build(), [0]).save(tmp_path / "memory.safetensors")
    before = {place: hashes(place) for place in (folder, other)}
    edit = str(edits[0])
    mistakes = [
        (("show", "none.safetensors"), 3, "there is no file none.safetensors"),
        (("show", str(tmp_path / "cut.safetensors")), 3, "not a readable result file"),
        (("show", str(tmp_path / "story.safetensors")), 3, "holds a 'residual_story' result, not an edit"),
        (("show", str(folder / "model.safetensors")), 3, "is a safetensors file but not a saved result"),
        (("apply", "none.safetensors", str(folder)), 3, "there is no file none.safetensors"),
        (("apply", edit, str(tmp_path / "plain")), 3, "holds no model.safetensors"),
        (("apply", edit, str(tmp_path / "none")), 3, "does not exist; give the folder of a model in safetensors"),
        (("apply", edit, str(other)), 3, "the edit was made for other weights: layer 0 of"),
        (("undo", str(folder)), 2, "no edit is in"),
        (("undo", str(folder), edit), 2, "no edit is in"),
        (("undo", str(tmp_path / "none")), 3, "does not exist"),
        (("export", edit), 2, "say what to write: --peft FOLDER"),
        (("export", edit, "--peft", "a", "--model-folder", "b"), 2, "say what to write: --peft FOLDER"),
        (("export", edit, "--peft", "a", "--model", "b"), 2, "an adapter needs no model"),
        (("export", edit, "--peft", str(folder)), 2, "exists already; remove it or choose another folder"),
        (("export", edit, "--model-folder", str(folder)), 2, "exists already; remove it or choose another folder"),
        (("export", edit, "--peft", str(tmp_path / "none" / "lora")), 2, "does not exist; create it"),
        (("export", edit, "--model-folder", str(tmp_path / "new"), "-m", str(other)), 3, "was made for other weights"),
        (
            ("export", str(tmp_path / "memory.safetensors"), "--model-folder", str(tmp_path / "new")),
            2,
            "give the model (--model)",
        ),
    ]
    for arguments, code, said in mistakes:
        ended = interp("edit", *arguments)
        assert (ended.code, ended.stdout) == (code, ""), arguments
        assert said in ended.stderr
        assert ended.stderr.startswith("error: ")
        assert ended.stderr.count("\n") == 1
    assert not (tmp_path / "new").exists()
    assert interp("edit", "apply", edit, str(folder)).code == 0
    ended = interp("edit", "apply", edit, str(folder))
    assert (ended.code, ended.stdout) == (2, "")
    assert f"this edit is in {folder} already; undo it with: interp edit undo" in ended.stderr
    ended = interp("edit", "undo", str(folder), str(edits[1]))
    assert (ended.code, "which holds 1 other" in ended.stderr) == (2, True)
    assert interp("edit", "undo", str(folder)).code == 0
    assert interp("edit", "apply", edit, str(other), "--other-base").code == 0
    assert interp("edit", "undo", str(other), edit).code == 0
    assert {place: hashes(place) for place in (folder, other)} == before
    options = ("--model-folder", str(tmp_path / "new"), "-m", str(other), "--other-base")
    assert interp("edit", "export", edit, *options).code == 0
