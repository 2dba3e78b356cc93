"""From the stream to logits: the numbers are plain Hugging Face's and the plain loops', also under a softcap or a scale."""

import pytest
import torch

from interp.analyzers.next_token_logits import NextTokenLogitsResult, next_token_logits
from interp.errors import UsageError, VerificationError
from interp.results import load_result
from interp.runner.model import Model
from oracles import next_token as oracle
from tiny_models import FAMILIES, build


def plain(model, ids) -> list[float]:
    with torch.no_grad():
        return model.hf(torch.tensor([ids]), use_cache=False).logits[0, -1].tolist()


@pytest.mark.parametrize("name", FAMILIES)
def test_logits_and_probabilities_are_hugging_faces(family, ids, name):
    model = family(name)
    got, logits = next_token_logits(model, ids, top_k=5), plain(model, ids)
    best = sorted(range(len(logits)), key=lambda token: -logits[token])[:5]
    probabilities = oracle.softmax(logits)
    assert got.top_ids.tolist() == best
    assert got.top_logits.tolist() == pytest.approx([logits[token] for token in best], abs=1e-5)
    assert got.top_probs.tolist() == pytest.approx([probabilities[token] for token in best], rel=1e-5)
    # A token on the edge of an interval may fall on either side by rounding: the logits of the same kind of run are counted.
    counted = model.run(ids, logits="last").last_logits[0].tolist()
    assert counted == pytest.approx(logits, abs=1e-5)
    assert got.bin_counts.tolist() == oracle.histogram(counted, len(got.bin_counts))
    assert got.bin_start == min(counted)
    assert got.bin_start + len(got.bin_counts) * got.bin_width == pytest.approx(max(logits))
    assert got.logit_mean == pytest.approx(sum(logits) / len(logits), rel=1e-5)


# Not "name": these four are one test of the fast ones, whatever the family.
@pytest.mark.parametrize(
    ("transform", "scale", "softcap"),
    [("llama", 1.0, None), ("gemma2", 1.0, 2.0), ("granite", 0.5, None), ("cohere", 0.0625, None)],
)
def test_the_transform_is_the_familys(ids, transform, scale, softcap):
    hf = build(transform, **({"final_logit_softcapping": softcap} if softcap else {}))
    got = next_token_logits(Model(hf), ids)
    assert (got.scale, got.softcap) == (scale, softcap)
    seen = []
    handle = hf.lm_head.register_forward_hook(lambda module, args, output: seen.append(output[0, -1]))
    logits = torch.tensor(plain(Model(hf), ids))
    handle.remove()
    torch.testing.assert_close(got.top_projections, seen[0][got.top_ids], rtol=1e-4, atol=1e-4)
    wanted = got.top_projections * scale
    wanted = wanted if softcap is None else softcap * (wanted / softcap).tanh()
    torch.testing.assert_close(got.top_logits, wanted, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(got.top_logits, logits[got.top_ids])
    changed = float((got.top_projections - got.top_logits).abs().max())
    assert (changed > 0.05) == (scale != 1 or softcap is not None)


def test_a_constant_changes_no_probability(family, ids):
    for shift in (100.0, -37.5, 1e4):
        got = next_token_logits(family("llama"), ids, shift=shift)
        assert got.shift_difference < 1e-10
        assert torch.equal(got.shifted_probs, got.top_probs)
    gap = float(got.top_logits[0] - got.top_logits[1])
    assert float(got.top_probs[0] / got.top_probs[1]) == pytest.approx(torch.tensor(gap).exp().item(), rel=1e-4)


def test_lengths_are_those_before_and_after_the_final_norm(family, ids):
    model = family("gpt2")
    run = model.run(ids, ["resid_post@-1"])
    stream = run.cache["resid_post@-1"][0, -1]
    got = next_token_logits(model, ids)
    assert got.stream_norm == pytest.approx(float(stream.norm()), rel=1e-5)
    assert got.normed_norm == pytest.approx(float(model.hf.transformer.ln_f(stream).detach().norm()), rel=1e-5)
    assert got.norm_divisor == pytest.approx(float((stream.var(correction=0) + 1e-5).sqrt()), rel=1e-5)


def test_a_reading_that_is_not_the_models_is_refused(ids, monkeypatch):
    model = Model(build("llama"))
    monkeypatch.setattr(Model, "final_norm", lambda self, resid: resid)
    with pytest.raises(VerificationError, match="the final stream read through norm and unembedding"):
        next_token_logits(model, ids)


def test_table_figure_and_round_trip(family, ids, tmp_path):
    result = next_token_logits(family("llama"), ids, top_k=4)
    frame = result.to_frame()
    assert len(frame) == 4
    assert frame["probability"].is_monotonic_decreasing
    assert frame["logit_from_best"][0] == 0
    drawn, moved = result.figure(), result.figure(shifted=True)
    assert sum(count for count in drawn.data[0].y if count == count) == 97  # NaN where there is no token
    assert float(moved.layout.xaxis.ticktext[0]) == pytest.approx(result.bin_start + 100, abs=0.05)
    assert drawn.layout.annotations[0].text.endswith(f" {float(result.top_probs[0]):.1%}")
    result.save(tmp_path / "logits.safetensors")
    again = load_result(tmp_path / "logits.safetensors")
    assert isinstance(again, NextTokenLogitsResult)
    assert again.to_json() == result.to_json()


def test_bad_arguments_name_the_valid_values(family, ids):
    with pytest.raises(UsageError, match="top_k is 0; valid: 1 to 97"):
        next_token_logits(family("llama"), ids, top_k=0)
    with pytest.raises(UsageError, match="shift is inf; valid: a finite number"):
        next_token_logits(family("llama"), ids, shift=float("inf"))
    with pytest.raises(UsageError, match="prompt is empty"):
        next_token_logits(family("llama"), [])


@pytest.mark.model
def test_the_default_models_next_token(model):
    got = next_token_logits(model, "The Eiffel Tower is located in the city of")
    logits = plain(model, model.tokens("The Eiffel Tower is located in the city of").ids)
    assert got.pieces[0] == " Paris"
    assert float(got.top_probs[0]) == pytest.approx(oracle.softmax(logits)[int(got.top_ids[0])], rel=1e-4)
    assert int(got.bin_counts.sum()) == 49152
    assert got.shift_difference < 1e-12
