"""The residual story on tiny models of every family: norms and cosines are the plain loops', the end is the model's."""

import pytest
import torch

from interp.analyzers.residual_story import MEASURES, StoryResult, residual_story
from interp.errors import UsageError
from interp.results import load_result
from oracles import residual_story as oracle
from tiny_models import FAMILIES


@pytest.mark.parametrize("name", FAMILIES)
def test_the_end_is_the_models(family, ids, name):
    model = family(name)
    got = residual_story(model, ids)
    with torch.no_grad():
        logits = model.hf(torch.tensor([ids])).logits[0, -1]
    assert got.chosen_id == int(logits.argmax())
    torch.testing.assert_close(got.final_probs, logits.softmax(-1).topk(10).values, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(got.final_logits, logits.topk(10).values, atol=1e-4, rtol=1e-4)
    assert (got.stream_cos_final[-1] > 0.9999).all()


@pytest.mark.parametrize("name", ["llama", "gpt_neox", "gemma2", "granite"])
def test_measures_and_pushes_are_the_plain_loops(family, ids, name):
    model = family(name)
    got = residual_story(model, ids, top_k=3)
    run = model.run(ids, ["resid_pre", "attn_out", "mlp_out", "resid_post"])
    final = run.cache["resid_post@-1"][0]
    for layer in range(model.atlas.n_layers):
        pre, attn, mlp, post = (
            run.cache[f"{kind}@{layer}"][0] for kind in ("resid_pre", "attn_out", "mlp_out", "resid_post")
        )
        before_mlp = pre if model.atlas.blocks[layer].parallel else pre + attn
        for pos in range(len(ids)):
            want = {
                "stream_norm": oracle.norm(post[pos].tolist()),
                "attn_norm": oracle.norm(attn[pos].tolist()),
                "mlp_norm": oracle.norm(mlp[pos].tolist()),
                "attn_cos_stream": oracle.cosine(attn[pos].tolist(), pre[pos].tolist()),
                "mlp_cos_stream": oracle.cosine(mlp[pos].tolist(), before_mlp[pos].tolist()),
                "attn_cos_final": oracle.cosine(attn[pos].tolist(), final[pos].tolist()),
                "mlp_cos_final": oracle.cosine(mlp[pos].tolist(), final[pos].tolist()),
                "stream_cos_final": oracle.cosine(post[pos].tolist(), final[pos].tolist()),
            }
            for measure, value in want.items():
                assert float(getattr(got, measure)[layer, pos]) == pytest.approx(value, rel=1e-4, abs=1e-4), measure
        norm = model.final_norm_parts
        read = norm.centre(mlp[-1]) / norm.scale(final[-1]) * norm.weight
        up, down = oracle.pushed(read.tolist(), model.unembedding.weight.tolist(), 3)
        assert got.mlp_promoted_ids[layer, -1].tolist() == up
        assert got.mlp_suppressed_ids[layer, -1].tolist() == down


def test_embeddings_come_first(family, ids):
    model = family("gpt2")
    run = model.run(ids, ["resid_pre@0"])
    torch.testing.assert_close(residual_story(model, ids).embed_norm, run.cache["resid_pre@0"][0].norm(dim=-1))


def test_table_figure_and_round_trip(family, ids, tmp_path):
    result = residual_story(family("llama"), ids)
    assert len(result.to_frame()) == 3 * len(ids)
    for measure in MEASURES:
        assert result.figure(measure).data
    with pytest.raises(UsageError, match="valid: stream_norm"):
        result.figure("loss")
    result.save(tmp_path / "story.safetensors")
    again = load_result(tmp_path / "story.safetensors")
    assert isinstance(again, StoryResult)
    assert again.to_json() == result.to_json()


def test_bad_arguments_name_the_valid_values(family, ids):
    with pytest.raises(UsageError, match="top_k is 98; valid: 1 to 97"):
        residual_story(family("llama"), ids, top_k=98)
    with pytest.raises(UsageError, match="prompt is empty"):
        residual_story(family("llama"), [])
