"""The averages of causal traces: its facts, averages by plain loops, a short run of everything, and the kept results."""

import json
import math
from dataclasses import replace

import pytest
import torch

import interp
import word_model
from experiments.causal_tracing import run, traces
from experiments.causal_tracing.averages import averages, by_place
from experiments.causal_tracing.config import Config
from experiments.causal_tracing.facts import KnownFact, first_token, known_facts, read_facts
from experiments.causal_tracing.figure import averages_figure
from experiments.causal_tracing.summary import lines, values
from experiments.causal_tracing.traces import traced
from experiments.expected import read_expected, rows, table
from interp.errors import UsageError
from interp.maths.tracing import PLACES

TINY = replace(Config(), facts=2, samples=3, window=2, asked_at_once=2)
PROMPTS = (
    ("the tower of Pisa is in the city", "the tower of Pisa"),
    ("one bridge is near", "bridge"),
    ("then the green lake lies by", "green lake"),
    ("what city is the capital of", "capital"),
)


@pytest.fixture(scope="module")
def small():
    return word_model.build()


@pytest.fixture
def facts(small):
    """Facts of which the model knows all but the second: the attribute is what it says itself."""
    found = []
    for number, (prompt, subject) in enumerate(PROMPTS):
        said = int(small.run(prompt, logits="last").last_logits.argmax())
        attribute = word_model.WORDS[said if number != 1 else (said + 1) % len(word_model.WORDS)]
        found.append(KnownFact(number=number, prompt=prompt, subject=subject, attribute=attribute))
    return tuple(found)


@pytest.fixture
def known(small, facts):
    config = replace(TINY, facts=9)
    return known_facts(small, facts, config).known


def write(path, objects):
    path.write_text(json.dumps(objects))
    return path


def test_facts_are_read_from_prompts_and_from_templates(tmp_path):
    row = {"subject": "Pisa", "attribute": "Italy", "known_id": 7}
    path = write(
        tmp_path / "facts.json",
        [
            row | {"prompt": "Pisa lies in", "template": "{} is in"},
            row | {"template": "The city {} is in "},
            row | {"prompt": "Pisa, Pisa is in"},
            row | {"prompt": "Rome is in"},
        ],
    )
    found = read_facts(path)
    assert [(fact.number, fact.prompt, fact.answer) for fact in found] == [
        (0, "Pisa lies in", " Italy"),
        (1, "The city Pisa is in ", "Italy"),
    ]
    with pytest.raises(UsageError, match=r"object 0: needs 'subject', 'attribute' and 'prompt' or 'template'"):
        read_facts(write(tmp_path / "bad.json", [{"subject": "Pisa", "prompt": "Pisa is in"}]))
    with pytest.raises(UsageError, match="no fact"):
        read_facts(write(tmp_path / "none.json", [row | {"prompt": "Rome is in"}]))
    with pytest.raises(UsageError, match="cannot read"):
        read_facts(tmp_path / "absent.json")


def test_only_facts_that_the_model_knows_are_taken(small, facts):
    everything = known_facts(small, facts, replace(TINY, facts=9))
    assert sorted(fact.number for fact in everything.known) == [0, 2, 3]
    assert everything.n_asked == 4
    first = known_facts(small, facts, replace(TINY, facts=1))
    assert first.known == everything.known[:1]
    assert first.n_asked < 4
    assert {known_facts(small, facts, replace(TINY, facts=1, seed=seed)).known[0].number for seed in range(9)} == {
        0,
        2,
        3,
    }
    with pytest.raises(UsageError, match="knows none of the 1 facts"):
        known_facts(small, [facts[1]], TINY)


def test_averages_are_those_of_plain_loops(small, known, tmp_path):
    results = [traced(small, fact, TINY, tmp_path) for fact in known]
    found = averages(results)
    for kind_index, kind in enumerate(TINY.kinds):
        for row, place in enumerate(PLACES):
            for layer in range(small.atlas.n_layers):
                means = []
                for result in results:
                    first, last, end = result.subject_positions[0], result.subject_positions[-1], len(result.prompt) - 1
                    where = {
                        "first subject token": [p for p in (first,) if first < last],
                        "middle subject tokens": list(range(first + 1, last)),
                        "last subject token": [last],
                        "first subsequent token": [p for p in (last + 1,) if p < end],
                        "further tokens": list(range(last + 2, end)),
                        "last token": [end],
                    }[place]
                    effects = [
                        float(result.restored_probability[kind_index, layer, p, s] - result.corrupted_probability[s])
                        for p in where
                        for s in range(TINY.samples)
                    ]
                    means += [sum(effects) / len(effects)] if effects else []
                estimate = found.effects[kind].at(row, layer)
                assert estimate.n == len(means)
                expected = sum(means) / len(means) if means else math.nan
                assert estimate.value == pytest.approx(expected, abs=1e-7, nan_ok=True)
    assert found.total.value == pytest.approx(found.clean.value - found.corrupted.value, abs=1e-7)
    assert found.total.n == len(known) == 3
    peak, estimate = found.peak("resid", "last token")
    assert peak == small.atlas.n_layers - 1
    assert estimate.value == pytest.approx(found.total.value, abs=1e-6)  # the last state decides


