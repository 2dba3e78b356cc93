"""An evaluation gives the numbers of plain loops over plain forwards; what was not given is not measured; the model is left as it was."""

import copy
import json
import math

import pytest
import torch

import word_model
from interp.analyzers.answers import read_answer
from interp.editing import evaluation, stack
from interp.editing.answer_scores import Probe, hear
from interp.editing.asked_prompts import AskedPrompts
from interp.editing.cases import EditCase
from interp.editing.edit_metrics import METRICS
from interp.editing.evaluation import evaluate_edit
from interp.editing.evaluation_result import SCORES, EditScores, meaning_of, unit_of
from interp.editing.matrix import output_matrix
from interp.errors import ModelError, NumericsError, UsageError
from interp.maths.statistics import mean_estimates
from interp.prompts import Fact
from oracles import edit_scores as oracle
from random_edit import random_edit
from small_cases import CASES, TEXTS, UNRELATED

PLAIN = [
    {
        "prompt": case.fact.prompt,
        "new": case.fact.target,
        "true": case.true,
        "paraphrases": case.paraphrases,
        "neighbours": case.neighbours,
        "locality": case.locality,
        "portability": case.portability,
    }
    for case in CASES
]
FAMILIES = ("gpt2", "llama", "gemma2", "gpt_neox", "phi3")


@pytest.fixture(scope="module")
def words():
    return word_model.build("llama")


def edited_copy(model, edits):
    """A copy of the plain model with the updates added to its weights by hand."""
    other = copy.deepcopy(model.hf)
    for edit in edits:
        for change in edit.layers:
            weight = other.get_submodule(change.path).weight
            update = change.left @ change.right
            weight.data += update.T if change.transposed else update
    return other


def check(found, wanted, when, atol=2e-3):
    for name, value in wanted.items():
        estimate = found.estimate(name, when)
        assert estimate is not None, name
        assert estimate.value == pytest.approx(value, abs=atol), (name, when)


@pytest.mark.parametrize("name", FAMILIES)
def test_every_score_is_that_of_plain_loops(name: str) -> None:
    """Random weights nearly tie many answers; the large edit gives clear ones. Per cent, so 2e-3 is 2e-5 of a share."""
    model = word_model.build(name)
    edit = random_edit(model, [0, 2], rank=2, size=1.5)
    after = edited_copy(model, [edit])
    found = evaluate_edit(model, edit, CASES)
    check(found, oracle.scores(model.hf, model.tokenizer, PLAIN), "before")
    check(found, oracle.scores(after, model.tokenizer, PLAIN), "after")
    change = oracle.changes(model.hf, after, model.tokenizer, PLAIN)
    assert set(change) == {"neighbours_kept", "neighbour_kl", "locality_acc"}
    check(found, change, "after")
    measured = {score for score in SCORES if found.estimate(score) is not None}
    assert measured == {*change, *oracle.scores(after, model.tokenizer, PLAIN)}
    for layer in edit.layers:
        base = output_matrix(model, layer.layer).values
        assert found.weight_drift(layer.layer).value == pytest.approx(
            oracle.drift([layer.left], [layer.right], base), rel=1e-6
        )
    assert found.drift.shape == (1, 2)


def test_one_edit_for_each_case_is_each_edit_alone(words) -> None:
    edits = [random_edit(words, [1], seed=index, size=1.0) for index in range(len(CASES))]
    found = evaluate_edit(words, edits, CASES, unrelated=UNRELATED)
    copies = [edited_copy(words, [edit]) for edit in edits]
    for name in ("efficacy_magnitude", "neighbourhood_magnitude", "paraphrase_magnitude", "locality_acc"):
        each = []
        for plain, after in zip(PLAIN, copies, strict=True):
            alone = oracle.scores(after, words.tokenizer, [plain]) | oracle.changes(
                words.hf, after, words.tokenizer, [plain]
            )
            each.append(alone.get(name, math.nan))
        samples = found.samples(name)
        torch.testing.assert_close(samples, torch.tensor(each, dtype=torch.float64), atol=2e-3, rtol=0, equal_nan=True)
        estimate = mean_estimates(torch.tensor(each)[:, None]).at(0)
        got = found.estimate(name)
        assert (got.value, got.lower, got.upper) == pytest.approx(
            (estimate.value, estimate.lower, estimate.upper), abs=1e-2
        )
        assert got.n == sum(not math.isnan(value) for value in each)
    kl = [
        sum(oracle.divergence(words.hf, after, words.tokenizer, prompt) for prompt in UNRELATED) / len(UNRELATED)
        for after in copies
    ]
    torch.testing.assert_close(
        found.samples("unrelated_kl"), torch.tensor(kl, dtype=torch.float64), atol=1e-5, rtol=1e-4
    )
    assert found.drift.shape == (4, 1)
    assert found.n_edits == 4


