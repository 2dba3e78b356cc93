"""``interp compare``: prompts, models, edits and saved results side by side; what it prints, writes and refuses."""

import json
from pathlib import Path

import pytest
import torch

import interp as package
import word_model
from interp.results import load_result
from random_edit import random_edit
from report import samples

A, B, LONGER = "tower of Pisa is in city", "bridge of Pisa is in city", "what bridge of Pisa is in city"


@pytest.fixture(scope="module")
def models():
    return {"one": word_model.build(), "two": word_model.build(seed=1), "smollm2-135m": word_model.build()}


@pytest.fixture
def opened(models, monkeypatch, empty_cache):
    """The command finds tiny models that read words, by name."""
    monkeypatch.setattr("interp_cli.compare.open_model", lambda speaker, name, **options: models[name])
    return models


def test_two_prompts(interp, opened, tmp_path: Path) -> None:
    path = tmp_path / "c.safetensors"
    ended = interp("compare", A, B, "--target", "lake", "-o", str(path), "-q")
    assert ended.code == 0, ended.stderr
    assert "logit lens as a whole" in ended.stdout
    assert "aligned: tokens by position: 1 of 6 are other tokens in B than in A" in ended.stdout
    model = opened["smollm2-135m"]
    expected = package.compare(*(package.logit_lens(model, prompt, target="lake") for prompt in (A, B)))
    found = load_result(path)
    assert torch.equal(found.quantity("entropy_nats").difference, expected.quantity("entropy_nats").difference)
    again = interp("report", str(path), "-o", str(tmp_path / "page.html"))
    assert again.code == 0, again.stderr


def test_without_a_target_both_follow_the_answer_to_a(interp, opened) -> None:
    ended = interp("compare", A, LONGER, "--json", "-q")
    assert ended.code == 0, ended.stderr
    found = json.loads(ended.stdout)
    model = opened["smollm2-135m"]
    best = int(model.run(A, logits="last").last_logits[0].argmax())
    quantity = next(one for one in found["result"]["quantities"] if one["name"] == "target_probability")
    assert {text for row in quantity["b_texts"] for text in row} == {model.tokens([best]).pieces[0]}
    assert "tokens from the end" in found["comparisons"][0]["aligned"][0]


@pytest.mark.long
def test_several_things_make_one_page(interp, opened, tmp_path: Path) -> None:
    path = tmp_path / "c.html"
    ended = interp("compare", A, B, "--what", "lens,story,attribution,attention", "-o", str(path), "--json", "-q")
    assert ended.code == 0, ended.stderr
    compared = [one["compared"] for one in json.loads(ended.stdout)["comparisons"]]
    assert compared == ["logit_lens", "residual_story", "direct_logit_attribution", "attention_patterns"]
    assert path.read_text(encoding="utf-8").count('<section id="comparison') == 4


def test_two_models(interp, opened) -> None:
    ended = interp("compare", A, "--model", "one", "--model-b", "two", "--what", "story", "--json", "-q")
    assert ended.code == 0, ended.stderr
    (found,) = json.loads(ended.stdout)["comparisons"]
    stories = [package.residual_story(opened[name], A) for name in ("one", "two")]
    quantity = found["largest"]["stream_norm"]
    gaps = (stories[1].stream_norm - stories[0].stream_norm).abs()
    assert abs(quantity[0]["difference"]) == pytest.approx(float(gaps.max()), rel=1e-5)


def test_before_and_after_an_edit_and_the_model_as_it_was(interp, opened, tmp_path: Path) -> None:
    model, path = opened["smollm2-135m"], tmp_path / "edit.safetensors"
    fact = package.Fact("Pisa", "tower of {} is in city", "lake")
    before = [parameter.clone() for parameter in model.hf.parameters()]
    edit = random_edit(model, [0], facts=(fact,), size=2.0)
    edit.save(path)
    ended = interp("compare", A, "--edit", str(path), "--json", "-q")
    assert ended.code == 0, ended.stderr
    found = json.loads(ended.stdout)
    (one,) = found["comparisons"]
    assert (one["a"]["name"], one["b"]["name"]) == ("before", "after")
    quantity = next(one for one in found["result"]["quantities"] if one["name"] == "target_probability")
    assert quantity["a_texts"][0][0] == "lake"
    probs = [float(model.run(A, logits="last").last_logits[0].softmax(-1)[model.tokens("lake").ids[0]])]
    with edit.applied(model):
        probs.append(float(model.run(A, logits="last").last_logits[0].softmax(-1)[model.tokens("lake").ids[0]]))
    assert quantity["difference"][-1][-1] == pytest.approx(probs[1] - probs[0], abs=1e-5)
    assert abs(probs[1] - probs[0]) > 1e-4
    assert all(torch.equal(old, new) for old, new in zip(before, model.hf.parameters(), strict=True))


