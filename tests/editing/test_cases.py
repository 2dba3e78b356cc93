"""Every format of cases is read as its authors mean it; neighbours come from other records; mistakes name file, record and field."""

import json
from dataclasses import replace

import pytest
import torch

import interp
import word_model
from interp.editing.cases import EditCase, read_cases, with_neighbours
from interp.editing.known_cases import known_cases
from interp.errors import UsageError
from interp.prompts import Fact

PUBLISHED = {
    "case_id": 7,
    "pararel_idx": 2796,
    "requested_rewrite": {
        "prompt": "The mother tongue of {} is",
        "relation_id": "P103",
        "target_new": {"str": "English", "id": "Q1860"},
        "target_true": {"str": "French", "id": "Q150"},
        "subject": "Danielle Darrieux",
    },
    "paraphrase_prompts": ["Shayna does this. Danielle Darrieux, a native", "Danielle Darrieux spoke the language"],
    "neighborhood_prompts": ["The mother tongue of Montherlant is", "Sarkozy is a native speaker of"],
    "attribute_prompts": ["J.R.R. Tolkien is a native speaker of"],
    "generation_prompts": ["Danielle Darrieux's mother tongue is", "Where she is from, people speak"],
}
FLAT = {
    "case_id": 12,
    "prompt": "Marc Lavoie, who is a citizen of",
    "target_new": "France",
    "subject": "Marc Lavoie",
    "ground_truth": "Canada",
    "rephrase_prompt": "Marc Lavoie currently lives in",
    "locality_prompt": "Cory Doctorow holds a citizenship from",
    "locality_ground_truth": "Canada",
    "portability": {"New Question": "The capital of the country of Marc Lavoie is", "New Answer": "Paris"},
}
ZSRE = {
    "subject": "Watts Humphrey",
    "src": "What university did Watts Humphrey attend?",
    "pred": "Trinity College",
    "rephrase": "What university did Watts Humphrey take part in?",
    "alt": "University of Michigan",
    "answers": ["Illinois Institute of Technology", "IIT"],
    "loc": "nq question: who played desmond doss father in hacksaw ridge",
    "loc_ans": "Hugo Weaving",
    "cond": "Trinity College >> University of Michigan || What university did Watts Humphrey attend?",
}
PORTABLE = {
    **ZSRE,
    "portability": {"Reasoning": [{"prompt": "In which state is it?", "ground_truth": [["Michigan", "MI"]]}]},
    "locality": {"Relation": [{"prompt": "The country of Watts Humphrey is", "ground_truth": ["USA"]}]},
}


def written(tmp_path, rows, name="cases.json"):
    path = tmp_path / name
    text = json.dumps(rows) if name.endswith("json") else "".join(json.dumps(row) + "\n" for row in rows)
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize("name", ["cases.json", "cases.jsonl"])
def test_each_format_in_one_file(tmp_path, name: str) -> None:
    published, flat, zsre, portable = read_cases(written(tmp_path, [PUBLISHED, FLAT, ZSRE, PORTABLE], name))
    assert published == EditCase(
        fact=Fact("Danielle Darrieux", "The mother tongue of {} is", " English"),
        true=" French",
        paraphrases=tuple(PUBLISHED["paraphrase_prompts"]),
        neighbours=tuple(PUBLISHED["neighborhood_prompts"]),
        generation_prompts=tuple(PUBLISHED["generation_prompts"]),
        name="7",
    )
    assert flat == EditCase(
        fact=Fact("Marc Lavoie", "{}, who is a citizen of", " France"),
        true=" Canada",
        paraphrases=("Marc Lavoie currently lives in",),
        neighbours=("Cory Doctorow holds a citizenship from",),
        portability=(("The capital of the country of Marc Lavoie is", " Paris"),),
        name="12",
    )
    assert zsre == EditCase(
        fact=Fact("Watts Humphrey", "What university did {} attend?", " University of Michigan"),
        true=" Illinois Institute of Technology",
        paraphrases=("What university did Watts Humphrey take part in?",),
        locality=(("who played desmond doss father in hacksaw ridge?", " Hugo Weaving"),),
    )
    assert portable.portability == (("In which state is it?", " Michigan"),)
    assert portable.locality == (*zsre.locality, ("The country of Watts Humphrey is", " USA"))
    assert zsre.fact.prompt == ZSRE["src"]
    assert interp.read_cases is read_cases


