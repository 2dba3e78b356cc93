"""A hooked forward gives the plain model's own bits, whatever is captured, and runs no further than it must."""

import pytest
import torch

from interp.errors import UsageError
from interp.interventions import Scale, ZeroAblate
from interp.runner.plan import Capture
from oracles.runner import counted_calls, plain_logits
from tiny_models import FAMILIES, VARIANTS, build, prompt_ids

SUPPORTED = tuple(name for name in (*FAMILIES, *VARIANTS) if name != "opt_post_norm")
EVERYTHING = ("all", "attn.result", "*")
PROMPT = "The Eiffel Tower is located in the city of"


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["fp32", "bf16"])
@pytest.mark.parametrize("name", SUPPORTED)
def test_logits_are_bit_equal_with_everything_captured(family, name: str, dtype: torch.dtype) -> None:
    model = family(name, dtype=dtype)
    ids = prompt_ids()
    run = model.run(list(ids), capture=EVERYTHING)
    assert run.logits is not None
    assert torch.equal(run.logits, plain_logits(model.hf, ids))
    assert {site.kind for site in run.cache.sites} == set(model.sites.available)
    assert len(run.cache) == len(model.sites.bindings)
    for site, value in zip(run.cache.sites, run.cache.values(), strict=True):
        assert not value.isnan().any(), site.name
        assert value.dim() == len(site.info.axes.split()), site.name
        assert value.shape[0] == len(ids), site.name
        assert value.shape[site.info.position_axis] == ids.shape[1], site.name


@pytest.mark.parametrize("name", SUPPORTED)
def test_logits_are_bit_equal_when_resumable_and_for_one_prompt(family, name: str) -> None:
    model = family(name)
    ids = prompt_ids(rows=1, positions=11)
    plain = plain_logits(model.hf, ids)
    assert torch.equal(model.run(ids[0], resumable=True).logits, plain)
    assert torch.equal(model.run(ids[0], capture="all", resumable=True).logits, plain)
    assert torch.equal(model.run(ids[0]).logits, plain)


@pytest.mark.parametrize("attn", ["eager", "sdpa"])
@pytest.mark.parametrize("name", ["gpt2", "llama", "gemma3_text", "mixtral", "falcon"])
def test_logits_are_bit_equal_under_each_attention_implementation(family, name: str, attn: str) -> None:
    model = family(name, attn=attn)
    ids = prompt_ids()
    run = model.run(list(ids), capture=EVERYTHING)
    assert torch.equal(run.logits, plain_logits(model.hf, ids))
    assert model.hf.config._attn_implementation == attn
    assert run.tokens[0].ids == tuple(ids[0].tolist())


@pytest.mark.parametrize("name", ["gpt2", "gemma2", "opt", "granite"])
def test_wanted_logits_are_those_of_the_full_unembedding(family, near, name: str) -> None:
    model = family(name)
    ids = prompt_ids(rows=3, positions=9)
    full = plain_logits(model.hf, ids)
    rows = list(ids)
    near(model.run(rows, logits="last").logits, full[:, -1:], 1e-6)
    near(model.run(rows, logits=2).logits, full[:, 2:3], 1e-6)
    near(model.run(rows, logits=0).logits, full[:, :1], 1e-6)
    near(model.run(rows, logits=[5, -1, 0]).logits, full[:, [5, 8, 0]], 1e-6)
    assert model.run(rows, logits=True).logits.shape == full.shape
    assert model.run(rows, logits=False).logits is None
    near(model.run(rows, logits="last").last_logits, full[:, -1], 1e-6)
    near(model.run(rows).last_logits, full[:, -1], 1e-6)


def test_one_token_and_the_whole_context(family) -> None:
    for name in ("gpt2", "llama", "gemma3_text", "bloom"):
        model = family(name)
        for positions in (1, 64):
            ids = prompt_ids(rows=1, positions=positions)
            run = model.run(ids[0], capture=EVERYTHING, resumable=True)
            assert torch.equal(run.logits, plain_logits(model.hf, ids)), (name, positions)


def test_dropout_is_off_while_running_and_on_again_after() -> None:
    from interp.runner.model import Model

    hf = build("gpt2", resid_pdrop=0.5, embd_pdrop=0.5, attn_pdrop=0.5)
    ids = prompt_ids()
    plain = plain_logits(hf, ids)
    model = Model(hf.train())
    hf.transformer.h[1].eval()
    modes = {name: module.training for name, module in hf.named_modules()}
    assert torch.equal(model.run(list(ids), capture="all").logits, plain)
    assert {name: module.training for name, module in hf.named_modules()} == modes


@pytest.mark.parametrize("name", SUPPORTED)
def test_without_logits_no_later_block_and_no_unembedding_runs(family, near, name: str) -> None:
    model = family(name)
    ids = prompt_ids()
    full = model.run(list(ids), capture="resid_post").cache
    layer = 0
    modules = [model.hf.get_submodule(block.block) for block in model.atlas.blocks]
    with counted_calls([*modules, model.hf.get_submodule(model.atlas.unembed)]) as calls:
        run = model.run(list(ids), capture=f"mlp_out@{layer}", logits=False)
        assert calls[layer + 1 :] == [0] * (len(modules) - layer)
        assert run.logits is None
        run = model.run(list(ids), capture=f"resid_post@{layer}", logits=False)
        assert calls[: layer + 1] == [1] * (layer + 1) or calls[layer] <= 2
        assert calls[layer + 1 :] == [0] * (len(modules) - layer)
    assert torch.equal(run.cache[f"resid_post@{layer}"], full[f"resid_post@{layer}"])


