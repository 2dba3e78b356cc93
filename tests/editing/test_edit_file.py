"""Loading an edit: what is read back, and one line for every file that is none."""

import subprocess
import sys

import pytest
import torch
from safetensors.torch import save_file

import interp
import tiny_models
from interp.editing.edit_file import load_edit
from interp.editing.stack import base_sha256
from interp.errors import ModelError, UsageError
from interp.runner.model import Model
from random_edit import random_edit


@pytest.fixture
def model() -> Model:
    return Model(tiny_models.build("llama"))


@pytest.fixture
def path(model, tmp_path):
    path = tmp_path / "edit.safetensors"
    random_edit(model, [1, 2]).save(path)
    return path


def test_the_public_name() -> None:
    assert interp.load_edit is load_edit
    assert interp.Edit.kind == "edit"


def test_an_edit_fits_its_own_model_with_or_without_other_edits_in_it(model, path) -> None:
    edit = load_edit(path, model)
    with random_edit(model, [1], seed=3).applied(model):
        load_edit(str(path), model)
        with edit.applied(model):
            load_edit(path, model)
    assert isinstance(interp.load_result(path), interp.Edit)


def test_another_base_is_refused_with_both_hashes_unless_it_is_allowed(model, path) -> None:
    other = Model(tiny_models.build("llama", seed=1))
    edit = load_edit(path)
    with pytest.raises(ModelError) as raised:
        load_edit(path, other)
    assert str(raised.value).count("\n") == 0
    for said in (edit.layers[0].base_sha256, base_sha256(other, 1), "other_base=True"):
        assert said in str(raised.value)
    taken = load_edit(path, other, other_base=True)
    before = base_sha256(other, 1)
    with taken.applied(other):  # it is one of that model now
        pass
    assert taken.layers[0].base_sha256 == before
    with pytest.raises(ModelError, match="for other weights"):
        taken.check(model)


@pytest.mark.parametrize("other_base", [False, True])
def test_other_shapes_are_refused_in_any_case(path, other_base: bool) -> None:
    for settings in ({"intermediate_size": 48}, {"num_hidden_layers": 2}, {"hidden_size": 48}):
        other = Model(tiny_models.build("llama", **settings))
        with pytest.raises(UsageError, match=r"changes a matrix of 32 x 64|layer 2 is out of range"):
            load_edit(path, other, other_base=other_base)


def test_one_line_for_each_file_that_is_no_edit(model, path, tmp_path) -> None:
    def error(name) -> str:
        with pytest.raises(ModelError) as raised:
            load_edit(tmp_path / name)
        assert str(raised.value).count("\n") == 0
        assert name in str(raised.value)
        return str(raised.value)

    assert "there is no file" in error("none.safetensors")
    assert "there is no file" in error(".")
    whole = path.read_bytes()
    for size in (0, 5, 100, len(whole) // 2, len(whole) - 1):
        (tmp_path / "cut.safetensors").write_bytes(whole[:size])
        assert "not a readable result file" in error("cut.safetensors")
    (tmp_path / "text.safetensors").write_text("<html>not found</html>")
    assert "not a readable result file" in error("text.safetensors")
    save_file({"x": torch.zeros(2)}, tmp_path / "weights.safetensors")
    assert "not a saved result" in error("weights.safetensors")
    interp.residual_story(model, (1, 2, 3)).save(tmp_path / "story.safetensors")
    assert "holds a 'residual_story' result, not an edit" in error("story.safetensors")
    save_file({"x": torch.zeros(2)}, tmp_path / "odd.safetensors", {"interp_result": "[1, 2]"})
    assert "not the JSON of a result" in error("odd.safetensors")
    newer = whole.replace(rb"\"schema_version\": 1", rb"\"schema_version\": 2")
    assert newer != whole
    (tmp_path / "newer.safetensors").write_bytes(newer)
    assert "version 2, this interp reads 1; upgrade interp" in error("newer.safetensors")


@pytest.mark.slow
def test_factors_that_do_not_fit_make_the_file_damaged(model, tmp_path) -> None:
    edit = random_edit(model, [1], rank=2)
    object.__setattr__(edit.layers[0], "left", torch.zeros(32, 3))
    edit.save(tmp_path / "bad.safetensors")
    code = "import sys, interp\ntry: interp.load_edit(sys.argv[1])\nexcept interp.ModelError as error: print(error)"
    command = [sys.executable, "-c", code, tmp_path / "bad.safetensors"]  # without the shape checker of the tests
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert "not a readable result file" in said
    assert "[32, 3] and [2, 64]" in said
