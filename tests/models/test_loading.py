"""Loading folders: what comes back, what is refused before anything is read, and that nothing else changes."""

import errno
import json
import logging
import os
import sys
import warnings
from contextlib import suppress
from pathlib import Path

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from interp.errors import MemoryLimitError, ModelError, UsageError
from interp.models.device import available_devices, resolve_device, resolve_dtype
from interp.models.folder import folder_tensors
from interp.models.headers import TensorInfo
from interp.models.loading import Source, load_parts


def load(folder: Path, **options):
    return load_parts(str(folder), **({"device": "cpu"} | options))


def change_json(path: Path, **values: object) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def test_a_folder_loads_as_transformers_loads_it(saved_model, tiny) -> None:
    folder = saved_model()
    parts = load(folder)
    ids = torch.tensor([[1, 3, 4, 5]])
    with torch.no_grad():
        assert torch.equal(parts.hf(ids).logits, tiny("llama")(ids).logits)
    assert not parts.hf.training
    assert parts.hf.dtype == torch.float32
    assert parts.tokenizer.encode("the tower is in") == [3, 4, 5, 6]
    assert parts.source == Source(
        name=str(folder),
        path=folder,
        revision=None,
        architecture="LlamaForCausalLM",
        format="safetensors",
        licence=None,
    )


def test_a_sharded_folder_loads_the_same(saved_model) -> None:
    whole, sharded = load(saved_model(name="whole")), load(saved_model(name="sharded", max_shard_size="20KB"))
    assert len(list(sharded.source.path.glob("*.safetensors"))) > 2
    for ours, theirs in zip(sharded.hf.parameters(), whole.hf.parameters(), strict=True):
        assert torch.equal(ours, theirs)


def test_weights_sha256_is_that_of_the_file_and_changes_with_it(saved_model, empty_cache) -> None:
    import hashlib

    folder = saved_model()
    path = folder / "model.safetensors"
    source = load(folder).source
    assert source.weights_sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    weights = load_file(path)
    weights["model.norm.weight"] += 1
    save_file(weights, path, {"format": "pt"})
    os.utime(path, ns=(1, 1))
    assert load(folder).source.weights_sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert load(folder).source.weights_sha256 != source.weights_sha256
    sharded = load(saved_model(name="sharded", max_shard_size="20KB")).source
    assert len(sharded.weights_sha256) == 64


# devices and number formats


@pytest.mark.parametrize("device", ["cuda:7", "mps:3", "tpu", "", "cpu:1", "meta"])
def test_a_device_that_is_not_here_fails_before_the_model_is_looked_for(device, monkeypatch) -> None:
    monkeypatch.setattr("interp.models.loading.locate", lambda *_, **__: pytest.fail("looked for the model"))
    with pytest.raises(UsageError, match=r"is not available here; available: auto, .*cpu"):
        load_parts("smollm2-135m", device=device)


def test_auto_is_the_best_device() -> None:
    assert resolve_device("auto") == torch.device(available_devices()[0])
    assert resolve_device("cpu") == torch.device("cpu")
    assert available_devices()[-1] == "cpu"


def test_an_unknown_dtype_names_the_valid_ones(saved_model) -> None:
    with pytest.raises(UsageError, match=r"unknown dtype 'float64'.*valid: auto, float32, bfloat16, float16"):
        load(saved_model(), dtype="float64")


def test_dtypes(saved_model) -> None:
    folder = saved_model()
    assert load(folder, dtype="bfloat16").hf.dtype == torch.bfloat16
    assert load(folder, dtype="float16").hf.dtype == torch.float16
    load(folder, dtype="bfloat16").hf.save_pretrained(folder)
    halved = load(folder)
    assert {info.dtype for info in folder_tensors(folder)} == {"bfloat16"}
    assert halved.hf.dtype == torch.float32


def test_auto_on_an_accelerator_is_the_checkpoints_own() -> None:
    infos = [
        TensorInfo(name="a", shape=(9,), dtype="bfloat16", bytes=18, file="f"),
        TensorInfo(name="b", shape=(2,), dtype="float32", bytes=8, file="f"),
    ]
    assert resolve_dtype("auto", torch.device("cuda:0"), infos) == torch.bfloat16
    assert resolve_dtype("auto", torch.device("cpu"), infos) == torch.float32


# no pickle, no code, nothing outside the folder


