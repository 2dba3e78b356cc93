"""Near misses of a subject: what they share with it, and what they are for."""

import pytest
import torch

from interp.editing.near_misses import AUDIBLE, CANDIDATES, near_miss_keys, near_misses, overhearers
from interp.editing.rewrite import rewrite_of
from interp.maths.rank_one import Direction
from interp.prompts import Fact
from interp.runner.model import Model
from interp.tokens import Tokens, from_ids

GLACIER = Fact("Mertz Glacier", "In the far south {} belongs to the continent of", " Europe")


def test_a_near_miss_shares_the_prompt_and_the_subjects_last_token(model: Model) -> None:
    rewrite = rewrite_of(model, GLACIER, ("",))
    last = rewrite.positions[0]
    subject = model.tokens("In the far south").ids
    found = near_misses(rewrite, model, 20)
    own = torch.tensor(rewrite.prompts[0].ids)
    assert found.shape == (20, len(own))
    assert bool((found[:, : len(subject)] == own[: len(subject)]).all())
    assert bool((found[:, last:] == own[last:]).all())
    assert "".join(rewrite.prompts[0].pieces[last : last + 1]) == " Glacier"
    between = found[:, len(subject) : last]
    assert between.shape[1] == 3  # M, ert, z
    assert len({tuple(row) for row in between.tolist()}) == 20
    assert not bool((between == own[len(subject) : last]).all(1).any())
    texts = [model.tokenizer.decode([index]) for index in between.flatten().tolist()]
    assert all(text.strip()[0].isupper() for text in texts)


def test_a_subject_in_small_letters_has_near_misses_of_any_letters(model: Model) -> None:
    rewrite = rewrite_of(model, Fact("the old glacier", "{} lies in", " Europe"), ("",))
    texts = [model.tokenizer.decode([index]) for index in near_misses(rewrite, model, 40)[:, 0].tolist()]
    assert any(not text.strip()[0].isupper() for text in texts)


def test_a_target_of_several_tokens_is_no_part_of_a_near_miss(model: Model) -> None:
    fact = Fact(GLACIER.subject, GLACIER.template, " Great Britain and Northern Ireland")
    (found,) = near_misses(rewrite_of(model, fact, ("",)), model, 1)
    assert model.tokenizer.decode(found.tolist()).endswith(" Glacier belongs to the continent of")


def test_the_keys_are_those_of_a_plain_forward(model: Model) -> None:
    rewrite = rewrite_of(model, GLACIER, ("",))
    ids = near_misses(rewrite, model, 4)
    seen = []
    module = model.hf.model.layers[3].mlp.down_proj
    handle = module.register_forward_hook(lambda module, args, output: seen.append(args[0][0, -1]))
    with torch.no_grad():
        for row in ids:
            model.hf(input_ids=row[None, : rewrite.positions[0] + 1], use_cache=False)
    handle.remove()
    torch.testing.assert_close(near_miss_keys(model, rewrite, 3, ids), torch.stack(seen), rtol=1e-4, atol=1e-4)


def test_a_seed_gives_the_same_near_misses_and_another_gives_others(model: Model) -> None:
    first, again, other = (near_misses(rewrite_of(model, GLACIER, ("",), seed), model, 4) for seed in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_a_subject_of_one_token_has_none(model: Model) -> None:
    rewrite = rewrite_of(model, Fact(" Rome", "The city of{} is in", " France"), ("",))
    assert len(near_misses(rewrite, model, 8)) == 0
    none = near_misses(rewrite, model, 8)
    assert near_miss_keys(model, rewrite, 2, none).shape == (0, 1536)
    anything = Direction(vector=torch.ones(1536, dtype=torch.float64), key=torch.ones(1536))
    assert overhearers(model, rewrite, 2, anything, 3) == ()


def test_overhearers_are_the_loudest_of_other_near_misses(model: Model) -> None:
    """Each is asked by itself how much of the edited key's answer its own key gives, in a direction that is that key's own."""
    rewrite, layer = rewrite_of(model, GLACIER, ("",)), 4
    last = rewrite.positions[0]
    key = key_of(model, rewrite.prompts[0], layer, last)
    direction = Direction(vector=key.double(), key=key)
    found = overhearers(model, rewrite, layer, direction, 3)
    shares = [float(key_of(model, prompt, layer, last) @ key / (key @ key)) for prompt in found]
    assert len(found) == 3
    assert shares == sorted(shares, reverse=True)
    everyone = near_misses(rewrite, model, CANDIDATES, rewrite.seed + 1)
    heard = [float(key_of(model, from_ids(model.tokenizer, row), layer, last) @ key / (key @ key)) for row in everyone]
    assert shares == pytest.approx(sorted(heard, reverse=True)[:3], rel=1e-4)
    assert shares[-1] > AUDIBLE
    drawn = {tuple(row) for row in near_misses(rewrite, model, 128).tolist()}
    assert not drawn & {prompt.ids for prompt in found}
    assert overhearers(model, rewrite, layer, direction, 0) == ()


def test_those_who_hardly_hear_an_edit_are_no_overhearers(model: Model) -> None:
    """In a direction that is solved to answer to none of the very same near misses."""
    rewrite, layer = rewrite_of(model, GLACIER, ("",)), 4
    key = key_of(model, rewrite.prompts[0], layer, rewrite.positions[0])
    ids = near_misses(rewrite, model, CANDIDATES, rewrite.seed + 1)
    keys = near_miss_keys(model, rewrite, layer, ids).double()
    ordinary = 1e-3 * torch.eye(len(key), dtype=torch.float64) + keys.T @ keys
    deaf = Direction(vector=torch.linalg.solve(ordinary, key.double()), key=key)
    assert overhearers(model, rewrite, layer, deaf, 3) == ()


def key_of(model: Model, prompt: Tokens, layer: int, position: int) -> torch.Tensor:
    return model.run(prompt, capture=f"mlp.post@{layer}", logits=False).cache[f"mlp.post@{layer}"][0, position]
