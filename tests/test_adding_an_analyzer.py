"""docs/adding-an-analyzer.md: its files, put where it says, are an analyzer with a section, a command and tests that pass."""

import importlib.util
import inspect
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PAGE = (ROOT / "docs" / "adding-an-analyzer.md").read_text(encoding="utf-8")
FILES = dict(re.findall(r"^```py file=(\S+)\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL))
LINES = [
    (file.replace("\\", ""), anchor, line)
    for file, anchor, line in re.findall(r"^\| (\S+\.py) \| `([^`]+)` \| `([^`]+)` \|$", PAGE, re.MULTILINE)
]
PROMPT = "The Eiffel Tower is located in the city of"


def test_the_page_is_read_whole() -> None:
    assert len(FILES) == PAGE.count("\n```py") == 6
    assert len(LINES) == 6
    for file, anchor, _ in LINES:
        assert (ROOT / file).read_text(encoding="utf-8").split("\n").count(anchor) == 1, f"{file}: {anchor}"


def test_its_files_pass_ruff(tmp_path: Path) -> None:
    for file, text in FILES.items():
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file).write_text(text, encoding="utf-8")
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    for command in (["check"], ["format", "--check", "--diff"]):
        call = [sys.executable, "-m", "ruff", *command, "--no-cache", "."]
        done = subprocess.run(call, cwd=tmp_path, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture
def modules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, object]:
    """The page's modules, importable for one test only."""
    from interp.results import _KINDS

    made = {}
    for file, text in FILES.items():
        if file.startswith("cli/"):
            continue
        path = tmp_path / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        name = file.removesuffix(".py").replace("/", ".")
        spec = importlib.util.spec_from_file_location(name, path)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        monkeypatch.setitem(sys.modules, name, module)
        spec.loader.exec_module(module)
        made[name] = module
    yield made
    _KINDS.pop("stream_turn")


@pytest.mark.model
def test_its_tests_pass_and_the_report_shows_it(
    modules: dict[str, object], model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from interp.report import page
    from interp.report.sections import BUILDERS

    tests = modules["tests.analyzers.test_stream_turn"]
    given = {"model": model, "tmp_path": tmp_path}
    cases = [value for name, value in vars(tests).items() if name.startswith("test_")]
    assert len(cases) == 4
    for case in cases:
        case(**{name: given[name] for name in inspect.signature(case).parameters})

    result = modules["interp.analyzers.stream_turn"].stream_turn(model, PROMPT)
    section = modules["interp.report.sections.stream_turn"]
    monkeypatch.setattr(page, "BUILDERS", BUILDERS | {"stream_turn": (section.build,)})
    written = page.report([result]).html()
    assert "How far layers turn the stream" in written
    assert f"Layer {result.least()} turns the stream least" in written


@pytest.mark.model
@pytest.mark.slow
def test_the_command_in_a_copy_of_the_package(tmp_path: Path, fetch_lock, model) -> None:
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "interp", tmp_path / "interp", ignore=ignored)
    shutil.copytree(ROOT / "cli", tmp_path / "cli", ignore=ignored)
    for file, text in FILES.items():
        if not file.startswith("tests/"):
            (tmp_path / file).write_text(text, encoding="utf-8")
    for file, anchor, line in LINES:
        path = tmp_path / file
        path.write_text(path.read_text(encoding="utf-8").replace(f"\n{anchor}\n", f"\n{anchor}\n{line}\n"), "utf-8")
    (tmp_path / "cli").rename(tmp_path / "interp_cli")

    def interp(*arguments: str) -> str:
        code = "import sys, interp; from interp_cli.main import main; assert interp.stream_turn; sys.exit(main())"
        done = subprocess.run(
            [sys.executable, "-c", code, *arguments],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(tmp_path)},
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    assert "turn in half turns" in interp("turn", PROMPT, "-o", "turn.html")
    assert "How far layers turn the stream" in (tmp_path / "turn.html").read_text(encoding="utf-8")
    found = json.loads(interp("turn", PROMPT, "--span", "4", "--json"))
    assert (found["command"], found["result"]["span"], len(found["result"]["distances"])) == ("turn", 4, 27)
