"""A model over two devices: pretended ones here, whose arithmetic is the CPU's, so that every number must be the same to the last bit."""

import pytest
import torch

import tiny_models
from interp.interventions import Patch, Steer, ZeroAblate
from interp.runner.model import Model
from pretend_devices import device_of, pretend_devices, spread

FAMILIES = (
    "llama", "gpt2", *(pytest.param(name, marks=pytest.mark.slow) for name in ("gemma2", "falcon", "bloom", "gpt_oss"))
)  # fmt: skip
IDS = tuple(range(5, 15))
OTHER = (40, *range(6, 12))
HOME, AWAY = torch.device("cuda:0"), torch.device("cuda:1")


def build(name):
    hf = tiny_models.build(name)
    if name == "gpt_oss":
        hf.set_experts_implementation("eager")  # on a GPU the other one runs kernels that the CPU does not have
    return hf


@pytest.fixture
def two():
    with pretend_devices():
        yield lambda name: Model(spread(build(name)))


def same(found, expected) -> None:
    assert torch.equal(found.cpu().nan_to_num(9e9), expected.nan_to_num(9e9))


def test_tensors_of_two_pretended_devices_do_not_meet() -> None:
    with pretend_devices():
        one, other = torch.ones(2, device=HOME), torch.ones(2, device=AWAY)
        with pytest.raises(RuntimeError, match="add of tensors on cuda:0, cuda:1"):
            one + other
        with pytest.raises(RuntimeError, match="of tensors on cuda:0, cpu"):
            torch.cat([one, torch.ones(2)])
        assert (one + other.to(one)).device == HOME
        assert (one * torch.tensor(2.0)).device == HOME


@pytest.mark.parametrize("name", FAMILIES)
def test_everything_captured_is_what_one_device_gives_and_where_its_layer_is(two, name) -> None:
    expected = Model(build(name)).run([IDS, OTHER], "all")
    model = two(name)
    assert model.devices[:2] == (HOME, AWAY)
    run = model.run([IDS, OTHER], "all")
    same(run.logits, expected.logits)
    assert run.logits.device == HOME
    for site in expected.cache.sites:
        same(run.cache[site], expected.cache[site])
        if site.layer is not None:
            assert run.cache[site].device == (HOME if site.layer == 0 else AWAY), site


def test_a_cache_device_brings_captures_together_and_stack_does_too(two) -> None:
    expected = Model(build("llama")).run(IDS, "resid_post")
    model = two("llama")
    together = model.run(IDS, "resid_post", cache_device="cuda:0").cache
    assert {together[name].device for name in together} == {HOME}
    on_host = model.run(IDS, "resid_post", cache_device="cpu").cache
    assert {device_of(on_host[name]) for name in on_host} == {torch.device("cpu")}
    stacked = model.run(IDS, "resid_post").cache.stack("resid_post")
    assert stacked.device == AWAY
    same(stacked, expected.cache.stack("resid_post"))


@pytest.mark.parametrize("name", FAMILIES)
def test_interventions_and_resuming_cross_devices(two, name) -> None:
    def resumed(model):
        run = model.run([IDS, OTHER], "resid_post", resumable=True)
        stream = [run.cache[f"resid_post@{layer}"] for layer in range(model.atlas.n_layers)]
        rows = [Patch(f"resid_post@{layer}", x[1, 3], positions=3) for layer, x in enumerate(stream)]
        rows += [ZeroAblate("attn.z@1", heads=1), Steer("embed", torch.ones(model.atlas.d_model), positions=2)]
        if "resid_mid" in model.sites.available:
            rows += [Steer(f"resid_mid@{layer}", torch.ones(model.atlas.d_model), positions=4) for layer in (0, 1)]
        found = run.resume(rows, prompts=[place % 2 for place in range(len(rows))])
        return found.logits, model.run(IDS, interventions=rows).logits

    expected = resumed(Model(build(name)))
    for found, wanted in zip(resumed(two(name)), expected, strict=True):
        same(found, wanted)


@pytest.mark.parametrize("name", ["llama", "gpt2"])
def test_gradients_generation_and_the_reading_end(two, name) -> None:
    def numbers(model):
        slopes = model.gradients([IDS], lambda x: x[0, -1, 7] - x[0, -1, 8], ["resid_pre", "attn.z", "mlp.post"])
        stream = model.run(IDS, "resid_post@0").cache["resid_post@0"]
        normed = model.final_norm(stream)
        apart = model.final_norm_parts(stream.to(model.reading_device))
        made = model.generate(IDS, max_new_tokens=4, stop_at_end=False)
        found = [*slopes.gradients.values(), model.unembedding.logits(normed), apart, made.ids, made.log_probs_nats]
        return [tensor.cpu() for tensor in found]

    expected = numbers(Model(build(name)))
    for found, wanted in zip(numbers(two(name)), expected, strict=True):
        same(found, wanted)


def test_the_model_says_where_it_is(two) -> None:
    model = two("llama")
    assert model.device == HOME
    assert model.reading_device == model.together == AWAY
    assert model.provenance().device == "cuda:0, cuda:1"
    assert Model(tiny_models.build("llama")).together is None


@pytest.mark.gpu
def test_real_devices() -> None:
    if torch.cuda.device_count() < 2:
        pytest.skip("one CUDA device here, two are needed")
    expected = Model(build("llama").to("cuda:0")).run([IDS, OTHER], "all", resumable=True)
    run = Model(spread(build("llama"))).run([IDS, OTHER], "all", resumable=True)
    torch.testing.assert_close(run.logits, expected.logits, equal_nan=True)
    row = [ZeroAblate("attn.z@0", heads=1)]
    torch.testing.assert_close(run.resume([row]).logits, expected.resume([row]).logits)
