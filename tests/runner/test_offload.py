"""Weights that accelerate keeps outside their modules, in host memory or on disk: the same numbers, and edits that go where they are."""

import hashlib
from collections.abc import Mapping

import pytest
import torch
from accelerate import cpu_offload, disk_offload, dispatch_model

import interp
import tiny_models
import word_model
from interp.editing import stack
from interp.editing.matrix import output_matrix
from interp.errors import ModelError
from interp.interventions import Patch, Steer
from interp.models.head_weights import read_head_weights
from interp.models.offload import named_weights, read_weight, write_weight
from interp.models.tensor_roles import tensor_roles
from interp.models.vocabulary import embedding_matrix, unembeddings
from interp.runner.model import Model
from random_edit import random_edit

IDS = tuple(range(5, 15))
FAMILIES = [name if name == "llama" else pytest.param(name, marks=pytest.mark.slow) for name in tiny_models.FAMILIES]
EDITED = [
    name if name in ("llama", "gpt2") else pytest.param(name, marks=pytest.mark.slow) for name in tiny_models.FAMILIES
]
WAYS = ("memory", "disk", "some blocks")


def offloaded(hf, way, folder):
    """On the meta device but for the time of a forward: everything, or (through a map) every other block."""
    if way == "memory":
        return cpu_offload(hf, execution_device="cpu")
    if way == "disk":
        return disk_offload(hf, str(folder), execution_device="cpu")
    blocks = [block.block for block in Model(hf).atlas.blocks]
    places = {
        name: "disk" if name in blocks[::2] else "cpu"
        for name, module in hf.named_modules()
        if name in blocks or (not list(module.children()) and not any(name.startswith(f"{b}.") for b in blocks))
    }
    return dispatch_model(hf, places, offload_dir=str(folder), skip_keys=hf._skip_keys_device_placement)


@pytest.fixture(params=WAYS)
def away(request, tmp_path):
    return lambda hf: offloaded(hf, request.param, tmp_path / "offload")


@pytest.mark.parametrize("name", FAMILIES)
def test_a_hooked_forward_is_the_plain_one_and_captures_are_the_ordinary_models(away, name) -> None:
    here = Model(tiny_models.build(name))
    hf = away(tiny_models.build(name))
    plain = hf(torch.tensor([IDS]), use_cache=False).logits
    model = Model(hf)
    assert any(parameter.is_meta for parameter in hf.parameters())
    run, expected = model.run(IDS, "all"), here.run(IDS, "all")
    assert torch.equal(run.logits, plain)
    assert model.device == torch.device("cpu")
    for site in expected.cache.sites:
        assert torch.equal(run.cache[site], expected.cache[site]), site


@pytest.mark.parametrize("name", FAMILIES)
def test_resuming_is_the_full_forward(away, name) -> None:
    model = Model(away(tiny_models.build(name)))
    run = model.run([IDS], "resid_post", resumable=True)
    rows = [Patch(f"resid_post@{layer}", run.cache["resid_post@0"][0, 2], positions=4) for layer in range(2)]
    rows.append(Steer("embed", torch.ones(model.atlas.d_model), positions=3))
    for row, logits in zip(rows, run.resume(rows).logits, strict=True):
        full = model.run(IDS, interventions=row, logits="last").logits[0]
        torch.testing.assert_close(logits, full, atol=1e-4, rtol=1e-4)


def test_gradients_and_generation(away) -> None:
    def numbers(model):
        slopes = model.gradients([IDS], lambda x: x[0, -1, 7], ["resid_pre", "mlp.post"]).gradients
        made = model.generate(IDS, max_new_tokens=4, stop_at_end=False)
        return [*slopes.values(), made.ids, made.log_probs_nats]

    for found, expected in zip(
        numbers(Model(away(tiny_models.build("llama")))), numbers(Model(tiny_models.build("llama"))), strict=True
    ):
        assert torch.equal(found, expected)


@pytest.mark.parametrize("name", EDITED)
def test_an_edit_goes_to_the_kept_weights_and_undo_brings_every_byte_back(away, name, tmp_path) -> None:
    here, model = Model(tiny_models.build(name)), Model(away(tiny_models.build(name)))
    layers = [layer for layer, block in enumerate(here.atlas.blocks) if block.experts is None][:2]
    if not layers:
        pytest.skip("its layers are mixtures of experts, which no edit changes")
    on_disk = digests(tmp_path)
    before, logits = kept_bytes(model), model.run(IDS).logits
    edit = random_edit(here, layers, rank=2)
    with edit.applied(here):
        expected = here.run(IDS).logits
    with edit.applied(model):
        assert torch.equal(model.run(IDS).logits, expected)
        assert torch.equal(model.hf(torch.tensor([IDS])).logits, expected)
        assert kept_bytes(model) != before
        other = random_edit(here, layers[:1], seed=1)
        with other.applied(model):
            assert not torch.equal(model.run(IDS).logits, expected)
        assert torch.equal(model.run(IDS).logits, expected)
    assert kept_bytes(model) == before
    assert torch.equal(model.run(IDS).logits, logits)
    assert digests(tmp_path) == on_disk, "a file was written to"
    assert stack.applied_edits(model) == ()


@pytest.mark.parametrize("name", FAMILIES)
def test_weights_come_in_the_models_own_order_each_once(away, name) -> None:
    here = [(name, values.clone()) for name, values in tiny_models.build(name).named_parameters()]
    hf = away(tiny_models.build(name))
    hf(torch.tensor([IDS]))
    for (own, found), (name, expected) in zip(named_weights(hf), here, strict=True):
        assert own == name
        assert torch.equal(found, expected)