def test_traces_of_two_subjects(interp, opened) -> None:
    options = ("--what", "trace", "--subject", "tower of Pisa", "--subject-b", "Ann", "--json", "-q")
    ended = interp("compare", A, "Ann is in city", *options)
    assert ended.code == 0, ended.stderr
    names = list(json.loads(ended.stdout)["comparisons"][0]["largest"])
    assert names[:2] == ["resid_by_place", "resid_by_token"]


def test_two_saved_results(interp, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr("interp_cli.compare.open_model", None)
    samples.lens(layers=3).save(tmp_path / "a.safetensors")
    (tmp_path / "b.json").write_text(json.dumps(samples.lens(samples.PIECES[1:], layers=3).to_json()))
    files = (str(tmp_path / "a.safetensors"), str(tmp_path / "b.json"))
    ended = interp("compare", *files, "-o", str(tmp_path / "c.csv"))
    assert ended.code == 0, ended.stderr
    assert (tmp_path / "c.csv").read_text().startswith("quantity,unit,row,column,a,b,difference")


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        ((), 2, "a prompt is needed"),
        (("Hi",), 2, "one prompt alone"),
        (("Hi", "Ho", "Hu"), 2, "one thing differs at a time"),
        (("Hi", "Ho", "--model-b", "gpt2"), 2, "one thing differs at a time"),
        (("Hi", "--model-b", "gpt2", "--edit", "x"), 2, "one thing differs at a time"),
        (("Hi", "Ho", "--what", "lenz"), 2, "did you mean 'lens'"),
        (("Hi", "Ho", "--what", ","), 2, "names nothing"),
        (("Hi", "Ho", "--what", "heads"), 2, "many prompts of their own"),
        (("Hi", "Ho", "--what", "trace"), 2, "needs --subject"),
        (("Hi", "Ho", "--what", "lens,story", "-o", "c.json"), 2, "holds one comparison"),
        (("Hi", "Ho", "-o", "c.pdf"), 2, "valid: .safetensors"),
        (("a.json", "Ho"), 2, "'Ho' is among saved results"),
        (("a.json",), 2, "two saved results are compared, got 1"),
        (("a.json", "b.json", "--model-b", "gpt2"), 2, "--model-b is of a prompt"),
        (("a.json", "b.json", "--what", "lens"), 2, "--what is of a prompt"),
        (("a.json", "b.json", "-t", " x"), 2, "--target is of a prompt"),
        (("/no/a.json", "/no/b.json"), 3, "/no/a.json"),
    ],
)
def test_mistakes_are_one_line(
    interp, tmp_path: Path, monkeypatch, arguments: tuple[str, ...], code: int, said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    ended = interp("compare", *arguments)
    assert (ended.code, ended.stdout) == (code, "")
    assert said in ended.stderr
    assert ended.stderr.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_two_kinds_are_not_compared(interp, tmp_path: Path) -> None:
    samples.lens(layers=2).save(tmp_path / "a.safetensors")
    samples.story(layers=2).save(tmp_path / "b.safetensors")
    ended = interp("compare", str(tmp_path / "a.safetensors"), str(tmp_path / "b.safetensors"))
    assert (ended.code, ended.stdout) == (2, "")
    assert "two results of one kind" in ended.stderr


def test_an_edit_of_another_model_is_refused(interp, opened, tmp_path: Path) -> None:
    samples.lens(layers=2).save(tmp_path / "x.safetensors")
    ended = interp("compare", A, "--edit", str(tmp_path / "x.safetensors"), "-q")
    assert (ended.code, ended.stdout) == (3, "")
    assert "not an edit" in ended.stderr
