"""Attention in summary: plain loops over the patterns that Hugging Face's eager attention gives."""

import math

import pytest
import torch

import hand_made
from interp.analyzers.attention_summary import MEASURES, AttentionSummaryResult, attention_summary
from interp.errors import NumericsError, UsageError
from interp.maths.attention_summary import LayerSummaryFitter
from interp.results import load_result
from interp.runner.model import Model
from oracles import attention_summary as oracle
from tiny_models import WINDOW, build

LONG = [5, 9, 33, 71, 12, 44, 8, 90, 17, 3, 60, 21, 5, 9]


@pytest.mark.parametrize("name", ["gpt2", "llama", "gemma2", "bloom", "mistral", "gpt_neo"])
def test_what_is_read_is_the_plain_loops(family, name):
    model = family(name)
    got = attention_summary(model, LONG, top_k=2)
    with torch.no_grad():
        patterns = build(name, attn="eager")(torch.tensor([LONG]), output_attentions=True).attentions
    for layer, block in enumerate(model.atlas.blocks):
        want = oracle.summary(patterns[layer][0].tolist(), 2, block.window)
        assert got.first[layer].tolist() == pytest.approx(want["first"], abs=1e-5)
        assert got.own[layer].tolist() == pytest.approx(want["own"], abs=1e-5)
        assert got.top_keys[layer].tolist() == want["top_keys"]
        assert got.received[layer, :-1].tolist() == pytest.approx(want["received"][:-1], abs=1e-5)
        assert math.isnan(got.received[layer, -1])
        weight, head, query, key = want["edge"]
        found = (got.edge_heads, got.edge_queries, got.edge_keys)
        assert tuple(int(part[layer]) for part in found) == (head, query, key)
        assert float(got.edge_weights[layer]) == pytest.approx(weight, abs=1e-5)
        assert int(got.reach[layer]) == want["reach"]


@pytest.mark.parametrize("name", ["gemma2", "mistral"])
def test_masks_are_those_of_the_config_and_of_the_run(family, name):
    got = attention_summary(family(name), LONG)
    for window, reach in zip(got.windows, got.reach.tolist(), strict=True):
        assert reach == (len(LONG) - 1 if window is None else WINDOW - 1)
    assert WINDOW in got.windows


@pytest.mark.parametrize(("name", "kv_heads", "width"), [("llama", 2, 8), ("gpt2", 4, 8), ("gemma2", 2, 16)])
def test_shapes_and_groups_are_those_of_the_tensors(family, ids, name, kv_heads, width):
    model, n = family(name), len(ids)
    got = attention_summary(model, ids)
    assert got.shapes == {
        "attn.q": (n, 4, width),
        "attn.k": (n, kv_heads, width),
        "attn.v": (n, kv_heads, width),
        "attn.pattern": (4, n, n),
        "attn.z": (n, 4, width),
    }
    for kind, shape in got.shapes.items():
        assert tuple(model.run(ids, [f"{kind}@0"]).cache[f"{kind}@0"][0].shape) == shape
    assert got.kv_heads == tuple(head * kv_heads // 4 for head in range(4))


def test_the_known_circuit_is_named():
    """In the hand-made model L0H0 reads the previous token with all its weight, L0H2 rests on the first."""
    model = Model(hand_made.build())
    got = attention_summary(model, hand_made.repeated(6).tolist())
    assert int(got.edge_heads[0]) == 0
    assert int(got.edge_queries[0]) - int(got.edge_keys[0]) == 1
    assert float(got.edge_weights[0]) == pytest.approx(1, abs=1e-4)


def test_rows_in_parts_give_the_same():
    patterns = torch.rand(3, 9, 9, generator=torch.Generator().manual_seed(0)).tril()
    patterns = patterns / patterns.sum(-1, keepdim=True)
    whole, parts = LayerSummaryFitter(9, 2, 4), LayerSummaryFitter(9, 2, 4)
    whole.update(patterns, 0)
    for start, stop in ((0, 1), (1, 5), (5, 9)):
        parts.update(patterns[:, start:stop], start)
    one, other = vars(whole.result()), vars(parts.result())
    for name, value in one.items():
        if isinstance(value, torch.Tensor):
            torch.testing.assert_close(value, other[name], equal_nan=True)
        else:
            assert value == other[name], name


def test_one_and_two_tokens(family):
    got = attention_summary(family("llama"), [5])
    assert (got.edge_heads == -1).all()
    assert (got.top_keys == -1).all()
    assert torch.isnan(got.received).all()
    assert (attention_summary(family("llama"), [5, 9]).edge_heads == -1).all()


def test_tables_figures_and_round_trip(family, ids, tmp_path):
    result = attention_summary(family("llama"), ids)
    assert len(result.to_frame()) == 3 * len(ids)
    assert len(result.edges_frame()) == 3
    for measure in MEASURES:
        assert result.figure(measure).data
    with pytest.raises(UsageError, match="valid: received, first, own"):
        result.figure("sent")
    result.save(tmp_path / "a.safetensors")
    again = load_result(tmp_path / "a.safetensors")
    assert isinstance(again, AttentionSummaryResult)
    assert again.to_json() == result.to_json()


def test_what_cannot_be_seen_is_an_error(family, ids):
    with pytest.raises(UsageError, match="top_k is 0; valid: 1 and more"):
        attention_summary(family("llama"), ids, top_k=0)
    with pytest.raises(UsageError, match="shows no attention patterns"):
        attention_summary(Model(build("falcon_rw")), ids)
    broken = Model(build("llama"))
    with torch.no_grad():
        broken.hf.model.layers[1].self_attn.q_proj.weight[0, 0] = float("nan")
    with pytest.raises(NumericsError, match="patterns of layer 1 hold NaN"):
        attention_summary(broken, ids)


@pytest.mark.model
def test_the_default_models_groups_and_first_token(model):
    got = attention_summary(model, "The Eiffel Tower is located in the city of")
    assert got.shapes["attn.q"] == (10, 9, 64)
    assert got.shapes["attn.k"] == (10, 3, 64)
    assert got.kv_heads == (0, 0, 0, 1, 1, 1, 2, 2, 2)
    cache = model.run("The Eiffel Tower is located in the city of", ["attn.pattern@11"]).cache
    pattern = cache["attn.pattern@11"][0]
    torch.testing.assert_close(got.first[11], pattern.mean(0)[:, 0], atol=1e-6, rtol=1e-5)
    head, query, key = (int(part[11]) for part in (got.edge_heads, got.edge_queries, got.edge_keys))
    assert float(got.edge_weights[11]) == pytest.approx(float(pattern[head, query, key]), abs=1e-6)
