"""What each way of choosing leaves, against a loop over the vocabulary of plain Hugging Face logits, and against drawn tokens."""

import math

import pytest
import torch

import interp
from interp.analyzers.decoding_choices import CHOICES, DecodingChoicesResult, decoding_choices
from interp.errors import NumericsError, UsageError
from interp.maths.sampling import Sampling
from interp.results import load_result
from interp.runner.model import Model
from oracles import next_token as oracle
from tiny_models import build

MORE = (*CHOICES, Sampling(temperature=0.7, top_k=20, top_p=0.8), Sampling(temperature=2.0, top_p=0.3))


def against_the_loop(got: DecodingChoicesResult, logits: list[float]) -> None:
    own = oracle.softmax(logits)
    for index, choice in enumerate(got.choices):
        wanted = oracle.chosen_from(logits, choice.temperature, choice.top_k, choice.top_p)
        shown = [wanted[token] for token in got.top_ids.tolist()]
        assert got.probs[index].tolist() == pytest.approx(shown, rel=1e-4, abs=1e-6), choice.label
        assert float(got.other_probs[index]) == pytest.approx(1 - math.fsum(shown), abs=1e-5)
        assert int(got.n_kept[index]) == sum(p > 0 for p in wanted)
        mass = math.fsum(p for p, kept in zip(own, wanted, strict=True) if kept > 0)
        assert float(got.kept_mass[index]) == pytest.approx(mass, abs=1e-5)
        assert float(got.entropy_nats[index]) == pytest.approx(oracle.entropy(wanted), abs=1e-4)


@pytest.mark.parametrize("name", ["gpt2", "gemma2", "llama", "mistral", "granite"])
def test_every_choice_is_the_loops(family, ids, name):
    model = family(name)
    with torch.no_grad():
        logits = model.hf(torch.tensor([ids]), use_cache=False).logits[0, -1].tolist()
    got = decoding_choices(model, ids, choices=MORE, top_k=8)
    assert got.top_ids.tolist() == sorted(range(97), key=lambda token: -logits[token])[:8]
    against_the_loop(got, logits)


def test_generate_draws_with_these_probabilities(family, ids, monkeypatch):
    """What ``generate`` hands to the draw is what the result says, for every choice; greedy draws nothing."""
    model, seen, draw = family("llama"), [], torch.multinomial

    def watched(probabilities, *arguments, **options):
        seen.append(probabilities[0])
        return draw(probabilities, *arguments, **options)

    monkeypatch.setattr(torch, "multinomial", watched)
    got = decoding_choices(model, ids, choices=MORE, top_k=97)
    for index, choice in enumerate(MORE):
        settings = {"temperature": choice.temperature, "top_k": choice.top_k, "top_p": choice.top_p}
        made = model.generate(ids, max_new_tokens=1, stop_at_end=False, seed=3, **settings)
        assert float(got.probs[index, got.top_ids.tolist().index(int(made.ids[0]))]) > 0
        if choice.temperature > 0:
            torch.testing.assert_close(got.probs[index], seen.pop()[got.top_ids], rtol=1e-4, atol=1e-6)
        assert not seen


def test_identities(family, ids):
    got = decoding_choices(family("gemma2"), ids)
    greedy, *_, one = (got.choices.index(Sampling(temperature=t)) for t in (0.0, 1.0))
    assert got.probs[greedy].tolist() == [1.0, *[0.0] * 9]
    assert (int(got.n_kept[greedy]), float(got.entropy_nats[greedy])) == (1, 0.0)
    torch.testing.assert_close(got.probs[one], next_probabilities(got, family("gemma2"), ids))
    torch.testing.assert_close(got.probs.sum(1) + got.other_probs, torch.ones(len(got.choices)))
    heats = [got.choices.index(Sampling(temperature=t)) for t in (0.5, 1.0, 1.5)]
    assert got.entropy_nats[heats].tolist() == sorted(got.entropy_nats[heats].tolist())
    for k in (5, 50):
        assert int(got.n_kept[got.choices.index(Sampling(top_k=k))]) == k
    for p in (0.5, 0.9):
        assert float(got.kept_mass[got.choices.index(Sampling(top_p=p))]) >= p


def next_probabilities(got, model, ids):
    return interp.next_token_logits(model, ids, top_k=len(got.top_ids)).top_probs


def test_table_figure_and_round_trip(family, ids, tmp_path):
    result = decoding_choices(family("llama"), ids, choices=MORE, top_k=4)
    frame = result.to_frame()
    assert len(frame) == 4 * len(MORE)
    assert set(frame["choice"]) == {choice.label for choice in MORE}
    shown = result.figure().data[0].z
    assert shown.shape == (5, len(MORE))
    assert math.isnan(shown[1][0])
    assert shown[0][2] == pytest.approx(float(result.probs[2, 0]))
    assert shown[4][2] == pytest.approx(float(result.other_probs[2]))
    result.save(tmp_path / "choices.safetensors")
    again = load_result(tmp_path / "choices.safetensors")
    assert isinstance(again, DecodingChoicesResult)
    assert again.choices == MORE
    assert again.to_json() == result.to_json()


def test_mistakes_are_told(family, ids):
    with pytest.raises(UsageError, match="no choice is given"):
        decoding_choices(family("llama"), ids, choices=[])
    with pytest.raises(UsageError, match="top_k is 98; valid: 1 to 97"):
        decoding_choices(family("llama"), ids, top_k=98)
    for setting, valid in (
        ({"temperature": -1.0}, r"0 \(greedy\) or more"),
        ({"top_k": 0}, "1 or more"),
        ({"top_p": 2.0}, "above 0, at most 1"),
    ):
        with pytest.raises(UsageError, match=f"valid: {valid}"):
            interp.Sampling(**setting)
    hf = build("llama")
    with torch.no_grad():
        hf.model.norm.weight[0] = float("nan")
    with pytest.raises(NumericsError, match="NaN or infinity"):
        decoding_choices(Model(hf), ids)


def test_choices_are_named():
    assert [choice.label for choice in MORE] == [
        *(
            "greedy",
            "temperature 0.5",
            "temperature 1",
            "temperature 1.5",
            "top-k 5",
            "top-k 50",
            "top-p 0.5",
            "top-p 0.9",
        ),
        "temperature 0.7, top-k 20, top-p 0.8",
        "temperature 2, top-p 0.3",
    ]


@pytest.mark.model
def test_the_default_model(model):
    prompt = "The Eiffel Tower is located in the city of"
    got = decoding_choices(model, prompt)
    with torch.no_grad():
        logits = model.hf(torch.tensor([model.tokens(prompt).ids])).logits[0, -1]
    own = logits.double().softmax(-1).sort(descending=True).values
    for index, choice in enumerate(got.choices):
        if choice.top_p is not None:
            assert int(got.n_kept[index]) == int((own.cumsum(0) < choice.top_p).sum()) + 1
        if choice.temperature == 0.5:
            assert float(got.probs[index, 0]) == pytest.approx(float((logits / 0.5).softmax(-1).max()), rel=1e-5)
    assert got.pieces[0] == " Paris"
