"""``interp sweep``: what it prints and leaves, how it goes on, and what it says to bad input."""

import json
from pathlib import Path

import pytest

from interp.results import load_result
from sweep_cases import FACTS, save_model

BAD = {"prompt": "The bridge is in", "subject": "tower", "target": " city"}


@pytest.fixture
def config(tmp_path: Path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    wanted = {
        "analyzer": "causal_trace",
        "model": save_model(tmp_path / "tiny"),
        "device": "cpu",
        "items": [*FACTS[:3], BAD],
        "settings": {"samples": 2, "kinds": ["resid"]},
    }
    path = tmp_path / "traces.yaml"
    path.write_text(json.dumps(wanted))
    return path


@pytest.mark.long
def test_a_sweep_prints_a_summary_and_leaves_table_page_and_summary(interp, config) -> None:
    ended = interp("sweep", str(config), "-q")
    assert ended.code == 0
    assert (
        ended.stderr == "warning: 1 of 4 tasks failed; their rows say why in 'error', --retry-failed does them again\n"
    )
    assert "3 of 4 done" in ended.stdout
    assert "greatest mean indirect effect on the probability" in ended.stdout
    assert "'tower' is not in the prompt" in ended.stdout
    folder = config.parent / "traces"
    names = {path.name for path in folder.iterdir()} - {".lock"}
    assert names == {"rows.parquet", "report.html", "summary.safetensors", "sweep.json", "items.jsonl", "parts"}
    result = load_result(folder / "summary.safetensors")
    page = (folder / "report.html").read_text(encoding="utf-8")
    assert "Sweep: causal trace" in page
    assert len(page) < 1e6
    again = interp("report", str(folder / "summary.safetensors"), "-o", "again.html")
    assert again.code == 0
    assert Path("again.html").read_text(encoding="utf-8") == page
    assert interp("sweep", str(config), "--resume", "-q").code == 0
    assert (folder / "report.html").read_text(encoding="utf-8") == page
    assert (result.n_tasks, result.summary.n_failed) == (4, 1)


def test_json_is_one_object(interp, config) -> None:
    ended = interp("sweep", str(config), "--json", "-q", "-o", "out")
    found = json.loads(ended.stdout)
    assert (found["command"], found["schema_version"]) == ("sweep", 1)
    assert (found["n_tasks"], found["n_done"], found["n_failed"]) == (4, 3, 1)
    assert found["failures"][0]["reason"].startswith("'tower' is not in the prompt")
    assert found["means"][0]["kind"] == "resid"
    assert Path(found["rows"]).is_file()


@pytest.mark.long
def test_an_interrupt_says_what_is_kept_and_how_to_go_on(interp, config, monkeypatch) -> None:
    from interp.scale import sweep_run

    add = sweep_run.Probes.add

    def stopping(self, task, *told) -> None:
        add(self, task, *told)
        if task.index == 1:
            raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(sweep_run.Probes, "add", stopping)
        ended = interp("sweep", str(config), "-o", "my out", "--workers", "1", "-q")
    assert (ended.code, ended.stdout) == (130, "")
    assert ended.stderr == (
        "error: interrupted; 2 of 4 tasks are kept in my out; go on with: "
        f"interp sweep {config} -o 'my out' --workers 1 --resume\n"
    )
    ended = interp("sweep", str(config), "-o", "my out")
    assert ended.code == 2
    assert "holds a sweep with 2 finished tasks; go on with --resume" in ended.stderr
    ended = interp("sweep", str(config), "-o", "my out", "--resume")
    assert ended.code == 0
    assert ended.stderr.startswith("going on: 2 of 4 tasks are finished already\n")


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("gone.toml",), 2, "cannot read gone.toml"),
        (("sweep.json",), 2, "ends in '.json'; valid: .toml, .yaml, .yml"),
        (("traces.yaml", "-o", "traces.yaml"), 2, "the output traces.yaml is a file; name a folder with -o"),
        (("traces.yaml", "-o", "/proc/sweep"), 2, "cannot create the folder /proc/sweep"),
        (("traces.yaml", "-o", "nowhere://x/y"), 2, "cannot write to nowhere://x/y"),
        (("traces.yaml", "--engine", "spark"), 2, "unknown engine 'spark'; valid: embedded, ray"),
        (("traces.yaml", "--address", "auto"), 2, "add --engine ray"),
        (("traces.yaml", "--workers", "0"), 2, "'--workers'"),
        ((), 2, "Missing argument 'CONFIG'"),
        (("nomodel.yaml",), 3, "unknown model 'smollm3-135m'"),
    ],
)
def test_bad_input_is_one_line(interp, config, arguments, code, said) -> None:
    text = config.read_text()
    Path("nomodel.yaml").write_text(json.dumps(json.loads(text) | {"model": "smollm3-135m"}))
    ended = interp("sweep", *arguments)
    assert (ended.code, ended.stdout) == (code, "")
    assert said in ended.stderr
    assert ended.stderr.count("\n") == 1
