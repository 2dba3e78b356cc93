"""``interp report``: the analyses that are asked for, what it says first, and pages from saved results alone."""

import hashlib
import json
import re
from pathlib import Path

import pytest

import interp as package
import word_model
from interp.report import report
from interp_cli.report_analyses import ANALYSES, Asked, chosen
from random_edit import random_edit
from report import samples

PROMPT = "The Eiffel Tower is located in the city of"
ON_CPU = ("--device", "cpu", "--dtype", "float32")
WORDS, SUBJECT, CORRUPTED, NEW = "tower of Pisa is in city", "Pisa", "bridge of Pisa is in city", " lake"
KINDS = {
    "story": "residual_story",
    "embeddings": "embedding_geometry",
    "positions": "position_encoding",
    "readers": "attention_summary",
    "experts": "expert_routing",
    "attention": "attention_patterns",
    "induction": "induction_heads",
    "lens": "logit_lens",
    "attribution": "direct_logit_attribution",
    "logits": "next_token_logits",
    "decoding": "decoding_choices",
    "generation": "generation",
    "losses": "token_losses",
    "patching": "activation_patching",
    "heads": "head_profiles",
    "circuits": "head_circuits",
    "trace": "causal_trace",
    "ablation": "ablation",
    "tensors": "architecture",
    "edit": "edit_effect",
}
DEFAULT = (
    "story", "embeddings", "positions", "readers", "experts", "lens", "attribution", "logits", "decoding", "generation", "losses",
    "tensors",
)  # fmt: skip
"""Of every page; the tiny model has no experts, so that section stays away."""

SECTIONS = (
    "tokens",
    "story",
    "lens",
    "attribution",
    "activation-patching",
    "logits",
    "causal-trace",
    "edit",
    "edit-lens",
)


@pytest.fixture(scope="module")
def small():
    return word_model.build()


@pytest.fixture
def opened(small, monkeypatch, empty_cache):
    """The command finds a tiny model that reads words."""
    monkeypatch.setattr("interp_cli.report.open_model", lambda *arguments, **options: small)
    return small


def bytes_of(model) -> str:
    digest = hashlib.sha256()
    for parameter in model.hf.parameters():
        digest.update(parameter.detach().numpy().tobytes())
    return digest.hexdigest()


@pytest.mark.model
@pytest.mark.long
def test_one_page_and_what_was_found(interp, tmp_path: Path) -> None:
    path = tmp_path / "report.html"
    ended = interp("report", PROMPT, "-o", str(path), *ON_CPU)
    assert ended.code == 0, ended.stderr
    assert ended.stdout.startswith(str(path))
    for word in ("␣Paris with probability 70", "layer", "smollm2-135m", "Logit lens", "Attribution"):
        assert word in ended.stdout
    assert path.read_text(encoding="utf-8").startswith("<!doctype html>")
    assert path.stat().st_size < 1_000_000


@pytest.mark.slow
@pytest.mark.model
def test_a_trace_and_an_edit_of_the_default_model(interp, tmp_path: Path) -> None:
    path = tmp_path / "report.html"
    options = ("--subject", "The Eiffel Tower", "--edit", " Rome", "--sections", "story,trace")
    ended = interp("report", PROMPT, *options, "-o", str(path), "--json", *ON_CPU)
    assert ended.code == 0, ended.stderr
    found = json.loads(ended.stdout)
    assert found["kinds"] == ["residual_story", "causal_trace", "edit_effect"]
    first, second, lost, *_ = found["findings"]
    assert "␣Rome is now the first choice in place of ␣Paris" in first["sentence"]
    assert second["value"] == pytest.approx(0.70, abs=0.02)
    assert lost["interval"][0] < lost["value"] < lost["interval"][1]
    assert path.stat().st_size < 1_000_000


def test_every_section_has_a_way_to_run() -> None:
    assert set(KINDS) == set(ANALYSES)
    assert [name for name, analysis in ANALYSES.items() if analysis.default] == list(DEFAULT)


@pytest.mark.parametrize(
    "name", [name for name in KINDS if ANALYSES[name].needs is None and name not in ("induction", "experts")]
)
def test_a_section_by_its_name(interp, opened, tmp_path: Path, name: str) -> None:
    path = tmp_path / "page.html"
    ended = interp("report", WORDS, "--sections", name, "-o", str(path), "--json", "-q")
    assert ended.code == 0, ended.stderr
    found = json.loads(ended.stdout)
    assert found["kinds"] == [KINDS[name]]
    assert found["bytes"] == path.stat().st_size


