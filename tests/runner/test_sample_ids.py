"""Sampled rows: each step's distribution is that of a full forward, rows do not touch each other, a seed gives the same text."""

import pytest
import torch
from torch import Generator

import word_model
from interp.errors import NumericsError, UsageError
from interp.maths.sampling import choose
from interp.runner.model import Model
from interp.runner.sampling import sample_ids, start_ids
from oracles.runner import greedy_ids, plain_logits
from tiny_models import FAMILIES, VARIANTS, build, prompt_ids

SUPPORTED = tuple(name for name in (*FAMILIES, *VARIANTS) if name != "opt_post_norm")


def seeded(seed: int = 0) -> Generator:
    return Generator().manual_seed(seed)


@pytest.mark.parametrize("name", SUPPORTED)
def test_greedy_rows_are_those_of_full_forwards(family, name: str) -> None:
    model, prefix = family(name), prompt_ids(2, 7)
    made = sample_ids(model, prefix, 6, temperature=0.0, generator=seeded())
    assert made.tolist() == [greedy_ids(model.hf, row.tolist(), 6) for row in prefix]


@pytest.mark.parametrize("settings", [{}, {"temperature": 0.7, "top_k": 20}, {"top_p": 0.8}])
def test_tokens_are_drawn_as_from_full_forwards(family, settings) -> None:
    model, prefix, generator, text = family("llama"), prompt_ids(3, 5), seeded(4), prompt_ids(3, 5)
    made = sample_ids(model, prefix, 8, generator=seeded(4), **settings)
    for _ in range(8):
        logits = plain_logits(model.hf, text)[:, -1]
        drawn = choose(logits, **{"temperature": 1.0, **settings}, generator=generator)
        text = torch.cat([text, drawn[:, None]], 1)
    assert torch.equal(made, text[:, 5:])


def test_a_seed_gives_the_same_text_and_another_seed_another() -> None:
    model = Model(build("gpt2"))
    prefix = torch.zeros(4, 1, dtype=torch.long)
    first = sample_ids(model, prefix, 20, generator=seeded())
    assert torch.equal(first, sample_ids(model, prefix, 20, generator=seeded()))
    assert not torch.equal(first, sample_ids(model, prefix, 20, generator=seeded(1)))
    assert len({tuple(row) for row in first.tolist()}) == 4


def test_progress_and_the_global_random_state() -> None:
    told, state = [], torch.random.get_rng_state()
    model = Model(build("llama"))
    sample_ids(model, torch.zeros(1, 1, dtype=torch.long), 3, generator=seeded(), progress=lambda *a: told.append(a))
    assert told == [("sampling text", step, 3) for step in (1, 2, 3)]
    assert torch.equal(torch.random.get_rng_state(), state)


def test_a_text_may_fill_the_context(family) -> None:
    model = family("gpt2")
    assert sample_ids(model, prompt_ids(1, 60), 4, generator=seeded()).shape == (1, 4)
    with pytest.raises(
        UsageError, match="60 tokens and 5 new ones are longer than the model's context of 64; ask for 4"
    ):
        sample_ids(model, prompt_ids(1, 60), 5, generator=seeded())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"n_tokens": 0}, "n_tokens is 0; valid: 1 or more"),
        ({"temperature": -1.0}, "temperature is -1.0"),
        ({"top_k": 0}, "top_k is 0"),
        ({"top_p": 1.5}, "top_p is 1.5"),
        ({"prefix": torch.zeros(2, 0, dtype=torch.long)}, "the length of the prefix is 0"),
        ({"prefix": torch.zeros(0, 2, dtype=torch.long)}, "the number of rows is 0"),
        ({"prefix": torch.full((1, 2), 97)}, "token id 97 is outside the vocabulary; valid: 0 to 96"),
    ],
)
def test_bad_settings_are_named(family, change, message: str) -> None:
    asked = {"prefix": prompt_ids(1, 3), "n_tokens": 2, "generator": seeded(), **change}
    with pytest.raises(UsageError, match=message):
        sample_ids(family("llama"), **asked)


def test_nan_in_the_logits_is_told() -> None:
    hf = build("llama")
    with torch.no_grad():
        hf.lm_head.weight[3, 0] = float("nan")
    with pytest.raises(NumericsError, match="the logits at step 0 hold NaN or infinity"):
        sample_ids(Model(hf), prompt_ids(1, 3), 2, generator=seeded())


def test_a_text_starts_with_begin_of_text_else_end_of_text_else_zero() -> None:
    hf = build("llama")
    assert start_ids(Model(hf)) == (1,)
    hf.config.bos_token_id = None
    assert start_ids(Model(hf)) == (2,)
    hf.config.eos_token_id = [5, 2]
    assert start_ids(Model(hf)) == (5,)
    hf.config.eos_token_id = 1000  # outside the vocabulary
    assert start_ids(Model(hf)) == (0,)
    hf.config.eos_token_id = None
    assert start_ids(Model(hf)) == (0,)
    worded = word_model.build()
    worded.tokenizer.bos_token = "Ann"
    assert start_ids(worded) == (worded.tokenizer.bos_token_id,)
