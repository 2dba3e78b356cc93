"""The Python examples of the README and the docs run, links there and in the experiments lead somewhere, generated pages are fresh."""

import re
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


def test_every_command_of_the_examples_is_one() -> None:
    from interp_cli.main import COMMANDS

    for page in PAGES:
        for block in blocks(page, "sh"):
            for command in re.findall(r"(?:^|/)interp (\S+)", block, re.MULTILINE):
                assert command in COMMANDS or command.startswith("-"), f"{page.name}: interp {command}"


def test_generated_pages_are_what_the_code_says() -> None:
    done = subprocess.run([sys.executable, ROOT / "docs" / "reference.py", "--check"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
