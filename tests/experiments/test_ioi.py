"""The comparison of heads on the indirect-object task: its pairs, its measures on a tiny model, a short run, and the kept results."""

import json
from dataclasses import replace

import pytest
import torch

import word_model
from experiments.expected import read_expected
from experiments.ioi import heads, run
from experiments.ioi.config import Config
from experiments.ioi.figure import heads_figure
from experiments.ioi.heads import Heads, Swept, measure
from experiments.ioi.pairs import Chosen, Flip, alike, chosen, flipped, read_flips
from experiments.ioi.summary import lines, values
from interp.errors import UsageError
from interp.heads import Head
from interp.interventions import Patch
from interp.maths.estimates import Estimates

TINY = replace(Config(), pairs=2, top=3, steps=2, asked_at_once=2)
ABBA = "After Ann and Bob went to the shop Bob gave a plum to"
BABA = "Then Carl and Dora went to the store Carl wanted to give it to"


@pytest.fixture(scope="module")
def small():
    return word_model.build()


@pytest.fixture(scope="module")
def flips():
    return flipped(3, ABBA, "Ann"), flipped(8, BABA, "Dora")


@pytest.fixture(scope="module")
def found(small, flips, tmp_path_factory):
    return measure(small, flips, TINY, tmp_path_factory.mktemp("ioi"), lambda line: None)


def test_the_corrupted_prompt_names_the_other_person(flips):
    abba, baba = flips
    assert abba.corrupted == "After Ann and Bob went to the shop Ann gave a plum to"
    assert (abba.answer, abba.against) == (" Ann", " Bob")
    assert baba.corrupted == "Then Carl and Dora went to the store Dora wanted to give it to"
    assert (baba.answer, baba.against) == (" Dora", " Carl")
    back = flipped(3, abba.corrupted, "Bob")
    assert (back.corrupted, back.answer, back.against) == (abba.clean, abba.against, abba.answer)


@pytest.mark.parametrize(
    ("prompt", "answer"),
    [
        ("After Ann and Bob went, Bob gave a plum to", "Eve"),  # the answer is not there
        ("After Ann and Bob went, Ann gave a plum to", "Ann"),  # the answer stands twice
        ("After Ann and Bob went, Eve gave a plum to", "Ann"),  # no name stands twice
        ("After Ann, Bob and Eve went, Bob gave Eve a plum for", "Ann"),  # two names stand twice
        ("Bob and Bobby met; Bob told Ann of Bobby and of", "Ann"),
    ],
)
def test_prompts_whose_names_cannot_be_told_are_left_out(prompt, answer):
    assert flipped(0, prompt, answer) is None


def test_only_whole_words_are_names():
    found = flipped(0, "Then Ann and Anna met at the lake; Anna gave it to", "Ann")
    assert found == Flip(
        number=0,
        clean="Then Ann and Anna met at the lake; Anna gave it to",
        corrupted="Then Ann and Anna met at the lake; Ann gave it to",
        answer=" Ann",
        against=" Anna",
    )


def test_prompts_are_read(tmp_path):
    path = tmp_path / "ioi.json"
    path.write_text(json.dumps([{"prompt": ABBA, "answer": "Eve"}, {"prompt": BABA, "answer": " Dora"}]))
    (flip,) = read_flips(path)
    assert (flip.number, flip.answer) == (1, " Dora")
    path.write_text(json.dumps([{"prompt": ABBA}]))
    with pytest.raises(UsageError, match="object 0: needs 'prompt' and 'answer'"):
        read_flips(path)
    path.write_text(json.dumps([{"prompt": ABBA, "answer": "Eve"}]))
    with pytest.raises(UsageError, match="holds no prompt"):
        read_flips(path)


def test_pairs_must_tokenise_alike(small, flips):
    abba = flips[0]
    assert alike(small, abba)
    assert not alike(small, replace(abba, corrupted=abba.corrupted + " it"))
    assert not alike(small, replace(abba, corrupted=abba.clean))
    assert not alike(small, replace(abba, corrupted="Then Ann and Bob went to the shop Ann gave a plum to"))
    assert not alike(small, replace(abba, against=abba.answer))


def test_only_pairs_that_the_model_answers_rightly_are_taken(small, flips):
    """The model's own word after a prompt takes the name's place as the answer."""

    def said(prompt):
        return " " + word_model.WORDS[int(small.run(prompt, logits="last").last_logits.argmax())]

    right = replace(flips[0], answer=said(flips[0].clean), against=said(flips[0].corrupted))
    if right.answer == right.against:
        right = replace(right, corrupted=ABBA.replace("Bob gave", "Eve gave"))
        right = replace(right, against=said(right.corrupted))
    assert right.answer != right.against
    half = replace(right, number=4, against=" Fred" if right.against != " Fred" else " Eve")
    other = replace(right, number=5, corrupted=right.corrupted + " it")
    everything = chosen(small, [half, right, other], replace(TINY, pairs=9))
    assert everything == Chosen(flips=(right,), n_tried=3, left_out={"another answer": 1, "other tokens": 1})
    with pytest.raises(UsageError, match="answers none of the 2 pairs rightly"):
        chosen(small, [half, other], TINY)


