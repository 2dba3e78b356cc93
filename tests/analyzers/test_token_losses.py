"""The loss of each token against plain Hugging Face, each prefix run by itself."""

import math

import pytest
import torch

from interp.analyzers.token_losses import TokenLossesResult, token_losses
from interp.errors import NumericsError, UsageError, VerificationError
from interp.results import load_result
from interp.runner.model import Model
from oracles import next_token as oracle
from tiny_models import FAMILIES, build, prompt_ids


def against_the_loop(got: TokenLossesResult, wanted: list[dict], tolerance: float) -> None:
    assert got.losses_nats.tolist() == pytest.approx([one["loss"] for one in wanted], abs=tolerance)
    assert got.entropy_nats.tolist() == pytest.approx([one["entropy"] for one in wanted], abs=tolerance)
    assert got.ranks.tolist() == [one["rank"] for one in wanted]
    assert got.top_ids[:, 0].tolist() == [one["top"] for one in wanted]
    assert got.top_log_probs_nats[:, 0].tolist() == pytest.approx(
        [one["top_log_prob"] for one in wanted], abs=tolerance
    )
    mean = math.fsum(one["loss"] for one in wanted) / len(wanted)
    assert got.mean_loss_nats == pytest.approx(mean, abs=tolerance)
    assert got.perplexity == pytest.approx(math.exp(mean), rel=tolerance)


@pytest.mark.parametrize("name", FAMILIES)
def test_losses_are_hugging_faces(family, name):
    ids = prompt_ids(1, 14)[0].tolist()  # past the sliding windows
    model = family(name)
    against_the_loop(token_losses(model, ids), oracle.token_losses(model.hf, ids), 2e-4)


def test_the_mean_is_the_models_own_loss(family, ids):
    model = family("gemma2")
    batch = torch.tensor([ids])
    with torch.no_grad():
        own = float(model.hf(batch, labels=batch).loss)
    assert token_losses(model, ids).mean_loss_nats == pytest.approx(own, abs=1e-5)


def test_the_most_surprising_come_first(family, ids):
    got = token_losses(family("llama"), ids)
    order = got.most_surprising(3)
    losses = {position: float(got.losses_nats[position - 1]) for position in range(1, len(ids))}
    assert list(order) == sorted(losses, key=lambda position: -losses[position])[:3]
    assert len(got.most_surprising(100)) == len(ids) - 1


def test_table_figure_and_round_trip(family, ids, tmp_path):
    result = token_losses(family("llama"), ids)
    frame = result.to_frame()
    assert frame["position"].tolist() == list(range(1, len(ids)))
    assert frame["token_id"].tolist() == ids[1:]
    bars, marks = result.figure().data
    assert bars.y[0] is None
    assert list(bars.y[1:]) == pytest.approx(result.losses_nats.tolist())
    assert list(marks.y[1:]) == pytest.approx(result.entropy_nats.tolist())
    result.save(tmp_path / "losses.safetensors")
    again = load_result(tmp_path / "losses.safetensors")
    assert isinstance(again, TokenLossesResult)
    assert again.to_json() == result.to_json()


def test_mistakes_are_told(family, ids, monkeypatch):
    model = family("llama")
    with pytest.raises(UsageError, match="one token, and nothing before it"):
        token_losses(model, [5])
    with pytest.raises(UsageError, match="top_k is 98; valid: 1 to 97"):
        token_losses(model, ids, top_k=98)
    with monkeypatch.context() as patch:
        patch.setattr(Model, "final_norm", lambda self, resid: resid)
        with pytest.raises(VerificationError, match="the final stream read for losses"):
            token_losses(model, ids)
    hf = build("llama")
    with torch.no_grad():
        hf.model.norm.weight[0] = float("nan")
    with pytest.raises(NumericsError):
        token_losses(Model(hf), ids)


@pytest.mark.model
def test_the_default_models_losses(model):
    got = token_losses(model, "The Eiffel Tower is located in the city of Paris")
    ids = torch.tensor([got.tokens.ids])
    with torch.no_grad():
        output = model.hf(ids, labels=ids)
    own = output.logits[0, :-1].double().log_softmax(-1).gather(1, ids[0, 1:, None])[:, 0]
    torch.testing.assert_close(got.losses_nats.double(), -own, atol=1e-4, rtol=0)
    assert got.perplexity == pytest.approx(math.exp(float(output.loss)), rel=1e-4)
    assert got.tokens.pieces[got.most_surprising(1)[0]] == " E"
