"""Many edits: each on the model with those before it; what the watch reports is what plain loops find; limits warn or stop."""

import copy
from dataclasses import replace

import pytest
import torch

import word_model
from interp.editing import edit_sequence as module
from interp.editing import stack
from interp.editing.edit_sequence import edit_sequence
from interp.editing.edit_sequence_result import EditSequence, join_edits
from interp.editing.evaluation import evaluate_edit
from interp.editing.matrix import output_matrix
from interp.editing.settings import sequence_settings_of, settings_of
from interp.errors import NumericsError, UsageError
from interp.results import load_result
from oracles import edit_scores as oracle
from random_edit import random_edit
from small_cases import CASES, TEXTS

FACTS = tuple(case.fact for case in CASES)


@pytest.fixture
def words(monkeypatch):
    """A model, and edits with random factors in place of computed ones: ``made`` tells on which weights each was made."""
    model = word_model.build("llama")
    model.made = []

    def random(model, facts, method, *, layers, moments, settings, contexts, keep, seed, allow_known):
        weights = output_matrix(model, 1).values.clone()
        model.made.append(
            {
                "weights": weights,
                "layers": layers,
                "moments": moments,
                "contexts": contexts,
                "keep": tuple(keep),
                "settings": settings,
                "known": allow_known,
            }
        )
        return replace(random_edit(model, [1], seed=len(model.made), size=0.4), facts=tuple(facts), method=method)

    monkeypatch.setattr(module, "edit_facts", random)
    monkeypatch.setattr(module, "cached_moments", lambda model, layers, *, seed=0: f"moments of {layers}")
    return model


def with_edits(model, edits):
    other = copy.deepcopy(model.hf)
    for edit in edits:
        for change in edit.layers:
            other.get_submodule(change.path).weight.data += change.left @ change.right
    return other


@pytest.mark.parametrize("batch", [1, 3])
def test_each_edit_is_made_on_the_model_with_the_earlier_ones(words, batch: int) -> None:
    base = output_matrix(words, 1).values.clone()
    result = edit_sequence(words, FACTS, batch=batch, every=1)
    assert [len(edit.facts) for edit in result.edits] == ([1] * 4 if batch == 1 else [3, 1])
    assert tuple(fact for edit in result.edits for fact in edit.facts) == FACTS
    expected = base.clone()
    for made, edit in zip(words.made, result.edits, strict=True):
        torch.testing.assert_close(made["weights"], expected)
        expected += edit.layers[0].left @ edit.layers[0].right
    assert torch.equal(output_matrix(words, 1).values, base)
    assert stack.applied_edits(words) == ()
    assert [made["layers"] for made in words.made] == ["auto", *[[1]] * (len(words.made) - 1)]
    assert [made["moments"] for made in words.made] == [None, *["moments of [1]"] * (len(words.made) - 1)]
    assert len({id(made["contexts"]) for made in words.made}) == 1
    assert all(made["known"] for made in words.made)
    done = [tuple(fact for edit in result.edits[:number] for fact in edit.facts) for number in range(len(words.made))]
    assert [made["keep"] for made in words.made] == done
    found = {"steps": 20, "value_contexts": 6, "noise": 0.8, "quiet_steps": 0, "clamp": 3.0, "enough_probability": 0.95}
    gentle = replace(settings_of("rome"), **found)
    assert sequence_settings_of("rome") == gentle
    assert all(made["settings"] == gentle for made in words.made)
    words.made.clear()
    edit_sequence(words, FACTS, "rome-original", batch=batch)
    assert all(made["settings"] == settings_of("rome-original") for made in words.made)
    assert [made["keep"] for made in words.made] == [()] * len(words.made)


