"""Entropy of n-grams and TF-IDF cosines by hand and against scikit-learn's arithmetic; generations of a case."""

import math
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

import word_model
from interp.editing import generation_scores as scores
from interp.editing.cases import EditCase
from interp.editing.evaluation import evaluate_edit
from interp.prompts import Fact
from random_edit import random_edit

CASE = EditCase(fact=Fact("Ann", "After {} gave", " plum"), true=" shop", paraphrases=("Then Ann wanted to give",))


def test_words_are_runs_of_letters_with_their_apostrophes_and_single_marks() -> None:
    text = "Don't \u201cstop\u201d: it\u2019s 3.5 na\u00efve_x, O'Neil's \u2026 \u5317\u4eac!"
    assert scores.words_of(text) == [
        "Don't", "\u201c", "stop", "\u201d", ":", "it\u2019s", "3", ".", "5", "na\u00efve_x", ",",
        "O'Neil's", "\u2026", "\u5317\u4eac", "!",
    ]  # fmt: skip


def test_the_entropy_of_n_grams() -> None:
    assert scores.ngram_entropy(["a", "b", "a", "b", "a"], 2) == pytest.approx(1.0)  # ab, ba, ab, ba
    assert scores.ngram_entropy(["a", "b", "c", "d", "e"], 2) == pytest.approx(2.0)
    assert scores.ngram_entropy(["a", "a", "a", "a"], 3) == 0
    assert scores.ngram_entropy(["a"], 2) == 0
    text = "a b c d e"
    assert scores.generation_entropy([text]) == pytest.approx(100 * (2 / 3 * 2 + 4 / 3 * math.log2(3)) / 2)
    assert scores.generation_entropy([text, "a a a a"]) == pytest.approx(scores.generation_entropy([text]) / 2)
    assert math.isnan(scores.generation_entropy([]))


@given(st.lists(st.sampled_from("abc"), min_size=1, max_size=30), st.sampled_from([2, 3]))
def test_the_entropy_is_that_of_the_distribution(words: list[str], n: int) -> None:
    counts = Counter(zip(*(words[i:] for i in range(n)), strict=False))
    total = sum(counts.values())
    wanted = -sum(count / total * math.log2(count / total) for count in counts.values())
    assert scores.ngram_entropy(words, n) == pytest.approx(wanted, abs=1e-12)


def test_tfidf_is_the_smooth_one_and_unknown_words_count_most() -> None:
    weights, otherwise = scores.inverse_frequencies(["red tower", "red lake", "Red"])
    assert weights["red"] == pytest.approx(1)
    assert weights["tower"] == pytest.approx(math.log(4 / 2) + 1)
    assert otherwise == pytest.approx(math.log(4) + 1)
    t, u = weights["tower"], otherwise
    found = scores.tfidf_cosine("red red tower", "tower bridge", weights, otherwise)
    assert found == pytest.approx(t * t / (math.hypot(2, t) * math.hypot(t, u)))
    assert scores.tfidf_cosine("RED tower", "red Tower", weights, otherwise) == pytest.approx(1)
    assert scores.tfidf_cosine("", "red", weights, otherwise) == 0
    assert scores.reference_score(["red", "tower"], ["tower red"], weights, otherwise) == pytest.approx(100)
    assert math.isnan(scores.reference_score([], ["red"], weights, otherwise))


def test_generations_are_as_long_as_the_paper_says_and_repeat_with_the_seed(monkeypatch) -> None:
    model, asked, sample_ids = word_model.build("llama"), [], scores.sample_ids

    def watched(model, prefix, n_tokens, **options):
        asked.append((list(prefix.shape), n_tokens, options["top_k"]))
        return sample_ids(model, prefix, n_tokens, **options)

    monkeypatch.setattr(scores, "sample_ids", watched)
    texts = scores.generations(model, CASE, 0)
    assert asked == [([1, 3], 61, 5), ([1, 5], 59, 5)]  # to the model's context, which is below the paper's 100
    assert len(texts) == 2
    for text, prompt in zip(texts, scores.prompts_to_continue(CASE), strict=True):
        assert text.startswith(prompt)
    assert scores.generations(model, CASE, 0) == texts
    assert scores.generations(model, CASE, 1) != texts
    given_prompts = EditCase(fact=CASE.fact, true=CASE.true, generation_prompts=("Bob is", "one " * 63 + "two"))
    first, second = scores.generations(model, given_prompts, 0)
    assert first.startswith("Bob is")
    assert second.split() == ["one"] * 63 + ["two"]


@pytest.mark.slow
def test_an_evaluation_measures_them_when_asked() -> None:
    model = word_model.build("llama")
    referred = EditCase(fact=CASE.fact, true=CASE.true, reference_texts=("plum lake one", "two three"))
    edit = random_edit(model, [1], size=1.5)
    found = evaluate_edit(model, edit, [CASE, referred], generate=True, seed=5)
    with edit.applied(model):
        after = scores.generations(model, CASE, 5)
    assert found.samples("generation_entropy", "before").tolist() == pytest.approx(
        [
            scores.generation_entropy(scores.generations(model, case, 5 + index))
            for index, case in enumerate([CASE, referred])
        ]
    )
    assert float(found.samples("generation_entropy")[0]) == pytest.approx(scores.generation_entropy(after))
    reference = found.samples("reference_score")
    assert math.isnan(reference[0])
    assert 0 <= float(reference[1]) <= 100
    assert found.estimate("reference_score").n == 1
    one_each = evaluate_edit(model, [edit, random_edit(model, [1], seed=1)], [CASE, referred], generate=True, seed=5)
    assert float(one_each.samples("generation_entropy")[0]) == pytest.approx(scores.generation_entropy(after))
    assert evaluate_edit(model, edit, [CASE]).estimate("generation_entropy") is None
    assert evaluate_edit(model, edit, [CASE], generate=True).estimate("reference_score") is None
