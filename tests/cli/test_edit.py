"""``interp edit``: what it prints, writes and refuses, and which of its words are commands."""

import dataclasses
import json
import re
from pathlib import Path

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from interp.editing.edit_file import load_edit
from interp.editing.effect_result import EditEffect
from interp.editing.matrix import output_matrix, sha256_of
from interp.editing.second_moments import second_moments
from interp.editing.stack import applied_edits
from interp.runner.model import Model
from random_edit import random_edit

ROOT = Path(__file__).resolve().parents[2]
PROMPT, SUBJECT = "The Eiffel Tower is located in the city of", "The Eiffel Tower"
EDIT = ("edit", PROMPT, "--subject", SUBJECT, "--target", " Rome")
TOKENS = 5200
"""Just above what a second moment needs."""

pytestmark = pytest.mark.model


def corpus() -> list[str]:
    """Our own pages, cut into pieces."""
    text = "\n\n".join(path.read_text(encoding="utf-8") for path in sorted((ROOT / "docs" / "how-to").glob("*.md")))
    return [text[start : start + 600] for start in range(0, 60000, 600)]


@pytest.fixture(scope="module")
def moments(model, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("moments") / "layer5.safetensors"
    second_moments(model, 5, corpus(), max_tokens=TOKENS)[0].save(path)
    return path


@pytest.fixture
def opened(model, monkeypatch) -> Model:
    """The command finds the default model already loaded."""
    monkeypatch.setattr("interp_cli.edit.open_model", lambda *arguments, **options: model)
    return model


@pytest.fixture(scope="module")
def small_model(model) -> Model:
    """A model of three narrow layers with random weights that reads the default model's tokens."""
    sizes = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 3, "num_attention_heads": 2}
    torch.manual_seed(0)
    return Model(LlamaForCausalLM(LlamaConfig(vocab_size=49152, **sizes)).eval(), model.tokenizer)


@pytest.fixture(scope="module")
def small_moments(small_model, tmp_path_factory) -> Path:
    """Of layer 1, with enough tokens."""
    path = tmp_path_factory.mktemp("moments") / "layer1.safetensors"
    second_moments(small_model, 1, corpus(), max_tokens=TOKENS)[0].save(path)
    return path


@pytest.fixture
def small(small_model, monkeypatch) -> Model:
    """As ``opened``, with the small model, which is as it was afterwards."""
    monkeypatch.setattr("interp_cli.edit.open_model", lambda *arguments, **options: small_model)
    before = [sha256_of(output_matrix(small_model, layer).stored) for layer in range(3)]
    yield small_model
    assert applied_edits(small_model) == ()
    assert [sha256_of(output_matrix(small_model, layer).stored) for layer in range(3)] == before


