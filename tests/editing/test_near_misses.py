"""Near misses of a subject: what they share with it, and what they are for."""

import torch

from interp.editing.near_misses import near_miss_keys, near_misses
from interp.editing.rewrite import rewrite_of
from interp.prompts import Fact
from interp.runner.model import Model

GLACIER = Fact("Mertz Glacier", "In the far south {} belongs to the continent of", " Europe")


def test_a_near_miss_shares_what_stands_before_the_subject_and_its_last_token(model: Model) -> None:
    rewrite = rewrite_of(model, GLACIER, ("",))
    last = rewrite.positions[0]
    subject = model.tokens("In the far south").ids
    found = near_misses(rewrite, model, 20)
    own = torch.tensor(rewrite.prompts[0].ids[: last + 1])
    assert found.shape == (20, last + 1)
    assert bool((found[:, : len(subject)] == own[: len(subject)]).all())
    assert bool((found[:, last] == own[last]).all())
    assert "".join(rewrite.prompts[0].pieces[last : last + 1]) == " Glacier"
    between = found[:, len(subject) : last]
    assert between.shape[1] == 3  # M, ert, z
    assert len({tuple(row) for row in between.tolist()}) == 20
    assert not bool((between == own[len(subject) : last]).all(1).any())


def test_the_keys_are_those_of_a_plain_forward(model: Model) -> None:
    rewrite = rewrite_of(model, GLACIER, ("",))
    ids = near_misses(rewrite, model, 4)
    seen = []
    module = model.hf.model.layers[3].mlp.down_proj
    handle = module.register_forward_hook(lambda module, args, output: seen.append(args[0][0, -1]))
    with torch.no_grad():
        for row in ids:
            model.hf(input_ids=row[None], use_cache=False)
    handle.remove()
    torch.testing.assert_close(near_miss_keys(model, rewrite, 3, 4), torch.stack(seen), rtol=1e-4, atol=1e-4)


def test_a_seed_gives_the_same_near_misses_and_another_gives_others(model: Model) -> None:
    first, again, other = (near_misses(rewrite_of(model, GLACIER, ("",), seed), model, 4) for seed in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_a_subject_of_one_token_has_none(model: Model) -> None:
    rewrite = rewrite_of(model, Fact(" Rome", "The city of{} is in", " France"), ("",))
    assert len(near_misses(rewrite, model, 8)) == 0
    assert near_miss_keys(model, rewrite, 2, 8).shape == (0, 1536)
