"""Which layers are edited: given ones, those of the table, or the best of a sweep."""

from dataclasses import replace

import pytest
import torch

import word_model
from interp.editing.contexts import sample_contexts
from interp.editing.edit_facts import edit_facts
from interp.editing.layer_sweep import BYSTANDERS, best_layer
from interp.editing.layers import BY_WEIGHTS, choose_layers
from interp.editing.rewrite import rewrite_of
from interp.editing.second_moments import second_moments
from interp.editing.settings import settings_of
from interp.prompts import Fact

FACT = Fact("tower of Pisa", "{} is in city", " blue")
FAST = replace(settings_of("rome"), contexts=2, context_lengths=(3,), steps=6, min_tokens=1)


@pytest.fixture(scope="module")
def words():
    return word_model.build()


def chosen(model, method="rome", layers="auto"):
    rewrites = [rewrite_of(model, FACT, sample_contexts(model, FAST))]
    return choose_layers(model, rewrites, method, layers, FAST, seed=0, progress=lambda *_: None)


def test_given_layers_are_taken_in_order_and_once(words) -> None:
    last = words.atlas.n_layers - 1
    assert chosen(words, "memit", [-1, 0, last]) == ((0, last), "given")


def test_the_default_model_is_in_the_table(model) -> None:
    one, several = BY_WEIGHTS[model.source.weights_sha256]
    fact = [rewrite_of(model, Fact("Rome", "{} is the capital of", " France"), ("",))]
    nothing = {"seed": 0, "progress": lambda *_: None}
    assert choose_layers(model, fact, "rome", "auto", FAST, **nothing) == ((one,), "table")
    assert choose_layers(model, fact, "memit", "auto", FAST, **nothing) == (several, "table")


@pytest.mark.long
def test_a_sweep_takes_the_layer_whose_edit_holds_best_and_disturbs_least(words) -> None:
    rewrites = [rewrite_of(words, FACT, sample_contexts(words, FAST))]
    before = {name: value.clone() for name, value in words.hf.state_dict().items()}
    best = best_layer(words, rewrites, FAST, seed=0, progress=lambda *_: None)
    unseen = sample_contexts(words, replace(FAST, contexts=5, context_lengths=(8,)), 1)
    scores = {}
    for layer in (0, 1):
        moment = second_moments(words, layer)
        edit = edit_facts(words, FACT, layers=layer, moments=moment, settings=FAST, allow_known=True)
        others = [FACT.template.replace("{}", other) for other in BYSTANDERS]
        clean = [words.run(other, logits="last").last_logits[0].log_softmax(-1) for other in others]
        with edit.applied(words):
            changed = [words.run(other, logits="last").last_logits[0].log_softmax(-1) for other in others]
            texts = ["", *(text for text in unseen if text)]
            held = [
                float(
                    words.run(text + FACT.prompt, logits="last")
                    .last_logits[0]
                    .log_softmax(-1)[word_model.WORDS.index("blue")]
                )
                for text in texts
            ]
        kl = sum(float((a.exp() * (a - b)).sum()) for a, b in zip(clean, changed, strict=True)) / len(others)
        scores[layer] = float(torch.tensor(held).mean().exp()) * float(torch.tensor(-kl).exp())
    low = [layer for layer in scores if layer < max(1, round(0.6 * words.atlas.n_layers))]
    assert best == max(low, key=lambda layer: scores[layer])
    assert all(torch.equal(value, before[name]) for name, value in words.hf.state_dict().items())
    assert chosen(words)[1] == "sweep"
