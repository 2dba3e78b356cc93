"""The Python examples of the README and the docs run, links there and in the experiments lead somewhere, generated pages are fresh."""

import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PAGES = sorted(
    [
        ROOT / "README.md",
        ROOT / "CHANGELOG.md",
        *(ROOT / "docs").rglob("*.md"),
        *(ROOT / "experiments").glob("**/README.md"),
    ]
)
GENERATED = {"api.md", "commands.md"}
FENCED = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\[[^\]]*\]\(([^)#\s]+)[^)]*\)")


def blocks(page: Path, language: str) -> list[str]:
    return [body for name, body in FENCED.findall(page.read_text(encoding="utf-8")) if name == language]


WITH_PYTHON = [page for page in PAGES if page.name not in GENERATED and blocks(page, "python")]


@pytest.mark.long
@pytest.mark.model
@pytest.mark.parametrize("page", WITH_PYTHON, ids=lambda page: str(page.relative_to(ROOT)))
def test_python_examples_run(page: Path, model, tmp_path: Path, monkeypatch) -> None:
    """A page's blocks run in order, in one namespace, with the model that the session has loaded already."""
    import interp

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(interp, "load", lambda name, **options: model)
    source = "\n".join(blocks(page, "python"))
    exec(compile(source, str(page), "exec"), {"__name__": "example"})


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    text = FENCED.sub("", page.read_text(encoding="utf-8"))
    links = [link for link in LINK.findall(text) if "://" not in link]
    missing = [link for link in links if not (page.parent / link).exists()]
    assert not missing, f"{page.name} links to {missing}"


def test_every_analyzer_has_a_page_with_equations_reading_and_limits() -> None:
    """A page that calls the analyzer and has the three headings; what finds no head or effect of its own is on one of another's."""
    from interp import _HOME

    pages = [page.read_text(encoding="utf-8") for page in (ROOT / "docs" / "how-to").glob("*.md")]
    whole = [
        text
        for text in pages
        if all(f"## {part}\n" in text for part in ("What is computed", "How to read it", "Limits"))
    ]
    verbs = {name for name, home in _HOME.items() if name.islower() and home.startswith("interp.analyzers.")}
    verbs |= {"second_moments", "edit_facts", "edit_effect", "evaluate_edit"}
    without = {verb for verb in verbs if not any(f"interp.{verb}(" in text for text in whole)}
    assert not without, f"no how-to page with equations, reading and limits calls {sorted(without)}"


def test_every_test_that_the_promises_name_is_there() -> None:
    text = (ROOT / "docs" / "reliability.md").read_text(encoding="utf-8")
    promises = re.findall(r"^\| (\d+) \|.*$", text, re.MULTILINE)
    assert promises == [str(number) for number in range(1, 21)]
    named = re.findall(r"`([\w/]+\.py)::(\w+)`", text)
    assert len(named) > 40
    missing = [
        f"{path}::{name}"
        for path, name in named
        if f"def {name}(" not in (ROOT / "tests" / path).read_text(encoding="utf-8")
    ]
    assert missing == []
    rows = [line for line in text.splitlines() if re.match(r"\| \d+ \|", line)]
    assert all("::test_" in row for row in rows)


def commands(page: Path) -> list[list[str]]:
    """The words after ``interp`` in the shell blocks of a page, up to a pipe."""
    lines = "\n".join(blocks(page, "sh")).replace("\\\n", " ").splitlines()
    called = [line for line in lines if re.match(r"(\w+=\S+ )*(\S*/)?interp ", line)]
    words = [shlex.split(re.split(r" [|>] ", line.partition("interp ")[2])[0], comments=True) for line in called]
    return [one for one in words if not one[0].startswith("-")]


@pytest.mark.parametrize("page", [page for page in PAGES if blocks(page, "sh")], ids=lambda page: page.stem)
def test_every_command_of_the_examples_is_one(page: Path) -> None:
    """The parser takes it: the command is there, and so is every option, with a value of its type."""
    from interp_cli.main import COMMANDS, load_command

    for name, *words in commands(page):
        assert name in COMMANDS
        command = load_command(name)
        below = getattr(command, "commands", {})
        if words and words[0] in below:
            command, words = below[words[0]], words[1:]
        command.make_context(name, words)  # raises where the parser refuses


def test_configurations_of_sweeps_are_read(tmp_path: Path) -> None:
    from interp.scale.sweep_config import read_config

    facts = [{"prompt": "The Louvre is in", "subject": "The Louvre", "attribute": "Paris"}]
    (tmp_path / "known_1000.json").write_text(json.dumps(facts))
    shown = [block for page in PAGES for block in blocks(page, "toml")]
    assert len(shown) > 1
    for block in shown:
        start = "" if "analyzer" in block else 'analyzer = "logit_lens"\nitems = ["Hi"]\n'
        (tmp_path / "sweep.toml").write_text(start + block)
        assert read_config(tmp_path / "sweep.toml").items


def test_generated_pages_are_what_the_code_says() -> None:
    done = subprocess.run([sys.executable, ROOT / "docs" / "reference.py", "--check"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