def test_a_locality_prompt_with_another_answer_is_no_neighbour(tmp_path) -> None:
    (case,) = read_cases(written(tmp_path, [FLAT | {"locality_ground_truth": "Italy"}]))
    assert case.neighbours == ()
    assert case.locality == (("Cory Doctorow holds a citizenship from", " Italy"),)


def test_optional_parts_may_be_missing_and_zsre_without_a_new_answer_is_left_out(tmp_path) -> None:
    bare = {name: FLAT[name] for name in ("prompt", "target_new", "subject", "ground_truth")}
    zsre = {name: ZSRE[name] for name in ("subject", "src", "alt", "answers")}
    first, second = read_cases(written(tmp_path, [bare, ZSRE | {"alt": ""}, zsre]))
    for case in (first, second):
        assert not any((case.paraphrases, case.neighbours, case.portability, case.locality, case.generation_prompts))
    with pytest.raises(UsageError, match=r"holds no case; give at least one record"):
        read_cases(written(tmp_path, [ZSRE | {"alt": ""}]))


def test_the_subject_goes_where_it_occurs_first_and_objects_keep_their_space(tmp_path) -> None:
    row = FLAT | {"prompt": "Rome is Rome in", "subject": "Rome", "target_new": " France"}
    (case,) = read_cases(written(tmp_path, [row]))
    assert case.fact == Fact("Rome", "{} is Rome in", " France")
    assert case.fact.prompt == row["prompt"]


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"a": 1}, "record 1: needs 'requested_rewrite' (CounterFact), 'prompt' and 'target_new' (EasyEdit's flat form) or"),
        (FLAT | {"target_new": ["", 3]}, "record 1: 'target_new' must hold text, got str ''"),
        (FLAT | {"ground_truth": 5}, "record 1: 'ground_truth' must hold text, got int '5'"),
        (FLAT | {"subject": "Lavoy"}, "record 1: the subject 'Lavoy' is not in the 'prompt' 'Marc Lavoie, who is a citizen of'"),
        (FLAT | {"rephrase_prompt": [3]}, "record 1: 'rephrase_prompt' must hold text or a list of texts, got list '[3]'"),
        (FLAT | {"locality_ground_truth": None}, "record 1: 'locality_ground_truth' must hold text, it is missing"),
        (FLAT | {"prompt": "Marc Lavoie {} in"}, "record 1: the template '{} {} in' needs exactly one {}"),
        (FLAT | {"portability": "x"}, "record 1: 'portability' must hold an object, got str 'x'"),
        (PORTABLE | {"locality": {"R": [{"prompt": "x"}]}}, "'locality', 'R', item 0: 'ground_truth' must hold text, it is"),
        (ZSRE | {"answers": []}, "record 1: 'answers' must hold text, got list '[]'"),
        (PUBLISHED | {"requested_rewrite": {"prompt": "x"}}, "record 1, 'requested_rewrite': 'subject' must hold text, it is missing"),
        (PUBLISHED | {"neighborhood_prompts": [""]}, "record 1: 'neighborhood_prompts' must hold text or a list of texts, got list"),
    ],
)  # fmt: skip
def test_mistakes_name_file_record_and_field(tmp_path, row, said: str) -> None:
    path = written(tmp_path, [FLAT, row])
    with pytest.raises(UsageError) as raised:
        read_cases(path)
    assert str(raised.value).startswith(f"{path}, record 1")
    assert said in str(raised.value)
    assert "\n" not in str(raised.value)


def test_a_file_that_cannot_be_read(tmp_path) -> None:
    with pytest.raises(UsageError, match="cannot read"):
        read_cases(tmp_path / "none.json")
    path = tmp_path / "broken.json"
    path.write_text('[{"prompt": ', encoding="utf-8")
    with pytest.raises(UsageError, match=r"broken.json, line 1: not JSON"):
        read_cases(path)


def test_cases_refuse_empty_parts() -> None:
    fact = Fact("Ann", "{} is", " red")
    with pytest.raises(UsageError, match="the true object of the fact 'Ann is' is empty"):
        EditCase(fact=fact, true=" ")
    with pytest.raises(UsageError, match="the new object of the fact 'Ann is' is empty"):
        EditCase(fact=replace(fact, target=""), true=" blue")
    with pytest.raises(UsageError, match="one of the neighbours of the fact 'Ann is' is empty"):
        EditCase(fact=fact, true=" blue", neighbours=("",))


