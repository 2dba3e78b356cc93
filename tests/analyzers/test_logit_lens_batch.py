"""Several prompts' lens in one forward: each is the lens of its prompt alone, whatever stands beside it."""

import pytest
import torch

from interp.analyzers.logit_lens import logit_lens, logit_lenses
from interp.errors import UsageError

NUMBERS = ("top_log_probs_nats", "entropy_nats", "kl_nats", "target_log_prob_nats")


def same(found, expected, atol=1e-4) -> None:
    assert found.tokens == expected.tokens
    assert (found.positions, found.sites) == (expected.positions, expected.sites)
    assert torch.equal(found.target_ids, expected.target_ids)
    for name in NUMBERS:
        torch.testing.assert_close(getattr(found, name), getattr(expected, name), atol=atol, rtol=1e-4)


@pytest.mark.parametrize("name", ["llama", "gpt2", "gemma2"])
@pytest.mark.parametrize(
    "options",
    [{}, {"positions": -1}, {"positions": [0, -2]}, {"sites": "components"}, {"sites": ["resid_pre@1", "attn_out@0"]}],
)
def test_each_is_that_of_the_prompt_alone(family, ids, name, options) -> None:
    model = family(name)
    prompts = [ids[:3], ids, ids[2:7], [5, 9]]
    targets = [None, 7, None, 11]
    found = logit_lenses(model, prompts, targets=targets, **options)
    assert len(found) == 4
    for one, prompt, target in zip(found, prompts, targets, strict=True):
        same(one, logit_lens(model, prompt, target=target, **options))


def test_one_prompt_is_the_same_to_the_last_bit(family, ids) -> None:
    model = family("llama")
    [found], alone = logit_lenses(model, [ids]), logit_lens(model, ids)
    for name in (*NUMBERS, "top_ids", "target_rank"):
        assert torch.equal(getattr(found, name), getattr(alone, name))


def test_a_position_that_one_prompt_lacks_is_refused(family, ids) -> None:
    with pytest.raises(UsageError, match="position 5 is out of range"):
        logit_lenses(family("llama"), [ids, ids[:3]], positions=5)


@pytest.mark.model
@pytest.mark.long
def test_on_the_default_model(model) -> None:
    prompts = ["The Eiffel Tower is located in the city of", "Paris", "The Colosseum is in"]
    for found, prompt in zip(logit_lenses(model, prompts), prompts, strict=True):
        same(found, logit_lens(model, prompt), atol=5e-4)