def test_perplexity_before_and_after_each_edit(words) -> None:
    edits = [random_edit(words, [1], seed=index, size=1.0) for index in range(len(CASES))]
    found = evaluate_edit(words, edits, CASES, texts=TEXTS, context=20)
    windows = []
    for text in TEXTS:
        ids = words.tokens(text).ids if len(text) < 100 else tuple(words.tokenizer(text)["input_ids"])
        windows.append([(ids[i : i + 20], 1) for i in range(0, len(ids) - 1, 19)])
    before = oracle.perplexity(words.hf, windows)
    after = [oracle.perplexity(edited_copy(words, [edit]), windows) for edit in edits]
    assert found.estimate("perplexity", "before").value == pytest.approx(before, rel=1e-5)
    torch.testing.assert_close(found.perplexities, torch.tensor(after, dtype=torch.float64), rtol=1e-5, atol=0)
    assert found.estimate("perplexity").value == pytest.approx(sum(after) / 4, rel=1e-5)
    assert found.estimate("perplexity_ratio").value == pytest.approx(sum(after) / 4 / before, rel=1e-5)
    assert found.estimate("perplexity_ratio").n == 4
    one = evaluate_edit(words, edits[0], CASES, texts=TEXTS, context=20)
    assert one.estimate("perplexity").value == pytest.approx(after[0], rel=1e-5)
    ratio = one.estimate("perplexity_ratio")
    assert ratio.value == pytest.approx(after[0] / before, rel=1e-5)
    assert ratio.lower <= ratio.value <= ratio.upper
    assert ratio.n == 3


def test_no_edit_measures_the_model_as_it_is_and_has_no_after(words) -> None:
    found = evaluate_edit(words, None, CASES, texts=TEXTS[:1], unrelated=UNRELATED)
    check(found, oracle.scores(words.hf, words.tokenizer, PLAIN), "before")
    assert all(found.estimate(name, "after") is None for name in SCORES)
    assert (found.method, found.n_edits, found.layers) == ("none", 0, ())
    assert found.side_effects().empty
    assert set(found.to_frame()["when"]) == {"before"}
    before = evaluate_edit(words, random_edit(words, [0]), CASES)
    assert before.estimate("score", "before") == found.estimate("score", "before")


def test_an_edit_of_nothing_changes_nothing_to_the_last_bit(words) -> None:
    edit = random_edit(words, [1], size=0.0)
    found = evaluate_edit(words, edit, CASES, texts=TEXTS, unrelated=UNRELATED)
    for asked in found.asked.values():
        assert torch.equal(asked.before.new_nats.nan_to_num(), asked.after.new_nats.nan_to_num())
        assert float(asked.kl_nats.max()) == 0
    for name in ("neighbours_kept", "unrelated_kept", "locality_acc"):
        assert found.estimate(name).value == 100
    assert found.estimate("perplexity_ratio").value == 1
    assert found.weight_drift(1).value == 0


def test_the_side_effects_are_the_bystanders_whose_first_token_changed(words) -> None:
    edit = random_edit(words, [0], size=2.0, seed=3)
    found = evaluate_edit(words, edit, CASES, unrelated=UNRELATED)
    after = edited_copy(words, [edit])
    bystanders = [("neighbour", prompt) for case in CASES for prompt in case.neighbours]
    bystanders += [("locality", prompt) for case in CASES for prompt, _ in case.locality]
    bystanders += [("unrelated", prompt) for prompt in UNRELATED]
    wanted = {}
    for role, prompt in bystanders:
        old, new = (oracle.last_log_probs(hf, words.tokenizer, prompt) for hf in (words.hf, after))
        if int(old.argmax()) != int(new.argmax()):
            wanted[role, prompt] = (
                words.tokenizer.decode([int(old.argmax())]), math.exp(float(old.max())),
                words.tokenizer.decode([int(new.argmax())]), math.exp(float(new.max())),
                oracle.divergence(words.hf, after, words.tokenizer, prompt),
            )  # fmt: skip
    assert 3 <= len(wanted) < len(bystanders) + 1
    table = found.side_effects()
    assert len(table) == len(wanted)
    assert list(table["kl_nats"]) == sorted(table["kl_nats"], reverse=True)
    for row in table.itertuples():
        old, old_p, new, new_p, kl = wanted[row.role, row.prompt]
        assert (row.old_answer, row.new_answer) == (old, new)
        assert (row.old_probability, row.new_probability, row.kl_nats) == pytest.approx((old_p, new_p, kl), abs=1e-5)


