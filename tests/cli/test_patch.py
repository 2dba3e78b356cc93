"""``interp patch`` on the default model."""

import csv
import json
from contextlib import contextmanager
from pathlib import Path

import pytest

from interp.models.cache import cache_folder
from interp.results import load_result

ON_CPU = ("--device", "cpu", "--dtype", "float32")
CLEAN = "The Eiffel Tower is located in the city of"
CORRUPTED = "The Colosseum is located in the city of"
LOUVRE, FORUM = "The Louvre is located in the city of", "The Roman Forum is located in the city of"
PAIR = ("--clean", CLEAN, "--corrupted", CORRUPTED, "--target", " Paris", "--against", " Rome")
ROWS = (
    {"clean": LOUVRE, "corrupted": FORUM, "target": " Paris", "against": " Rome"},
    {"clean": FORUM, "corrupted": LOUVRE, "target": " Rome", "against": " Paris"},
)

pytestmark = pytest.mark.model


@pytest.fixture
def loaded(model, monkeypatch: pytest.MonkeyPatch) -> None:
    """The model as it is loaded already, for commands that end before they do anything with it."""
    monkeypatch.setattr("interp_cli.patch.open_model", lambda *_, **__: model)


@pytest.fixture
def pairs(tmp_path: Path) -> str:
    path = tmp_path / "pairs.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in ROWS), encoding="utf-8")
    return str(path)


@pytest.mark.long
def test_a_pair_is_told_with_its_strongest_patches_and_the_page_written(interp, tmp_path: Path) -> None:
    page = tmp_path / "patch.html"
    sites = ("--sites", "resid_pre,attn_out", "--layer", "22-24", "--top", "3")
    ended = interp("patch", *PAIR, *sites, "-o", str(page), *ON_CPU)
    assert ended.code == 0, ended.stderr
    assert ended.stderr == f"wrote {page}\n"
    lines = ended.stdout.splitlines()
    assert lines[:3] == [f"clean: {CLEAN}", f"corrupted: {CORRUPTED}", "answer: ␣Paris against ␣Rome"]
    assert lines[3].startswith("logit difference (logits): clean 4.8")
    assert "corrupted -9.0" in lines[3]
    strongest = next(line for line in lines if line.strip().startswith("attn_out"))
    assert strongest.split()[:5] == ["attn_out", "L23", "9", "␣of", "+0.786"]
    bars = next(line for line in lines if line.strip().startswith("2 iffel → osse"))
    assert bars.split()[-1] == "▆▆"  # layers 22 and 23; by layer 24 the last token has it
    assert "interval" not in ended.stdout  # one pair has none
    text = page.read_text(encoding="utf-8")
    assert len(text.encode()) < 1_000_000
    assert "Activation patching" in text


@pytest.mark.long
def test_json_of_several_pairs_by_head_with_intervals(interp, pairs: str, tmp_path: Path) -> None:
    saved = tmp_path / "patch.safetensors"
    wanted = ("--by", "head", "--sites", "z,v", "--layer", "23", "--direction", "noising", "--top", "2")
    ended = interp("patch", "--pairs", pairs, *wanted, "--json", "-q", "-o", str(saved), *ON_CPU)
    assert (ended.code, ended.stderr) == (0, "")
    found = json.loads(ended.stdout)
    assert (found["command"], found["schema_version"]) == ("patch", 1)
    result = load_result(saved)
    assert found["result"] == result.to_json()
    assert (result.by, result.direction, result.layers, result.n_pairs) == ("head", "noising", (23,), 2)
    assert result.sites == ("attn.z", "attn.v")
    assert len(found["strongest"]) == 4
    first = found["strongest"][0]
    assert (first["site"], first["layer"], first["position"], first["n_pairs"]) == ("attn.z", 23, None, 2)
    head = first["head"]
    assert first["effect"] == pytest.approx(float(result.effects("attn.z").value[0, head]))
    assert first["metric"] == pytest.approx(float(result.patched["attn.z"][:, 0, head].double().mean()))
    assert first["lower"] <= first["effect"] <= first["upper"]
    ended = interp("patch", "--pairs", pairs, *wanted, "-o", str(tmp_path / "patch.csv"), *ON_CPU)
    assert ended.code == 0, ended.stderr
    assert ended.stdout.startswith("2 pairs; mean logit difference (logits): clean")
    assert "95% interval" in ended.stdout
    assert "L23 kv 1 (H3-5)" in ended.stdout
    rows = list(csv.DictReader((tmp_path / "patch.csv").read_text(encoding="utf-8").splitlines()))
    assert len(rows) == 9 + 3


