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
SHOWS = (
    *(ast.FunctionDef, ast.ClassDef, ast.Lambda, ast.For, ast.While),
    *(ast.comprehension, ast.BinOp, ast.Compare, ast.With),
)


@pytest.fixture(scope="module", params=NOTEBOOKS, ids=lambda file: file.stem)
def book(request):
    return nbformat.read(request.param, as_version=4)


def code(book) -> list:
    return [cell for cell in book.cells if cell.cell_type == "code"]


def prose(book) -> list[str]:
    return [cell.source for cell in book.cells if cell.cell_type == "markdown"]


def tagged(book, tag: str) -> list:
    return [cell for cell in code(book) if tag in cell.metadata.get("tags", [])]


def working(book) -> list[ast.Module]:
    """Code cells but for parameters, imports and the stamp."""
    trees = [ast.parse(c.source) for c in code(book) if c not in tagged(book, "parameters")]
    imports = (ast.Import, ast.ImportFrom)
    return [
        tree
        for tree in trees
        if not all(isinstance(line, imports) for line in tree.body) and "stamp(" not in dump(tree)
    ]


def dump(tree: ast.AST) -> str:
    return ast.unparse(tree)


def shows(tree: ast.Module, modules: set[str]) -> bool:
    """Whether a cell holds a formula, a definition, a loop or a table expression, and not only
    calls of modules.
    """
    todo: list[ast.AST] = [tree]
    while todo:
        node = todo.pop()
        if isinstance(node, ast.JoinedStr):  # what a sentence computes is not the lesson
            continue
        if isinstance(node, SHOWS):
            return True
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            owner = node.func.value
            if not (isinstance(owner, ast.Name) and owner.id in modules):
                return True  # a method of data, such as groupby
        todo += ast.iter_child_nodes(node)
    return False


def test_is_valid_and_of_readable_length(book):
    nbformat.validate(book)
    assert 15 <= len(book.cells) < 40
    lengths = [len(list(filter(str.strip, cell.source.splitlines()))) for cell in code(book)]
    assert max(lengths) <= 15


def test_starts_with_its_title_and_one_sentence(book):
    first = book.cells[0]
    assert first.cell_type == "markdown" and re.match(r"# \S.*\n\s*\S", first.source)
    assert sum(len(re.findall(r"^# ", text, re.MULTILINE)) for text in prose(book)) == 1


def test_ends_with_findings_things_to_try_and_limits(book):
    headings = re.findall(r"^## (.+)$", "\n".join(prose(book)), re.MULTILINE)
    assert headings[-3:] == ["Findings", "Try it", "Limits and deviations"]


def test_at_least_half_of_the_working_cells_show_the_thing_itself(book):
    trees = working(book)
    nodes = [node for cell in code(book) for node in ast.walk(ast.parse(cell.source))]
    imports = [node for node in nodes if isinstance(node, ast.Import | ast.ImportFrom)]
    modules = {alias.asname or alias.name for node in imports for alias in node.names}
    blind = [dump(tree) for tree in trees if not shows(tree, modules)]
    assert len(blind) <= len(trees) / 2, "\n---\n".join(blind)


def test_parameters_are_flat_literals_with_help(book):
    (cell,) = tagged(book, "parameters")
    for line in cell.source.splitlines():
        assert PARAMETER.fullmatch(line), f"not 'name: type = value  # help': {line}"
    for statement in ast.parse(cell.source).body:
        kind, value = ast.unparse(statement.annotation), ast.literal_eval(statement.value)
        assert kind != "float" or isinstance(value, float), f"{statement.target.id}: write a float"


def test_nbval_compares_at_least_three_cells(book):
    cells = tagged(book, "nbval-check-output")
    assert len(cells) >= 3
    assert all(cell.outputs for cell in cells), "a compared cell has no stored output"


def test_was_run_from_top_to_bottom(book):
    assert [cell.execution_count for cell in code(book)] == list(range(1, len(code(book)) + 1))
    assert not [o for cell in code(book) for o in cell.outputs if o.output_type == "error"]


def test_every_picture_has_alt_text(book):
    for cell in code(book):
        for output in cell.outputs:
            for kind in set(output.get("data", {})) & {"image/png", "image/jpeg"}:
                assert output.metadata.get(kind, {}).get("alt"), f"no alt text: {cell.source}"


def test_names_no_folder_of_a_machine(book):
    texts = [cell.source for cell in book.cells]
    for output in (output for cell in code(book) for output in cell.outputs):
        data = output.get("data", {})
        page = re.sub(r"data:\S+", "", data.get("text/html", ""))  # base64 may look like a path
        texts += [output.get("text", ""), data.get("text/plain", ""), page]
    folder = r"(?<![\w.:/<])(/(home|root|tmp|work|usr|mnt|opt|Users)/|[A-Z]:\\)"
    assert [text for text in texts if re.search(folder, text)] == []


def test_formulas_need_no_mathjax(book):
    for text in prose(book):
        assert not re.search(r"\$[^$\n]+\$", text), "pages load no MathJax: write formulas as text"


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
    process = subprocess.run(
        [sys.executable, "-m", "papermill", *words],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=900,
    )
    assert process.returncode == 0, process.stderr[-3000:]
    made = nbformat.read(tmp_path / "out.ipynb", as_version=4)
    assert f"{name} = {TURNED[name]}" in "".join(cell.source for cell in code(made))
    assert not list(Path(bare["ZDCE_DATA"]).glob("[!c]*")), "fetched or made data of its own"