@pytest.mark.long
def test_a_fact_is_edited_shown_and_kept(interp, opened, moments: Path, tmp_path: Path) -> None:
    before = sha256_of(output_matrix(opened, 5).stored)
    paths = [tmp_path / name for name in ("edit.safetensors", "page.html", "effect.json", "effect.csv")]
    ended = interp(
        *EDIT, "--layer", "5", "--moments", str(moments), "--steps", "8", "--tokens", "4",
        "--paraphrase", "Where is the Eiffel Tower? It is in the city of", "--neighbour", "The Louvre is located in the city of",
        *(part for path in paths for part in ("-o", str(path))),
    )  # fmt: skip
    assert (ended.code, ended.stderr.splitlines()) == (0, [f"wrote {path}" for path in paths])
    first = ended.stdout.splitlines()[0]
    said = re.fullmatch(r"' Rome' is now the first choice: P (\S+) → (\S+); undo gives back the same bytes", first)
    assert said is not None, first
    assert float(said[1]) < 0.01
    assert float(said[2]) > 0.8
    effect = json.loads(paths[2].read_text())
    assert effect["kind"] == "edit_effect"
    (proof,) = effect["proofs"]
    assert proof["before_sha256"] == proof["undone_sha256"] == before == sha256_of(output_matrix(opened, 5).stored)
    assert proof["applied_sha256"] != before
    assert f"{before[:12]} same" in ended.stdout
    edit = load_edit(paths[0], opened)
    assert (edit.method, [change.layer for change in edit.layers], edit.layer_source) == ("rome", [5], "given")
    (curve,) = edit.curves
    assert (len(curve.loss_nats), curve.stop_reason) == (
        9,
        "steps",
    )  # eight under noise, and what they found without it
    assert float(curve.probability[-1]) > 0.9 > float(curve.probability[-2])
    with edit.applied(opened):
        logits = opened.run(PROMPT, logits="last").last_logits[0].softmax(-1)
    target = opened.tokenizer(" Rome", add_special_tokens=False)["input_ids"][0]
    assert int(logits.argmax()) == target
    assert float(logits[target]) == pytest.approx(
        float(torch.tensor(effect["after"]["target_log_prob_nats"][0]).exp()), abs=1e-4
    )
    assert "Undoing the edit is bit-exact" in paths[1].read_text(encoding="utf-8")
    assert paths[3].read_text().startswith("role,text,first_choice_before,")
    assert re.search(r"neighbour +The Louvre is located in the city of +␣Paris 0\.\d+ +␣Paris", ended.stdout)


def test_json_is_one_object(interp, small, small_moments: Path) -> None:
    options = ("--layer", "-2", "--moments", str(small_moments), "--steps", "2", "--tokens", "0", "--json", "-q")
    ended = interp("edit", "Pisa is a town in", "-s", "Pisa", "-t", " Rome now", *options)
    assert (ended.code, ended.stderr) == (0, "")
    found = json.loads(ended.stdout)
    assert (found["command"], found["schema_version"], found["target"]) == ("edit", 1, " Rome now")
    assert found["undo_exact"] is True
    assert [layer["layer"] for layer in found["layers"]] == [1]
    assert len(found["top_before"]) == len(found["top_after"]) == 5
    assert found["continuation_before"] is None
    assert found["result"]["kind"] == "edit_effect"
    assert found["result"]["edit"]["settings"]["steps"] == 2
    assert [row["role"] for row in found["prompts"]] == ["prompt"]


def test_a_target_that_is_not_reached_is_not_called_the_first_choice(interp, small, small_moments: Path) -> None:
    options = ("--layer", "1", "--moments", str(small_moments), "--steps", "1", "--tokens", "1")
    ended = interp("edit", "Pisa is a town in", "-s", "Pisa", "-t", " Rome", *options)
    assert ended.code == 0
    assert re.match(r"' Rome' is not the first choice, but at rank \d+ \(0 is the top\): P ", ended.stdout)
    hint = interp("edit", "Pisa is a town in", "-s", "Pisa", "-t", "Rome", *options)
    assert "the target is 'Rome' without a leading space; in running text the token is usually ' Rome'" in hint.stderr


def test_a_target_that_the_model_gives_already(interp, small, small_moments: Path) -> None:
    ids = small.run("Pisa is a town in", logits="last").last_logits[0].topk(1).indices
    known = small.tokenizer.decode(ids)
    command = ("edit", "Pisa is a town in", "-s", "Pisa", "-t", known, "--layer", "1", "--moments", str(small_moments))
    ended = interp(*command)
    assert (ended.code, ended.stdout) == (2, "")
    assert "so there is nothing to edit" in ended.stderr
    assert ended.stderr.count("error: ") == ended.stderr.splitlines()[-1].count("error: ") == 1
    allowed = interp(*command, "--allow-known", "--steps", "1", "--tokens", "0")
    assert allowed.code == 0, allowed.stderr
    assert "was the first choice before" in allowed.stdout.splitlines()[0]