@pytest.mark.long
def test_answers_that_are_not_given_are_the_models_own(interp) -> None:
    asked = ("--clean", CLEAN, "--corrupted", CORRUPTED, "--by", "layer", "--layer", "-1")
    ended = interp("patch", *asked, *ON_CPU)
    assert ended.code == 0, ended.stderr
    assert "answer: ␣Paris against ␣Rome" in ended.stdout
    ended = interp("patch", *asked, "--metric", "kl", *ON_CPU)
    assert ended.code == 0, ended.stderr
    assert "kl (nats): clean 0.000, corrupted" in ended.stdout


@pytest.mark.long
def test_an_estimate_says_how_well_it_ranks(interp) -> None:
    ended = interp("patch", *PAIR, "--attribution", "--by", "head", "--layer", "20-23", "--top", "2", *ON_CPU)
    assert ended.code == 0, ended.stderr
    assert "estimated from gradients; rank correlation with 36 of 36 patches that were run: 0." in ended.stdout
    assert "L23H4" in ended.stdout


@pytest.mark.long
def test_an_interrupt_keeps_what_is_done_and_the_same_command_goes_on(interp, monkeypatch, tmp_path: Path) -> None:
    wanted = ("patch", *PAIR, "--sites", "resid_pre", "--layer", "26-29", "-o")
    whole, continued = tmp_path / "whole.safetensors", tmp_path / "continued.safetensors"
    assert interp(*wanted, str(whole), "--fresh", *ON_CPU).code == 0

    @contextmanager
    def stopping(self, *, in_bytes=False):
        def step(what, done, total):
            if not in_bytes and total and done > total / 2:
                raise KeyboardInterrupt

        yield step

    with monkeypatch.context() as patched:
        patched.setattr("interp_cli.output.Output.progress", stopping)
        ended = interp(*wanted, str(continued), *ON_CPU)
    assert (ended.code, ended.stdout) == (130, "")
    assert ended.stderr.startswith("error: interrupted; ")
    assert "runs are kept: the same command goes on from there" in ended.stderr
    assert not continued.exists()
    ended = interp(*wanted, str(continued), *ON_CPU)
    assert ended.code == 0
    assert "going on from where the same command was stopped" in ended.stderr
    first, second = load_result(whole), load_result(continued)
    assert (first.patched["resid_pre"] == second.patched["resid_pre"]).all()
    assert "going on" not in interp(*wanted, str(continued), *ON_CPU).stderr