def test_neighbours_share_template_and_true_object_and_nothing_else() -> None:
    def case(subject, true=" blue", template="the {} is", neighbours=()):
        return EditCase(fact=Fact(subject, template, " red"), true=true, neighbours=neighbours)

    cases = [
        case("lake", neighbours=("the store is", "what is in")),
        case("shop"),
        case("tower", true=" green"),
        case("bridge", template="{} is"),
        case("shop"),  # once more
        case("store"),
        case("city"),
    ]
    found = with_neighbours(cases)
    assert found[0].neighbours == ("the store is", "what is in", "the shop is", "the city is")
    assert found[1].neighbours == ("the lake is", "the store is", "the city is")
    assert found[2].neighbours == found[3].neighbours == ()
    assert with_neighbours(cases, 1)[0].neighbours == ("the store is", "what is in", "the shop is")
    assert with_neighbours(cases, 0) == tuple(cases)
    with pytest.raises(UsageError, match="limit is -1; give 0 or more"):
        with_neighbours(cases, -1)


def test_known_cases_are_those_whose_object_ranks_first() -> None:
    model = word_model.build("llama")
    subjects = [word for word in word_model.WORDS[1:60] if word.isalpha()]
    prompts = {subject: f"what {subject} is" for subject in subjects}
    first = {}
    for subject, prompt in prompts.items():
        ids = model.tokenizer(prompt)["input_ids"]
        with torch.no_grad():
            first[subject] = model.tokenizer.decode(
                [int(model.hf(input_ids=torch.tensor([ids])).logits[0, -1].argmax())]
            )

    def case(subject, true):
        return EditCase(fact=Fact(subject, "what {} is", " seven"), true=true)

    half = len(subjects) // 2
    right = [case(subject, f" {first[subject]} one") for subject in subjects[:half]]
    wrong = [case(subject, " word90" if first[subject] != "word90" else " word91") for subject in subjects[half:]]
    found = known_cases(model, [*wrong, *right, *right], seed=3)
    assert sorted(one.fact.subject for one in found) == sorted(subjects[:half])
    found = known_cases(model, right, seed=3)
    assert list(found) != right
    assert known_cases(model, right, 5, seed=3) == found[:5]
    assert known_cases(model, right, 5, seed=4) != found[:5]
    spelt = EditCase(fact=Fact("Ann", "what {} is", " seven"), true=" ann")
    same = EditCase(fact=Fact("Ann", "what {} is", f" {first['Ann']}"), true=f" {first['Ann']}")
    assert known_cases(model, [spelt, same]) == ()
    with pytest.raises(UsageError, match=r"knows \d+ of the \d+ facts, 500 are asked for; give more cases"):
        known_cases(model, right, 500)
    with pytest.raises(UsageError, match="n is 0; give 1 or more"):
        known_cases(model, right, 0)


def test_known_cases_leave_out_subjects_that_spell_the_object(monkeypatch) -> None:
    """Whatever the model answers."""
    from interp.editing import known_cases as module

    monkeypatch.setattr(module, "_answers_right", lambda model, cases: [True] * len(cases))
    fact = Fact("Nokia 3310", "{} was made by", " Apple")
    spelt, other = EditCase(fact=fact, true=" nokia"), EditCase(fact=replace(fact, subject="A phone"), true=" Nokia")
    assert known_cases(word_model.build(), [spelt, other]) == (other,)


def test_the_development_data(shared_data) -> None:
    path = shared_data / "counterfact_dev.json"
    if not path.is_file():
        pytest.skip(f"no {path}")
    cases = read_cases(path)
    assert len(cases) == 3000
    first = cases[0]
    assert first.fact == Fact("Marc Lavoie", "{}, who is a citizen of", " France")
    assert (first.true, first.paraphrases) == (" Canada", ("Marc Lavoie currently lives in",))
    assert all(len(case.neighbours) == 1 for case in cases)
    more = with_neighbours(cases)
    assert max(len(case.neighbours) for case in more) == 11
    by_prompt = {case.fact.prompt: case for case in cases}
    for case in more[:200]:
        for prompt in case.neighbours[1:]:
            assert by_prompt[prompt].true == case.true
            assert by_prompt[prompt].fact.template == case.fact.template