def test_an_undo_that_is_not_exact_ends_in_code_6(interp, small, monkeypatch) -> None:
    """The result is shown all the same."""
    edit = random_edit(small, [1])
    monkeypatch.setattr("interp.editing.edit_facts.edit_facts", lambda *arguments, **options: edit)
    real = EditEffect.undo_exact
    monkeypatch.setattr(EditEffect, "undo_exact", property(lambda self: False))
    ended = interp(*EDIT, "--tokens", "1", "-q")
    assert ended.code == 6
    assert "undo does NOT give back the same bytes" in ended.stdout
    assert ended.stderr.startswith("error: undoing the edit did not give the same bytes back")
    monkeypatch.setattr(EditEffect, "undo_exact", real)
    assert interp(*EDIT, "--tokens", "1", "-q").code == 0


def test_hostile_text_is_literal(interp, small, monkeypatch) -> None:
    edit = random_edit(small, [1])
    fact = dataclasses.replace(edit.facts[0], subject="a[b]", template="{}\x1b[31m is", target="[red] x")
    monkeypatch.setattr(
        "interp.editing.edit_facts.edit_facts", lambda *arguments, **options: dataclasses.replace(edit, facts=(fact,))
    )
    ended = interp(
        "edit",
        fact.prompt,
        "-s",
        fact.subject,
        "-t",
        fact.target,
        "--neighbour",
        "[bold]\x1b[2J is",
        "--tokens",
        "2",
        "-q",
    )
    assert ended.code == 0, ended.stderr
    assert "\x1b" not in ended.stdout
    assert "'[red] x'" in ended.stdout
    assert "[bold]" in ended.stdout


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (
            (PROMPT, "-s", "The Louvre", "-t", " Rome"),
            "the subject 'The Louvre' is not in the prompt 'The Eiffel Tower is",
        ),
        (
            ("Paris is in Paris", "-s", "Paris", "-t", " x"),
            "the subject 'Paris' occurs more than once in 'Paris is in Paris'",
        ),
        (("aXaXa is", "-s", "aXa", "-t", " x"), "occurs more than once"),
        ((PROMPT, "-s", "", "-t", " Rome"), "the subject is empty"),
        ((PROMPT, "-s", SUBJECT, "-t", ""), "the target is empty"),
        (("", "-s", SUBJECT, "-t", " Rome"), "the prompt is empty"),
        (("A {} of Pisa is", "-s", "Pisa", "-t", " x"), "holds {}, which stands for the subject"),
        (("@talk.json", "-s", "Pisa", "-t", " x"), "cannot read talk.json"),
        ((PROMPT, "-s", SUBJECT), "Missing option '--target' / '-t'"),
        ((PROMPT, "-t", " Rome"), "Missing option '--subject' / '-s'"),
        ((), "Missing argument 'PROMPT'; see `interp edit --help`"),
        (
            (*EDIT[1:], "--method", "rom"),
            "unknown method 'rom' (did you mean 'rome'?); valid: rome, rome-original, memit, alphaedit",
        ),
        ((*EDIT[1:], "--steps", "0"), "'--steps': Input should be greater than or equal to 1"),
        ((*EDIT[1:], "--tokens", "-1"), "'--tokens' / '-n': Input should be greater than or equal to 0"),
        ((*EDIT[1:], "--sed", "1"), "No such option: --sed"),
        ((*EDIT[1:], "-o", "edit.bin"), "ends in '.bin'; valid: .safetensors, .json, .csv, .html"),
        ((*EDIT[1:], "-o", "/nowhere/edit.safetensors"), "the folder /nowhere does not exist"),
        ((*EDIT[1:], "extra"), "extra"),
    ],
)
def test_mistakes_that_need_no_model(interp, monkeypatch, arguments: tuple[str, ...], said: str) -> None:
    monkeypatch.setattr("interp_cli.edit.open_model", None)
    ended = interp("edit", *arguments)
    assert (ended.code, ended.stdout) == (2, "")
    assert said in ended.stderr
    assert ended.stderr.startswith("error: ")
    assert ended.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("options", "code", "said"),
    [
        (("--layer", "3"), 2, "layer 3 is out of range; valid: 0 to 2 (or -3 to -1 from the end)"),
        (("--layer", "2", "--moments", "{good}"), 2, "layer 2 is the last"),
        (("--layer", "one"), 2, "cannot read the layers 'one'; write 5 or 5,7 or 0-4 or -1"),
        (("--layer", "0-1"), 2, "rome edits one layer, got [0, 1]"),
        (("--layer", "0", "--layer", "1"), 2, "rome edits one layer, got [0, 1]"),
        (("--layer", "1", "--moments", "{other}"), 3, "make one of this model: interp moments"),
        (
            ("--layer", "1", "--moments", "{few}"),
            2,
            "has 300 tokens, 5,000 are needed; make one of more: interp moments",
        ),
        (("--layer", "1", "--moments", "missing.safetensors"), 3, "there is no file missing.safetensors"),
        (("--layer", "1", "--moments", "{edit}"), 3, "holds a 'edit' result, not 'second_moment'"),
        (("--layer", "0", "--moments", "{good}"), 2, "there is no second moment of layer 0, only of [1]"),
    ],
)
def test_mistakes_leave_the_model_alone_and_write_nothing(
    interp, small, small_model, small_moments: Path, tmp_path: Path, options: tuple[str, ...], code: int, said: str
) -> None:
    """``small`` checks the weights afterwards."""
    files = {"other": tmp_path / "other.safetensors", "few": tmp_path / "few.safetensors", "good": small_moments}
    files["edit"] = tmp_path / "edit.safetensors"
    if "{other}" in options:
        torch.manual_seed(1)
        other = Model(LlamaForCausalLM(small_model.hf.config).eval(), small_model.tokenizer)
        second_moments(other, 1, corpus(), max_tokens=TOKENS)[0].save(files["other"])
    if "{few}" in options:
        second_moments(small_model, 1, corpus(), max_tokens=300)[0].save(files["few"])
    if "{edit}" in options:
        random_edit(small_model, [1]).save(files["edit"])
    wanted = tmp_path / "out.safetensors"
    ended = interp(*EDIT, *(option.format(**files) for option in options), "-o", str(wanted), "-q")
    assert (ended.code, ended.stdout) == (code, ""), ended.stderr
    assert said in ended.stderr
    assert ended.stderr.startswith("error: ")
    assert ended.stderr.count("\n") == 1
    assert not wanted.exists()


