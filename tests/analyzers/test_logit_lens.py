"""The logit lens on tiny models of every family: its last row is the model, its rows are the plain loops', its errors are clear."""

import pytest
import torch

import interp.analyzers.logit_lens as module
from interp.analyzers.logit_lens import LensResult, logit_lens
from interp.errors import NumericsError, UsageError, VerificationError
from interp.results import load_result
from oracles import lens as oracle
from tiny_models import FAMILIES, build


@pytest.mark.parametrize("name", FAMILIES)
def test_last_row_is_the_model(family, ids, name):
    model = family(name)
    got = logit_lens(model, ids, target=7)
    with torch.no_grad():
        own = model.hf(torch.tensor([ids])).logits[0].log_softmax(-1)
    torch.testing.assert_close(got.top_log_probs_nats[-1], own.topk(5).values, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(got.target_log_prob_nats[-1], own[:, 7], atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(got.entropy_nats[-1], -(own.exp() * own).sum(-1), atol=1e-4, rtol=1e-4)
    assert (got.kl_nats[-1] == 0).all()
    assert got.sites[-1] == f"blocks.{model.atlas.n_layers - 1}.hook_resid_post"


@pytest.mark.parametrize("name", ["gemma2", "cohere", "granite", "gpt2", "llama"])
def test_every_row_is_the_plain_loops(family, ids, name):
    model = family(name)
    got = logit_lens(model, ids, top_k=4)
    with torch.no_grad():
        streams = model.hf(torch.tensor([ids]), output_hidden_states=True).hidden_states
        # Hugging Face's last hidden state has been through the final norm already.
        normed = torch.stack([*(model.final_norm(stream[0]) for stream in streams[1:-1]), streams[-1][0]])
    u = model.unembedding
    want = oracle.lens(
        normed.tolist(),
        u.weight.tolist(),
        got.target_ids.tolist(),
        4,
        None if u.bias is None else u.bias.tolist(),
        u.scale,
        u.softcap,
    )
    assert got.top_ids.tolist() == want["top_ids"]
    assert got.target_rank.tolist() == want["target_rank"]
    for field, key in (("entropy_nats", "entropy"), ("kl_nats", "kl"), ("target_log_prob_nats", "target_log_prob")):
        torch.testing.assert_close(getattr(got, field), torch.tensor(want[key]), atol=1e-4, rtol=1e-4)


def test_the_target_is_the_next_token_unless_given(family, ids):
    model = family("llama")
    got = logit_lens(model, ids)
    assert got.target_ids[:-1].tolist() == ids[1:]
    assert int(got.target_ids[-1]) == int(got.top_ids[-1, -1, 0])
    assert logit_lens(model, ids, target=7).target_ids.tolist() == [7] * len(ids)


def test_positions_are_a_selection(family, ids):
    model = family("llama")
    whole, part = logit_lens(model, ids), logit_lens(model, ids, positions=[2, -1])
    assert part.positions == (2, 9)
    assert part.tokens.ids == (ids[2], ids[9])
    torch.testing.assert_close(part.kl_nats, whole.kl_nats[:, [2, 9]], atol=1e-5, rtol=1e-4)
    assert torch.equal(part.top_ids, whole.top_ids[:, [2, 9]])


def test_sites(family, ids):
    model = family("llama")
    got = logit_lens(model, ids, sites=["resid_pre@1", "resid_post@0", "resid_mid"])
    assert got.sites[0].endswith("0.hook_resid_mid")
    assert len(got.sites) == 5
    pre, post = got.sites.index("blocks.1.hook_resid_pre"), got.sites.index("blocks.0.hook_resid_post")
    assert torch.equal(got.entropy_nats[pre], got.entropy_nats[post])
    components = logit_lens(model, ids, sites="components")
    assert len(components.sites) == 1 + 2 * model.atlas.n_layers
    assert components.entropy_nats.shape == (7, len(ids))


def test_components_share_the_final_divisor(family, ids):
    """The normed parts, biases aside, sum to the normed final stream: so do their logits."""
    model = family("llama")
    final = model.atlas.n_layers - 1
    run = model.run(ids, ["attn_out", f"resid_post@{final}"])
    scale = model.final_norm_parts.scale(run.cache[f"resid_post@{final}"][0])
    normed = run.cache["attn_out@1"][0] / scale * model.final_norm_parts.weight
    own = model.unembedding.logits(normed).log_softmax(-1)
    got = logit_lens(model, ids, sites="attn_out@1")
    torch.testing.assert_close(got.top_log_probs_nats[0], own.topk(5).values, atol=1e-4, rtol=1e-4)


def test_round_trip(family, ids, tmp_path):
    result = logit_lens(family("gemma2"), ids)
    result.save(tmp_path / "lens.safetensors")
    again = load_result(tmp_path / "lens.safetensors")
    assert isinstance(again, LensResult)
    assert again.to_json() == result.to_json()


def test_table_and_figure(family, ids):
    result = logit_lens(family("llama"), ids)
    frame = result.to_frame()
    assert len(frame) == 3 * len(ids)
    assert {"entropy_nats", "kl_nats", "target_log_prob_nats", "target_rank"} <= set(frame.columns)
    assert len(result.top_frame()) == 5 * len(frame)
    for measure in ("probability", "log_prob", "rank", "entropy", "kl"):
        assert result.figure(measure).data
    with pytest.raises(UsageError, match="valid: probability"):
        result.figure("loss")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"sites": "attn.pattern"}, "unknown site of a lens 'attn.pattern'.*valid: resid_pre"),
        ({"sites": "resid_pots"}, "unknown site 'resid_pots'.*did you mean 'resid_post'"),
        ({"sites": "resid_post@9"}, "layer 9 is out of range; valid: 0 to 2"),
        ({"sites": []}, "no sites given"),
        ({"positions": 10}, "position 10 is out of range; valid: 0 to 9"),
        ({"top_k": 0}, "top_k is 0; valid: 1 to 97"),
        ({"target": 97}, "target id 97 is out of range; valid: 0 to 96"),
        ({"target": " Paris"}, "no tokenizer"),
    ],
)
def test_bad_arguments_name_the_valid_values(family, ids, options, message):
    with pytest.raises(UsageError, match=message) as caught:
        logit_lens(family("llama"), ids, **options)
    assert "\n" not in str(caught.value)


def test_empty_prompt(family):
    with pytest.raises(UsageError, match="prompt is empty"):
        logit_lens(family("llama"), [])


def test_nan_in_the_weights_is_never_ranked(ids):
    from interp.runner.model import Model

    hf = build("llama")
    with torch.no_grad():
        hf.lm_head.weight[3, 0] = float("nan")
    with pytest.raises(NumericsError, match="NaN or infinite"):
        logit_lens(Model(hf), ids)


def test_a_wrong_reading_of_the_final_stream_is_refused(family, ids, monkeypatch):
    """A lens that forgets the softcap must not pass."""
    model = family("gemma2")
    plain = model.unembedding
    forgetful = type(plain)(weight=plain.weight * 1.1, bias=plain.bias, scale=plain.scale, softcap=plain.softcap)
    monkeypatch.setattr(type(model), "unembedding", property(lambda self: forgetful))
    with pytest.raises(VerificationError, match="differs from the model's logits"):
        module.logit_lens(model, ids)
