"""The experiment on editing facts: a short run on a tiny model that stops and goes on, its tables and figure, and the kept results."""

import json
from dataclasses import replace

import pytest
import torch

import word_model
from experiments.rome import run, workshop
from experiments.rome.config import Config
from experiments.rome.figure import methods_figure
from experiments.rome.many import Together, one_after_another
from experiments.rome.singles import AFTER, BOTH, Singles, measure
from experiments.rome.summary import many_lines, single_lines, values
from experiments.rome.workshop import OutOfTime, Workshop
from fact_files import write_fact_files
from interp.editing.settings import sequence_settings_of
from interp.editing.stack import applied_edits
from interp.errors import UsageError

TINY = replace(
    Config(), facts=3, methods=("rome", "memit"), moment_texts=6, moment_tokens=500, held_out=1, held_out_many=2, generated=0,
    at_once=2, sequence=(1, 2), batches=(2,),
)  # fmt: skip
SUBJECTS = ("tower of Pisa", "bridge", "lake", "blue shop", "red store", "plum")


@pytest.fixture(scope="module")
def small():
    return word_model.build()


@pytest.fixture(scope="module")
def files(small, tmp_path_factory):
    return write_fact_files(tmp_path_factory.mktemp("rome"), small, SUBJECTS, words_a_line=30)


@pytest.fixture(autouse=True)
def few_tokens(monkeypatch):
    """The tiny model is in no table, and its second moments are of few tokens."""
    monkeypatch.setattr(
        workshop,
        "choose_layers",
        lambda model, rewrites, method, *_, **__: (((1,) if method.startswith("rome") else (0, 1)), "table"),
    )
    edit_facts = workshop.edit_facts

    def quick(model, facts, method, *, settings, **given):
        return edit_facts(model, facts, method, settings=replace(settings, min_tokens=1, steps=3), **given)

    monkeypatch.setattr(workshop, "edit_facts", quick)


def shop_of(small, files, folder, config=TINY, seconds=1e9):
    return Workshop.of(small, config, *files, folder, lambda line: None, seconds)


def test_singles_are_kept_and_not_made_again(small, files, tmp_path, monkeypatch):
    shop = shop_of(small, files, tmp_path)
    found = measure(shop, "rome")
    assert [len(part) for part in found.after.values()] == [3] * len(found.after)
    assert set(found.after) == {*BOTH, *AFTER}
    assert found.mean("efficacy_score", "before") == 0
    assert applied_edits(small) == ()
    monkeypatch.setattr(workshop, "edit_facts", lambda *_, **__: pytest.fail("edited again"))
    again = measure(shop_of(small, files, tmp_path), "rome")
    for name, part in found.after.items():
        torch.testing.assert_close(again.after[name], part, rtol=0, atol=0, equal_nan=True)
    with pytest.raises(pytest.fail.Exception, match="edited again"):
        measure(shop_of(small, files, tmp_path), "memit")


def test_time_runs_out_between_edits(small, files, tmp_path):
    with pytest.raises(OutOfTime):
        measure(shop_of(small, files, tmp_path, seconds=0), "rome")
    assert not list(tmp_path.glob("rome-*"))


def test_edits_after_one_another_stand_on_those_before(small, files, tmp_path):
    shop = shop_of(small, files, tmp_path)
    one, two = one_after_another(shop)
    assert (one.edits, two.edits) == (1, 2)
    assert one.perplexity_ratio > 0
    assert two.drift > 0
    assert applied_edits(small) == ()
    alone = workshop.edit_facts(
        small,
        [shop.cases[0].fact],
        "rome",
        layers=[1],
        moments=[shop.moment(1)],
        contexts=shop.contexts["rome"],
        settings=sequence_settings_of("rome"),
        allow_known=True,
    )
    assert alone.layers[0].relative_norm == pytest.approx(one.drift, rel=1e-5)


def test_too_few_texts(small, files, tmp_path):
    with pytest.raises(UsageError, match="has 12 texts"):
        shop_of(small, files, tmp_path, replace(TINY, moment_texts=11))


def singles(method="rome", shift=0.0):
    scores = {name: torch.tensor([100.0, 50.0 - shift, torch.nan], dtype=torch.float64) for name in BOTH}
    changed = {name: torch.tensor([1.0, 1.0, 1.25 + shift], dtype=torch.float64) for name in AFTER}
    before = {name: torch.zeros(3, dtype=torch.float64) for name in BOTH} | {
        "neighbourhood_score": torch.tensor([100.0, 90.0, 95.0], dtype=torch.float64)
    }
    ones = torch.ones(3, dtype=torch.float64)
    return Singles(method=method, before=before, after=scores | changed, seconds=ones, drift=ones, perplexity=20.0)


def test_figures_and_tables():
    many = [
        Together(how="one after another, rome", edits=10, holding=90.0, efficacy=100.0, paraphrase=80.0, neighbourhood=70.0,
                 neighbourhood_before=75.0, kept=60.0, perplexity_ratio=1.1, drift=0.2),
    ]  # fmt: skip
    found = values({"rome": singles()}, many)
    assert found["rome_efficacy"] == 75  # what was not measured is left out
    assert found["rome_neighbourhood_lost"] == 20
    assert found["rome_score"] == pytest.approx(75)
    assert found["rome_worst_perplexity"] == 1.25
    assert (found["sequence_10_holding"], found["sequence_10_perplexity"]) == (90, 1.1)
    both = {"rome": singles(), "memit": singles("memit", 10)}
    lines = single_lines(both)
    assert "| ES, % | 0.0 | 75.0 | 70.0 | 100 |" in lines
    assert "| the same after the worst edit | 20.00 | 25.00 (1.250x) | 225.00 (11.250x) | ≤ 1.05x |" in lines
    assert len({line.count("|") for line in lines}) == 1
    assert len({line.count("|") for line in many_lines(many)}) == 1
    drawing = methods_figure(both)
    assert len(drawing.data) == 5
    assert list(drawing.data[2].y) == [1.0, 1.0, 1.25]


def test_a_short_run_stops_and_goes_on(small, files, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(run, "OUT", tmp_path)
    monkeypatch.setattr(run, "load", lambda *_, **__: small)
    monkeypatch.setattr(Config, "quick", lambda self: replace(TINY, methods=("rome",)))
    arguments = ["--cases", str(files[0]), "--texts", str(files[1]), "--quick"]
    assert run.main([*arguments, "--seconds", "0"]) == 2
    assert run.main(arguments) == 0
    (kept,) = tmp_path.glob("quick-*/results.json")
    data = json.loads(kept.read_text())
    assert len(data["singles"]["rome"]["after"]["efficacy_score"]) == 3
    assert [one["edits"] for one in data["many"]] == [1, 2, 2]
    assert (tmp_path / "methods.html").stat().st_size > 10_000
    assert "| ES, % |" in capsys.readouterr().out
