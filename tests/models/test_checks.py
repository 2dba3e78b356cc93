"""Weights that do not fit their configuration, or are no numbers, are refused by name; nothing legitimate is."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from interp.errors import MemoryLimitError, ModelError, NumericsError
from interp.models.checks import check_finite, check_memory
from interp.models.headers import TensorInfo
from interp.models.loading import load_parts
from tiny_models import FAMILIES

LAST = "model.layers.1.mlp.up_proj.weight"


def load(folder: Path):
    return load_parts(str(folder), device="cpu").hf


def change(folder: Path, edit) -> Path:
    weights = load_file(folder / "model.safetensors")
    edit(weights)
    save_file(
        {name: tensor.contiguous() for name, tensor in weights.items()}, folder / "model.safetensors", {"format": "pt"}
    )
    return folder


def test_a_missing_tensor_is_named(saved_model) -> None:
    folder = change(saved_model(), lambda weights: weights.pop(LAST))
    with pytest.raises(ModelError, match=f"missing: {LAST};") as caught:
        load(folder)
    assert str(folder) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_extra_tensor_is_named(saved_model) -> None:
    folder = change(saved_model(), lambda weights: weights.update({"model.layers.1.extra.weight": torch.ones(3)}))
    with pytest.raises(ModelError, match=r"not part of the model: model.layers.1.extra.weight"):
        load(folder)


@pytest.mark.parametrize("shape", [(64, 31), (64, 33), (32,)])
def test_a_misshapen_tensor_is_named_and_never_made_up(saved_model, shape) -> None:
    folder = change(saved_model(), lambda weights: weights.update({LAST: torch.ones(shape)}))
    with pytest.raises(
        ModelError, match=rf"of the wrong shape: {LAST} \[{', '.join(map(str, shape))}\] instead of \[64, 32\]"
    ):
        load(folder)


def test_a_configuration_of_impossible_size_takes_no_memory(saved_model) -> None:
    folder = saved_model()
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"vocab_size": 10**11}))  # 12 TB if it were made
    with pytest.raises(
        ModelError, match=r"of the wrong shape: .*embed_tokens.weight \[97, 32\] instead of \[100000000000, 32\]"
    ):
        load(folder)


def test_more_layers_than_the_file_has(saved_model) -> None:
    folder = saved_model()
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"num_hidden_layers": 40}))
    with pytest.raises(ModelError, match=r"missing: model.layers.10.*and \d+ more"):
        load(folder)


def test_fewer_layers_than_the_file_has(saved_model) -> None:
    folder = saved_model()
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"num_hidden_layers": 1}))
    with pytest.raises(ModelError, match=r"not part of the model: model.layers.1"):
        load(folder)


def test_the_random_state_is_kept_when_a_tensor_is_missing(saved_model) -> None:
    folder = change(saved_model(), lambda weights: weights.pop(LAST))
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    with pytest.raises(ModelError):
        load(folder)
    assert torch.equal(torch.rand(2), expected)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_weights_that_are_no_numbers_are_named_and_counted(saved_model, value) -> None:
    def poison(weights) -> None:
        weights[LAST][3, 4:7] = value

    folder = change(saved_model(), poison)
    counts = "3 NaN, 0 infinite" if value != value else "0 NaN, 3 infinite"
    with pytest.raises(NumericsError, match=rf"{LAST} \({counts}\)"):
        load(folder)


def test_plus_and_minus_infinity_do_not_hide_each_other() -> None:
    module = torch.nn.Linear(2, 2)
    with torch.no_grad():
        module.weight.copy_(torch.tensor([[float("inf"), -float("inf")], [0.0, 0.0]]))
    with pytest.raises(NumericsError, match="weight \\(0 NaN, 2 infinite\\)"):
        check_finite(module, Path("x"))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_large_finite_weights_are_no_fault(dtype) -> None:
    """The sum of these overflows; the elements do not."""
    module = torch.nn.Linear(50, 50).to(dtype)
    with torch.no_grad():
        module.weight.fill_(torch.finfo(dtype).max)
    check_finite(module, Path("x"))


def test_computed_masks_of_old_checkpoints_are_no_fault(saved_model) -> None:
    def add_old_buffers(weights) -> None:
        for layer in range(3):
            weights[f"model.layers.{layer}.self_attn.rotary_emb.inv_freq"] = torch.ones(4)

    assert load(change(saved_model(), add_old_buffers))


def test_masks_of_gpt2_are_no_fault_and_a_vector_of_that_name_is(saved_model) -> None:
    def add_masks(weights) -> None:
        weights["transformer.h.0.attn.bias"] = torch.ones(1, 1, 64, 64).tril()
        weights["transformer.h.0.attn.masked_bias"] = torch.tensor(-1e4)

    assert load(change(saved_model("gpt2"), add_masks))


def test_gpt2_without_the_prefix_loads(saved_model) -> None:
    """The published gpt2 names its tensors ``h.0...`` and not ``transformer.h.0...``."""

    def strip(weights) -> None:
        for name in list(weights):
            weights[name.removeprefix("transformer.")] = weights.pop(name)

    before = load(saved_model("gpt2", "before"))
    after = load(change(saved_model("gpt2", "after"), strip))
    for (name, ours), theirs in zip(after.named_parameters(), before.parameters(), strict=True):
        assert torch.equal(ours, theirs), name


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_survives_saving_and_loading(saved_model, tiny, family) -> None:
    """Renamed, fused and tied tensors are no faults."""
    loaded = load(saved_model(family))
    for (name, ours), theirs in zip(loaded.named_parameters(), tiny(family).parameters(), strict=True):
        assert torch.equal(ours, theirs), name


def test_too_large_for_the_memory_is_said_before_reading() -> None:
    info = TensorInfo(name="w", shape=(10**9, 10**4), dtype="float16", bytes=2 * 10**13, file="f")
    with pytest.raises(MemoryLimitError, match=r"need 40000.0 GB and cpu has .* GB free; dtype='bfloat16' halves it"):
        check_memory([info], 4, torch.device("cpu"))