def test_the_watch_reports_what_plain_loops_find(words) -> None:
    result = edit_sequence(words, FACTS, cases=CASES, texts=TEXTS[:2], every=2)
    assert result.checked.tolist() == [0, 2, 4]
    base = output_matrix(words, 1).values
    windows = [[(words.tokens(text).ids, 1)] for text in TEXTS[:1]]
    ids = tuple(words.tokenizer(TEXTS[1])["input_ids"])
    windows.append([(ids[start : start + 64], 1) for start in range(0, len(ids) - 1, 63)])
    for check, edited in enumerate(result.checked.tolist()):
        after = with_edits(words, result.edits[:edited])
        assert float(result.perplexity[check]) == pytest.approx(oracle.perplexity(after, windows), rel=1e-4)
        whole, likelier = [], []
        for index, case in enumerate(CASES[:edited]):
            asked = (after, words.tokenizer, case.fact.prompt)
            new, true = oracle.nll(*asked, case.fact.target), oracle.nll(*asked, case.true)
            accuracy = oracle.token_accuracy(*asked, case.fact.target)
            assert float(result.new_nats[check, index]) == pytest.approx(new, abs=1e-4)
            assert float(result.true_nats[check, index]) == pytest.approx(true, abs=1e-4)
            assert float(result.accuracy[check, index]) == pytest.approx(accuracy)
            whole.append(accuracy == 1)
            likelier.append(new < true)
        assert result.accuracy[check, edited:].isnan().all()
        for measure, held in (("argmax", whole), ("preferred", likelier)):
            estimate = result.holding(measure, check)
            assert (estimate is None) == (edited == 0)
            if estimate is not None:
                assert (estimate.value, estimate.n) == (sum(held) / edited, edited)
    for n in range(4):
        changes = [edit.layers[0] for edit in result.edits[: n + 1]]
        drift = oracle.drift([change.left for change in changes], [change.right for change in changes], base)
        assert float(result.drift[n, 0]) == pytest.approx(drift, rel=1e-5)
    assert result.perplexity_ratio == pytest.approx(float(result.perplexity[2] / result.perplexity[0]))
    assert (result.stop_reason, result.warnings, result.n_edited, result.layers) == ("end", (), 4, (1,))


def test_all_edits_as_one_are_the_edits_together(words) -> None:
    result = edit_sequence(words, FACTS)
    after = with_edits(words, result.edits)
    one = result.edit
    assert (one.facts, one.layers[0].rank, len(one.layers)) == (FACTS, 4, 1)
    ids = words.tokens("the tower of Pisa is in").ids
    with one.applied(words):
        torch.testing.assert_close(
            words.run(ids).logits[0].double(), oracle.logits_of(after, list(ids)), atol=1e-4, rtol=1e-4
        )
    with stack.applied(words, *result.edits):
        apart = evaluate_edit(words, None, CASES).estimate("neighbourhood_magnitude", "before")
    assert evaluate_edit(words, one, CASES).estimate("neighbourhood_magnitude").value == pytest.approx(
        apart.value, abs=1e-3
    )
    assert join_edits(result.edits[:1]) is result.edits[0]
    with pytest.raises(UsageError, match="there is no edit to join"):
        join_edits([])
    other = random_edit(word_model.build("llama", seed=1), [1])
    with pytest.raises(UsageError, match="made for different weights of layer 1"):
        join_edits([result.edits[0], other])


def test_what_was_not_given_is_not_measured_and_checks_come_every_so_many(words) -> None:
    result = edit_sequence(words, FACTS, every=3)
    assert result.checked.tolist() == [0, 3, 4]
    assert (result.perplexity, result.perplexity_ratio, result.true_nats) == (None, None, None)
    assert result.holding("preferred") is None
    assert result.holding("argmax").n == 4
    frame = result.to_frame()
    assert list(frame["facts_edited"]) == [0, 3, 4]
    assert frame["perplexity"].isna().all()
    assert frame["hold_preferred_percent"].isna().all()
    assert list(frame["weight_drift_L1"]) == pytest.approx([0.0, float(result.drift[2, 0]), float(result.drift[3, 0])])
    assert len(result.figure().data) == 2


@pytest.mark.parametrize("on_limit", ["warn", "stop"])
def test_the_limit_of_the_norm(words, on_limit: str) -> None:
    said = []
    words.notify = said.append
    free = edit_sequence(words, FACTS)
    words.made.clear()
    limit = float(free.drift[1, 0]) * 1.001  # the third passes it
    result = edit_sequence(words, FACTS, limit_norm_ratio=limit, on_limit=on_limit, every=10)
    assert len(result.edits) == (4 if on_limit == "warn" else 2)
    assert result.stop_reason == ("end" if on_limit == "warn" else "drift")
    assert result.checked.tolist() == [0, len(result.edits)]
    assert len(said) == len(result.warnings) == 1
    assert f"|dW|/|W| of layer 1 is {float(free.drift[2, 0]):.3g} with fact 3, over the limit of" in said[0]
    assert said[0].endswith("; going on" if on_limit == "warn" else "; stopped")


