"""Many rows in one resumed call: shared interventions, values by prompt, logits read as they come, the last MLP narrowed."""

import pytest
import torch

from interp.errors import UsageError
from interp.interventions import Apply, Patch, Scale
from tiny_models import prompt_ids

LENGTH = 9
FEW = ("gpt2", "llama", "gpt_neox", "gemma2", "phi3", "opt", "bloom", "falcon", "mixtral", "mpt")


@pytest.fixture
def based(family):
    model = family("llama")
    prompts = [prompt_ids(1, LENGTH, seed=seed)[0] for seed in range(3)]
    return model, prompts, model.run(prompts, resumable=True)


@pytest.mark.parametrize("site", ["resid_pre@1", "attn.z@1", "mlp_out@0", "resid_post@2", "attn.pattern@1"])
def test_rows_that_share_an_intervention_get_the_numbers_of_rows_with_their_own(based, near, site: str) -> None:
    _, _, base = based
    heads = 1 if site.startswith("attn") else None
    shared = [Scale(site, 0.5, positions=p, heads=heads) for p in (2, 5)]
    later = Scale("mlp_out@2", -1.0, positions=5)
    rows = [[shared[0]], [shared[0], later], [shared[1]], [shared[1], shared[0]], [later]] * 3
    prompts = [i // 5 for i in range(15)]
    own = [[Scale(x.site, x.factor, positions=x.positions, heads=x.heads) for x in row] for row in rows]
    near(base.resume(rows, prompts=prompts).logits, base.resume(own, prompts=prompts).logits, 1e-6)
    near(base.resume(rows, prompts=prompts, token_budget=20).logits, base.resume(own, prompts=prompts).logits, 1e-5)


def test_each_row_keeps_the_order_of_its_own_interventions(based, near) -> None:
    _, _, base = based
    double, one = Scale("resid_pre@1", 2.0, positions=4), Patch("resid_pre@1", torch.ones(32), positions=4)
    both = base.resume([[double, one], [one, double], [double, one, double]]).logits
    for i, row in enumerate([[double, one], [one, double], [double, one, double]]):
        near(both[i], base.resume([row]).logits[0], 1e-6)
    assert not torch.allclose(both[0], both[1], atol=1e-4)


def test_a_function_sees_one_row_at_a_time(based) -> None:
    _, _, base = based
    seen = []

    def double(x: torch.Tensor) -> torch.Tensor:
        seen.append(x.shape)
        return x * 2

    change = Apply("resid_pre@1", double, positions=4)
    base.resume([change, change, change], prompts=[0, 1, 2])
    assert seen == [(1, 1, 32)] * 3


@pytest.mark.parametrize("site", ["resid_pre@1", "attn.z@1"])
def test_a_patch_by_prompt_gives_each_row_its_own_prompts_value(based, near, site: str) -> None:
    model, prompts, base = based
    heads = 2 if site.startswith("attn") else None
    source = model.run(list(reversed(prompts)), site).cache[site]
    value = source[:, 3:4] if heads is None else source[:, 3:4, 2:3]
    patch = Patch(site, value, positions=3, heads=heads, by_prompt=True)
    order = [2, 0, 0, 1]
    found = base.resume([patch] * 4, prompts=order).logits[:, 0]
    for i, prompt in enumerate(order):
        alone = Patch(site, value[prompt], positions=3, heads=heads)
        near(found[i], model.run(prompts[prompt], (), alone).last_logits[0])
    mapped = Patch(site, {model.sites.sites(site)[0].name: value}, positions=3, heads=heads, by_prompt=True)
    near(base.resume([mapped] * 4, prompts=order).logits[:, 0], found, 1e-6)
    whole = model.run(prompts, (), patch).last_logits
    near(whole[0], found[1])
    with pytest.raises(UsageError, match=r"is by prompt and its value has shape \(2, .*3 at least"):
        base.resume([Patch(site, value[:2], positions=3, heads=heads, by_prompt=True)], prompts=[2])


def test_logits_are_read_a_chunk_at_a_time_and_not_kept(based, near) -> None:
    _, _, base = based
    rows = [Scale(f"resid_pre@{layer}", 1.5, positions=position) for layer in range(3) for position in range(LENGTH)]
    prompts = [i % 3 for i in range(len(rows))]
    sizes: list[int] = []
    done: list[int] = []

    def read(logits: torch.Tensor, of: list[int]) -> torch.Tensor:
        assert logits.shape[0] == len(of)
        sizes.append(len(of))
        return torch.cat([logits[:, -1, :4], torch.tensor(of, dtype=torch.float32)[:, None]], -1)

    found = base.resume(rows, prompts=prompts, read=read, token_budget=12, progress=done.append)
    assert found.logits is None
    near(found.values[:, :4], base.resume(rows, prompts=prompts).logits[:, 0, :4], 1e-5)
    assert found.values[:, 4].tolist() == prompts
    assert len(sizes) > LENGTH
    assert done == sizes
    assert sum(done) == len(rows)


@pytest.mark.parametrize("name", FEW)
def test_the_last_mlp_is_computed_only_where_it_is_read(family, near, name: str) -> None:
    model = family(name)
    ids = prompt_ids(1, LENGTH)[0]
    base = model.run(ids, resumable=True)
    last = model.atlas.blocks[-1]
    narrowed = bool(last.mlp and not last.experts and not last.mlp_has_residual)
    assert narrowed == (name in ("gpt2", "llama", "gpt_neox", "gemma2", "phi3", "falcon"))
    rows = [Scale("resid_pre@0", 1.5, positions=2), Scale("attn_out@1", 1.5, positions=4)]
    seen: list[int] = []
    handle = None
    if last.mlp is not None:
        module = model.hf.get_submodule(last.mlp)
        handle = module.register_forward_hook(lambda module, args, output: seen.append(args[0].shape[-2]))
    try:
        one = base.resume(rows)
        two = base.resume(rows, logits=[-3, -1], start=(0, 1))
        base.resume(rows, capture=["mlp_out@-1"])
    finally:
        if handle is not None:
            handle.remove()
    if narrowed:
        assert seen == [1, 1, 2, LENGTH - 2]
    for i, row in enumerate(rows):
        full = model.run(ids, (), row)
        near(one.logits[i, 0], full.logits[0, -1])
        near(two.logits[i], full.logits[0, [-3, -1]])