def test_its_commands_stand_in_the_help_and_a_prompt_can_be_named_like_one(
    interp, small, monkeypatch, tmp_path: Path
) -> None:
    helped = interp("edit", "--help")
    assert helped.code == 0
    assert helped.stdout.startswith("Usage: interp edit [OPTIONS] ")
    for name in ("show", "apply", "undo", "export", "eval"):
        assert re.search(rf"^  {name} +\S", helped.stdout, re.MULTILINE), name
        assert interp("edit", name, "--help").stdout.startswith(f"Usage: interp edit {name} [OPTIONS]")
    path = tmp_path / "edit.safetensors"
    random_edit(small, [1]).save(path)
    shown = interp("edit", "show", str(path))
    assert shown.code == 0, shown.stderr
    assert "model.layers.1.mlp.down_proj" in shown.stdout
    edit = random_edit(small, [1])
    fact = dataclasses.replace(edit.facts[0], subject="show", template="{}", target=" Rome")
    asked = []

    def edit_facts(model, fact, *arguments, **options):
        asked.append(fact)
        return dataclasses.replace(edit, facts=(fact,))

    monkeypatch.setattr("interp.editing.edit_facts.edit_facts", edit_facts)
    ended = interp("edit", "-s", "show", "-t", " Rome", "--tokens", "0", "-q", "--", "show")
    assert ended.code == 0, ended.stderr
    assert asked == [fact]