def test_a_place_that_a_prompt_lacks_is_not_a_zero(small, known, tmp_path):
    fact = next(fact for fact in known if fact.subject == "capital")
    rows = by_place(traced(small, fact, TINY, tmp_path), "mlp")
    assert rows.isnan().all(1).tolist() == [True, True, False, True, True, False]


def test_traces_are_kept_and_not_made_again(small, known, tmp_path, monkeypatch):
    made = traced(small, known[0], TINY, tmp_path)
    monkeypatch.setattr(traces, "causal_trace", lambda *_, **__: pytest.fail("traced again"))
    again = traced(small, known[0], replace(TINY, facts=5), tmp_path)
    torch.testing.assert_close(again.restored_probability, made.restored_probability, rtol=0, atol=0)
    for other in (replace(TINY, samples=2), replace(TINY, seed=1)):
        with pytest.raises(pytest.fail.Exception, match="traced again"):
            traced(small, known[0], other, tmp_path)
    assert made.answer.ids == (first_token(small, known[0]),)
    assert [path.suffix for path in tmp_path.iterdir()] == [".safetensors"]


def test_every_fact_has_noise_of_its_own(small, known, tmp_path):
    fact = replace(known[0], number=41)
    found = traced(small, fact, replace(TINY, seed=1), tmp_path)
    asked = {"noise": TINY.noise, "samples": TINY.samples, "window": TINY.window, "kinds": TINY.kinds}
    expected = interp.causal_trace(small, fact.prompt, fact.subject, first_token(small, fact), seed=42, **asked)
    torch.testing.assert_close(found.restored_probability, expected.restored_probability, rtol=0, atol=0)


def test_a_stopped_trace_goes_on_to_the_same_numbers(small, known, tmp_path, monkeypatch):
    whole = traced(small, known[0], TINY, tmp_path / "whole")

    def stopped(*arguments, **options):
        def stop(what, done, total):
            if done > total // 2:
                raise KeyboardInterrupt

        return original(*arguments, **options, progress=stop)

    original = traces.causal_trace
    monkeypatch.setattr(traces, "causal_trace", stopped)
    with pytest.raises(KeyboardInterrupt):
        traced(small, known[0], TINY, tmp_path / "stopped")
    assert [path.suffix for path in (tmp_path / "stopped").iterdir()] == [".part"]
    monkeypatch.setattr(traces, "causal_trace", original)
    again = traced(small, known[0], TINY, tmp_path / "stopped")
    torch.testing.assert_close(again.restored_probability, whole.restored_probability, rtol=0, atol=0)


def test_a_short_run_of_everything(small, facts, tmp_path, monkeypatch, capsys):
    path = write(tmp_path / "facts.json", [fact.__dict__ for fact in facts])
    monkeypatch.setattr(run, "OUT", tmp_path)
    monkeypatch.setattr(run, "load", lambda *_, **__: small)
    monkeypatch.setattr(Config, "quick", lambda self: TINY)
    assert run.main(["--facts", str(path), "--quick"]) == 0
    found = json.loads((tmp_path / "quick" / "results.json").read_text())
    assert len(found["facts"]["known"]) == 2
    assert {row["name"] for row in found["figures"]} == set(read_expected(run.EXPECTED))
    assert [len(found["effects"][kind]["value"]) for kind in TINY.kinds] == [len(PLACES)] * 3
    assert (tmp_path / "quick" / "averages.html").stat().st_size > 10_000
    assert len(list((tmp_path / "quick" / "traces").iterdir())) == 2
    out = capsys.readouterr().out
    assert "| last subject token |" in out
    assert run.main(["--facts", str(path), "--quick", "--fresh"]) == 0


def test_the_figure_and_its_table(small, known, tmp_path):
    found = averages([traced(small, fact, TINY, tmp_path) for fact in known])
    drawing = averages_figure(found, TINY.window)
    maps = [trace for trace in drawing.data if trace.type == "heatmap"]
    assert len(maps) == 3
    assert [trace.name for trace in drawing.data if trace.showlegend] == ["last subject token", "last token"]
    assert drawing.layout.xaxis2.title.text == "layer"
    assert drawing.layout.xaxis4.title.text == "layer, window of 2"
    assert list(drawing.layout.yaxis.ticktext) == list(PLACES)
    assert len(lines(found)) == 2 + len(PLACES)
    assert set(read_expected(run.EXPECTED)) <= set(values(found))


def test_figures_beside_what_is_expected():
    expected = {"a": {"value": 1.0, "tolerance": 0.1, "about": "what it is"}}
    for value, met in ((1.05, True), (1.2, False), (math.nan, False)):
        (row,) = rows({"a": value, "b": 3.0}, expected)
        assert row.met is met
        assert table([row])[2].endswith("| yes |" if met else "| **no** |")


@pytest.mark.slow
@pytest.mark.model
def test_some_facts_of_the_file_give_the_figure_of_the_paper(model, shared_data, tmp_path):
    """Five facts: an early site at the last subject token in the MLPs, a late one at the last token."""
    config = replace(Config(), facts=5, samples=4)
    known = known_facts(model, read_facts(shared_data / "known_1000.json"), config).known
    found = averages([traced(model, fact, config, tmp_path) for fact in known])
    figures = values(found)
    assert figures["mlp_last_subject"] > figures["mlp_elsewhere"]
    assert figures["resid_last_subject_layer"] < model.atlas.n_layers / 2 < figures["resid_last_layer"]
