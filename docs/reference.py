"""Writes what docs/ takes from the code: ``make docs``.

commands.md is the commands' help, api.md the public names' docstrings, glossary.md the report's own words.

A test runs it with ``--check``, which writes nothing and fails when a page is not what the code says.
"""

import ast
import inspect
import os
import re
import sys
from pathlib import Path
from types import FunctionType
from typing import Any

from words import WORDS

FOLDER = Path(__file__).resolve().parent
WIDTH = "80"


def commands_page() -> str:
    """The help of ``interp`` and of each of its commands."""
    os.environ["COLUMNS"] = WIDTH
    from typer.main import get_command

    # cli/ is installed under this name, where no type checker looks for it
    from interp_cli.main import COMMANDS, app, load_command  # pyright: ignore[reportMissingImports]

    def help_of(command: Any, name: str) -> str:
        context = command.make_context(name, [], resilient_parsing=True)
        return f"## {name}\n\n```text\n{command.get_help(context).rstrip()}\n```\n"

    parts = [help_of(get_command(app), "interp")]
    for name in COMMANDS:
        command = load_command(name)
        parts.append(help_of(command, f"interp {name}"))
        parts += [help_of(sub, f"interp {name} {key}") for key, sub in getattr(command, "commands", {}).items()]
    return "# Commands\n\nWritten by `make docs`.\n\n" + "\n".join(parts)


def api_page() -> str:
    """Signature and docstring of each public name."""
    import interp

    parts = []
    for name in interp.__all__:
        value = getattr(interp, name)
        if isinstance(value, str):
            continue
        text = inspect.getdoc(value) or ""
        parts.append(f"## interp.{name}\n\n```python\n{_heading(name, value)}\n```\n\n```text\n{text}\n```\n")
    return "# Python names\n\nWritten by `make docs`. Import them with `import interp`.\n\n" + "\n".join(parts)


def glossary_page() -> str:
    """Every word of the report and of the documentation, each defined once; a word in a definition leads to its own."""
    from interp.report.sections.glossary import TERMS

    twice = {term.lower() for term in TERMS} & {word.lower() for word in WORDS}
    assert not twice, f"in the report's glossary and in docs/words.py: {sorted(twice)}"
    entries = {**TERMS, **WORDS}
    names = {name.lower() for name in entries}

    def link(match: re.Match[str]) -> str:
        name = (match[2] or match[1]).lower()
        assert name in names, f"the glossary has no entry {name!r}"
        return f"[{match[1]}](#{re.sub(r'[^a-z0-9_ -]', '', name).replace(' ', '-')})"

    parts = []
    for name in sorted(entries, key=str.lower):
        text = re.sub(r"\[\[([^\]|]+)(?:\|([^\]]+))?\]\]", link, entries[name])
        parts.append(f"## {name}\n\n{text}\n")
    head = (
        "The words are the field's, spelt as the papers spell them. Each stands for one thing here, in the code, in the reports and on "
        "these pages. Most are the report's own glossary."
    )
    return f"# Glossary\n\nWritten by `make docs`. {head}\n\n" + "\n".join(parts)


def _heading(name: str, value: type | FunctionType) -> str:
    if inspect.isclass(value):
        bases = ", ".join(base.__name__ for base in value.__bases__ if base is not object)
        return f"class {name}({bases})" if bases else f"class {name}"
    (function,) = ast.parse(inspect.getsource(value)).body
    assert isinstance(function, ast.FunctionDef)
    assert function.returns is not None
    return f"def {name}({ast.unparse(function.args)}) -> {ast.unparse(function.returns)}"


def main() -> int:
    """Writes the pages, or with ``--check`` says which are stale."""
    pages = {"commands.md": commands_page(), "api.md": api_page(), "glossary.md": glossary_page()}
    stale = []
    for file, text in pages.items():
        path = FOLDER / file
        if "--check" not in sys.argv:
            path.write_text(text, encoding="utf-8")
        elif not path.is_file() or path.read_text(encoding="utf-8") != text:
            stale.append(file)
    if stale:
        sys.stderr.write(f"{', '.join(stale)} in docs/ are stale; run `make docs`\n")
    return 1 if stale else 0


if __name__ == "__main__":
    sys.exit(main())
