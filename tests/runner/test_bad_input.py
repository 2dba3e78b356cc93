"""Every bad request gives one clear line of the right kind that names what would be right."""

import time
from collections.abc import Callable
from typing import Any

import pytest
import torch

from interp.errors import InterpError, MemoryLimitError, ModelError, UsageError
from interp.interventions import Patch, Scale, Steer, ZeroAblate
from interp.prompts import Conversation
from interp.runner.model import Model
from interp.runner.plan import Capture
from tiny_models import VOCABULARY, build

IDS = [3, 4, 5, 6]

ROWS: dict[str, tuple[Callable[[Model], Any], str]] = {
    "empty list": (lambda m: m.run([]), "there is no prompt; give at least one"),
    "empty ids": (lambda m: m.run([[]]), "the prompt is empty; give at least one token id"),
    "empty text": (lambda m: m.run(""), "the prompt is empty; give at least one character of text"),
    "empty text among others": (lambda m: m.run([IDS, ""]), "the prompt is empty"),
    "empty tensor": (lambda m: m.run(torch.tensor([], dtype=torch.long)), "the prompt is empty"),
    "no prompt": (lambda m: m.run(None), "a prompt is text, a Conversation or a sequence of token ids, got NoneType"),
    "a number": (lambda m: m.run(5), "got int"),
    "a message": (lambda m: m.run({"role": "user", "content": "hi"}), "got dict"),
    "messages": (lambda m: m.run([{"role": "user", "content": "hi"}]), "got dict"),
    "fractions": (lambda m: m.run(torch.ones(3)), "token ids must be a flat sequence of integers"),
    "three dimensions": (lambda m: m.run(torch.ones(1, 2, 3).long()), "token ids must be a flat sequence of integers"),
    "text without a tokenizer": (lambda m: m.run("hello"), "no tokenizer; pass token ids"),
    "too long": (lambda m: m.run([3] * 70), "the prompt has 70 tokens, the model's context is 64; shorten it by 6"),
    "token too large": (lambda m: m.run([3, VOCABULARY]), "token id 97 is outside the vocabulary; valid: 0 to 96"),
    "token below zero": (lambda m: m.run([3, -1]), "token id -1 is outside the vocabulary; valid: 0 to 96"),
    "layer": (
        lambda m: m.run(IDS, "resid_post@99"),
        r"layer 99 is out of range; valid: 0 to 2 \(or -3 to -1 from the end\)",
    ),
    "layer by hook name": (
        lambda m: m.run(IDS, "blocks.99.hook_resid_post"),
        "layer 99 is out of range; valid: 0 to 2",
    ),
    "layer of a change": (lambda m: m.run(IDS, (), Scale("attn.z@99", 0.0)), "layer 99 is out of range; valid: 0 to 2"),
    "position": (lambda m: m.run(IDS, "resid_post", positions=999), "position 999 is out of range; valid: 0 to 3"),
    "position of a change": (
        lambda m: m.run(IDS, (), ZeroAblate("attn.z@1", positions=-5)),
        "position -5 is out of range; valid: 0 to 3",
    ),
    "logit position": (lambda m: m.run(IDS, logits=[0, 4]), "position 4 is out of range; valid: 0 to 3"),
    "position in a shorter prompt": (
        lambda m: m.run([IDS, [3]], positions=2),
        "position 2 is out of range; valid: 0 to 0",
    ),
    "head": (lambda m: m.run(IDS, (), ZeroAblate("attn.z@1", heads=99)), "head 99 is out of range; valid: 0 to 3"),
    "key head": (lambda m: m.run(IDS, (), ZeroAblate("attn.k@1", heads=2)), "head 2 is out of range; valid: 0 to 1"),
    "prompt": (lambda m: m.run(IDS, (), ZeroAblate("attn.z@1", prompts=1)), "prompt 1 is out of range; valid: 0 to 0"),
    "misspelt site": (
        lambda m: m.run(IDS, "resid_pots"),
        r"unknown site 'resid_pots' \(did you mean 'resid_post'\?\); valid: embed, ",
    ),
    "misspelt hook": (lambda m: m.run(IDS, "blocks.1.hook_resid_pots"), "unknown site 'blocks.1.hook_resid_pots'"),
    "misspelt site of a change": (lambda m: m.run(IDS, (), Scale("atn.z@1", 1.0)), r"did you mean 'attn.z'"),
    "misspelt in a capture": (lambda m: m.run(IDS, [Capture("patern")]), r"did you mean 'attn.pattern'"),
    "layers unreadable": (
        lambda m: m.run(IDS, "resid_post@first"),
        "cannot read the layers 'first'; write 5 or 5,7 or 0-4 or -1",
    ),
    "layers backwards": (lambda m: m.run(IDS, "resid_post@2-1"), "run backwards; write 1-2"),
    "stop layer": (lambda m: m.run(IDS, stop_at_layer=4), "layer 4 is out of range; valid: 0 to 2"),
    "a patch too wide": (
        lambda m: m.run(IDS, (), Patch("resid_pre@1", torch.zeros(33))),
        r"shape \(33,\) does not fit",
    ),
    "a vector too wide": (
        lambda m: m.run(IDS, (), Steer("resid_pre@1", torch.zeros(33))),
        r"shape \(33,\) does not fit",
    ),
    "conversation without a template": (
        lambda m: m.run(Conversation.of("hi")),
        "no chat template; pass the prompt as plain text",
    ),
}


