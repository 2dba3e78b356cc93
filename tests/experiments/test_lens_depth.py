"""The experiment on the depth of the lens: settling by plain loops, its groups and nulls, and a short run of everything."""

import json
from collections import Counter
from dataclasses import replace

import pytest
import torch

import word_model
from experiments.lens_depth import run
from experiments.lens_depth.config import Config
from experiments.lens_depth.figure import depth_figure
from experiments.lens_depth.readings import Readings, elsewhere, frequent_tokens, read, settling_depth
from experiments.lens_depth.statistics import depths, members
from experiments.lens_depth.summary import depth_lines, group_lines, rank_correlation, values
from interp.errors import UsageError

TINY = replace(Config(), texts=3, tokens=8, draws=20)


@pytest.fixture(scope="module")
def small():
    return word_model.build()


@pytest.fixture
def texts(tmp_path):
    words = word_model.WORDS
    lines = [" ".join(words[(7 * row + 3 * i) % len(words)] for i in range(12)) for row in range(5)]
    path = tmp_path / "texts.txt"
    path.write_text("\n".join(["too short", *lines]) + "\n")
    return path


def made(n_texts=4, n_layers=5, n_pos=6):
    generator = torch.Generator().manual_seed(1)
    agrees = torch.rand(n_texts, n_layers, n_pos, generator=generator) < 0.5
    agrees[:, -1] = True
    kl = torch.rand(n_texts, n_layers, n_pos, generator=generator)
    kl[:, -1] = 0
    return Readings(
        agrees=agrees,
        agrees_elsewhere=torch.rand(n_texts, n_layers, n_pos, generator=generator) < 0.2,
        kl_nats=kl,
        entropy_nats=torch.rand(n_texts, n_layers, n_pos, generator=generator),
        next_rank=torch.randint(0, 50, (n_texts, n_layers, n_pos), generator=generator),
        final_prob=torch.rand(n_texts, n_pos, generator=generator),
        frequent=torch.rand(n_texts, n_pos, generator=generator) < 0.5,
    )


def test_settling_is_that_of_a_plain_loop():
    found = made()
    for text in range(4):
        for pos in range(6):
            column = found.agrees[text, :, pos].tolist()
            first = next(depth for depth in range(5) if all(column[depth:]))
            assert int(found.settled[text, pos]) == first
    assert settling_depth(torch.tensor([[[True], [True]]])).tolist() == [[0]]
    assert settling_depth(torch.tensor([[[True], [False]]])).tolist() == [[2]]


def test_means_are_those_of_a_plain_loop():
    found = made()
    config = replace(TINY, sure=0.6, unsure=0.4)
    all_of_it = depths(found, config)
    chosen = [(t, p) for t in range(4) for p in range(6) if float(found.final_prob[t, p]) >= 0.6]
    settled = found.settled
    assert all_of_it.counts["sure"] == len(chosen)
    assert all_of_it.depth["sure"].value == pytest.approx(sum(int(settled[t, p]) for t, p in chosen) / len(chosen))
    share = sum(int(settled[t, p]) <= 2 for t, p in chosen) / len(chosen)
    assert float(all_of_it.settled["sure"].value[2]) == pytest.approx(share)
    assert float(all_of_it.kl_nats.value[1]) == pytest.approx(float(found.kl_nats[:, 1].double().mean()))
    unsure, sure = all_of_it.depth["unsure"].value, all_of_it.depth["sure"].value
    assert all_of_it.later["unsure", "sure"].value == pytest.approx(unsure - sure)
    groups = members(found, config)
    assert (groups["frequent"] + groups["rare"]).unique().tolist() == [1]
    assert (groups["sure"] * groups["unsure"]).sum() == 0
    assert all_of_it.later["rare", "frequent"].lower <= all_of_it.later["rare", "frequent"].upper


def test_frequent_tokens_and_other_positions(small, texts):
    lines = [small.tokens(line) for line in texts.read_text().strip().split("\n")]
    counts = Counter(index for line in lines for index in line.ids)
    common = frequent_tokens(lines, 0.5)
    assert sum(counts[index] for index in common) >= 0.5 * counts.total()
    assert min(counts[index] for index in common) >= max(counts[index] for index in set(counts) - common)
    places = elsewhere(7, torch.Generator().manual_seed(3))
    assert sorted(places.tolist()) == list(range(7))
    assert (places != torch.arange(7)).all()


def test_the_readings_are_the_models_own(small, texts):
    found = read(small, texts, TINY)
    assert found.agrees.shape == (3, small.atlas.n_layers + 1, 7)
    assert found.agrees[:, -1].all()
    line = texts.read_text().split("\n")[1]
    ids = list(small.tokens(line).ids)[:8]
    with torch.no_grad():
        logits = small.hf(torch.tensor([ids])).logits[0, :-1]
        hidden = small.hf(torch.tensor([ids]), output_hidden_states=True).hidden_states
        early = small.hf.lm_head(small.hf.model.norm(hidden[1][0, :-1]))
    assert found.agrees[0, 1].tolist() == (early.argmax(-1) == logits.argmax(-1)).tolist()
    torch.testing.assert_close(found.final_prob[0], logits.softmax(-1).amax(-1), atol=1e-5, rtol=0)
    ranks = [int((row > row[index]).sum()) for row, index in zip(logits, ids[1:], strict=True)]
    assert found.next_rank[0, -1].tolist() == ranks
    with pytest.raises(UsageError, match="has 5 texts of 8 tokens"):
        read(small, texts, replace(TINY, texts=6))


def test_rank_correlation():
    assert rank_correlation(torch.tensor([0.0, 0.5, 0.6, 9.0])) == pytest.approx(1)
    assert rank_correlation(torch.tensor([3.0, 2.0, 1.0])) == pytest.approx(-1)


def test_tables_and_figure():
    found = depths(made(), TINY)
    for lines in (depth_lines(found), group_lines(found)):
        assert len({line.count("|") for line in lines}) == 1
    assert values(found)["last_agreement"] == 100
    assert len(depth_figure(found).data) == 16


def test_a_short_run(small, texts, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(run, "OUT", tmp_path / "out")
    monkeypatch.setattr(run, "load", lambda *_, **__: small)
    monkeypatch.setattr(Config, "quick", lambda self: TINY)
    assert run.main(["--texts", str(texts), "--quick"]) == 0
    kept = json.loads((tmp_path / "out" / "quick" / "results.json").read_text())
    assert kept["groups"]["all"]["tokens"] == 21
    assert (tmp_path / "out" / "depth.html").stat().st_size > 10_000
    assert "| sure |" in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.model
def test_a_few_texts_give_the_expected_figures(model, shared_data):
    from experiments.expected import read_expected, rows

    config = replace(Config(), texts=8)
    found = values(depths(read(model, shared_data / "wikipedia_paragraphs.txt", config), config))
    claims = {name: goal for name, goal in read_expected(run.FOLDER / "expected.json").items() if goal.get("reason")}
    assert [row.name for row in rows(found, claims) if not row.met] == []
