"""``interp ablate`` on the default model."""

import json
from pathlib import Path

import pytest

from interp.results import load_result
from interp_cli.unfinished import FOLDER

ON_CPU = ("--device", "cpu", "--dtype", "float32")
EIFFEL = "The Eiffel Tower is located in the city of"
LOUVRE = "The Louvre is located in the city of"
FEW = ("--units", "heads,mlps", "--layer", "28,29")

pytestmark = pytest.mark.model


@pytest.fixture(autouse=True)
def unfinished(model, monkeypatch: pytest.MonkeyPatch, empty_cache: Path) -> Path:
    """The command finds the model already loaded; the folder where it keeps unfinished work."""
    monkeypatch.setattr("interp_cli.ablate.open_model", lambda *arguments, **options: model)
    return empty_cache / FOLDER


def test_a_text_and_its_file(interp, tmp_path: Path) -> None:
    path = tmp_path / "ablation.safetensors"
    ended = interp("ablate", EIFFEL, *FEW, "--method", "zero", "-k", "3", "-o", str(path), *ON_CPU)
    assert ended.code == 0, ended.stderr
    assert "outputs set to zero on one text of 10 tokens; loss of the whole model: 3." in ended.stdout
    assert "heads (3 of 18)" in ended.stdout
    assert "L29 MLP" in ended.stdout
    assert "no intervals from one text" in ended.stdout
    assert "interval of the change" not in ended.stdout
    saved = load_result(path)
    assert (saved.units, saved.layers, saved.method, saved.metric) == (("heads", "mlps"), (28, 29), "zero", "loss")
    shown = [line.split()[0] for line in ended.stdout.splitlines() if line.strip().startswith("L2") and "H" in line]
    assert shown == [str(found.component) for found in saved.strongest(3, "heads")]


def test_json_of_an_answer_over_two_prompts(interp, tmp_path: Path) -> None:
    page = tmp_path / "ablation.html"
    ended = interp("ablate", EIFFEL, LOUVRE, *FEW, "-t", " Paris", "--json", "-q", "-o", str(page), *ON_CPU)
    assert (ended.code, ended.stderr) == (0, "")
    found = json.loads(ended.stdout)
    assert (found["command"], found["schema_version"], found["intervals_over"]) == ("ablate", 1, "prompts")
    assert found["whole"]["n"] == 2
    strongest = found["strongest"]["heads"][0]
    assert strongest["change"]["value"] == pytest.approx(
        strongest["without"]["value"] - found["whole"]["value"], abs=1e-5
    )
    assert strongest["change"]["lower"] < strongest["change"]["value"] < strongest["change"]["upper"]
    assert found["result"]["metric"] == "log_prob"
    assert "What does the model lose without each of its parts?" in page.read_text(encoding="utf-8")


def test_texts_and_answers_of_a_file(interp, tmp_path: Path) -> None:
    path, other = tmp_path / "asked.jsonl", tmp_path / "reference.txt"
    rows = [
        {"prompt": EIFFEL, "target": " Paris"},
        {"prompt": "The Colosseum is located in the city of", "target": " Rome"},
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    other.write_text(
        "One day the sun came out and all of us went down to the sea.\n\nA second text of as many tokens as that, or more.\n",
        encoding="utf-8",
    )
    ended = interp("ablate", "--text", str(path), "--layer", "-1", "--units", "layers", "--method", "resample", "--samples", "2",
                   "--reference", str(other), "--position", "-1", *ON_CPU)  # fmt: skip
    assert ended.code == 0, ended.stderr
    assert "outputs taken from other texts on 2 texts; log prob of ␣Paris, ␣Rome of the whole model" in ended.stdout
    assert "95% interval of the change" in ended.stdout
    assert "L29 block" in ended.stdout
    ended = interp("ablate", "--text", str(path), "--layer", "-1", "-t", " Paris", *ON_CPU)
    assert (ended.code, ended.stdout) == (2, "")
    assert "--target was given, and" in ended.stderr


@pytest.mark.long
def test_an_interrupt_says_what_is_kept_and_the_same_command_goes_on(interp, monkeypatch, unfinished: Path) -> None:
    from interp.analyzers import ablation_work

    arguments = ("ablate", EIFFEL, "--layer", "27-29", "--method", "zero", "--json", *ON_CPU)
    whole = json.loads(interp(*arguments).stdout)["result"]["ablated"]
    monkeypatch.setattr(ablation_work, "_TOKENS_A_PART", 90)
    sweep, calls = ablation_work.sweep, []

    def stopping(run, parts, *rest, progress, **options):
        def step(what, done, total):
            calls.append(done)
            if done > 13:
                raise KeyboardInterrupt
            progress(what, done, total)

        return sweep(run, parts, *rest, progress=step, **options)

    monkeypatch.setattr(ablation_work, "sweep", stopping)
    ended = interp(*arguments)
    assert (ended.code, ended.stdout) == (130, "")
    assert "interrupted; 10 of 28 runs are kept: the same command goes on from there" in ended.stderr
    assert len(list(unfinished.iterdir())) == 1
    monkeypatch.setattr(ablation_work, "sweep", sweep)
    ended = interp(*arguments)
    assert "going on from where the same command was stopped: 10 runs are kept" in ended.stderr
    for row, other in zip(json.loads(ended.stdout)["result"]["ablated"]["heads"][0], whole["heads"][0], strict=True):
        assert [x[0] for x in row] == pytest.approx([x[0] for x in other], abs=1e-4)
    assert not list(unfinished.iterdir())


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((), "there is no text; give one, such as"),
        (("", ), "the prompt is empty"),
        (("-", "-"), "'-' reads all of stdin, so it can be given once"),
        ((EIFFEL, "--text", "a.txt"), "texts and --text were both given"),
        (("--text", "/nowhere/file.txt"), "cannot read /nowhere/file.txt"),
        ((EIFFEL, "--reference", "/nowhere/file.jsonl"), "cannot read /nowhere/file.jsonl"),
        ((EIFFEL, "--units", "head"), "unknown unit 'head' (did you mean 'heads'?); valid: heads, attention, mlps, layers"),
        ((EIFFEL, "--method", "noise"), "unknown method 'noise'; valid: zero, mean, resample"),
        ((EIFFEL, "--metric", "log_probs"), "unknown metric 'log_probs' (did you mean 'log_prob'?); valid: loss,"),
        ((EIFFEL, "--metric", "loss", "-t", " Paris"), "the loss is of the text itself and has no target"),
        ((EIFFEL, "--metric", "logit_difference", "-t", " Paris"), "needs an answer against the target; give against=..."),
        ((EIFFEL, "-t", " Paris", "--against", " Paris"), "begin with the same token"),
        ((EIFFEL, "--layer", "30"), "layer 30 is out of range; valid: 0 to 29"),
        ((EIFFEL, "--position", "first"), "write numbers with commas, such as 0,-1"),
        ((EIFFEL, "--position", "10"), "position 10 is out of range; valid: 0 to 9"),
        ((EIFFEL, "--context", "2"), "context is 2; valid: 3 to 8192"),
        ((EIFFEL, "--method", "resample"), "as long as prompt 0, 10 tokens"),
        ((EIFFEL, "-o", "page.txt"), "valid: .safetensors, .json, .csv, .html"),
    ],
)  # fmt: skip
def test_mistakes_name_the_valid_values(interp, arguments: tuple[str, ...], said: str) -> None:
    ended = interp("ablate", *arguments, *ON_CPU)
    assert (ended.code, ended.stdout) == (2, "")
    assert said in ended.stderr
    assert ended.stderr.startswith("error: ")
    assert ended.stderr.count("\n") == 1
