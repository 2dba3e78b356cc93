"""``interp edit eval`` on the default model."""

import json
from pathlib import Path

import pytest

from interp.editing.edit_file import load_edit
from interp.prompts import Fact
from interp.results import load_result
from random_edit import random_edit

ON_CPU = ("--device", "cpu", "--dtype", "float32")
FACT = Fact("The Louvre", "{} is located in the city of", " Rome")

pytestmark = pytest.mark.model


@pytest.fixture(autouse=True)
def loaded(model, monkeypatch: pytest.MonkeyPatch) -> None:
    """The command finds the model already loaded."""
    monkeypatch.setattr("interp_cli.edit_eval.open_model", lambda *arguments, **options: model)


@pytest.fixture
def cases(tmp_path: Path) -> str:
    """Three records of one template; the model knows two of them."""
    rows = [
        {
            "prompt": f"{subject} is located in the city of",
            "subject": subject,
            "target_new": new,
            "ground_truth": true,
            "rephrase_prompt": f"Tourists who want to see {subject} travel to",
        }
        for subject, new, true in (
            ("The Louvre", "Rome", "Paris"),
            ("The Eiffel Tower", "Berlin", "Paris"),
            ("The Brandenburg Gate", "Paris", "Ulm"),
        )
    ]
    path = tmp_path / "cases.json"
    path.write_text(json.dumps(rows), encoding="utf-8")
    return str(path)


@pytest.fixture
def edit(model, tmp_path: Path) -> str:
    """A file with an edit that is strong and says nothing."""
    path = tmp_path / "edit.safetensors"
    random_edit(model, [5], seed=1, size=1.0, facts=(FACT,)).save(path)
    return str(path)


def test_the_model_as_it_is(interp, cases: str) -> None:
    ended = interp("edit", "eval", "none", "--cases", cases, "--known", "--neighbours", "5", *ON_CPU)
    assert ended.code == 0, ended.stderr
    lines = [line.split() for line in ended.stdout.splitlines()]
    assert lines[0] == ["2", "cases;", "not", "edited"]
    assert ["efficacy_score", "0.00", "0.00", "to", "0.00", "%", "2"] in lines
    assert ["neighbourhood_score", "100.00", "100.00", "to", "100.00", "%", "2"] in lines
    assert "locality_acc" not in ended.stdout
    assert "side effects" not in ended.stdout


def test_an_edit_its_own_cases_and_its_file(interp, cases: str, edit: str, tmp_path: Path) -> None:
    texts, unrelated, path = tmp_path / "texts.txt", tmp_path / "unrelated.txt", tmp_path / "scores.safetensors"
    texts.write_text("One day the sun came out and all of us went down to the sea.\n", encoding="utf-8")
    unrelated.write_text("Water boils at\nTwo and two is\n", encoding="utf-8")
    ended = interp(
        "edit", "eval", edit, "-c", cases, "--neighbours", "9",
        "--texts", str(texts), "--unrelated", str(unrelated), "-o", str(path), *ON_CPU,
    )  # fmt: skip
    assert ended.code == 0, ended.stderr
    assert ended.stdout.startswith("1 case; edited by rome\n")
    assert "of 3 prompts changed their first token" in ended.stdout
    for name in ("neighbours_kept", "unrelated_kl", "perplexity_ratio", "weight drift L5"):
        assert name in ended.stdout
    assert "generation_entropy" not in ended.stdout
    assert ended.stderr == f"wrote {path}\n"
    saved = load_result(path)
    assert [case.fact for case in saved.cases] == [FACT]
    assert saved.weight_drift(5).value == load_edit(edit).layers[0].relative_norm


def test_json_of_all_cases(interp, cases: str, edit: str) -> None:
    ended = interp("edit", "eval", edit, "-c", cases, "--all", "-n", "2", "--json", "-q", *ON_CPU)
    assert (ended.code, ended.stderr) == (0, "")
    found = json.loads(ended.stdout)
    assert (found["command"], found["cases"], found["method"]) == ("edit eval", 2, "rome")
    score = found["scores"]["paraphrase_score"]
    assert score["unit"] == "%"
    assert score["before"]["n"] == 2
    assert set(score["after"]) == {"value", "lower", "upper", "n", "papers_half_width"}
    assert found["scores"]["rewrite_acc"]["before"]["value"] == 0
    assert "neighbourhood_score" not in found["scores"]
    assert found["weight_drift"] == {"5": pytest.approx(load_edit(edit).layers[0].relative_norm)}
    assert found["result"]["kind"] == "edit_scores"


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("none",), 2, "Missing option '--cases'"),
        (("none", "-c", "/nowhere.json"), 2, "cannot read /nowhere.json"),
        (("/nowhere.safetensors", "-c", "CASES"), 3, "/nowhere.safetensors"),
        (("none", "-c", "CASES", "-o", "page.txt"), 2, "valid: .safetensors, .json, .csv, .html"),
        (("none", "-c", "CASES", "--texts", "/nowhere.txt"), 2, "cannot read /nowhere.txt"),
        (("none", "-c", "CASES", "--known", "-n", "3"), 2, "knows 2 of the 3 facts, 3 are asked for; give more cases"),
        (("EDIT", "-c", "OTHER"), 2, "is of a fact of the edit, such as 'The Louvre is located in the city of' -> ' Rome'"),
    ],
)  # fmt: skip
def test_mistakes_are_one_line(interp, cases: str, edit: str, tmp_path: Path, arguments, code: int, said: str) -> None:
    other = tmp_path / "other.json"
    other.write_text(json.dumps(json.loads(Path(cases).read_text())[1:]), encoding="utf-8")
    names = {"CASES": cases, "EDIT": edit, "OTHER": str(other)}
    ended = interp("edit", "eval", *(names.get(word, word) for word in arguments), *ON_CPU)
    assert (ended.code, ended.stdout) == (code, "")
    assert said in ended.stderr
    assert ended.stderr.startswith("error: ")
    assert ended.stderr.count("\n") == 1
