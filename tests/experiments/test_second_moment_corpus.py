"""The experiment on the corpus of second moments: its edits are those of the library, its differences those of plain loops."""

import json
from dataclasses import replace

import pytest
import torch

import word_model
from experiments.rome import workshop
from experiments.rome.workshop import Workshop
from experiments.second_moment_corpus import edits, run
from experiments.second_moment_corpus.config import Config
from experiments.second_moment_corpus.edits import cosines, write_all
from experiments.second_moment_corpus.figure import corpus_figure
from experiments.second_moment_corpus.moments import AGAIN, DEFAULT, IDENTITY, OTHER, apart, tried_moments
from experiments.second_moment_corpus.scores import score_all
from experiments.second_moment_corpus.summary import difference_lines, distance_lines, score_lines, values
from fact_files import write_fact_files
from interp.editing.contexts import sample_contexts
from interp.editing.edit_facts import edit_facts
from interp.editing.settings import settings_of
from interp.editing.stack import applied_edits

TINY = replace(
    Config(),
    facts=2,
    default_tokens=600,
    sampled_sizes=(300,),
    paragraph_sizes=(200, 600),
    moment_texts=8,
    other_texts=4,
    held_out=1,
)
QUICK = replace(settings_of("rome"), min_tokens=1, steps=3, contexts=2, near_misses=4)
SUBJECTS = ("tower of Pisa", "bridge", "lake", "blue shop")


@pytest.fixture(scope="module")
def small():
    return word_model.build()


@pytest.fixture(scope="module")
def files(small, tmp_path_factory):
    return write_fact_files(tmp_path_factory.mktemp("corpus"), small, SUBJECTS, words_a_line=60)


@pytest.fixture(autouse=True)
def few_steps(monkeypatch):
    """The tiny model is in no table, and its edits are of few steps."""
    monkeypatch.setattr(workshop, "choose_layers", lambda *_, **__: ((1,), "table"))
    monkeypatch.setattr(edits, "settings_of", lambda method: QUICK)


@pytest.fixture(scope="module")
def made(small, files, tmp_path_factory):
    """The workshop, the second moments and the edits."""
    folder = tmp_path_factory.mktemp("work")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(workshop, "choose_layers", lambda *_, **__: ((1,), "table"))
        patch.setattr(edits, "settings_of", lambda method: QUICK)
        shop = Workshop.of(small, TINY.rome(), *files, folder, lambda line: None, float("inf"))
        tried = list(tried_moments(shop, 1, TINY, shop.folder))
        return shop, tried, write_all(shop, 1, tried)


def test_every_corpus_and_the_identity(made):
    shop, tried, _ = made
    assert [one.name for one in tried] == [
        DEFAULT, IDENTITY, AGAIN, "sampled, 300 tokens", "paragraphs, 200 tokens", "paragraphs, 600 tokens", OTHER,
    ]  # fmt: skip
    by_name = {one.name: one for one in tried}
    assert [one.moment.n_tokens for one in tried] == [600, 600, 600, 300, 200, 480, 240]
    identity = by_name[IDENTITY].matrix
    width = len(identity)
    torch.testing.assert_close(identity, torch.eye(width, dtype=torch.float64) * identity[0, 0])
    assert float(identity.trace()) == pytest.approx(float(by_name[DEFAULT].moment.matrix.trace()))
    again = list(tried_moments(shop, 1, TINY, shop.folder))
    assert all(torch.equal(a.moment.matrix, b.moment.matrix) for a, b in zip(again, tried, strict=True))
    a, b = by_name[AGAIN].matrix, by_name[DEFAULT].matrix
    loop = (sum(float(x) ** 2 for x in (a - b).flatten()) / sum(float(x) ** 2 for x in b.flatten())) ** 0.5
    assert apart(a, b) == pytest.approx(loop)
    assert apart(b, b) == 0


def test_the_edits_are_those_of_the_library(small, made):
    shop, tried, written = made
    contexts = sample_contexts(small, QUICK, TINY.seed)
    for one in (tried[0], tried[1]):
        library = edit_facts(
            small, [shop.singles[0].fact], "rome", layers=1, moments=one.moment, contexts=contexts,
            settings=replace(QUICK, shrinkage=one.shrinkage, as_heard=False, overhearers=0), allow_known=True,
        )  # fmt: skip
        (ours,), (theirs,) = written[0].edits[one.name].layers, library.layers
        torch.testing.assert_close(ours.left @ ours.right, theirs.left @ theirs.right, atol=1e-6, rtol=1e-4)
        assert written[0].edits[one.name].settings["shrinkage"] == library.settings["shrinkage"]
    assert applied_edits(small) == ()


def test_scores_and_their_differences(small, made):
    shop, tried, written = made
    scored = score_all(shop, tried, written)
    assert list(scored) == [one.name for one in tried]
    default, identity = scored[DEFAULT], scored[IDENTITY]
    assert default.apart == 0
    torch.testing.assert_close(default.plain, torch.ones_like(default.plain))
    key = written[0].plain[IDENTITY]  # with the identity C^-1 k is k
    expected = float(key @ written[0].plain[DEFAULT] / key.norm() / written[0].plain[DEFAULT].norm())
    assert float(identity.plain[0]) == pytest.approx(expected)
    assert float(cosines(written, IDENTITY, DEFAULT, plain=True)[0]) == pytest.approx(expected)
    apart_each = identity.samples["perplexity_ratio"] - default.samples["perplexity_ratio"]
    assert identity.less(default, "perplexity_ratio").value == pytest.approx(float(apart_each.mean()))
    found = values(scored)
    assert found["identity_perplexity_ratio"] == pytest.approx(float(apart_each.mean()))
    for lines in (score_lines(scored), difference_lines(scored), distance_lines(scored)):
        assert len({line.count("|") for line in lines}) == 1
    assert len(corpus_figure(scored).data) >= 3


@pytest.mark.long
def test_a_short_run(small, files, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(run, "OUT", tmp_path)
    monkeypatch.setattr(run, "load", lambda *_, **__: small)
    monkeypatch.setattr(Config, "quick", lambda self: TINY)
    assert run.main(["--cases", str(files[0]), "--texts", str(files[1]), "--quick"]) == 0
    (kept,) = tmp_path.glob("*/quick/results.json")
    assert len(json.loads(kept.read_text())["moments"]) == 7
    assert (tmp_path / "corpus.html").stat().st_size > 10_000
    assert f"| {IDENTITY} |" in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.model
def test_two_facts_give_the_expected_figures(model, shared_data, tmp_path, monkeypatch):
    from experiments.expected import read_expected, rows

    monkeypatch.undo()
    config = replace(Config(), facts=3, sampled_sizes=(), paragraph_sizes=(24576,), neighbours=4)
    files = (shared_data / "counterfact_dev.json", shared_data / "wikipedia_paragraphs.txt")
    shop = Workshop.of(model, config.rome(), *files, tmp_path, lambda line: None, float("inf"))
    (layer,) = shop.layers(config.method)
    tried = list(tried_moments(shop, layer, config, tmp_path))
    found = values(score_all(shop, tried, write_all(shop, layer, tried)))
    claims = {name: goal for name, goal in read_expected(run.FOLDER / "expected.json").items() if "cosine" in name}
    assert found["least_efficacy"] == 100
    assert [row.name for row in rows(found, claims) if not row.met] == []
