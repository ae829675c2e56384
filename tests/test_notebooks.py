"""Every notebook has the anatomy that readers and nbval rely on, and runs with nothing but the
clone.
"""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest

from zdce import paths
from zdce.study import report

ROOT = paths.PACKAGE.parent
NOTEBOOKS = sorted((ROOT / "notebooks").glob("[0-9]*.ipynb"))
PROFILES = sorted(file.stem for file in (ROOT / "notebooks" / "profiles").glob("*.yaml"))
PARAMETER = re.compile(r"[a-z]\w*: (int|float|str|bool) = .+  # .+")
# What of a notebook is changed from outside: the first of these that it has.
TURNED = {"limit": 3, "steps": 20, "iterations": 6, "repeats": 2, "seed": 1}
SHOWS = (ast.FunctionDef, ast.ClassDef, ast.Lambda, ast.For, ast.While)
SHOWS += (ast.comprehension, ast.BinOp, ast.Compare, ast.With)


@pytest.fixture(scope="module", params=NOTEBOOKS, ids=lambda file: file.stem)
def book(request):
    return nbformat.read(request.param, as_version=4)


def code(book) -> list:
    return [cell for cell in book.cells if cell.cell_type == "code"]


def tagged(book, tag: str) -> list:
    return [cell for cell in code(book) if tag in cell.metadata.get("tags", [])]


def shows(tree: ast.Module, modules: set[str]) -> bool:
    """Whether a cell holds a formula, a definition, a loop or a table expression, and not only
    calls of modules.
    """
    todo: list[ast.AST] = [tree]
    while todo:
        node = todo.pop()
        if isinstance(node, ast.JoinedStr):  # what a sentence computes is not the lesson
            continue
        method = isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)
        if isinstance(node, SHOWS) or (method and ast.unparse(node.func.value) not in modules):
            return True  # a method of data is one such as groupby
        todo += ast.iter_child_nodes(node)
    return False


def test_is_valid_and_of_readable_length(book):
    nbformat.validate(book)
    assert 15 <= len(book.cells) < 40
    lengths = [len(list(filter(str.strip, cell.source.splitlines()))) for cell in code(book)]
    assert max(lengths) <= 15


def test_has_one_title_and_ends_with_findings_things_to_try_and_limits(book):
    text = "\n".join(cell.source for cell in book.cells if cell.cell_type == "markdown")
    assert re.match(r"# \S.*\n\s*\S", text) and len(re.findall(r"(?m)^# ", text)) == 1
    headings = re.findall(r"(?m)^## (.+)$", text)
    assert headings[-3:] == ["Findings", "Try it", "Limits and deviations"]
    assert not re.search(r"\$[^$\n]+\$", text), "pages load no MathJax: write formulas as text"


def test_at_least_half_of_the_working_cells_show_the_thing_itself(book):
    trees = [ast.parse(c.source) for c in code(book) if c not in tagged(book, "parameters")]
    imports = [n for t in trees for n in ast.walk(t) if isinstance(n, ast.Import | ast.ImportFrom)]
    modules = {alias.asname or alias.name for node in imports for alias in node.names}
    trees = [tree for tree in trees if not set(tree.body) & set(imports)]  # the stamp is with them
    blind = [ast.unparse(tree) for tree in trees if not shows(tree, modules)]
    assert len(blind) <= len(trees) / 2, "\n---\n".join(blind)


def test_parameters_are_flat_literals_with_help(book):
    (cell,) = tagged(book, "parameters")
    for line in cell.source.splitlines():
        assert PARAMETER.fullmatch(line), f"not 'name: type = value  # help': {line}"
    for statement in ast.parse(cell.source).body:
        kind, value = ast.unparse(statement.annotation), ast.literal_eval(statement.value)
        assert kind != "float" or isinstance(value, float), f"{statement.target.id}: write a float"


def test_was_run_from_top_to_bottom_and_nbval_compares_at_least_three_cells(book):
    assert [cell.execution_count for cell in code(book)] == list(range(1, len(code(book)) + 1))
    assert not [o for cell in code(book) for o in cell.outputs if o.output_type == "error"]
    assert len([c for c in tagged(book, "nbval-check-output") if c.outputs]) >= 3


def test_pictures_have_alt_text_and_nothing_names_a_folder_of_a_machine(book):
    texts = [cell.source for cell in book.cells]
    for output in (output for cell in code(book) for output in cell.outputs):
        data = output.get("data", {})
        page = re.sub(r"data:\S+", "", data.get("text/html", ""))  # base64 may look like a path
        texts += [output.get("text", ""), data.get("text/plain", ""), page]
        for kind in set(data) & {"image/png", "image/jpeg"}:
            assert output.metadata[kind]["alt"]
    folder = r"(?<![\w.:/<])(/(home|root|tmp|work|usr|mnt|opt|Users)/|[A-Z]:\\)"
    assert [text for text in texts if re.search(folder, text)] == []


@pytest.mark.parametrize("profile", PROFILES)
def test_profiles_name_parameters_that_exist(profile):
    report.read_profile(profile)


# ---- nothing but the clone -----------------------------------------------------------------------


@pytest.mark.parametrize("extras", ["all extras", pytest.param("none", marks=pytest.mark.long)])
@pytest.mark.parametrize("file", NOTEBOOKS, ids=lambda file: file.stem)
def test_runs_by_plain_papermill_with_nothing_at_hand(file, extras, bare, without, tmp_path):
    """From another folder, with one parameter changed: no mirror, no data, no home, and then no
    extra either.
    """
    environment = bare | {"ZDCE_REPORT_DIR": str(tmp_path / "report")}
    if extras == "none":
        environment["PYTHONPATH"] = f"{without}:{environment['PYTHONPATH']}"
    name = next(name for name in TURNED if name in report.declared(file))
    words = [str(file), "out.ipynb", "-p", name, str(TURNED[name]), "--no-progress-bar"]
    command = [sys.executable, "-m", "papermill", *words]
    subprocess.run(command, cwd=tmp_path, env=environment, timeout=900, check=True)
    made = nbformat.read(tmp_path / "out.ipynb", as_version=4)
    assert f"{name} = {TURNED[name]}" in "".join(cell.source for cell in code(made))
    assert not list(Path(bare["ZDCE_DATA"]).glob("[!c]*")), "fetched or made data of its own"
