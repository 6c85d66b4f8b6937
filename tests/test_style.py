"""What ruff has no rule for: nested conditional expressions, operators passed by their dunder name, lambdas of many lines."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FILES = [file.relative_to(ROOT) for room in ("sdit_jax", "configs") for file in sorted((ROOT / room).rglob("*.py"))]
OPERATORS = {*dir(str), *dir(dict), *dir(int)} - {*dir(object)} | {"__eq__", "__ne__", "__lt__", "__le__", "__gt__", "__ge__"}


def faults(source):
    """(line, fault) of a file."""
    nodes = list(ast.walk(ast.parse(source)))
    called = {id(node.func) for node in nodes if isinstance(node, ast.Call)}
    for node in nodes:
        if isinstance(node, ast.IfExp) and any(isinstance(part, ast.IfExp) for part in ast.walk(node) if part is not node):
            yield node.lineno, "nested conditional expression"
        elif isinstance(node, ast.Assign | ast.AnnAssign) and isinstance(node.value, ast.Lambda):
            if node.value.end_lineno != node.value.lineno:
                yield node.lineno, "lambda of several lines; write a function"
        elif isinstance(node, ast.Attribute) and id(node) not in called and node.attr in OPERATORS and node.attr[:2] == "__":
            yield node.lineno, f"{node.attr} as a value"


@pytest.mark.parametrize("path", FILES, ids=str)
def test_code_is_spelled_out(path):
    assert not list(faults((ROOT / path).read_text()))


@pytest.mark.parametrize(
    "source, found",
    [
        ("x = a if b else c if d else e", 1),
        ("x = (a if b else c) if d else e", 1),
        ("x = f(a if b else c) if d else e", 1),
        ("x, y = a if b else c, d if e else f", 0),
        ("found = filter('loss'.__eq__, names)", 1),
        ("found = sorted(names, key=order.__getitem__)", 1),
        ("super().__init__()\nname = type(x).__name__\ncause = error.__cause__\nx = source.__getitem__(3)", 0),
        ("f = lambda x: (\n    x + 1\n)", 1),
        ("f: Callable = lambda x: {\n    x: 1\n}", 1),
        ("f = lambda x: x + 1\ng(lambda x: (\n    x\n))", 0),
    ],
)
def test_code_golf_is_found(source, found):
    assert len(list(faults(source))) == found
