"""Shape annotations use the axis names of interp/axes.py and no others."""

import ast
import re
from pathlib import Path

import pytest

from interp.axes import AXES

PACKAGE = Path(__file__).resolve().parents[1] / "interp"
DTYPES = {
    "Float",
    "Int",
    "Bool",
    "UInt8",
    "UInt",
    "Int64",
    "Int32",
    "Integer",
    "Shaped",
    "Num",
    "Real",
    "Inexact",
    "Complex",
}
NAME = re.compile(r"[A-Za-z_]\w*")


def shapes(tree: ast.AST) -> list[tuple[int, str]]:
    """The shape string of every ``Float[Tensor, "..."]`` in ``tree``, quoted annotations included, with its line."""
    found: list[tuple[int, str]] = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Subscript):
            head = node.value
            name = head.attr if isinstance(head, ast.Attribute) else getattr(head, "id", None)
            inside = node.slice
            if name in DTYPES and isinstance(inside, ast.Tuple) and len(inside.elts) == 2:
                shape = inside.elts[1]
                if isinstance(shape, ast.Constant) and isinstance(shape.value, str):
                    found.append((node.lineno, shape.value))
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and "Tensor," in node.value:
            try:
                inner = ast.parse(node.value, mode="eval")
            except SyntaxError:
                continue
            found += [(node.lineno, shape) for _, shape in shapes(inner)]
    return found


def axis_names(shape: str) -> set[str]:
    """The names in a jaxtyping shape: ``"*batch pos+1 {k} d_model=64 ..."`` without modifiers, numbers and f-string parts."""
    named: set[str] = set()
    for axis in shape.split():
        if axis == "...":
            continue
        expression = axis.lstrip("*#_?").split("=")[0]
        named |= set(NAME.findall(expression))
    return named


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_axis_names_are_known(path: Path) -> None:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    unknown = [
        f"{path.name}:{line}: {name!r} in {shape!r} is no axis of interp/axes.py"
        for line, shape in shapes(tree)
        for name in sorted(axis_names(shape) - AXES.keys())
    ]
    assert not unknown, "\n".join(unknown)


def test_the_reader_finds_every_kind_of_annotation() -> None:
    source = """
def f(x: Float[Tensor, "batch pos"], y: "Int[Tensor, 'layer k'] | None") -> jaxtyping.Bool[Tensor, "*row d_oops+1 3 ..."]: ...
"""
    found = [shape for _, shape in shapes(ast.parse(source))]
    assert sorted(found) == ["*row d_oops+1 3 ...", "batch pos", "layer k"]
    assert axis_names("*row d_oops+1 3 ...") == {"row", "d_oops"}
    assert axis_names("d_model=64 ?head #batch _") == {"d_model", "head", "batch"}
