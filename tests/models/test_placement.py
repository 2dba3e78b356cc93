"""Device maps on loading: what goes where, what is refused in one line, and that the model is the one without a map."""

import json
from pathlib import Path

import pytest
import torch

import interp
from interp.errors import MemoryLimitError, ModelError, NumericsError, UsageError
from interp.interventions import ZeroAblate
from interp.models.loading import load_parts
from interp.models.offload import is_offloaded
from interp.models.placement import placed, takes_part
from pretend_devices import pretend_devices

IDS = torch.tensor([[1, 3, 4, 5]])
PARTS = (
    "model.embed_tokens",
    "model.rotary_emb",
    "model.layers.0",
    "model.layers.1",
    "model.layers.2",
    "model.norm",
    "lm_head",
)


def some_on_disk(**places):
    return {part: "disk" if part == "model.layers.1" else "cpu" for part in PARTS} | places


def logits(hf):
    with torch.no_grad():
        return hf(IDS).logits


@pytest.mark.parametrize(
    ("device_map", "max_memory", "offloaded"),
    [
        ({"": "cpu"}, None, False),
        ("auto", None, False),
        ("sequential", None, False),
        (some_on_disk(), None, True),
        ({"": "cpu", "model.layers.0.mlp": "disk", "model.layers.2": "disk"}, None, True),
        ({"": "disk"}, None, True),
        ("auto", {"cpu": "90KB"}, True),
    ],
)
@pytest.mark.parametrize("family", ["llama", pytest.param("gpt2", marks=pytest.mark.slow)])
def test_a_model_with_a_map_is_the_model_without(saved_model, device_map, max_memory, offloaded, family) -> None:
    folder = saved_model(family)
    if family == "gpt2" and isinstance(device_map, dict) and len(device_map) > 1:
        pytest.skip("the map is of llama's parts")
    plain = interp.load(str(folder), device="cpu")
    model = interp.load(str(folder), device_map=device_map, max_memory=max_memory)
    assert is_offloaded(model.hf) == offloaded
    assert not model.hf.training
    assert torch.equal(logits(model.hf), logits(plain.hf))
    run, expected = (one.run(IDS[0], "all", ZeroAblate("attn.z@1", heads=1), resumable=True) for one in (model, plain))
    for name in expected.cache:
        assert torch.equal(run.cache[name], expected.cache[name]), name


def test_a_sharded_folder_with_weights_on_disk_in_another_dtype(saved_model) -> None:
    folder = saved_model(max_shard_size="20KB")
    expected = interp.load(str(folder), device="cpu", dtype="bfloat16")
    model = interp.load(str(folder), device_map=some_on_disk(), dtype="bfloat16")
    assert model.dtype == torch.bfloat16
    assert torch.equal(logits(model.hf), logits(expected.hf))


def test_experts_on_disk_need_a_folder_and_get_one(saved_model, tmp_path) -> None:
    """Their tensors are put together anew on loading, so that the model's own files do not serve."""
    folder = saved_model("mixtral")
    expected = interp.load(str(folder), device="cpu")
    with pytest.raises(
        ModelError, match=r"cannot load the weights .*; give offload_folder, a folder for weights"
    ) as caught:
        interp.load(str(folder), device_map={"": "disk"})
    assert "\n" not in str(caught.value)
    model = interp.load(str(folder), device_map={"": "disk"}, offload_folder=tmp_path / "offload")
    assert torch.equal(logits(model.hf), logits(expected.hf))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"device_map": "best"},
            r"unknown device map 'best'; valid: auto, balanced, balanced_low_0, sequential, a mapping",
        ),
        (
            {"device_map": {"": "cuda:7"}},
            r"the device of 'the whole model' is 'cuda:7', which is not available here; available: .*cpu, disk",
        ),
        ({"device_map": {"": "tpu"}}, r"'tpu', which is not available here"),
        ({"device_map": "auto", "device": "cpu"}, r"device 'cpu' and a device map were given; leave one of them out"),
        ({"max_memory": {"cpu": "1GB"}}, r"give device_map='auto' with it"),
    ],
)
def test_a_map_that_cannot_be_is_refused_before_the_model_is_looked_for(options, message, monkeypatch) -> None:
    monkeypatch.setattr("interp.models.loading.locate", lambda *_, **__: pytest.fail("looked for the model"))
    with pytest.raises(UsageError, match=message):
        load_parts("smollm2-135m", **options)