@pytest.mark.parametrize("what", ROWS)
def test_a_bad_request_gives_one_clear_line(family, what: str) -> None:
    ask, words = ROWS[what]
    model = family("llama")
    _ = model.sites
    started = time.perf_counter()
    with pytest.raises(UsageError, match=words) as caught:
        ask(model)
    assert "\n" not in str(caught.value)
    assert caught.value.exit_code == 2
    assert time.perf_counter() - started < 1


def test_a_request_that_cannot_fit_is_refused_before_it_runs() -> None:
    model = Model(build("llama", max_position_embeddings=300_000))
    ids = [3] * 250_000
    with pytest.raises(
        MemoryLimitError, match=r"would keep [\d.]+ GB and [\d.]+ GB are free on cpu; capture fewer"
    ) as caught:
        model.run(ids, "attn.pattern", logits=False)
    assert caught.value.exit_code == 5
    assert isinstance(caught.value, MemoryError)
    assert "\n" not in str(caught.value)


def test_a_reduced_capture_is_not_counted_as_if_kept(family) -> None:
    from interp.runner.memory import site_elements

    model = family("llama")
    site = model.sites.sites("attn.pattern@1")[0]
    assert site_elements(site, model.atlas, 2, 10, 10) == model.run([IDS * 2 + [3, 4]] * 2, site).cache[site].numel()
    for name in model.sites.available:
        kept = model.sites.sites(name)[0]
        value = model.run([IDS, IDS], [kept], positions=[0, 2]).cache[kept]
        assert site_elements(kept, model.atlas, 2, 4, 2) == value.numel(), name


def test_the_model_line_that_is_missing_says_so() -> None:
    import interp

    with pytest.raises(InterpError) as caught:
        interp.load("no-such-model-here")
    assert isinstance(caught.value, ModelError | UsageError)
    assert "\n" not in str(caught.value)


@pytest.mark.model
def test_bad_text_for_the_default_model(model) -> None:
    for ask, words in (
        (lambda: model.run(""), "the prompt is empty"),
        (lambda: model.run("word " * 9000), r"the model's context is \d+; shorten it by \d+"),
        (
            lambda: model.tokens("The Louvre").positions_of("Eiffel"),
            "'Eiffel' is not in the prompt 'The Louvre'; its tokens are",
        ),
    ):
        with pytest.raises(UsageError, match=words) as caught:
            ask()
        assert "\n" not in str(caught.value)