def test_what_was_not_given_is_not_measured(words) -> None:
    bare = EditCase(fact=Fact("Ann", "After {} gave a", " plum"), true=" green")
    found = evaluate_edit(words, random_edit(words, [0]), bare)
    measured = {"efficacy_score", "efficacy_magnitude", "prompt_argmax", "rewrite_acc"}
    for name in SCORES:
        for when in ("before", "after"):
            assert (found.estimate(name, when) is not None) == (name in measured), (name, when)
            assert (found.papers_interval(name, when) is not None) == (name in measured)
    assert set(found.asked) == {"prompt"}
    assert list(found.side_effects().columns)[:3] == ["case", "role", "prompt"]
    mixed = evaluate_edit(words, random_edit(words, [0]), CASES)
    assert mixed.estimate("paraphrase_score").n == 3
    assert mixed.estimate("portability_acc").n == 1


def test_answers_of_a_prompt_share_its_forward(words, monkeypatch) -> None:
    """Two answers of one token: one row. Answers that begin alike: the row of the longer. Others: a row each."""
    rows, run = [], type(words).run

    def counted(self, prompts, *arguments, **options):
        rows.extend(tokens.text for tokens in prompts)
        return run(self, prompts, *arguments, **options)

    monkeypatch.setattr(type(words), "run", counted)
    for case, n_rows in zip(CASES[:3], (1, 2, 1), strict=True):
        rows.clear()
        answers = tuple(read_answer(words, text) for text in (case.fact.target, case.true))
        heard = hear(words, [Probe(prompt=words.tokens(case.fact.prompt), answers=answers)])[0]
        assert len(rows) == n_rows
        for nats, text in zip(heard.nats, (case.fact.target, case.true), strict=True):
            assert nats == pytest.approx(oracle.nll(words.hf, words.tokenizer, case.fact.prompt, text), abs=1e-5)


def test_s_is_0_where_a_part_is_0(words) -> None:
    found = evaluate_edit(words, random_edit(words, [0]), CASES)
    prompt = found.asked["prompt"]
    losing = prompt.after.__class__(**{**vars(prompt.after), "new_nats": prompt.after.true_nats + 1})
    asked = {**found.asked, "prompt": AskedPrompts(**{**vars(prompt), "after": losing})}
    lost = EditScores(**{**vars(found), "asked": asked})
    assert lost.estimate("efficacy_score").value == 0
    assert lost.estimate("score").value == 0
    assert lost.estimate("score", "before") == found.estimate("score", "before")


def test_memory_is_bounded_by_asking_some_cases_at_a_time(words, monkeypatch) -> None:
    edit = random_edit(words, [0], size=1.0)
    whole = evaluate_edit(words, edit, CASES)
    monkeypatch.setattr(evaluation, "_KEPT_AT_ONCE", words.atlas.d_vocab)
    parts = evaluate_edit(words, edit, CASES)
    for name in SCORES:
        if whole.estimate(name) is not None:
            assert parts.estimate(name).value == pytest.approx(whole.estimate(name).value, abs=1e-3)


def test_the_file_and_the_json(words, tmp_path) -> None:
    edits = [random_edit(words, [1], seed=index) for index in range(len(CASES))]
    found = evaluate_edit(words, edits, CASES, texts=TEXTS, unrelated=UNRELATED)
    found.save(tmp_path / "scores.safetensors")
    again = EditScores.load(tmp_path / "scores.safetensors")
    assert again.cases == CASES
    assert again.to_frame().equals(found.to_frame())
    assert again.prompts_frame().equals(found.prompts_frame())
    assert again.side_effects().equals(found.side_effects())
    text = json.dumps(found.to_json(), allow_nan=False)
    assert json.loads(text)["kind"] == "edit_scores"
    frame = found.to_frame()
    assert set(frame["score"]) >= {"score", "efficacy_score", "neighbour_kl", "weight_drift_L1", "perplexity_ratio"}
    row = frame[(frame["score"] == "neighbourhood_score") & (frame["when"] == "after")].iloc[0]
    assert row["unit"] == "%"
    assert row["papers_half_width"] == pytest.approx(found.papers_interval("neighbourhood_score"))