def kept_bytes(model):
    return {
        name: hashlib.sha256(value.contiguous().view(torch.uint8).numpy().tobytes()).hexdigest()
        for name, value in named_weights(model.hf)
    }


def digests(folder):
    return {path: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.rglob("*") if path.is_file()}


def test_an_edit_of_a_weight_on_disk_stays_in_memory_only_while_it_is_there(tmp_path) -> None:
    model = Model(offloaded(tiny_models.build("llama"), "disk", tmp_path))
    matrix = output_matrix(model, 1)
    loader = matrix.module._hf_hook.weights_map.dataset
    edit = random_edit(model, [1])
    edit.apply(model)
    assert list(loader.state_dict) == ["model.layers.1.mlp.down_proj.weight"]
    edit.undo(model)
    assert not loader.state_dict


def test_facts_are_found_and_exported(away, tmp_path) -> None:
    from interp.editing.settings import EditSettings

    plain = word_model.build("llama")
    fact = interp.Fact("tower of Pisa", "the {} is in the city of", " Ann")
    moments = interp.second_moments(plain, 1, [list(range(3, 40))] * 3)
    asked = {"layers": 1, "moments": moments, "settings": EditSettings(min_tokens=1, shrinkage=0.01, steps=3)}
    wanted = interp.edit_facts(plain, fact, **asked)
    model = Model(away(word_model.build("llama").hf), plain.tokenizer)
    edit = interp.edit_facts(model, fact, **asked)
    assert torch.equal(edit.layers[0].left, wanted.layers[0].left)
    assert edit.layers[0].base_sha256 == wanted.layers[0].base_sha256
    edit.export_model(tmp_path / "out", model)
    exported = interp.load(str(tmp_path / "out"), device="cpu")
    with wanted.applied(plain):
        assert torch.equal(exported.run(fact.prompt).logits, plain.run(fact.prompt).logits)


def test_weights_are_read_for_lens_heads_and_tables(away) -> None:
    here, model = Model(tiny_models.build("llama")), Model(away(tiny_models.build("llama")))
    model.run(IDS)  # weights that come and go are new objects afterwards
    again = Model(model.hf)
    assert again.atlas == here.atlas
    for found, expected in (
        (again.unembedding.weight, here.unembedding.weight),
        (again.final_norm_parts.weight, here.final_norm_parts.weight),
        (embedding_matrix(again.hf, again.atlas), embedding_matrix(here.hf, here.atlas)),
        (read_head_weights(again.hf, again.atlas, 0).W_Q, read_head_weights(here.hf, here.atlas, 0).W_Q),
        (unembeddings(again.hf, again.atlas, torch.arange(5)), unembeddings(here.hf, here.atlas, torch.arange(5))),
    ):
        assert torch.equal(found, expected)
    assert tensor_roles(again.hf, again.atlas) == tensor_roles(here.hf, here.atlas)
    found, expected = interp.logit_lens(again, IDS), interp.logit_lens(here, IDS)
    assert torch.equal(found.top_ids, expected.top_ids)
    assert again.provenance().device == "cpu (weights offloaded)"


def test_a_meta_weight_that_nothing_keeps_is_said() -> None:
    with torch.device("meta"):
        module = torch.nn.Linear(2, 2)
    with pytest.raises(ModelError, match="is on the meta device and no hook of accelerate says where"):
        read_weight(module)
    with pytest.raises(ModelError, match="is on the meta device"):
        write_weight(module, "weight", torch.ones(2, 2))


def test_a_map_that_cannot_be_written_to_is_said() -> None:
    hf = cpu_offload(tiny_models.build("llama"), execution_device="cpu")
    module = hf.model.layers[0].mlp.down_proj
    module._hf_hook.weights_map = Frozen({"weight": torch.ones(32, 64)})
    with pytest.raises(ModelError, match="weight is kept in a Frozen, which cannot be written to"):
        write_weight(module, "weight", torch.zeros(32, 64))


class Frozen(Mapping):
    def __init__(self, weights):
        self._weights = weights

    def __getitem__(self, name):
        return self._weights[name]

    def __iter__(self):
        return iter(self._weights)

    def __len__(self):
        return len(self._weights)


@pytest.mark.slow
@pytest.mark.model
def test_the_default_model_partly_on_disk(model) -> None:
    prompt = "The Eiffel Tower is located in the city of"
    places = {"": "cpu"} | {f"model.layers.{layer}": "disk" for layer in range(0, 30, 3)}
    away = interp.load("smollm2-135m", device_map=places, dtype="float32")
    assert sum(parameter.is_meta for parameter in away.hf.parameters()) == 90
    run, expected = (one.run(prompt, ["resid_post", "attn.z"], resumable=True) for one in (away, model))
    assert torch.equal(run.logits, expected.logits)
    for name in expected.cache:
        assert torch.equal(run.cache[name], expected.cache[name]), name
    row = Patch("resid_post@4", run.cache["resid_post@9"][0, 3], positions=5)
    full = away.run(prompt, interventions=row, logits="last").logits[0]
    torch.testing.assert_close(run.resume([row]).logits[0], full, atol=1e-4, rtol=1e-4)
    before = kept_bytes(away)
    edit = random_edit(model, [2, 3], rank=2)
    with edit.applied(model):
        wanted = model.run(prompt).logits
    with edit.applied(away):
        assert torch.equal(away.run(prompt).logits, wanted)
    assert kept_bytes(away) == before
    lens, own = interp.logit_lens(away, prompt), interp.logit_lens(model, prompt)
    assert torch.equal(lens.top_ids, own.top_ids)
    assert away.generate(prompt, max_new_tokens=3).text == model.generate(prompt, max_new_tokens=3).text
