"""What the sections say holds for the model and the result at hand: its own steps, its own layers, numbers that were measured."""

import math
from dataclasses import replace

import pytest
import torch

import interp
from interp.analyzers.compare import compare
from interp.analyzers.position_encoding import Rotation
from interp.maths.kv_cache import CachedLayers
from interp.maths.sampling import Sampling
from interp.prompts import Conversation
from interp.report.blocks import Evidence
from interp.report.findings import plain
from interp.report.page import report
from interp.report.sections import (
    attention_summary,
    causal_trace,
    comparison,
    decoding_choices,
    embeddings,
    expert_routing,
    generation,
    position_encoding,
    token_losses,
)
from interp.report.sections.answer import answer_of
from interp.report.sections.numbers import counted, part_of, percent, signed
from interp.report.sections.numbers import plain as unsigned
from interp.runner.model import Model
from report import decoding_samples, samples
from tiny_models import build

IDS = [5, 9, 33, 71, 12, 44]


def said(section) -> list[str]:
    return [plain(finding.text) for finding in section.findings]


@pytest.mark.parametrize(("name", "sliding"), [("llama", None), ("gemma2", "2 of the 3"), ("mistral", "all of the 3")])
def test_the_mask_and_its_window_are_named(name: str, sliding: str | None) -> None:
    lead = attention_summary.build(interp.attention_summary(Model(build(name)), IDS), "p0").lead
    assert "[[causal mask]]" in lead
    assert ("[[sliding window]]" in lead) == (sliding is not None)
    assert sliding is None or f"in {sliding} layers" in lead


@pytest.mark.parametrize(
    ("name", "steps"),
    [
        ("gpt2", ("the vector of its place added",)),
        ("gemma2", ("multiplied by 5.66",)),
        ("granite", ("multiplied by 3",)),
        ("bloom", ("goes through a norm",)),
        ("llama", ()),
    ],
)
def test_what_enters_the_first_layer_is_named(name: str, steps: tuple[str, ...]) -> None:
    model = Model(build(name))
    story = interp.residual_story(model, IDS)
    lead = embeddings.build(story, "p0").lead
    every = ("place added", "multiplied by", "goes through a norm")
    assert [one in lead for one in every] == [any(one in step for step in steps) for one in every]
    assert all(step in lead for step in steps)
    rows = model.hf.get_input_embeddings().weight[IDS].norm(dim=-1)
    assert torch.allclose(rows, story.embed_norm, rtol=1e-4) == (not steps)


def rotation(layers: tuple[int, ...], kept: list[float], pairs: int) -> Rotation:
    return Rotation(layers=layers, angles=torch.logspace(0, -4, pairs), kept=torch.tensor(kept))


def test_each_rotation_is_told_with_its_layers() -> None:
    one = interp.position_encoding(Model(build("llama")))
    few = replace(one, distances=torch.tensor([1, 10, 100]))
    two = replace(few, rotations=(rotation((0, 1), [0.9, 0.6, 0.2], 4), rotation((2,), [0.95, 0.8, 0.7], 2)))
    section = position_encoding.build(two, "p0")
    assert "layers 0-1 turn 4 pairs" in section.lead
    assert "layer 2 turns 2 pairs" in section.lead
    (finding,) = said(section)
    assert "0.90 at distance 1 and 0.20 at distance 100 in layers" in finding
    assert "0.70 at distance 100 in layer 2" in finding


def test_near_tokens_match_better_only_where_that_was_measured() -> None:
    one = replace(interp.position_encoding(Model(build("llama"))), distances=torch.tensor([1, 10, 100]))
    falls = replace(one, rotations=(rotation((0, 1, 2), [0.9, 0.6, 0.2], 4),))
    rises = replace(one, rotations=(rotation((0, 1, 2), [0.9, 0.6, 0.7], 4),))
    assert "near tokens match better" in position_encoding.build(falls, "p0").lead
    assert "near tokens match better" not in position_encoding.build(rises, "p0").lead


def test_the_strongest_read_says_what_is_left_out_and_one_set_is_one() -> None:
    summary = interp.attention_summary(Model(build("falcon")), IDS)
    section = attention_summary.build(summary, "p0")
    assert "share one set of [[keys and values|query, key and value]]" in section.lead
    assert said(section)[-1].startswith("The strongest read, other than of the first token and of a token by itself, ")


def test_a_site_that_brings_back_more_than_all_says_so_and_how_it_was_chosen() -> None:
    trace = samples.causal_trace(kinds=("resid",))
    more = replace(trace, restored_probability=trace.restored_probability * 2)
    assert float(more.indirect_effect("resid").value[:, 2].max()) > more.total_effect().value
    early = said(causal_trace.build(more, "p0"))[1]
    assert f"brings back more than all of the {more.total_effect().value:.2f} lost: " in early
    assert " of the 0.6" not in early.replace("all of the 0.6", "")
    assert "chosen as the greatest of 24 states of the subject's tokens" in early
    windows = said(causal_trace.build(samples.causal_trace(kinds=("mlp",)), "p0"))[1]
    assert f"chosen as the greatest of {12 * (len(trace.prompt) - 1)} windows" in windows


