"""The house of design: arrows that go one way, functions that fit a screen, nothing there for one
notebook alone.
"""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterator
from pathlib import Path

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
# Modules that may know them.
USERS = ("enhance", "video", "folders", "export", "checkpoints", "training")


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
    arrows = [(name, known) for name, every in ARROWS.items() for known in every]
    assert [(n, known) for n, known in arrows if room(known) not in ("core", *KNOWS[room(n)])] == []


def test_functions_fit_a_screen_and_take_at_most_eight_arguments():
    """But commands of click and kernels of machine code, which their decorators tell."""
    wrong = []
    for module, node in ((name, node) for name, tree in TREES.items() for node in ast.walk(tree)):
        if isinstance(node, FUNCTIONS):
            decorators = " ".join(ast.unparse(each) for each in node.decorator_list)
            every = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
            count = len([each for each in every if each.arg not in ("self", "cls")])
            large = count > 8 or node.end_lineno - node.lineno >= 50
            if large and not re.search("machine_code|kernel|intrinsic|command|group", decorators):
                wrong.append(f"{module}.{node.name}")
    assert wrong == []


def names(tree: ast.AST) -> set[str]:
    """Everything that the code names, but by defining it."""
    kinds = {ast.Name: "id", ast.Attribute: "attr", ast.alias: "name"}
    return {getattr(n, kinds[type(n)]) for n in ast.walk(tree) if type(n) in kinds}


def cells(book: Path) -> ast.Module:
    code = [c for c in json.loads(book.read_text("utf-8"))["cells"] if c["cell_type"] == "code"]
    return ast.parse("\n".join("".join(cell["source"]) for cell in code))


def test_nothing_public_is_there_for_one_notebook_alone():
    benchmarks = [ast.parse(f.read_text("utf-8")) for f in (ROOT / "benchmarks").glob("*.py")]
    elsewhere = set().union(*map(names, [*TREES.values(), *benchmarks]))
    books = [names(cells(file)) for file in paths.notebooks().glob("[0-9]*.ipynb")]
    defined = [n for tree in TREES.values() for n in tree.body if isinstance(n, FUNCTIONS)]
    alone = {node.name for node in defined if node.name[0] != "_"} - elsewhere
    assert [name for name in alone if sum(name in named for named in books) == 1] == []


def test_lines_have_at_most_100_columns():
    files = [
        file for place in ("zdce", "tests", "benchmarks") for file in (ROOT / place).rglob("*.py")
    ]
    assert [f.name for f in files if max(map(len, f.read_text("utf-8").split("\n"))) > 100] == []
