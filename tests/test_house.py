"""The house of design: arrows that go one way, functions that fit a screen, nothing there for one
notebook alone.
"""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from zdce import paths

ROOT = paths.PACKAGE.parent
FILES = sorted(paths.PACKAGE.rglob("*.py"))
MODULES = {
    ".".join(file.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): file
    for file in FILES
}
TREES = {name: ast.parse(file.read_text("utf-8")) for name, file in MODULES.items()}
FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)
# What a room may know besides the core.
KNOWS = {
    "core": (),
    "engine": ("engine",),
    "users": ("engine", "users"),
    "study": ("engine", "users", "study"),
    "cli": ("engine", "users", "study", "cli"),
}
# Modules that are no core: they compute through an engine.
USERS = ("enhance", "video", "folders", "export", "checkpoints", "training", "step")


def room(module: str) -> str:
    part = [*module.split("."), ""][1]
    if part in ("", "__main__", "cli"):
        return "cli"
    return part if part in ("engine", "study") else "users" if part in USERS else "core"


def imports(tree: ast.Module) -> Iterator[str]:
    """Modules of this package that ``tree`` imports, wherever, but for types alone."""
    todo: list[ast.AST] = [tree]
    while todo:
        node = todo.pop()
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            continue
        todo += ast.iter_child_nodes(node)
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in MODULES)
        elif isinstance(node, ast.ImportFrom) and node.module:
            full = [f"{node.module}.{alias.name}" for alias in node.names]
            found = [name for name in full if name in MODULES]
            yield from found or ([node.module] if node.module in MODULES else [])


ARROWS = {name: set(imports(tree)) - {name, "zdce"} for name, tree in TREES.items()}


def test_no_import_goes_in_a_circle():
    left = dict(ARROWS)
    while ends := [name for name, known in left.items() if not known & set(left)]:
        for name in ends:
            del left[name]
    assert left == {}, "these import each other"


def test_arrows_go_one_way():
    wrong = [
        f"{name} → {known}"
        for name, arrows in ARROWS.items()
        for known in arrows
        if room(known) != "core" and room(known) not in KNOWS[room(name)]
    ]
    assert wrong == []


def functions() -> Iterator[tuple[str, ast.FunctionDef]]:
    """Every function but commands of click and kernels of machine code, which their decorators
    tell.
    """
    for name, tree in TREES.items():
        for node in ast.walk(tree):
            if isinstance(node, FUNCTIONS):
                decorators = " ".join(ast.unparse(each) for each in node.decorator_list)
                if not re.search(r"machine_code|kernel|intrinsic|command|group", decorators):
                    yield f"{name}.{node.name}", node


def test_functions_fit_a_screen():
    def lines(node: ast.FunctionDef) -> int:
        docstring = node.body[0] if ast.get_docstring(node) else None
        told = docstring.end_lineno - docstring.lineno + 1 if docstring else 0
        return node.end_lineno - node.lineno + 1 - told

    long = {name: lines(node) for name, node in functions()}
    assert {name: count for name, count in long.items() if count > 50} == {}


def test_functions_take_at_most_eight_arguments():
    def count(arguments: ast.arguments) -> int:
        every = [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs]
        return len([each for each in every if each.arg not in ("self", "cls")])

    taken = {name: count(node.args) for name, node in functions()}
    assert {name: number for name, number in taken.items() if number > 8} == {}


# Of one notebook today, and there for any: a picture that moves takes a page of its own.
SHARED = {"slider"}


def names(tree: ast.AST) -> set[str]:
    """Everything that the code names."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Name):
            found.add(node.id)
        elif isinstance(node, ast.Attribute):
            found.add(node.attr)
        elif isinstance(node, ast.ImportFrom):
            found |= {alias.name for alias in node.names}
    return found


def cells(book: Path) -> str:
    code = [c for c in json.loads(book.read_text("utf-8"))["cells"] if c["cell_type"] == "code"]
    return "\n".join("".join(cell["source"]) for cell in code)


def test_nothing_public_is_there_for_one_notebook_alone():
    benchmarks = [ast.parse(f.read_text("utf-8")) for f in (ROOT / "benchmarks").glob("*.py")]
    elsewhere = set().union(*map(names, [*TREES.values(), *benchmarks]))
    books = {f.stem: names(ast.parse(cells(f))) for f in paths.notebooks().glob("[0-9]*.ipynb")}
    lonely = {}
    for module, tree in TREES.items():
        for node in tree.body:
            if (
                isinstance(node, FUNCTIONS)
                and node.name[0] != "_"
                and node.name not in elsewhere | SHARED
            ):
                users = [book for book, named in books.items() if node.name in named]
                lonely |= {f"{module}.{node.name}": users[0]} if len(users) == 1 else {}
    assert lonely == {}


@pytest.mark.parametrize("folder", ["zdce", "tests", "benchmarks"])
def test_lines_have_at_most_100_columns(folder):
    wide = [
        f"{file.name}:{number}"
        for file in (ROOT / folder).rglob("*.py")
        for number, line in enumerate(file.read_text("utf-8").splitlines(), 1)
        if len(line) > 100
    ]
    assert wide == []
