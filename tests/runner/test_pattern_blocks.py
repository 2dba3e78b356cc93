"""On a CPU a long prompt's pattern is computed some queries at a time: the same numbers as at once and as in eager attention."""

import pytest
import torch

from interp.runner import attention
from interp.runner.model import Model
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
