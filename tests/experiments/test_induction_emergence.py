"""The emergence experiment: its data, its measures on a circuit that is known, a short run of everything, and all of it (slow)."""

import json
import math
from dataclasses import replace

import pytest
import torch

import hand_made
import interp
from experiments.expected import Row, rows, table
from experiments.induction_emergence import run
from experiments.induction_emergence.config import BOS, Config, read_expected
from experiments.induction_emergence.data import measured_batch, training_batch, unrepeated_batch
from experiments.induction_emergence.figure import emergence_figure
from experiments.induction_emergence.measure import Measures, measure, second_loss
from experiments.induction_emergence.store import Trained, trained
from experiments.induction_emergence.summary import change_step, stripe_step, values
from experiments.induction_emergence.train import attention_only, train
from experiments.induction_emergence.verdicts import Finding, is_right
from interp.heads import Head
from interp.runner.model import Model

SMALL = replace(Config(), steps=2, every=1, before=1, rows=4, measured_rows=3, periods=(8, 12), seeds=(0,))
HAND_MADE = replace(SMALL, vocabulary=hand_made.VOCABULARY, periods=(8, 12))


def test_training_rows_begin_with_bos_and_repeat_a_block_of_their_own_length():
    config = Config()
    ids = training_batch(config, torch.Generator().manual_seed(0))
    assert ids.shape == (config.rows, config.length)
    assert (ids[:, 0] == BOS).all()
    assert (ids[:, 1:] != BOS).all()
    periods = set()
    for row in ids[:, 1:].tolist():
        found = [p for p in range(1, len(row)) if all(row[i] == row[i - p] for i in range(p, len(row)))]
        assert config.shortest <= found[0] <= config.longest
        periods.add(found[0])
    assert len(periods) > 5


def test_measured_rows_are_two_copies_and_always_the_same():
    ids = measured_batch(SMALL, 8)
    torch.testing.assert_close(ids, measured_batch(SMALL, 8))
    torch.testing.assert_close(ids[:, 1:9], ids[:, 9:])
    assert ids.shape == (SMALL.measured_rows, 17)
    assert unrepeated_batch(SMALL).shape == (SMALL.measured_rows, 25)


def distinct(config, period):
    return torch.stack([hand_made.repeated(period, 2, seed) for seed in range(config.measured_rows)])


def distinct_unrepeated(config):
    return torch.stack([hand_made.repeated(2 * max(config.periods), 1, seed) for seed in range(config.measured_rows)])


@pytest.fixture
def circuit(monkeypatch):
    monkeypatch.setattr("experiments.induction_emergence.measure.measured_batch", distinct)
    monkeypatch.setattr("experiments.induction_emergence.measure.unrepeated_batch", distinct_unrepeated)
    return Model(hand_made.build())


def test_measures_on_the_hand_made_circuit_are_the_known_ones(circuit):
    found = measure(circuit, HAND_MADE, step=7)
    assert found.step == 7
    assert found.first_loss == pytest.approx(hand_made.UNPREDICTED_LOSS, abs=1e-4)
    assert found.second_loss == pytest.approx(hand_made.predicted_loss(1), abs=1e-4)
    for layer in range(2):
        for head in range(hand_made.N_HEADS):
            stripe, previous = _expected_scores(layer, head)
            assert found.stripe[layer][head] == pytest.approx(stripe, abs=1e-4)
            assert found.previous[layer][head] == pytest.approx(previous, abs=1e-4)
    assert found.best_stripe == pytest.approx(1, abs=1e-4)


def _expected_scores(layer, head):
    totals = []
    for period in HAND_MADE.periods:
        pattern = hand_made.attention(distinct(HAND_MADE, period)[0].tolist(), layer, head)
        queries = range(1 + period, 1 + 2 * period)
        totals.append([sum(pattern[i][i - back] for i in queries) / period for back in (period - 1, 1)])
    return [sum(column) / len(totals) for column in zip(*totals, strict=True)]


def test_without_the_circuit_the_copies_are_a_guess(circuit):
    """The mean of what the head writes over text without repeats is nearly nothing: there it rests on BOS."""
    whole = second_loss(circuit, HAND_MADE)
    assert whole == pytest.approx(hand_made.predicted_loss(1), abs=1e-4)
    for head in (hand_made.INDUCTION, hand_made.PREVIOUS):
        assert second_loss(circuit, HAND_MADE, [Head(*head)]) == pytest.approx(hand_made.UNPREDICTED_LOSS, abs=0.1)
    others = [Head(1, 1), Head(1, 2), Head(1, 3)]
    assert second_loss(circuit, HAND_MADE, others) == pytest.approx(whole, abs=1e-4)


@pytest.mark.parametrize("n_layers", [1, 2])
def test_the_model_is_attention_only_and_stays_so(n_layers):
    *_, (step, hf) = train(SMALL, n_layers, seed=3)
    assert step == SMALL.steps
    before = attention_only(SMALL, n_layers, seed=3)
    changed = {
        name
        for (name, old), new in zip(before.named_parameters(), hf.parameters(), strict=True)
        if not torch.equal(old, new)
    }
    assert any("q_proj" in name for name in changed)
    assert not any("mlp" in name for name in changed)
    model = Model(hf)
    cache = model.run(measured_batch(SMALL, 8)[0], capture="mlp_out").cache
    assert not any(cache[f"mlp_out@{layer}"].abs().max() for layer in range(n_layers))


