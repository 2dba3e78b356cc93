"""Prompts of different lengths side by side: each gets the numbers that it has alone, and padding holds no number at all."""

import pytest
import torch

from interp.interventions import Apply, Patch, Scale, ZeroAblate
from interp.runner.batch import by_length
from interp.runner.model import Model
from interp.tokens import from_ids
from oracles.runner import plain_logits
from tiny_models import FAMILIES, VARIANTS, build, prompt_ids

SUPPORTED = tuple(name for name in (*FAMILIES, *VARIANTS) if name != "opt_post_norm")
LENGTHS = (5, 13, 1, 10)


def ragged(seed: int = 0) -> list[torch.Tensor]:
    return [prompt_ids(1, length, seed + length)[0] for length in LENGTHS]


@pytest.mark.parametrize("name", SUPPORTED)
def test_each_prompt_gets_the_numbers_it_has_alone(family, near, name: str) -> None:
    model = family(name)
    prompts = ragged()
    batch = model.run(prompts, capture="*")
    for row, prompt in enumerate(prompts):
        length = len(prompt)
        alone = model.run(prompt, capture="*")
        near(batch.logits[row, :length], plain_logits(model.hf, prompt[None])[0])
        assert batch.logits[row, length:].isnan().all()
        near(batch.last_logits[row], alone.last_logits[0])
        for site, value in batch.cache.items():
            expected = alone.cache[site][0]
            axis = model.sites.sites(site)[0].info.position_axis - 1
            mine = value[row]
            assert mine.narrow(axis, length, max(LENGTHS) - length).isnan().all(), site
            mine = mine.narrow(axis, 0, length)
            if site.endswith(("hook_pattern", "hook_attn_scores")):
                assert (mine[..., length:] <= 0).all(), site  # no weight on padding
                mine = mine[..., :length]
            near(mine, expected)


@pytest.mark.parametrize("name", ["gpt2", "llama", "gpt_neox", "qwen3", "mistral", "phi3"])
def test_attention_implementations_agree(near, name: str) -> None:
    fused, eager = (Model(build(name, attn=attn)) for attn in ("sdpa", "eager"))
    a, b = (model.run(ragged(), capture="resid_post") for model in (fused, eager))
    for row, length in enumerate(LENGTHS):
        near(a.logits[row, :length], b.logits[row, :length], 1e-4)
        near(a.cache["resid_post@2"][row, :length], b.cache["resid_post@2"][row, :length], 1e-4)


@pytest.mark.parametrize("name", ["gpt2", "gemma3_text", "bloom", "mixtral"])
def test_positions_and_logits_count_from_each_prompts_own_end(family, near, name: str) -> None:
    model = family(name)
    prompts = [prompt for prompt in ragged() if len(prompt) > 2]
    run = model.run(prompts, capture=["resid_post", "attn.pattern"], positions=[-1, 0, -2], logits=[-2, 1])
    for row, prompt in enumerate(prompts):
        length = len(prompt)
        alone = model.run(prompt, capture=["resid_post", "attn.pattern"])
        assert run.positions[row] == (length - 1, 0, length - 2)
        near(run.cache["resid_post@1"][row], alone.cache["resid_post@1"][0, [-1, 0, -2]])
        near(run.cache["attn.pattern@1"][row, :, :, :length], alone.cache["attn.pattern@1"][0][:, [-1, 0, -2]])
        near(run.logits[row], alone.logits[0, [-2, 1]])
    last = model.run(prompts, logits="last")
    assert last.logits.shape[1] == 1
    for row, prompt in enumerate(prompts):
        near(last.last_logits[row], model.run(prompt).last_logits[0])


def test_interventions_count_from_each_prompts_own_end(family, near) -> None:
    model = family("llama")
    prompts = ragged()
    for change in (
        ZeroAblate("attn.z@1", positions=-1, heads=[1, 3]),
        Scale("resid_pre@2", 3.0, positions=[-1, 0]),
        Apply("resid_mid@0", lambda x: x.flip(-1), positions=-1),
        Scale("attn.pattern@1", 0.5, positions=-1, heads=2),
    ):
        batch = model.run(prompts, interventions=change)
        for row, prompt in enumerate(prompts):
            alone = model.run(prompt, interventions=change)
            near(batch.last_logits[row], alone.last_logits[0])


def test_interventions_reach_only_the_prompts_they_name(family, near) -> None:
    model = family("gpt2")
    prompts = list(prompt_ids(rows=3, positions=8))
    plain = model.run(prompts)
    changed = model.run(prompts, interventions=Patch("resid_pre@1", torch.zeros(32), positions=[2, 3], prompts=[2, 0]))
    assert torch.equal(changed.logits[1], plain.logits[1])
    for row in (0, 2):
        alone = model.run(prompts[row], interventions=Patch("resid_pre@1", torch.zeros(32), positions=[2, 3]))
        near(changed.logits[row], alone.logits[0])
        assert not torch.allclose(changed.logits[row], plain.logits[row])
    assert torch.equal(
        model.run(prompts, interventions=Scale("resid_pre@1", 2.0, prompts=-1)).logits[:2], plain.logits[:2]
    )


def test_all_ways_to_give_prompts_are_the_same(family) -> None:
    model = family("llama")
    ids = prompt_ids(rows=2, positions=6)
    expected = plain_logits(model.hf, ids)
    for prompts in (
        ids,
        list(ids),
        ids.tolist(),
        tuple(tuple(row) for row in ids.tolist()),
        ids.numpy(),
        [list(row) for row in ids.numpy()],
        [from_ids(None, row) for row in ids],
        iter(list(ids)),
    ):
        assert torch.equal(model.run(prompts).logits, expected)
    for prompt in (ids[0], ids[0].tolist(), tuple(ids[0].tolist()), ids[0].numpy(), list(ids[0].numpy()), ids[:1]):
        run = model.run(prompt)
        assert run.logits.shape == (1, 6, 97)
        assert run.tokens[0].ids == tuple(ids[0].tolist())


@pytest.mark.model
def test_the_default_model_in_a_ragged_batch(model, near) -> None:
    prompts = ["The Eiffel Tower is located in the city of", "Hello", "One, two, three, four, five, six, seven, eight"]
    batch = model.run(prompts, capture=["resid_post", "attn.pattern@3,20"])
    for row, prompt in enumerate(prompts):
        alone = model.run(prompt, capture=["resid_post", "attn.pattern@3,20"])
        length = len(alone.tokens[0])
        near(batch.logits[row, :length], alone.logits[0])
        near(batch.cache.stack("resid_post")[:, row, :length], alone.cache.stack("resid_post")[:, 0])
        near(batch.cache["attn.pattern@20"][row, :, :length, :length], alone.cache["attn.pattern@20"][0])


def test_batches_by_length_hold_everything_once_within_the_budget() -> None:
    lengths = [5, 1, 9, 30, 2, 9, 3, 1]
    batches = by_length(lengths, 12)
    assert sorted(place for batch in batches for place in batch) == list(range(8))
    assert [[lengths[place] for place in batch] for batch in batches] == [[1, 1, 2, 3], [5], [9], [9], [30]]
    assert all(len(batch) == 1 or len(batch) * max(lengths[place] for place in batch) <= 12 for batch in batches)
    assert by_length([4, 4, 4], 8) == [[0, 1], [2]]  # equal lengths stay in order
    assert by_length([], 8) == []
