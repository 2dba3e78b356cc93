"""Imports go down the list of layers: a module imports from layers above its own in the list, or from its own package.

The imports are read from the source, so those inside functions and TYPE_CHECKING blocks count as well.
"""

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]

LAYERS = {
    "interp._version": 0,
    "interp.axes": 0,
    "interp.errors": 0,
    "interp.sites": 0,
    "interp.files": 0,
    "interp.foreign_json": 0,
    "interp.heads": 0,
    "interp.maths": 1,
    "interp.figures": 1,
    "interp.prompts": 2,
    "interp.interventions": 2,
    "interp.tokens": 3,
    "interp.plain_json": 3,
    "interp.notebook": 3,
    "interp.cache": 4,
    "interp.checkpoint": 4,
    "interp.results": 4,
    "interp.models": 5,
    "interp.runner": 6,
    "interp.corpus_files": 1,
    "interp.corpora": 7,
    "interp.analyzers": 7,
    "interp.editing": 8,
    "interp.report": 9,
    "interp.scale": 9,
}
"""Unit (a module, or a package whose modules may import each other) and its place in the list."""

SIDEWAYS = {
    ("interp.files", "interp.errors"),  # writing a file can fail in the user's words
    ("interp.heads", "interp.errors"),
    ("interp.sites", "interp.errors"),
    ("interp.interventions", "interp.prompts"),
    ("interp.notebook", "interp.tokens"),  # what is shown must be visible
}
"""Imports between two units of one layer that are meant."""

IN_WORDS = {"interp._version", "interp.corpus_files"}
"""Units that the table of docs/architecture.md has no row for."""

FREE = {"interp", "interp_cli"}
"""The package's lazy names and the command line stand above all layers."""

MODEL_LIBRARIES = {"transformers", "transformer_lens"}
NO_MODEL_CLASS = (
    "transformers.AttentionInterface",
    "transformers.AttentionMaskInterface",
    "transformers.masking_utils",
    "transformers.cache_utils",
    "transformers.DynamicCache",
    "transformers.Cache",
)
"""What the runner takes from transformers: the registries of attention functions and masks, and the KV cache."""


def module_name(path: Path) -> str:
    parts = list(path.relative_to(ROOT).with_suffix("").parts)
    if parts[0] == "cli":
        parts[0] = "interp_cli"
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def unit(module: str) -> str:
    """``interp.models.atlas`` belongs to the unit ``interp.models``; ``interp_cli.lens`` to ``interp_cli``."""
    parts = module.split(".")
    return parts[0] if parts[0] == "interp_cli" else ".".join(parts[:2])


def imports(path: Path, *, types: bool = True) -> Iterator[tuple[int, str]]:
    """Each imported module with its line; ``from interp.maths import lens`` counts as ``interp.maths.lens``.

    ``types=False`` leaves out the blocks that only type checkers read.
    """
    own = module_name(path)
    package = own if path.name == "__init__.py" else own.rpartition(".")[0]
    tree = ast.parse(path.read_text(encoding="utf-8"))
    if not types:
        tree.body = [node for node in tree.body if not is_type_checking(node)]
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                above = package.split(".")[: len(package.split(".")) - node.level + 1]
                base = ".".join([*above, base] if base else above)
            yield from ((node.lineno, f"{base}.{alias.name}") for alias in node.names)


def is_type_checking(node: ast.stmt) -> bool:
    return isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"


SOURCES = sorted([*ROOT.joinpath("interp").rglob("*.py"), *ROOT.joinpath("cli").rglob("*.py")])


def is_allowed(importer: str, imported: str) -> bool:
    """Whether unit ``importer`` may import unit ``imported``."""
    if importer in FREE or importer == imported:
        return True
    if imported in FREE or imported not in LAYERS:
        return False
    return LAYERS[imported] < LAYERS[importer] or (importer, imported) in SIDEWAYS


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_go_down_the_layers(path: Path) -> None:
    own = unit(module_name(path))
    assert own in LAYERS or own in FREE, f"{own} has no place in the list of layers"
    bad = [
        f"{path.relative_to(ROOT)}:{line}: {own} imports {name}"
        for line, name in imports(path)
        if name.split(".")[0] in ("interp", "interp_cli") and not is_allowed(own, unit(name))
    ]
    assert not bad, "\n".join(bad)


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_only_models_imports_the_model_libraries(path: Path) -> None:
    own = unit(module_name(path))
    bad = [
        f"{path.relative_to(ROOT)}:{line}: imports {name}"
        for line, name in imports(path)
        if name.split(".")[0] in MODEL_LIBRARIES and own != "interp.models"
        if not (own == "interp.runner" and name.startswith(NO_MODEL_CLASS))
    ]
    assert not bad, "\n".join(bad)


def test_two_modules_import_transformer_lens() -> None:
    importers = {
        module_name(path) for path in SOURCES for _, name in imports(path) if name.split(".")[0] == "transformer_lens"
    }
    assert importers <= {"interp.models.atlas_from_tl", "interp.models.tl_cache"}


def cycle(graph: dict[str, set[str]]) -> list[str]:
    """The modules left when those that need nothing, or that nothing needs, are taken away until all remaining do both."""
    left = dict(graph)
    while True:
        needed = set().union(*left.values())
        ends = {name for name, needs in left.items() if not needs & left.keys() or name not in needed}
        if not ends:
            return sorted(left)
        left = {name: needs for name, needs in left.items() if name not in ends}


def test_there_is_no_cycle_of_modules() -> None:
    names = {module_name(path) for path in SOURCES} - FREE
    graph = {}
    for path in SOURCES:
        if module_name(path) in names:
            found = {name if name in names else name.rpartition(".")[0] for _, name in imports(path, types=False)}
            graph[module_name(path)] = (found & names) - {module_name(path)}
    assert not cycle(graph), f"these modules import each other: {cycle(graph)}"


def test_the_cycle_finder_can_fail() -> None:
    assert cycle({"a": {"b"}, "b": {"c"}, "c": {"b", "d"}, "d": set(), "e": {"a"}}) == ["b", "c"]


@pytest.mark.parametrize("module", ["interp", "interp_cli.main", "interp_cli.options", "interp_cli.output"])
def test_importing_is_light(module: str) -> None:
    heavy = ["torch", "transformers", "transformer_lens", "plotly", "pandas", "numpy", "rich.console"]
    code = f"import sys, {module}; print([name for name in {heavy!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_rule_can_fail() -> None:
    assert not is_allowed("interp.maths", "interp.results")
    assert not is_allowed("interp.maths", "interp.figures")
    assert not is_allowed("interp.runner", "interp")
    assert is_allowed("interp.analyzers", "interp.runner")


def test_the_page_on_architecture_lists_every_unit_in_its_layer() -> None:
    page = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (\d) \| (`.*?`) \|", page, re.MULTILINE)
    listed = {
        f"interp.{name.rstrip('/')}": int(layer) for layer, names in rows for name in re.findall(r"`(.*?)`", names)
    }
    assert listed == {name: layer for name, layer in LAYERS.items() if name not in IN_WORDS}