@pytest.mark.long
def test_what_the_options_add_stands_on_one_page_and_the_edit_is_undone(
    interp, opened, tmp_path: Path, monkeypatch
) -> None:
    def edit_facts(model, fact, **options):
        return random_edit(model, [0], facts=(fact,))

    monkeypatch.setattr("interp.editing.edit_facts.edit_facts", edit_facts)
    path, before = tmp_path / "page.html", bytes_of(opened)
    options = ("--subject", SUBJECT, "--corrupted", CORRUPTED, "--edit", NEW)
    ended = interp("report", WORDS, *options, "-o", str(path), "--json", "-q")
    assert ended.code == 0, ended.stderr
    found = json.loads(ended.stdout)
    assert found["kinds"] == [
        KINDS[name] for name in KINDS if name in {*DEFAULT, "patching", "trace", "edit"} - {"experts"}
    ]
    assert bytes_of(opened) == before
    text = path.read_text(encoding="utf-8")
    places = [text.index(f'<section id="{name}"') for name in SECTIONS]
    assert places == sorted(places)
    assert found["findings"]
    assert set(found["findings"][0]) >= {"sentence", "value", "unit", "interval", "null", "strength", "anchor", "label"}
    assert all(f'id="{one["anchor"]}"' in text for one in found["findings"])


@pytest.mark.parametrize(
    ("sections", "asked", "names"),
    [
        (None, {}, DEFAULT),
        (None, {"subject": "x"}, {*DEFAULT, "trace"}),
        ("lens", {"subject": "x"}, {"lens"}),
        ("lens", {"corrupted": "x"}, {"lens", "patching"}),
        ("heads, default", {}, {*DEFAULT, "heads"}),
        ("all", {}, {*DEFAULT, "attention", "induction", "heads", "circuits", "ablation"}),
        ("all", {"subject": "x"}, {*DEFAULT, "attention", "induction", "heads", "circuits", "ablation", "trace"}),
    ],
)
def test_which_sections_run(sections, asked, names) -> None:
    assert chosen(sections, Asked(prompt="x", **asked)) == tuple(name for name in KINDS if name in names)


def save(result, path: Path) -> str:
    if path.suffix == ".json":
        path.write_text(json.dumps({"command": "x", "schema_version": 1, "result": result.to_json()}))
    else:
        result.save(path)
    return str(path)


def test_from_saved_results_alone(interp, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr("interp_cli.report.open_model", None)  # no model is opened
    results = [samples.lens(layers=3), samples.story(layers=3)]
    files = [save(results[0], tmp_path / "lens.safetensors"), save(results[1], tmp_path / "story.json")]
    path = tmp_path / "again.html"
    ended = interp("report", *files, "-o", str(path), "--json")
    assert (ended.code, ended.stderr) == (0, "")
    found = json.loads(ended.stdout)
    assert found["kinds"] == ["logit_lens", "residual_story"]
    assert path.read_text(encoding="utf-8") == report(results).html()


@pytest.mark.long
def test_a_page_of_a_prompt_is_made_again_from_its_saved_results(interp, opened, tmp_path: Path, monkeypatch) -> None:
    first, again, files = (tmp_path / name for name in ("first.html", "again.html", "files.html"))
    folder = tmp_path / "results"
    ended = interp("report", WORDS, "--save", str(folder), "-o", str(first), "--json", "-q")
    assert ended.code == 0, ended.stderr
    kinds = json.loads(ended.stdout)["kinds"]
    names = sorted(path.name for path in folder.iterdir())
    assert names == [f"{number:02}-{kind}.safetensors" for number, kind in enumerate(kinds, start=1)]
    monkeypatch.setattr("interp_cli.report.open_model", None)  # no model is opened
    assert interp("report", str(folder), "-o", str(again), "-q").code == 0
    assert interp("report", *(str(folder / name) for name in names), "-o", str(files), "-q").code == 0
    assert first.read_bytes() == again.read_bytes() == files.read_bytes()


def test_results_are_saved_over_nothing(interp, opened, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").write_text("mine")
    (tmp_path / "file").write_text("mine")
    before = sorted(tmp_path.rglob("*"))
    for folder, said in (("full", "is not empty"), ("file", "is not a folder")):
        ended = interp("report", WORDS, "--sections", "lens", "--save", folder)
        assert (ended.code, ended.stdout, ended.stderr.count("\n")) == (2, "", 1)
        assert said in ended.stderr
    assert sorted(tmp_path.rglob("*")) == before

    def fails(self, path):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("interp.results.Result.save", fails)
    ended = interp("report", WORDS, "--sections", "lens", "--save", "new", "-q")
    assert (ended.code, ended.stdout) == (2, "")
    assert sorted(tmp_path.rglob("*")) == before


def test_results_of_other_prompts_and_models_are_told_apart(interp, tmp_path: Path) -> None:
    other = samples.provenance(model="other", weights_sha256="c" * 64)
    results = [samples.lens(layers=30), samples.lens((" Rome", " is"), layers=30, provenance=other)]
    files = [save(result, tmp_path / f"{index}.safetensors") for index, result in enumerate(results)]
    path = tmp_path / "both.html"
    ended = interp("report", *files, "-o", str(path), "--json")
    assert ended.code == 0, ended.stderr
    found = json.loads(ended.stdout)
    assert found["models"] == ["smollm2-135m", "other"]
    assert [one["label"] for one in found["findings"][:2]] == [
        "Logit lens · prompt 1 · smollm2-135m",
        "Logit lens · prompt 2 · other",
    ]
    text = path.read_text(encoding="utf-8")
    assert "Logit lens · prompt 2 · other" in text
    assert "prompt 1" in text


def test_two_states_of_one_model_are_told_apart_by_their_weights(tmp_path: Path) -> None:
    results = [samples.lens(layers=3), samples.lens(layers=3, provenance=samples.provenance(weights_sha256="c" * 64))]
    text = report(results).html()
    assert "smollm2-135m (5a135a135)" in text
    assert "smollm2-135m (ccccccccc)" in text


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        ((), 2, "a prompt is needed"),
        (("The", "Eiffel"), 2, "put the prompt in quotes"),
        (("Hi", "x.safetensors"), 2, "'Hi' is among saved results"),
        (("Hi", "-o", "report.pdf"), 2, "valid: .html"),
        (("/nowhere.safetensors",), 3, "/nowhere.safetensors"),
        (("/nowhere.json",), 3, "/nowhere.json"),
        (("x.json", "--sections", "lens"), 2, "--sections is of a prompt"),
        (("x.json", "-m", "gpt2"), 2, "--model is of a prompt"),
        (("x.json", "--chat"), 2, "--chat is of a prompt"),
        (("x.json", "--seed", "0"), 2, "--seed is of a prompt"),
        (("x.json", "--save", "new"), 2, "--save is of a prompt"),
        (("Hi", "--save", "no/where"), 2, "does not exist"),
        (("Hi", "--sections", "lenz"), 2, "did you mean 'lens'"),
        (("Hi", "--sections", ","), 2, "names no section"),
        (("Hi", "--sections", "trace"), 2, "'trace' needs --subject"),
        (("Hi", "--sections", "patching"), 2, "'patching' needs --corrupted"),
        (("Hi", "--edit", " x"), 2, "--edit needs --subject"),
        (("Hi", "--edit", " x", "--subject", "Ho"), 2, "'Ho' is not in the prompt"),
        (("Hi", "--edit", " x", "--subject", "Hi", "--chat"), 2, "plain text"),
    ],
)
def test_mistakes_are_one_line(
    interp, tmp_path: Path, monkeypatch, arguments: tuple[str, ...], code: int, said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    ended = interp("report", *arguments)
    assert (ended.code, ended.stdout) == (code, "")
    assert said in ended.stderr
    assert ended.stderr.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["x.safetensors", "x.json"])
