"""The adapter that peft loads gives the logits of the applied edit."""

import copy
import json
import warnings
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import tiny_models
from interp.errors import UsageError
from interp.runner.model import Model
from random_edit import random_edit

CORE = ("gpt2", "llama", "gemma2", "gpt_neox", "phi3")
IDS = tiny_models.prompt_ids(2)


def with_adapter(hf, folder):
    """The model as peft makes it from the adapter; a warning of peft's is an error."""
    peft = pytest.importorskip("peft", reason="peft is not installed: the adapter is written but not read back")
    return peft.PeftModel.from_pretrained(hf, folder).eval()


@pytest.fixture(autouse=True)
def _peft_calls_what_transformers_will_rename():
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*is_gradient_checkpointing.*deprecated", FutureWarning)
        yield


@pytest.mark.parametrize("name", CORE)
@pytest.mark.parametrize("ranks", [(1, 1), (3, 3), (1, 3)], ids=["rank 1", "rank 3", "ranks 1 and 3"])
def test_peft_gives_the_logits_of_the_applied_edit(name: str, ranks, tmp_path: Path) -> None:
    model = Model(tiny_models.build(name))
    edit = random_edit(model, [0, 2], ranks=ranks, size=0.5)
    plain = model.hf(IDS).logits
    with edit.applied(model):
        expected = model.hf(IDS).logits
    assert (expected - plain).abs().max() > 1e-2
    edit.export_peft(tmp_path / "adapter")
    loaded = with_adapter(copy.deepcopy(model.hf), tmp_path / "adapter")
    layers = [path for path, _ in loaded.named_parameters() if ".lora_A." in path]
    adapted = {path.removeprefix("base_model.model.").partition(".lora_A")[0] for path in layers}
    assert adapted == {change.path for change in edit.layers}
    with torch.no_grad():
        torch.testing.assert_close(loaded(IDS).logits, expected, atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(loaded.merge_and_unload()(IDS).logits, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.model
@pytest.mark.long
def test_the_default_model_and_the_size(model, tmp_path: Path) -> None:
    edit = random_edit(model, [5, 12], size=0.1)
    ids = torch.tensor([model.tokens("The Eiffel Tower is located in the city of").ids])
    with edit.applied(model), torch.no_grad():
        expected = model.hf(ids).logits
    edit.export_peft(tmp_path / "adapter")
    files = {path.name: path.stat().st_size for path in (tmp_path / "adapter").iterdir()}
    assert files.keys() == {"adapter_config.json", "adapter_model.safetensors"}
    assert files["adapter_model.safetensors"] < 2 * 8448 + 1000
    loaded = with_adapter(copy.deepcopy(model.hf), tmp_path / "adapter")
    with torch.no_grad():
        found = loaded(ids).logits
    # in float32 two ways to the same logits, of size 28, differ by rounding in the sixth digit
    assert (found - expected).abs().max() < 1e-5 * expected.abs().max()
    torch.testing.assert_close(found.softmax(-1), expected.softmax(-1), atol=1e-5, rtol=0)
    double = Model(copy.deepcopy(model.hf).double())
    with edit.rebased(double).applied(double), torch.no_grad():
        torch.testing.assert_close(loaded.double()(ids).logits, double.hf(ids).logits, atol=1e-5, rtol=0)


def test_the_files_without_peft(tmp_path: Path) -> None:
    model = Model(tiny_models.build("gpt2"))
    edit = random_edit(model, [0, 1], ranks=[1, 3])
    (tmp_path / "adapter").mkdir()  # empty: may be filled
    edit.export_peft(tmp_path / "adapter")
    config = json.loads((tmp_path / "adapter" / "adapter_config.json").read_text())
    assert (config["peft_type"], config["r"], config["lora_alpha"], config["fan_in_fan_out"]) == ("LORA", 3, 3, True)
    assert config["target_modules"] == ["transformer.h.0.mlp.c_proj", "transformer.h.1.mlp.c_proj"]
    tensors = load_file(tmp_path / "adapter" / "adapter_model.safetensors")
    for change in edit.layers:
        prefix = f"base_model.model.{change.path}.lora_"
        A, B = tensors.pop(f"{prefix}A.weight"), tensors.pop(f"{prefix}B.weight")
        assert (A.shape, B.shape) == ((3, 128), (32, 3))
        torch.testing.assert_close(B @ A, change.left @ change.right)
    assert not tensors


def test_a_folder_that_holds_something_is_refused(tmp_path: Path) -> None:
    edit = random_edit(Model(tiny_models.build("llama")), [0])
    (tmp_path / "adapter").mkdir()
    (tmp_path / "adapter" / "mine.txt").write_text("keep")
    with pytest.raises(UsageError, match="exists already; remove it or choose another folder"):
        edit.export_peft(tmp_path / "adapter")
    (tmp_path / "file").write_text("keep")
    with pytest.raises(UsageError, match="exists already"):
        edit.export_peft(tmp_path / "file")
    with pytest.raises(UsageError, match=r"does not exist; create it"):
        edit.export_peft(tmp_path / "none" / "adapter")
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["adapter", "file", "mine.txt"]


def test_nothing_is_left_where_writing_fails(tmp_path: Path, monkeypatch) -> None:
    edit = random_edit(Model(tiny_models.build("llama")), [0])

    def full(*arguments):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("interp.editing.peft_export.write_bytes", full)
    with pytest.raises(UsageError, match="No space left on device; nothing was left there"):
        edit.export_peft(tmp_path / "adapter")
    assert not list(tmp_path.iterdir())