def test_the_exact_effects_are_those_of_plain_runs(small, flips, found):
    numerator, denominator = torch.zeros(2, small.atlas.n_layers, small.atlas.n_heads), 0.0
    for flip in flips:
        first, second = (small.tokens(name).ids[0] for name in (flip.answer, flip.against))
        clean = small.run(flip.clean, "attn.z")

        def difference(logits, first=first, second=second):
            return float(logits[0, -1, first] - logits[0, -1, second])

        base = difference(small.run(flip.corrupted).logits)
        denominator += difference(clean.logits) - base
        for layer in range(small.atlas.n_layers):
            for head in range(small.atlas.n_heads):
                patch = Patch(f"attn.z@{layer}", clean.cache[f"attn.z@{layer}"][0, :, head : head + 1], heads=head)
                numerator[0, layer, head] += difference(small.run(flip.corrupted, interventions=patch).logits) - base
    torch.testing.assert_close(found.exact.values.float(), numerator[0] / denominator, atol=1e-4, rtol=1e-3)
    assert found.n_pairs == 2
    assert found.clean - found.corrupted == pytest.approx(denominator / 2, abs=1e-4)


def test_finished_sweeps_are_kept_and_not_made_again(small, flips, found, tmp_path, monkeypatch):
    made = measure(small, flips, TINY, tmp_path, lambda line: None)
    for name in ("activation_patching", "attribution_patching"):
        monkeypatch.setattr(heads, name, lambda *_, **__: pytest.fail("swept again"))
    again = measure(small, flips, TINY, tmp_path, lambda line: None)
    for name in ("exact", "gradient", "integrated"):
        torch.testing.assert_close(getattr(again, name).values, getattr(made, name).values, rtol=0, atol=0)
        assert getattr(again, name).seconds == getattr(made, name).seconds
    assert (again.n_pairs, again.clean, again.corrupted) == (2, found.clean, found.corrupted)
    for other in ((flips[:1], TINY), (flips, replace(TINY, steps=3))):
        with pytest.raises(pytest.fail.Exception, match="swept again"):
            measure(small, *other, tmp_path, lambda line: None)


def test_the_estimates_are_close_where_little_changes(found):
    """A tiny random model is nearly linear in a single head."""
    assert found.correlation(found.gradient) > 0.5
    assert found.correlation(found.exact) == pytest.approx(1)
    assert found.overlap(found.exact, 3) == 3


def swept(name, rows):
    values = torch.tensor(rows, dtype=torch.float64)
    nothing = torch.full_like(values, torch.nan)
    effects = Estimates(value=values, lower=nothing, upper=nothing, n=torch.full(values.shape, 2))
    return Swept(name=name, effects=effects, seconds=2.0)


def test_top_heads_overlap_and_ranks():
    exact = swept("exact", [[0.1, -0.9, 0.0], [0.5, 0.2, 0.0]])
    guess = swept("guess", [[0.1, 0.8, 0.0], [0.3, 0.9, 0.0]])
    both = Heads(exact=exact, gradient=guess, integrated=exact, n_pairs=2, clean=1.0, corrupted=-1.0)
    assert exact.top(2) == (Head(0, 1), Head(1, 0))
    assert guess.top(2) == (Head(1, 1), Head(0, 1))
    assert both.overlap(guess, 2) == 1
    # ranks of 0.1, -0.9, 0.5, 0.2 are 2 1 4 3, those of 0.1, 0.8, 0.3, 0.9 are 1 3 2 4: 1 - 6 (1 + 4 + 4 + 1) / 60
    assert both.correlation(guess) == pytest.approx(0)
    assert (
        lines(both, 2)[2]
        == "| 1 | L0H1 -0.900 (+nan to +nan) | **L1H1** +0.900 (+nan to +nan) | L0H1 -0.900 (+nan to +nan) |"
    )
    assert values(both, 2)["gradient_overlap"] == 1


def test_the_figure_names_the_strongest_heads(found):
    drawing = heads_figure(found)
    assert [trace.type for trace in drawing.data] == ["heatmap", *["scatter"] * 4]
    points = drawing.data[2]
    assert len(points.x) == found.exact.values.numel()
    assert str(found.exact.top(1)[0]) in points.text
    assert set(read_expected(run.EXPECTED)) <= set(values(found, 3))


def test_a_short_run_of_everything(small, flips, tmp_path, monkeypatch, capsys):
    path = tmp_path / "ioi.json"
    path.write_text(json.dumps([{"prompt": flip.clean, "answer": flip.answer} for flip in flips]))
    monkeypatch.setattr(run, "OUT", tmp_path)
    monkeypatch.setattr(run, "load", lambda *_, **__: small)
    monkeypatch.setattr(run, "chosen", lambda model, flips, config: Chosen(flips=flips, n_tried=2))
    monkeypatch.setattr(Config, "quick", lambda self: TINY)
    assert run.main(["--prompts", str(path), "--quick"]) == 0
    kept = json.loads((tmp_path / "quick" / "results.json").read_text())
    assert kept["pairs"]["numbers"] == [0, 1]
    assert len(kept["exact sweep"]["top"]) == 3
    assert {row["name"] for row in kept["figures"]} == set(read_expected(run.EXPECTED))
    assert (tmp_path / "quick" / "heads.html").stat().st_size > 10_000
    assert not list((tmp_path / "quick").glob("*.part"))
    assert "| 1 | L" in capsys.readouterr().out


@pytest.mark.model
@pytest.mark.long
def test_pairs_of_the_file_on_the_default_model(model, shared_data):
    flips = read_flips(shared_data / "ioi.json")
    assert len(flips) > 450
    few = chosen(model, flips, replace(Config(), pairs=3))
    assert len(few.flips) == 3
    for flip in few.flips:
        clean, corrupted = model.tokens(flip.clean), model.tokens(flip.corrupted)
        assert len(clean) == len(corrupted)
        logits = model.run([flip.clean, flip.corrupted], logits="last").last_logits
        said = [model.tokenizer.decode([token]) for token in logits.argmax(-1).tolist()]
        assert flip.answer.startswith(said[0])
        assert flip.against.startswith(said[1])