@pytest.mark.parametrize("on_limit", ["warn", "stop"])
def test_the_limit_of_the_perplexity(words, on_limit: str) -> None:
    free = edit_sequence(words, FACTS, texts=TEXTS, every=1)
    words.made.clear()
    ratios = (free.perplexity / free.perplexity[0]).tolist()
    limit = 0.999 * ratios[2]
    first = next(index for index, ratio in enumerate(ratios) if index and ratio > limit)
    result = edit_sequence(words, FACTS, texts=TEXTS, every=1, limit_perplexity_ratio=limit, on_limit=on_limit)
    assert len(result.edits) == (4 if on_limit == "warn" else first)
    assert result.stop_reason == ("end" if on_limit == "warn" else "perplexity")
    assert result.checked.tolist() == list(range(len(result.edits) + 1))
    assert len(result.warnings) == 1
    assert f"the perplexity is {ratios[first]:.3g} times that before, after {first} facts" in result.warnings[0]


def test_the_file_the_figure_and_earlier_edits_stay(words, tmp_path) -> None:
    earlier = random_edit(words, [2], seed=9)
    with earlier.applied(words):
        result = edit_sequence(words, FACTS, cases=CASES, texts=TEXTS, every=2)
        assert stack.applied_edits(words) == (earlier,)
    result.save(tmp_path / "sequence.safetensors")
    again = load_result(tmp_path / "sequence.safetensors")
    assert isinstance(again, EditSequence)
    assert again.to_frame().equals(result.to_frame())
    assert again.facts == FACTS
    torch.testing.assert_close(again.edit.layers[0].left, result.edit.layers[0].left)
    figure = again.figure()
    names = [trace.name for trace in figure.data]
    assert names == ["ranks first", "likelier than the true object", "perplexity", "|dW|/|W| of layer 1"]
    assert list(figure.data[2].y) == pytest.approx(result.perplexity.tolist())
    assert list(figure.data[3].x) == [1, 2, 3, 4]
    assert again.to_json()["n_texts"] == 3


def test_an_edit_that_fails_leaves_the_model_as_it_was(words, monkeypatch) -> None:
    base, made = output_matrix(words, 1).stored.clone(), module.edit_facts

    def failing(model, facts, *arguments, **options):
        if facts[0] == FACTS[2]:
            raise NumericsError("the optimisation is not finite")
        return made(model, facts, *arguments, **options)

    monkeypatch.setattr(module, "edit_facts", failing)
    with pytest.raises(NumericsError, match="the optimisation is not finite"):
        edit_sequence(words, FACTS)
    assert torch.equal(output_matrix(words, 1).stored, base)
    assert stack.applied_edits(words) == ()


def test_mistakes(words) -> None:
    for options, said in (
        ({"batch": 0}, "batch is 0; valid: 1 or more"),
        ({"every": 0}, "every is 0; valid: 1 or more"),
        ({"limit_norm_ratio": 0.0}, "limit_norm_ratio is 0.0; valid: above 0, or None"),
        ({"limit_perplexity_ratio": -1.0}, "limit_perplexity_ratio is -1.0; valid: above 0"),
        ({"confidence": 2.0}, "confidence is 2.0; valid: between 0 and 1"),
        ({"cases": CASES[:2]}, "the cases are not those of the facts"),
        ({"method": "romee"}, "unknown method 'romee'"),
    ):
        with pytest.raises(UsageError, match=said):
            edit_sequence(words, FACTS, **options)
    with pytest.raises(UsageError, match="there is no fact to edit; give at least one"):
        edit_sequence(words, [])
    with pytest.raises(UsageError, match="unknown measure 'first'; valid: argmax, preferred"):
        edit_sequence(words, FACTS[:1]).holding("first")
    assert len(words.made) == 1