def test_a_file_that_is_no_result_is_one_line(interp, tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b'{"no": "result"}')
    ended = interp("report", str(tmp_path / name), "-o", str(tmp_path / "out.html"))
    assert (ended.code, ended.stdout) == (3, "")
    assert ended.stderr.count("\n") == 1
    assert name in ended.stderr
    assert not (tmp_path / "out.html").exists()


@pytest.mark.parametrize("command", ["report", "compare"])
def test_a_result_that_was_changed_so_that_its_parts_do_not_fit_names_its_file(
    interp, tmp_path: Path, monkeypatch, command: str
) -> None:
    """Every part is what its field takes, and tokens have no names."""
    monkeypatch.chdir(tmp_path)
    written = samples.lens(layers=3).to_json()
    Path("whole.json").write_text(json.dumps(written))
    Path("changed.json").write_text(json.dumps(written | {"tokens": written["tokens"] | {"pieces": []}}))
    files = ("changed.json",) if command == "report" else ("whole.json", "changed.json")
    ended = interp(command, *files, "-o", "page.html")
    assert (ended.code, ended.stdout) == (3, "")
    assert re.fullmatch(
        r"error: the parts of (whole\.json or )?changed\.json do not fit together \(\w+: .*\); make it again\n",
        ended.stderr,
    )
    assert not Path("page.html").exists()


def test_the_public_names_make_the_same_page(tmp_path: Path) -> None:
    assert package.report([samples.lens(layers=3)]).findings == report([samples.lens(layers=3)]).findings


def test_the_how_to_lists_every_section() -> None:
    page = (Path(__file__).parents[2] / "docs" / "how-to" / "report.md").read_text(encoding="utf-8")
    listed = [line for line in page.split("\n") if line.startswith("| `") and "`--sections`" not in line]
    assert len(listed) == len(ANALYSES)
    for line, (name, analysis) in zip(listed, ANALYSES.items(), strict=True):
        when = "always" if analysis.default else f"`{analysis.needs}`" if analysis.needs else "when named"
        assert line.startswith(f"| `{name}` | {analysis.shows} | ")
        assert line.endswith(f"{when} |")
