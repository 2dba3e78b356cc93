"""On a CPU a long prompt's pattern is computed some queries at a time: the same numbers as at once and as in eager attention."""

import pytest
import torch

from interp.errors import UsageError
from interp.interventions import ZeroAblate
from interp.runner import attention
from interp.runner.model import Model
from interp.runner.plan import Capture
from tiny_models import build

N_POS = 40  # blocks of 16, 16 and 8 queries
NAMES = ("llama", "gpt2", "gemma2", "gemma3_text", "gpt_oss", "qwen3", "gpt_neox")


@pytest.fixture
def blocks(monkeypatch):
    """Forces the smallest blocks; returns the number of queries that each call of the score function got."""
    seen = []
    scores = attention.attention_scores

    def counted(module, query, *rest):
        seen.append(query.shape[2])
        return scores(module, query, *rest)

    monkeypatch.setattr(attention, "_SCORES_AT_ONCE", 1)
    monkeypatch.setattr(attention, "attention_scores", counted)
    return seen


@pytest.mark.parametrize("name", NAMES)
def test_blocks_equal_eager_attention(name, blocks):
    model = Model(build(name, attn=None))
    ids = torch.randint(3, 97, (2, N_POS), generator=torch.Generator().manual_seed(0))
    run = model.run(list(ids), capture="attn.pattern")
    model.hf.set_attn_implementation("eager")
    with torch.no_grad():
        expected = model.hf(ids, output_attentions=True, use_cache=False).attentions
    for layer, pattern in enumerate(expected):
        torch.testing.assert_close(run.cache[f"attn.pattern@{layer}"], pattern, rtol=0, atol=1e-5)
    if name not in ("gemma2", "gpt_oss"):  # where the model itself runs eager attention its own pattern is taken
        assert set(blocks) == {16, 8}


@pytest.mark.parametrize("name", ["llama", "gemma3_text"])
def test_blocks_behind_a_prefix_equal_the_whole(name, blocks):
    model = Model(build(name, attn=None))
    ids = torch.randint(3, 97, (N_POS + 10,), generator=torch.Generator().manual_seed(1))
    base = model.run(ids, capture="attn.pattern", resumable=True)
    resumed = base.resume([[]], start=(0, 10), capture="attn.pattern")
    for layer in range(model.atlas.n_layers):
        whole = base.cache[f"attn.pattern@{layer}"][:, :, 10:]
        torch.testing.assert_close(resumed.cache[f"attn.pattern@{layer}"], whole, rtol=0, atol=1e-5)
    assert {16, 8} <= set(blocks)


def _tops(rows, site, first_query):
    """Where each query looks most, and which query the reducer was told it is."""
    numbers = torch.arange(first_query, first_query + rows.shape[2]).expand(rows.shape[:3])
    return torch.stack([rows.amax(-1), numbers.to(rows)], -1)


@pytest.mark.parametrize("name", [*NAMES, "bloom", "gptj", "falcon"])
def test_a_reducer_by_query_gives_what_it_gives_on_the_whole_pattern(name, blocks):
    model = Model(build(name, attn=None))
    ids = torch.randint(3, 97, (2, N_POS), generator=torch.Generator().manual_seed(2))
    whole = model.run(list(ids), capture="attn.pattern", logits=False).cache
    reduced = model.run(list(ids), capture=Capture("attn.pattern", _tops, by_query=True), logits=False).cache
    assert len(reduced) == len(whole) == model.atlas.n_layers
    for name_, pattern in whole.items():
        torch.testing.assert_close(reduced[name_][..., 0], pattern.amax(-1), rtol=0, atol=0)
        assert reduced[name_][0, 0, :, 1].tolist() == list(range(N_POS))


def test_no_more_than_a_block_of_a_pattern_exists_at_a_time(blocks):
    heights = []
    model = Model(build("llama", attn=None))

    def height(rows, site, first_query):
        heights.append(rows.shape[2])
        return rows[..., 0]

    model.run(list(range(3, 3 + N_POS)), capture=Capture("attn.pattern@0", height, by_query=True), logits=False)
    assert heights == [16, 16, 8]


def test_rows_of_a_ragged_batch_are_nan_at_padding_and_positions_choose_queries(blocks):
    model = Model(build("llama", attn=None))
    prompts = [list(range(3, 3 + N_POS)), list(range(5, 5 + N_POS - 10))]
    capture = Capture("attn.pattern@1", _tops, by_query=True)
    rows = model.run(prompts, capture=capture).cache["attn.pattern@1"]
    assert rows[1, :, -10:, 0].isnan().all()
    assert rows[1, :, :-10].isfinite().all()
    assert rows[0].isfinite().all()
    chosen = model.run(prompts, capture=capture, positions=[-1, 2]).cache["attn.pattern@1"]
    assert chosen[..., 1].tolist()[0][0] == [N_POS - 1, 2]
    assert chosen[..., 1].tolist()[1][0] == [N_POS - 11, 2]