@pytest.mark.parametrize(
    ("device_map", "message"),
    [
        (
            {"": "cpu", "model.layer.0": "disk"},
            r"names 'model.layer.0', which LlamaForCausalLM does not have; its parts: model, .*lm_head",
        ),
        ({"model": "cpu"}, r"says nothing of lm_head.weight \(1 tensors in all\); add its module, or '' for the rest"),
    ],
)
def test_a_map_that_does_not_fit_the_model_is_refused(saved_model, device_map, message) -> None:
    folder = saved_model()
    (folder / "model.safetensors").rename(folder / "moved")  # its header is read through the link, its weights never
    (folder / "model.safetensors").symlink_to(folder / "moved")
    with pytest.raises(UsageError, match=message):
        load_parts(str(folder), device_map=device_map)


def test_what_does_not_fit_is_refused_before_weights_are_read(saved_model, monkeypatch) -> None:
    folder = saved_model()
    monkeypatch.setattr("interp.models.loading._read_model", lambda *_: pytest.fail("read the weights"))
    monkeypatch.setattr("interp.models.placement.free_memory", lambda _: 1000)
    with pytest.raises(
        MemoryLimitError, match=r"puts .* GB of weights in float32 on cpu, where .* are free; put more on disk"
    ) as caught:
        load_parts(str(folder), device_map={"": "cpu"})
    assert caught.value.exit_code == 5
    monkeypatch.setattr("interp.models.checks.free_memory", lambda _: 1000)
    with pytest.raises(
        MemoryLimitError, match=r"dtype='bfloat16' halves it; device_map='auto' \(--device-map auto\) spreads"
    ):
        load_parts(str(folder), device="cpu")


def test_nan_on_disk_is_found(saved_model) -> None:
    from safetensors.torch import load_file, save_file

    folder = saved_model()
    weights = load_file(folder / "model.safetensors")
    weights["model.layers.1.mlp.up_proj.weight"][2, 3] = float("nan")
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(NumericsError, match=r"model.layers.1.mlp.up_proj.weight \(1 NaN, 0 infinite\)"):
        load_parts(str(folder), device_map=some_on_disk())


def test_the_plan_for_gpus_fills_them_and_then_the_rest(tiny) -> None:
    with torch.device("meta"):
        skeleton = tiny("llama")
    with pretend_devices(count=2):
        whole = placed(skeleton, "auto", None, torch.float32)
        little = placed(skeleton, "sequential", {0: "60KB", 1: "60KB", "cpu": "80KB"}, torch.float32)
        assert takes_part("auto") == torch.device("cuda:0")
    assert set(whole.values()) == {0, 1}
    assert list(dict.fromkeys(little.values())) == [0, 1, "cpu", "disk"]
    assert takes_part({"": "cpu", "lm_head": "disk"}) == torch.device("cpu")


def test_the_command_line_takes_a_plan_or_a_file(saved_model, tmp_path, capsys) -> None:
    from interp_cli.main import main

    folder, places = saved_model(), tmp_path / "map.json"
    places.write_text(json.dumps(some_on_disk()))
    asked = ["generate", "the tower is in", "-m", str(folder), "-n", "2", "--quiet", "--device-map"]
    answers = []
    for value in ("auto", f"@{places}"):
        assert run(main, [*asked, value]) == 0
        answers.append(capsys.readouterr().out.splitlines()[0])
    assert answers[0] == answers[1]
    places.write_text("[]")
    assert run(main, [*asked, f"@{places}"]) == 2
    assert "give an object from module paths to devices" in capsys.readouterr().err


def run(main, arguments):
    import sys
    from unittest.mock import patch

    with patch.object(sys, "argv", ["interp", *arguments]), pytest.raises(SystemExit) as ended:
        raise SystemExit(main())
    return ended.value.code


def test_a_folder_for_offloading_is_left_alone_where_it_is_not_needed(saved_model, tmp_path: Path) -> None:
    interp.load(str(saved_model()), device_map=some_on_disk(), offload_folder=tmp_path / "offload")
    assert not list((tmp_path / "offload").glob("*"))