def test_the_figure_shows_what_was_measured(words) -> None:
    found = evaluate_edit(words, random_edit(words, [0]), CASES)
    figure = found.figure()
    before, after = figure.data
    names = list(figure.layout.yaxis.ticktext)
    assert names[0] == "score"
    at = {names[round(y - 0.14)]: x for x, y in zip(after.x, after.y, strict=True)}
    for name in ("efficacy_score", "paraphrase_magnitude", "neighbours_kept"):
        assert at[name.replace("_", " ")] == pytest.approx(found.estimate(name).value)
    assert len(before.x) == len(after.x) - 2  # neighbours kept and EasyEdit's locality compare the two
    assert len(evaluate_edit(words, None, CASES).figure().data) == 1


def test_every_score_has_a_unit_and_a_meaning() -> None:
    assert {unit_of(name) for name in METRICS} == {"%", "nats"}
    assert all(len(meaning_of(name)) > 20 for name in SCORES)


def test_mistakes_are_told_and_leave_the_model_as_it_was(words) -> None:
    edit = random_edit(words, [0])
    before = output_matrix(words, 0).stored.clone()
    cases = [
        ((edit, []), {}, UsageError, "there is no case to evaluate"),
        (([edit], CASES), {}, UsageError, "1 edits for 4 cases; give one edit for all of them, or one for each"),
        ((edit, CASES), {"confidence": 1.0}, UsageError, "confidence is 1.0; valid: between 0 and 1"),
        ((edit, CASES), {"texts": "one two"}, UsageError, "texts is one text; give a list"),
        ((edit, CASES), {"texts": ["one"]}, UsageError, "has one token"),
        ((edit, CASES), {"context": 2, "texts": ["one two three"]}, UsageError, "context is 2; valid: 3 to 64"),
        ((edit, CASES), {"unrelated": [""]}, UsageError, "the prompt is empty"),
        ((random_edit(word_model.build("llama", seed=1), [0]), CASES), {}, ModelError, "was made for other weights"),
    ]
    for arguments, options, kind, said in cases:
        with pytest.raises(kind, match=said.replace("(", r"\(")):
            evaluate_edit(words, *arguments, **options)
    with stack.applied(words, edit), pytest.raises(UsageError, match="applied to .* already"):
        evaluate_edit(words, edit, CASES)
    found = evaluate_edit(words, edit, CASES)
    with pytest.raises(
        UsageError,
        match=r"unknown score 'efficacy_scores' \(did you mean 'efficacy_score'\?\); valid: score, efficacy_score,",
    ):
        found.estimate("efficacy_scores")
    with pytest.raises(UsageError, match="unknown state 'earlier'; valid: before, after"):
        found.estimate("score", "earlier")
    with pytest.raises(UsageError, match="layer 2 is not edited; edited: 0"):
        found.weight_drift(2)
    assert torch.equal(output_matrix(words, 0).stored, before)
    assert stack.applied_edits(words) == ()


def test_nan_is_an_error_and_the_edit_is_taken_back(monkeypatch) -> None:
    model = word_model.build("llama")
    edit = random_edit(model, [0])
    before = output_matrix(model, 0).stored.clone()
    written = stack._write

    def spoilt(matrix, stored):
        written(matrix, stored)
        if not torch.equal(stored, before):
            with torch.no_grad():
                model.hf.model.norm.weight.fill_(float("nan"))

    monkeypatch.setattr(stack, "_write", spoilt)
    with pytest.raises(NumericsError, match="hold NaN or infinity, so no answer can be scored"):
        evaluate_edit(model, edit, CASES)
    assert torch.equal(output_matrix(model, 0).stored, before)


@pytest.mark.model
def test_the_default_models_tokens_are_those_of_the_joined_text(model, shared_data) -> None:
    """Scoring prompt tokens followed by answer tokens is the protocol's joined text wherever no token spans the two."""
    from interp.editing.cases import read_cases

    path = shared_data / "counterfact_dev.json"
    if not path.is_file():
        pytest.skip(f"no {path}")
    tokenizer = model.tokenizer
    for case in read_cases(path)[:500]:
        for prompt in (case.fact.prompt, *case.paraphrases, *case.neighbours):
            for answer in (case.fact.target, case.true):
                parts = (tokenizer(prompt)["input_ids"], tokenizer(answer, add_special_tokens=False)["input_ids"])
                assert tokenizer(prompt + answer)["input_ids"] == parts[0] + parts[1]