def test_the_heading_has_the_next_token_and_no_more() -> None:
    made = samples.generation()
    assert answer_of([made]) == made.pieces[0]
    assert "".join(made.pieces) not in report([made]).html().split("<section", 1)[0]


def test_only_layers_that_still_grow_count_for_each_token() -> None:
    whole = samples.generation()
    length = whole.cached_tokens
    mixed = (
        CachedLayers(n_layers=2, n_kv_heads=3, d_head=64, itemsize=4, n_tokens=length),
        CachedLayers(n_layers=10, n_kv_heads=3, d_head=64, itemsize=4, n_tokens=3),
    )
    (text,) = said(generation.build(replace(whole, cached_layers=mixed), "p0"))
    assert f"grows by {2 * 2 * 3 * 64 * 4 / 1e3:.1f} kB a token, in the 2 of 12 layers" in text
    (text,) = said(generation.build(whole, "p0"))
    assert f"the KV cache takes {2 * 30 * 3 * 64 * 4 / 1e3:.1f} kB for each token" in text
    (text,) = said(generation.build(replace(whole, cached_layers=mixed[1:]), "p0"))
    assert "no longer grows" in text


@pytest.mark.parametrize(("name", "shared"), [("mixtral", False), ("qwen2_moe", True)])
def test_the_experts_that_a_token_passes_are_counted(name: str, shared: bool) -> None:
    model = Model(build(name))
    routing = interp.expert_routing(model, IDS)
    lead = expert_routing.build(routing, "p0").lead
    n, k = routing.scores.shape[2], routing.chosen.shape[2]
    assert f"the token passes {k} of the {n}" in lead
    assert ("shared expert" in lead) == shared
    assert routing.shared_layers == (routing.layers if shared else ())


def test_the_tokens_of_a_chat_template_are_named() -> None:
    plain_text = decoding_samples.token_losses()
    chat = replace(plain_text, templated=True)
    words = "the tokens of its chat template included"
    for result, there in ((plain_text, False), (chat, True)):
        section = token_losses.build(result, "p0")
        assert (words in section.lead) == (words in said(section)[0]) == there


@pytest.mark.model
def test_a_conversation_is_known_to_have_a_template(model) -> None:
    assert interp.token_losses(model, Conversation.of("Hello")).templated
    assert not interp.token_losses(model, "Hello there").templated


def test_the_tightest_filter_is_the_tightest() -> None:
    choices = (Sampling(top_p=0.5), Sampling(top_p=0.9))
    result = decoding_samples.decoding_choices(choices=choices)
    section = decoding_choices.build(result, "p0")
    assert f"Drawing with {choices[0].label} leaves" in said(section)[0]
    assert section.findings[0].value == float(result.n_kept[0])


@pytest.mark.parametrize(
    ("value", "text"),
    [(1.0, "100.0%"), (0.9996, "99.96%"), (0.99996, "99.996%"), (0.9994, "99.9%"), (0.5, "50.0%"), (0.0, "0.0%")],
)
def test_what_is_not_certain_does_not_read_as_certain(value: float, text: str) -> None:
    assert percent(value) == text
    assert counted(1, "token") == "1 token"
    assert counted(1200, "token") == "1,200 tokens"


def test_what_is_rounded_to_nothing_has_no_minus() -> None:
    assert (signed(-0.001, 2), unsigned(-0.0001)) == ("+0.00", "0.000")
    assert (signed(-0.01, 2), unsigned(-0.001)) == ("−0.01", "−0.001")


def test_a_strength_is_a_part_of_what_there_is_in_any_unit() -> None:
    assert part_of(-2.0, "nats", (5.0,)) == pytest.approx(1 - math.exp(-2))
    assert part_of(-3.0, "nats", ()) < part_of(-9.0, "nats", ()) < 1
    assert part_of(0.25, "probability", (0.5, 0.75)) == 0.25
    assert part_of(300.0, "norm", (300.0, 600.0)) == 0.5
    assert part_of(math.nan, "norm", ()) == 0
    small, great = (samples.attribution(layers=6, total=total) for total in (1.0, 40.0))
    whole = comparison.build(compare(small, great), "p0").findings[-1]
    assert 0 <= whole.strength <= 1


def test_a_result_that_was_not_saved_is_not_called_saved() -> None:
    result = samples.attention(layers=4, heads=4, pieces=tuple(f" {index}" for index in range(150)))
    (note,) = report([result], limit=400_000).notes
    assert "saved" not in note


def test_every_rank_is_a_kind_of_evidence() -> None:
    results = [
        interp.embedding_geometry(Model(build("llama")), IDS, pairs=50),
        samples.generation(),
        decoding_samples.token_losses(),
        decoding_samples.decoding_choices(),
    ]
    ranks = [section.rank for result in results for section in _findings(result)]
    assert ranks
    assert all(isinstance(rank, Evidence) for rank in ranks)


def _findings(result):
    from interp.report.sections import BUILDERS

    return [finding for build in BUILDERS[result.kind] for finding in build(result, "p0").findings]