def test_a_seed_gives_the_same_weights_and_leaves_the_random_state():
    state = torch.get_rng_state()
    first, again, other = (dict(list(train(SMALL, 2, seed=seed))[-1][1].named_parameters()) for seed in (0, 0, 1))
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["lm_head.weight"], other["lm_head.weight"])


def test_checkpoints_load_and_finished_models_are_not_trained_again(tmp_path, monkeypatch):
    made = trained(SMALL, 2, 0, tmp_path, lambda line: None)
    model = interp.load(str(made.checkpoint(2)), device="cpu", dtype="float32", offline=True)
    assert (model.atlas.n_layers, model.atlas.n_heads) == (2, SMALL.n_heads)
    assert model.tokens("t5 t63").ids == (5, 63)
    assert measure(model, SMALL, 2) == made.at(2)
    monkeypatch.setattr("experiments.induction_emergence.store.train", lambda *_: pytest.fail("trained again"))
    assert trained(SMALL, 2, 0, tmp_path, lambda line: None) == made


def curve(second, stripes):
    return tuple(
        Measures(step=25 * i, first_loss=4.1, second_loss=loss, stripe=((0.1,), (best,)), previous=((0.2,), (0.0,)))
        for i, (loss, best) in enumerate(zip(second, stripes, strict=True))
    )


def test_the_phase_change_is_where_the_loss_falls_most():
    found = curve([4.0, 3.8, 3.6, 1.0, 0.9], [0.1, 0.1, 0.2, 0.5, 0.9])
    assert change_step(found) == 75
    assert stripe_step(found) == 75


def test_what_is_right():
    after = {"after": True, "undone": 0.9}
    assert is_right([], after=False, undone=0.0)
    assert not is_right([Head(0, 1)], after=False, undone=0.0)
    assert is_right([Head(1, 0), Head(1, 2)], **after)
    assert not is_right([], **after)
    assert not is_right([Head(0, 1), Head(1, 2)], **after)
    assert not is_right([Head(1, 2)], after=True, undone=0.3)


def test_figures_beside_what_is_expected():
    config = replace(SMALL, before=25, steps=50)
    folder = {"seconds": 1.0, "folder": None}
    models = [
        Trained(layers=layers, seed=0, curve=curve([4.0, 3.6, end], [0.1, 0.1, 0.8]), **folder)
        for layers, end in ((1, 3.2), (2, 0.2))
    ]
    finding = {"seed": 0, "candidates": (), "loss": 0.2, "loss_without": 3.9, "loss_without_others": 0.3, "right": True}
    found = [Finding(layers=2, step=step, found=("L1H0",), **finding) for step in (25, 50)]
    figures = values(config, models, found)
    assert set(figures) == set(read_expected())
    assert figures["two_layer_second_loss"] == pytest.approx(0.2)
    assert figures["right_verdicts"] == 1
    lines = table(rows(figures, read_expected()))
    assert len(lines) == 2 + len(figures)
    row = {"name": "n", "about": "a", "expected": 1.0, "tolerance": 0.1}
    assert Row(value=1.05, **row).met
    assert not Row(value=1.2, **row).met
    assert not Row(value=math.nan, **row).met
    drawing = emergence_figure(models, [50], 4.14)
    assert {trace.yaxis for trace in drawing.data} == {"y", "y2", "y3", "y4"}
    assert len({trace.name for trace in drawing.data if trace.showlegend}) == 4


def test_a_short_run_of_everything(tmp_path, monkeypatch, capsys):
    threads = torch.get_num_threads()
    monkeypatch.setattr(run, "OUT", tmp_path)
    monkeypatch.setattr(Config, "quick", lambda self: SMALL)
    try:
        assert run.main(["--quick"]) == 0
    finally:
        torch.set_num_threads(threads)
    found = json.loads((tmp_path / "quick" / "results.json").read_text())
    assert [model["layers"] for model in found["models"]] == [1, 2]
    assert len(found["findings"]) == 4
    assert (tmp_path / "quick" / "emergence.html").stat().st_size > 10_000
    assert "right_verdicts" in {row["name"] for row in found["figures"]}
    assert "seed 0" in capsys.readouterr().out


@pytest.mark.slow
def test_the_whole_experiment_gives_the_expected_figures(tmp_path, monkeypatch):
    """Ten models on one thread: about eight minutes."""
    monkeypatch.setattr(run, "OUT", tmp_path / "out")
    monkeypatch.setattr(run, "RESULTS", tmp_path / "results.json")
    (tmp_path / "out").mkdir()
    code = run.main([])
    found = json.loads((tmp_path / "results.json").read_text())
    missed = [row for row in found["figures"] if not row["met"]]
    assert (code, missed) == (0, [])
    assert all(finding["right"] for finding in found["findings"])