def changed(option: str, value: str) -> tuple[str, ...]:
    """``PAIR`` with another value of one option."""
    index = PAIR.index(option)
    return (*PAIR[: index + 1], value, *PAIR[index + 2 :])


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (changed("--corrupted", LOUVRE), "the clean prompt has 10 tokens and the corrupted one 9"),
        (changed("--corrupted", CLEAN), "the clean and the corrupted prompt are the same 10 tokens"),
        (changed("--against", " Paris"), "begin with the same token ' Paris'; give two that differ"),
        (changed("--target", " Rome"), "(' Rome') is also what the model ranks first after the corrupted prompt"),
        (changed("--target", ""), "the target is empty"),
        (changed("--clean", ""), "--clean: the prompt is empty"),
        (changed("--corrupted", ""), "--corrupted: the prompt is empty"),
        (
            (*PAIR, "--sites", "resid_per"),
            "unknown site to patch 'resid_per' (did you mean 'resid_pre'?); valid: resid_pre,",
        ),
        ((*PAIR, "--sites", "resid_pre", "--by", "head"), "'resid_pre' has no heads"),
        ((*PAIR, "--metric", "logits"), "unknown metric 'logits'; valid: probability, log_prob, logit_difference, kl"),
        (
            (*PAIR, "--by", "haed"),
            "unknown way of cutting a site 'haed' (did you mean 'head'?); valid: position, layer,",
        ),
        ((*PAIR, "--direction", "noise"), "did you mean 'noising'?); valid: denoising, noising"),
        ((*PAIR, "--layer", "99"), "layer 99 is out of range; valid: 0 to 29"),
        ((*PAIR, "--layer", "x"), "cannot read the layers 'x'"),
        ((*PAIR, "--pairs", "x.jsonl"), "--pairs and --clean, --corrupted, --target, --against were both given"),
        (("--clean", CLEAN), "--corrupted is missing; give two prompts"),
        ((), "--clean and --corrupted are missing; give two prompts"),
        (("--clean", "-", "--corrupted", "-"), "both read stdin"),
        (("--pairs", "/nowhere/pairs.jsonl"), "cannot read /nowhere/pairs.jsonl"),
    ],
)
@pytest.mark.usefixtures("loaded")
def test_mistakes_are_one_line_and_write_nothing(interp, tmp_path: Path, arguments: tuple[str, ...], said: str) -> None:
    unfinished = cache_folder() / "unfinished"
    before = sorted(unfinished.glob("patch-*"))
    ended = interp("patch", *arguments, "-o", str(tmp_path / "out.json"), *ON_CPU)
    assert (ended.code, ended.stdout) == (2, "")
    assert said in ended.stderr
    assert ended.stderr.startswith("error: ")
    assert ended.stderr.count("\n") == 1
    assert list(tmp_path.iterdir()) == []
    assert sorted(unfinished.glob("patch-*")) == before


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        ('{"clean": "a"\n', "pairs.jsonl, line 1: not JSON"),
        (json.dumps(ROWS[0]) + "\n\nnot json\n", "pairs.jsonl, line 3: not JSON"),
        (
            json.dumps(ROWS[0]) + '\n\n{"clean": "a", "corrupted": "b", "target": " c"}\n',
            "pairs.jsonl, line 3: the key 'against' is missing; each pair needs clean, corrupted, target, against",
        ),
        (json.dumps([{"clean": "a"}]), "pairs.jsonl, object 0: the key 'corrupted' is missing"),
        (json.dumps(ROWS[0] | {"target": 3}), "pairs.jsonl, line 1: 'target' must be text, got 3"),
        ("[1]", "pairs.jsonl, line 1: expected an object, got int"),
        ("\n", "pairs.jsonl holds no pair; write JSON objects with clean, corrupted, target, against"),
        (
            json.dumps(ROWS[0]) + "\n" + json.dumps({**ROWS[0], "clean": CLEAN}) + "\n",
            "pair 1: the clean prompt has 10 tokens and the corrupted one 9",
        ),
    ],
)
@pytest.mark.usefixtures("loaded")
def test_mistakes_in_a_file_of_pairs_name_its_line(interp, tmp_path: Path, lines: str, said: str) -> None:
    path = tmp_path / "pairs.jsonl"
    path.write_text(lines, encoding="utf-8")
    ended = interp("patch", "--pairs", str(path), "-o", str(tmp_path / "out.json"), *ON_CPU)
    assert (ended.code, ended.stdout) == (2, "")
    assert said in ended.stderr
    assert ended.stderr.startswith("error: ")
    assert ended.stderr.count("\n") == 1
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.long
def test_a_metric_that_weighs_nothing_needs_no_answer_against(interp, tmp_path: Path) -> None:
    path = tmp_path / "pairs.jsonl"
    path.write_text(json.dumps({key: ROWS[0][key] for key in ("clean", "corrupted", "target")}), encoding="utf-8")
    ended = interp("patch", "--pairs", str(path), "--metric", "probability", "--by", "layer", "--layer", "0", *ON_CPU)
    assert ended.code == 0, ended.stderr
    assert "probability: clean 0.8" in ended.stdout


@pytest.mark.parametrize(
    ("path", "said"), [("patch.png", "valid: .safetensors"), ("/nowhere/patch.json", "does not exist")]
)
def test_a_path_that_cannot_be_written_is_told_first(interp, path: str, said: str) -> None:
    ended = interp("patch", *PAIR, "-o", path, *ON_CPU)
    assert (ended.code, ended.stdout) == (2, "")
    assert said in ended.stderr