def test_a_changed_pattern_and_a_resumed_run_are_reduced_by_query_too(blocks):
    model = Model(build("llama", attn=None))
    ids = list(range(3, 3 + N_POS))
    capture = Capture("attn.pattern", _tops, by_query=True)
    changed = model.run(ids, capture=capture, interventions=ZeroAblate("attn.pattern@1", heads=0)).cache
    assert (changed["attn.pattern@1"][:, 0, :, 0] == 0).all()
    assert (changed["attn.pattern@1"][:, 1, :, 0] > 0).all()
    base = model.run(ids, capture=capture, resumable=True)
    resumed = base.resume([[]], start=(0, 10), capture=capture)
    torch.testing.assert_close(
        resumed.cache["attn.pattern@1"], base.cache["attn.pattern@1"][:, :, 10:], rtol=0, atol=1e-5
    )


@pytest.mark.parametrize("name", ["llama", "gemma3_text"])
def test_the_last_query_alone_sees_every_key_before_it(name, blocks):
    model = Model(build(name, attn=None))
    capture = Capture("attn.pattern", lambda rows, *_: rows.clone(), by_query=True)
    base = model.run(list(range(3, 3 + N_POS)), capture=capture, resumable=True)
    resumed = base.resume([[]], start=(0, N_POS - 1), capture=capture)
    for site, whole in base.cache.items():
        torch.testing.assert_close(resumed.cache[site], whole[:, :, -1:], rtol=0, atol=1e-5)


def test_a_learned_sink_takes_its_share_of_every_block(blocks):
    generator = torch.Generator().manual_seed(3)
    query, key = torch.randn(2, 1, 4, N_POS, 8, generator=generator)
    extra = {"scaling": 0.5, "s_aux": torch.randn(4, generator=generator)}
    scores = (query @ key.mT * 0.5).masked_fill(torch.ones(N_POS, N_POS, dtype=torch.bool).triu(1), float("-inf"))
    shares = torch.cat([scores, extra["s_aux"].view(1, 4, 1, 1).expand(1, 4, N_POS, 1)], -1).softmax(-1)
    rows = [rows for _, rows in attention.pattern_rows(torch.nn.Module(), query, key, None, extra)]
    assert len(rows) == 3
    torch.testing.assert_close(torch.cat(rows, 2), shares[..., :-1])


def test_with_gradients_the_whole_pattern_is_on_the_path(blocks):
    model = Model(build("llama", attn=None))
    ids = list(range(3, 3 + N_POS))
    found = model.gradients(ids, lambda logits: logits[0, -1, 5], Capture("attn.pattern", _tops, by_query=True))
    whole = model.gradients(ids, lambda logits: logits[0, -1, 5], "attn.pattern")
    for site, pattern in whole.cache.items():
        torch.testing.assert_close(found.cache[site][..., 0], pattern.amax(-1), rtol=0, atol=1e-6)
        torch.testing.assert_close(found.gradients[site], whole.gradients[site], rtol=0, atol=1e-6)
        assert found.gradients[site].abs().max() > 0


def test_what_is_reduced_by_query_goes_to_the_device_that_was_asked_for(blocks):
    model = Model(build("llama", attn=None))
    capture = Capture("attn.pattern", _tops, by_query=True)
    cache = model.run(list(range(3, 3 + N_POS)), capture=capture, cache_device="meta").cache
    assert {value.device.type for value in cache.values()} == {"meta"}


@pytest.mark.parametrize(
    ("reduce", "returned"),
    [(lambda rows, *_: rows.mean((-1, -2)), r"\[1, 4\]"), (lambda rows, *_: rows[:, :, :1], r"\[1, 4, 1, 5\]")],
    ids=["one number a head", "one query"],
)
def test_a_reducer_by_query_that_loses_queries_is_refused(reduce, returned):
    model = Model(build("llama", attn=None))
    with pytest.raises(UsageError, match=rf"keeps the queries on axis 2: it got \[1, 4, 5, 5\] .* returned {returned}"):
        model.run([3, 4, 5, 6, 7], capture=Capture("attn.pattern@0", reduce, by_query=True))


@pytest.mark.parametrize(("site", "reduce"), [("resid_post", _tops), ("attn.pattern", None)])
def test_by_query_needs_queries_and_a_reducer(site, reduce):
    model = Model(build("llama", attn=None))
    with pytest.raises(UsageError, match="by_query needs a reducer and a site with queries"):
        model.run([3, 4], capture=Capture(site, reduce, by_query=True))
