"""Every notebook has the anatomy that readers and nbval rely on."""

from __future__ import annotations

import ast
import re
from statistics import median

import nbformat
import pytest

from zdce import paths
from zdce.study import report

ROOT = paths.PACKAGE.parent
NOTEBOOKS = sorted((ROOT / "notebooks").glob("[0-9]*.ipynb"))
PARAMETER = re.compile(r"[a-z]\w*: (int|float|str|bool|list\[(int|float|str)\]) = .+  # .+")


@pytest.fixture(scope="module", params=NOTEBOOKS, ids=lambda file: file.stem)
def book(request):
    return nbformat.read(request.param, as_version=4)


def code(book) -> list:
    return [cell for cell in book.cells if cell.cell_type == "code"]


def prose(book) -> list[str]:
    return [cell.source for cell in book.cells if cell.cell_type == "markdown"]


def tagged(book, tag: str) -> list:
    return [cell for cell in code(book) if tag in cell.metadata.get("tags", [])]


def length(cell) -> int:
    return len([line for line in cell.source.splitlines() if line.strip()])


@pytest.mark.parametrize("number", ["01", "02", "06"])
def test_the_story_is_there(number):
    assert any(file.stem.startswith(f"{number}_") for file in NOTEBOOKS)


def test_is_valid_and_of_readable_length(book):
    nbformat.validate(book)
    assert 20 <= len(book.cells) <= 35


def test_starts_with_its_title_and_one_sentence(book):
    first = book.cells[0]
    assert first.cell_type == "markdown" and re.match(r"# \S.*\n\s*\S", first.source)
    assert sum(len(re.findall(r"^# ", text, re.MULTILINE)) for text in prose(book)) == 1


def test_ends_with_findings_and_limits(book):
    headings = re.findall(r"^## (.+)$", "\n".join(prose(book)), re.MULTILINE)
    assert headings[-2:] == ["Findings", "Limits and deviations"]


def test_parameters_are_flat_literals_with_help(book):
    (cell,) = tagged(book, "parameters")
    for line in cell.source.splitlines():
        assert PARAMETER.fullmatch(line), f"not 'name: type = value  # help': {line}"
    for statement in ast.parse(cell.source).body:
        kind, value = ast.unparse(statement.annotation), ast.literal_eval(statement.value)
        report._check_type(statement.target.id, value, kind)
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


def test_logic_lives_in_the_package(book):
    lengths = [length(cell) for cell in code(book)]
    assert median(lengths) <= 5 and max(lengths) <= 20
    forbidden = (ast.ClassDef, ast.Try, ast.TryStar, ast.AsyncFunctionDef)
    for cell in code(book):
        for node in ast.walk(ast.parse(cell.source)):
            assert not isinstance(node, forbidden), (
                f"{type(node).__name__} in a notebook: {cell.source}"
            )
            assert not (
                isinstance(node, ast.Call) and getattr(node.func, "attr", "") == "backward"
            ), "trains in sight"


def test_names_no_folder_of_a_machine(book):
    # Photographs and charts are base64, in which anything may look like a path.
    texts = [cell.source for cell in book.cells]
    for cell in code(book):
        for output in cell.outputs:
            data = output.get("data", {})
            texts += [
                output.get("text", ""),
                data.get("text/plain", ""),
                re.sub(r"data:\S+", "", data.get("text/html", "")),
            ]
    for text in texts:
        assert not re.search(
            r"(?<![\w.:/<])(/(home|root|tmp|work|usr|mnt|opt|Users)/|[A-Z]:\\)", text
        ), text


def test_formulas_need_no_mathjax(book):
    for text in prose(book):
        assert not re.search(r"\$[^$\n]+\$", text), "pages load no MathJax: write formulas as text"


@pytest.mark.parametrize(
    "profile", sorted(file.stem for file in (ROOT / "notebooks" / "profiles").glob("*.yaml"))
)
def test_profiles_name_parameters_that_exist(profile):
    report.read_profile(profile)


def test_quick_and_study_profiles_exist():
    assert {"quick", "study"} <= {
        file.stem for file in (ROOT / "notebooks" / "profiles").glob("*.yaml")
    }