def test_a_pickle_is_refused_with_the_conversion(saved_model) -> None:
    folder = saved_model()
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(
        ModelError, match=r"pytorch_model.bin, a pickle, which is never read; .*save_pretrained\(NEW_FOLDER\)"
    ):
        load(folder)
    with pytest.raises(ModelError, match="is a pickle, which is never read"):
        load(folder / "pytorch_model.bin")


@pytest.mark.parametrize("kind", ["evil", "llama"])
def test_code_in_the_folder_never_runs(saved_model, kind) -> None:
    """A foreign architecture is refused; a native one is built from transformers' own class."""
    folder, mark = saved_model(), saved_model(name="mark") / "ran"
    for stem in ("configuration_evil", "modeling_evil", "tokenization_evil"):
        (folder / f"{stem}.py").write_text(f"open({str(mark)!r}, 'w').close()\nclass Evil: pass\n")
    classes = {"AutoConfig": "configuration_evil.Evil", "AutoModelForCausalLM": "modeling_evil.Evil"}
    change_json(folder / "config.json", auto_map=classes, model_type=kind)
    (folder / "custom_generate").mkdir()
    (folder / "custom_generate" / "generate.py").write_text(f"open({str(mark)!r}, 'w').close()\n")
    if kind == "llama":
        assert type(load(folder).hf) is transformers.LlamaForCausalLM
    else:
        with pytest.raises(
            ModelError, match=r"architecture 'evil' needs Python code .*\(auto_map\), which is never run"
        ):
            load(folder)
    change_json(folder / "config.json", model_type="llama")
    change_json(
        folder / "tokenizer_config.json",
        auto_map={"AutoTokenizer": ["tokenization_evil.Evil", None]},
        tokenizer_class="Evil",
    )
    with suppress(ModelError):
        load(folder)
    assert not mark.exists()


def test_an_unknown_architecture_without_code(saved_model) -> None:
    folder = saved_model()
    change_json(folder / "config.json", model_type="lama")
    with pytest.raises(ModelError, match="transformers has no architecture 'lama'"):
        load(folder)


def test_an_architecture_that_is_no_language_model(saved_model) -> None:
    folder = saved_model()
    change_json(folder / "config.json", model_type="vit", architectures=["ViTModel"])
    with pytest.raises(ModelError, match="cannot build the model from it") as caught:
        load(folder)
    assert "\n" not in str(caught.value)


def test_adapters_and_quantised_weights_are_refused(saved_model) -> None:
    folder = saved_model()
    change_json(folder / "config.json", quantization_config={"quant_method": "gptq", "bits": 4})
    with pytest.raises(ModelError, match=r"quantised \(gptq\)"):
        load(folder)
    folder = saved_model(name="adapter")
    (folder / "adapter_config.json").write_text("{}")
    with pytest.raises(ModelError, match="is a PEFT adapter; merge it"):
        load(folder)


@pytest.mark.parametrize("place", ["../elsewhere/model.safetensors", "/etc/passwd", "a/../../b", "C:\\x", "..\\x"])
def test_an_index_that_leads_outside_is_refused(saved_model, place) -> None:
    folder = saved_model(max_shard_size="20KB")
    index = folder / "model.safetensors.index.json"
    names = json.loads(index.read_text())["weight_map"]
    change_json(index, weight_map=dict.fromkeys(names, place))
    with pytest.raises(ModelError, match=r"outside the model's folder; weights are read from the folder only"):
        load(folder)


def test_a_link_out_of_the_folder_is_refused_and_a_hub_snapshot_is_not(saved_model, tmp_path) -> None:
    folder = saved_model()
    other = tmp_path / "other.safetensors"
    (folder / "model.safetensors").rename(other)
    (folder / "model.safetensors").symlink_to(other)
    with pytest.raises(ModelError, match=r"is a link to .*other.safetensors, outside the model's folder"):
        load(folder)
    blobs, snapshot = tmp_path / "models--a--b" / "blobs", tmp_path / "models--a--b" / "snapshots" / "abc"
    blobs.mkdir(parents=True)
    snapshot.mkdir(parents=True)
    other.rename(blobs / "123")
    (folder / "model.safetensors").unlink()
    for path in folder.iterdir():
        path.rename(snapshot / path.name)
    (snapshot / "model.safetensors").symlink_to(Path("../../blobs/123"))
    assert load(snapshot)


# damaged folders


