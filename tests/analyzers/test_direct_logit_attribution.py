"""Direct logit attribution on tiny models of every family: parts sum to the logit, heads to their attention."""

import pytest
import torch

from interp.analyzers.direct_logit_attribution import AttributionResult, direct_logit_attribution
from interp.errors import UsageError, VerificationError
from interp.maths.norms import Norm
from interp.results import load_result
from oracles import attribution as oracle
from tiny_models import FAMILIES, build


@pytest.mark.parametrize("name", FAMILIES)
def test_parts_sum_to_the_logit_and_heads_to_attention(family, ids, name):
    model = family(name)
    got = direct_logit_attribution(model, ids, target=7, position=4, by="head")
    with torch.no_grad():
        logit = float(model.hf(torch.tensor([ids])).logits[0, 4, 7])
    assert float(model.unembedding.cap(got.contributions.sum())) == pytest.approx(logit, abs=2e-4)
    assert got.model_logit == pytest.approx(logit, abs=1e-4)
    assert got.total == pytest.approx(got.logit, abs=2e-4)
    for layer in range(model.atlas.n_layers):
        attention = float(got.contributions[got.components.index(f"blocks.{layer}.hook_attn_out")])
        assert float(got.heads[layer].sum() + got.attn_bias[layer]) == pytest.approx(attention, abs=2e-4)


def test_an_output_bias_goes_through_the_norm_after_attention(ids):
    from interp.runner.model import Model

    model = Model(build("gemma2", attention_bias=True))
    got = direct_logit_attribution(model, ids, target=7, by="head")
    assert float(got.attn_bias.abs().min()) > 0
    for layer in range(model.atlas.n_layers):
        attention = float(got.contributions[got.components.index(f"blocks.{layer}.hook_attn_out")])
        assert float(got.heads[layer].sum() + got.attn_bias[layer]) == pytest.approx(attention, abs=2e-4)


def test_a_part_is_the_plain_loops(family, ids):
    model = family("gpt2")
    got = direct_logit_attribution(model, ids, target=7)
    run = model.run(ids, ["mlp_out@1", "resid_post@-1"])
    norm = model.hf.transformer.ln_f
    want = oracle.contribution(
        run.cache["mlp_out@1"][0, -1].tolist(),
        run.cache["resid_post@-1"][0, -1].tolist(),
        norm.weight.tolist(),
        model.unembedding.weight[7].tolist(),
        norm.eps,
        centred=True,
    )
    assert float(got.contributions[got.components.index("blocks.1.hook_mlp_out")]) == pytest.approx(want, abs=1e-4)
    assert "ln_final.bias" in got.components


def test_a_difference_is_the_difference(family, ids):
    model = family("llama")
    one, two = (direct_logit_attribution(model, ids, target=token) for token in (7, 8))
    both = direct_logit_attribution(model, ids, target=7, against=8)
    torch.testing.assert_close(both.contributions, one.contributions - two.contributions, atol=1e-5, rtol=1e-4)
    assert both.model_logit == pytest.approx(one.model_logit - two.model_logit, abs=1e-5)


def test_the_target_is_the_models_choice_unless_given(family, ids):
    model = family("llama")
    got = direct_logit_attribution(model, ids)
    assert got.position == len(ids) - 1
    assert got.target_id == int(model.run(ids).logits[0, -1].argmax())


def test_table_figure_and_round_trip(family, ids, tmp_path):
    result = direct_logit_attribution(family("gemma2"), ids, by="head", against=3)
    frame = result.to_frame()
    assert frame["contribution_logits"].sum() == pytest.approx(result.total, abs=1e-4)
    assert "L2H3" in set(frame["component"])
    assert result.figure().data
    result.save(tmp_path / "dla.safetensors")
    again = load_result(tmp_path / "dla.safetensors")
    assert isinstance(again, AttributionResult)
    assert again.to_json() == result.to_json()


def test_parts_that_do_not_sum_are_refused(family, ids, monkeypatch):
    model = family("llama")
    parts = model.final_norm_parts
    wrong = Norm(centred=True, eps=parts.eps, weight=parts.weight)
    monkeypatch.setitem(model.__dict__, "final_norm_parts", wrong)
    with pytest.raises(VerificationError, match="sum to"):
        direct_logit_attribution(model, ids)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"position": 10}, "position 10 is out of range; valid: 0 to 9"),
        ({"by": "neuron"}, "unknown way to attribute 'neuron'; valid: component, head"),
        ({"against": 97}, "target id 97 is out of range; valid: 0 to 96"),
    ],
)
def test_bad_arguments_name_the_valid_values(family, ids, options, message):
    with pytest.raises(UsageError, match=message):
        direct_logit_attribution.__wrapped__(
            family("llama"), ids, **options
        ) if "by" in options else direct_logit_attribution(family("llama"), ids, **options)