@pytest.mark.parametrize("name", SUPPORTED)
def test_stop_at_layer_runs_the_layers_before_it(family, name: str) -> None:
    model = family(name)
    ids = prompt_ids()
    full = model.run(list(ids), capture="resid").cache
    last = model.atlas.n_layers
    modules = [model.hf.get_submodule(block.block) for block in model.atlas.blocks]
    for stop in range(1, last):
        with counted_calls([*modules, model.hf.get_submodule(model.atlas.unembed)]) as calls:
            run = model.run(list(ids), capture=[f"resid_pre@{stop}", f"resid_post@{stop - 1}"], stop_at_layer=stop)
        assert run.logits is None
        assert calls[stop:] == [0] * (last - stop + 1)
        assert torch.equal(run.cache[f"resid_post@{stop - 1}"], full[f"resid_post@{stop - 1}"])
        assert torch.equal(run.cache[f"resid_pre@{stop}"], full[f"resid_pre@{stop}"])


def test_stop_at_layer_ends(family) -> None:
    model = family("llama")
    ids = prompt_ids(rows=1)[0]
    assert torch.equal(
        model.run(ids, "resid_pre@0", stop_at_layer=0).cache["resid_pre@0"], model.run(ids, "embed").cache["embed"]
    )
    whole = model.run(ids, "resid_post@2", stop_at_layer=3)
    assert torch.equal(whole.cache["resid_post@2"], model.run(ids, "resid_post@2").cache["resid_post@2"])
    assert torch.equal(
        model.run(ids, "resid_post@1", stop_at_layer=-1).cache["resid_post@1"],
        model.run(ids, "resid_post@1").cache["resid_post@1"],
    )
    for late in ("resid_post@1", "attn_out@1", "resid_pre@2", "ln_final"):
        with pytest.raises(UsageError, match="lies behind stop_at_layer=1"):
            model.run(ids, late, stop_at_layer=1)
    with pytest.raises(UsageError, match=r"layer 9 is out of range; valid: 0 to 2"):
        model.run(ids, stop_at_layer=9)


def test_an_intervention_behind_the_last_capture_still_counts_for_the_logits(family) -> None:
    model = family("llama")
    ids = prompt_ids(rows=1)[0]
    changed = model.run(ids, "resid_pre@0", Scale("resid_post@2", 2.0))
    assert not torch.equal(changed.logits, model.run(ids).logits)
    stopped = model.run(ids, "resid_pre@0", Scale("resid_post@2", 2.0), logits=False)
    assert stopped.logits is None


def test_nothing_asked_runs_nothing(family) -> None:
    model = family("llama")
    with counted_calls([model.hf]) as calls:
        run = model.run(prompt_ids(rows=1)[0], logits=False)
    assert calls == [0]
    assert run.logits is None
    assert len(run.cache) == 0
    with pytest.raises(UsageError, match="no logits"):
        _ = run.last_logits


def test_a_later_capture_sees_what_an_intervention_did(family) -> None:
    model = family("gpt2")
    ids = prompt_ids(rows=1)[0]
    run = model.run(ids, ["attn_out@1", "resid_mid@1", "resid_pre@1"], ZeroAblate("attn_out@1"))
    assert not run.cache["attn_out@1"].any()
    assert torch.equal(run.cache["resid_mid@1"], run.cache["resid_pre@1"])


def test_the_final_norm_and_unembedding_give_the_logits(family, near) -> None:
    for name in ("gpt2", "llama", "gemma2", "cohere", "granite", "gptj", "phi"):
        model = family(name)
        run = model.run(list(prompt_ids()), "resid_post@-1")
        normed = model.final_norm(run.cache["resid_post@-1"])
        unembedding = model.unembedding
        logits = normed @ unembedding.weight.T
        logits = logits if unembedding.bias is None else logits + unembedding.bias
        logits = logits * unembedding.scale
        if unembedding.softcap is not None:
            logits = torch.tanh(logits / unembedding.softcap) * unembedding.softcap
        near(logits, run.logits, 1e-5)


def test_a_reduced_capture_leaves_the_bits_alone(family) -> None:
    model = family("llama")
    ids = prompt_ids()
    run = model.run(list(ids), Capture("attn.pattern", reduce=lambda x, site: x.mean((-2, -1))))
    assert torch.equal(run.logits, plain_logits(model.hf, ids))


@pytest.mark.model
def test_the_default_model_is_bit_equal(model) -> None:
    ids = torch.tensor([model.tokens(PROMPT).ids])
    plain = plain_logits(model.hf, ids)
    run = model.run(PROMPT, capture=EVERYTHING)
    assert torch.equal(run.logits, plain)
    assert model.tokenizer.decode(run.last_logits[0].argmax()) == " Paris"
    assert torch.equal(model.run(PROMPT, capture="resid_post", resumable=True).logits, plain)
    batch = torch.cat([ids, ids.flip(1)])
    assert torch.equal(model.run(list(batch), capture="resid").logits, plain_logits(model.hf, batch))


@pytest.mark.model
@pytest.mark.slow
def test_the_default_model_is_bit_equal_in_bf16() -> None:
    import interp

    model = interp.load("smollm2-135m", device="cpu", dtype="bfloat16")
    ids = torch.tensor([model.tokens(PROMPT).ids])
    run = model.run(PROMPT, capture=EVERYTHING, resumable=True)
    assert torch.equal(run.logits, plain_logits(model.hf, ids))