def test_a_shard_that_is_missing_or_of_another_revision(saved_model) -> None:
    folder = saved_model(max_shard_size="20KB")
    shards = sorted(folder.glob("*.safetensors"))
    whole = shards[1].read_bytes()
    shards[1].unlink()
    with pytest.raises(ModelError, match=f"{shards[1].name}: no such file"):
        load(folder)
    shards[1].write_bytes(shards[2].read_bytes())
    with pytest.raises(ModelError, match=f"is in both {shards[1].name} and {shards[2].name}"):
        load(folder)
    save_file({"other": torch.ones(1)}, shards[1], {"format": "pt"})
    with pytest.raises(ModelError, match=rf"is in {shards[1].name}, which does not hold it \(and \d+ more\)"):
        load(folder)
    shards[1].write_bytes(whole)
    assert load(folder)


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("config.json", None, "config.json: no such file"),
        ("config.json", "", "config.json: not valid JSON"),
        ("config.json", "[]", "config.json: not a JSON object"),
        ("config.json", '{"model_type": "llama", "hidden_size": "wide"}', "cannot build the model"),
        ("config.json", '{"model_type": "llama", "num_attention_heads": 0}', "cannot build the model"),
        ("config.json", "{}", "no architecture None"),
        ("tokenizer.json", None, "holds no tokenizer"),
        ("tokenizer.json", "{", "cannot read the tokenizer"),
        ("tokenizer.json", '{"version": "1.0", "model": {"type": "Odd"}}', "cannot read the tokenizer"),
        ("model.safetensors", None, "holds no model.safetensors"),
        ("model.safetensors", "", "the file is empty"),
    ],
)
def test_damage_in_a_folder_is_one_line(saved_model, name, content, expected) -> None:
    folder = saved_model()
    (folder / name).unlink()
    if content is not None:
        (folder / name).write_text(content)
    with pytest.raises(ModelError, match=expected) as caught:
        load(folder)
    assert str(folder) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_empty_folder_and_odd_files(tmp_path) -> None:
    with pytest.raises(ModelError, match=r"holds no model\.safetensors"):
        load(tmp_path)
    (tmp_path / "notes.txt").write_text("hello")
    with pytest.raises(ModelError, match="is no model; give a folder"):
        load(tmp_path / "notes.txt")
    (tmp_path / "part.safetensors").write_text("hello")
    with pytest.raises(ModelError, match="is one file of a model; give its folder"):
        load(tmp_path / "part.safetensors")
    with pytest.raises(ModelError, match="no such file or folder"):
        load(tmp_path / "absent")
    with pytest.raises(ModelError, match="no such file"):
        load(tmp_path / "absent.gguf")


# what is left as it was


def test_settings_of_the_libraries_are_left_alone(saved_model, capfd) -> None:
    from huggingface_hub.utils import are_progress_bars_disabled

    good, bad = saved_model(name="good"), saved_model(name="bad")
    (bad / "config.json").write_text("{}")
    logger = logging.getLogger("transformers")
    before = (logger.level, are_progress_bars_disabled(), transformers.utils.logging.is_progress_bar_enabled())
    filters, state, grad = list(warnings.filters), torch.random.get_rng_state(), torch.is_grad_enabled()
    load(good)
    with pytest.raises(ModelError):
        load(bad)
    assert (
        logger.level,
        are_progress_bars_disabled(),
        transformers.utils.logging.is_progress_bar_enabled(),
    ) == before
    assert list(warnings.filters) == filters
    assert torch.equal(torch.random.get_rng_state(), state)
    assert torch.is_grad_enabled() == grad
    assert torch.get_default_dtype() == torch.float32
    assert capfd.readouterr() == ("", "")


def test_the_importing_of_tables_needs_no_torch() -> None:
    import subprocess

    code = (
        "import sys, interp.models.tables; sys.exit(any(n in sys.modules for n in ('torch', 'transformers', 'numpy')))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("unable to mmap 139344 bytes from file <model.safetensors>: Cannot allocate memory (12)"),
        OSError(errno.ENOMEM, os.strerror(errno.ENOMEM)),
        MemoryError(),
    ],
    ids=lambda error: type(error).__name__,
)
def test_too_little_memory_is_not_called_a_damaged_folder(saved_model, monkeypatch, error: Exception) -> None:
    def short(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr("transformers.LlamaForCausalLM.from_pretrained", short)
    with pytest.raises(MemoryLimitError, match="do not fit on cpu; try dtype='bfloat16'"):
        load(saved_model())
