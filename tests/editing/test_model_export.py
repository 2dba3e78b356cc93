"""An exported folder is the edited model, for interp and for plain transformers, and is there whole or not at all."""

import json
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

import interp
import tiny_models
import word_model
from interp.editing import stack
from interp.errors import ModelError, UsageError
from interp.runner.model import Model
from random_edit import FACT, random_edit

CORE = ("gpt2", "llama", "gemma2", "gpt_neox", "phi3")
IDS = tiny_models.prompt_ids(2)


def saved_and_loaded(memory, folder, dtype):
    """As from a checkpoint: transformers keeps the rotary frequencies in float32 whatever the weights are in."""
    memory.hf.to(dtype).save_pretrained(folder)
    memory.tokenizer.save_pretrained(folder)
    return interp.load(str(folder), device="cpu", dtype=str(dtype).removeprefix("torch."))


@pytest.mark.parametrize("name", CORE)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_folder_gives_the_logits_of_the_applied_edit(name: str, dtype, tmp_path: Path) -> None:
    model = saved_and_loaded(word_model.build(name), tmp_path / "base", dtype)
    edit = random_edit(model, [0, 2], rank=2)
    base = {layer: stack.base_sha256(model, layer) for layer in range(3)}
    with edit.applied(model), torch.no_grad():
        expected = model.hf(IDS).logits
    edit.export_model(tmp_path / "edited", model)
    assert {layer: stack.base_sha256(model, layer) for layer in range(3)} == base
    assert stack.applied_edits(model) == ()
    dtype_name = str(dtype).removeprefix("torch.")
    loaded = interp.load(str(tmp_path / "edited"), device="cpu", dtype=dtype_name)
    plain = AutoModelForCausalLM.from_pretrained(tmp_path / "edited", dtype=dtype).eval()
    with torch.no_grad():
        assert torch.equal(loaded.hf(IDS).logits, expected)
        assert torch.equal(plain(IDS).logits, expected)
    assert loaded.tokens("tower of Pisa").ids == model.tokens("tower of Pisa").ids
    assert {path.name for path in tmp_path.iterdir()} == {"base", "edited"}


def test_edits_that_are_applied_already_are_in_it(tmp_path: Path) -> None:
    model = word_model.build()
    first, second = random_edit(model, [0]), random_edit(model, [0, 1], seed=1)
    with first.applied(model), second.applied(model), torch.no_grad():
        expected = model.hf(IDS).logits
        second.export_model(tmp_path / "both", model)
        assert stack.applied_edits(model) == (first, second)
    first.apply(model)
    second.export_model(tmp_path / "added", model)
    assert stack.applied_edits(model) == (first,)
    for name in ("both", "added"):
        loaded = interp.load(str(tmp_path / name), device="cpu", dtype="float32")
        with torch.no_grad():
            assert torch.equal(loaded.hf(IDS).logits, expected)
        record = json.loads((tmp_path / name / "interp-edit.json").read_text())
        assert [edit["layers"] for edit in record["edits"]] == [[0], [0, 1]]
        assert record["edits"][0]["facts"] == [[FACT.subject, FACT.template, FACT.target]]


@pytest.mark.parametrize("at", ["save_pretrained", "tokenizer", "sync"])
@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_nothing_is_left_where_writing_stops(tmp_path: Path, monkeypatch, at: str, error) -> None:
    model = word_model.build()
    edit = random_edit(model, [0])
    before = stack.base_sha256(model, 0)

    def stop(*arguments, **options):
        raise error

    if at == "sync":
        monkeypatch.setattr("interp.editing.new_folder.os.fsync", stop)
    else:
        monkeypatch.setattr(model.tokenizer if at == "tokenizer" else model.hf, "save_pretrained", stop)
    with pytest.raises(UsageError if isinstance(error, OSError) else KeyboardInterrupt):
        edit.export_model(tmp_path / "edited", model)
    assert not list(tmp_path.iterdir())
    assert stack.applied_edits(model) == ()
    assert stack.base_sha256(model, 0) == before


def test_bad_input(tmp_path: Path) -> None:
    model = word_model.build()
    edit = random_edit(model, [0])
    with pytest.raises(UsageError, match=r"made on a model in memory .* give the model"):
        edit.export_model(tmp_path / "edited")
    with pytest.raises(ModelError, match="for other weights"):
        edit.export_model(tmp_path / "edited", word_model.build(seed=1))
    with pytest.raises(UsageError, match="exists already"):
        edit.export_model(Path(__file__), model)
    assert not list(tmp_path.iterdir())


def test_without_a_model_the_base_is_loaded_by_its_name(tmp_path: Path) -> None:
    model = saved_and_loaded(word_model.build(), tmp_path / "base", torch.bfloat16)
    edit = random_edit(model, [1])
    with edit.applied(model), torch.no_grad():
        expected = model.hf(IDS).logits
    edit.save(tmp_path / "edit.safetensors")
    interp.load_edit(tmp_path / "edit.safetensors").export_model(tmp_path / "edited")
    loaded = interp.load(str(tmp_path / "edited"), device="cpu", dtype="bfloat16")
    with torch.no_grad():
        assert torch.equal(loaded.hf(IDS).logits, expected)
    record = json.loads((tmp_path / "edited" / "interp-edit.json").read_text())
    assert record["base_weights_sha256"] == model.source.weights_sha256
    (tmp_path / "base").rename(tmp_path / "moved")
    with pytest.raises(ModelError, match=r"the edit's model .* cannot be loaded .* give another name"):
        edit.export_model(tmp_path / "again")
    edit.export_model(tmp_path / "again", interp.load(str(tmp_path / "moved"), device="cpu", dtype="bfloat16"))


@pytest.mark.model
@pytest.mark.slow
def test_the_default_model(model: Model, tmp_path: Path) -> None:
    edit = random_edit(model, [5])
    ids = torch.tensor([model.tokens("The Eiffel Tower is located in the city of").ids])
    with edit.applied(model), torch.no_grad():
        expected = model.hf(ids).logits
    edit.export_model(tmp_path / "edited", model)
    loaded = interp.load(str(tmp_path / "edited"), device="cpu", dtype="float32")
    with torch.no_grad():
        assert torch.equal(loaded.hf(ids).logits, expected)
    assert "cache" not in (tmp_path / "edited" / "config.json").read_text().replace("use_cache", "")
