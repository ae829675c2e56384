"""environment.yml, pyproject.toml, what is imported and what is installed say the same."""

from __future__ import annotations

import ast
import json
import re
import sys
import tomllib
from importlib.metadata import packages_distributions, version

import pytest
import yaml

from zdce import paths

ROOT = paths.PACKAGE.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
EXTRAS = PROJECT["optional-dependencies"]
REQUIREMENTS = [*PROJECT["dependencies"], *(line for extra in EXTRAS.values() for line in extra)]
OPTIONAL = [
    line
    for extra in ("cluster", "export", "fast", "tensorboard", "video")
    for line in EXTRAS[extra]
]  # imported where they are needed
# Declared, though no line imports them: what runs them instead.
COMMANDS = {
    "ipykernel": "zdce/report.py starts it as a module",
    "jupyterlab": "make lab",
    "nbval": "plug-in of pytest: make test",
    "ruff": "make test",
    "cyclonedx-bom": "make sbom",
    "pip-audit": "make audit",
}


def normal(requirement: str) -> str:
    return re.match(r"[\w.-]+", requirement)[0].lower().replace("_", "-")


def pins() -> dict[str, str]:
    entries = yaml.safe_load((ROOT / "environment.yml").read_text("utf-8"))["dependencies"]
    listed = next(entry["pip"] for entry in entries if isinstance(entry, dict))
    return dict(line.split("==") for line in listed if line != "-e .")


def declared() -> set[str]:
    return {normal(line) for line in REQUIREMENTS}


def imported(source: str) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and not node.level:
            names.add(node.module.split(".")[0])
    return (
        names
        - set(sys.stdlib_module_names)
        - {"zdce", "conftest", "hostile", "soak", "supply", "test_pins", "tests"}
    )


def distributions(names: set[str]) -> set[str]:
    known = packages_distributions()
    return {
        normal(known[name][0]) if name in known else f"{name} (not installed)" for name in names
    }


def package_imports() -> set[str]:
    return set().union(
        *(imported(file.read_text("utf-8")) for file in (ROOT / "zdce").glob("*.py"))
    )


def notebook_imports() -> set[str]:
    names: set[str] = set()
    for file in (ROOT / "notebooks").glob("*.ipynb"):
        for cell in json.loads(file.read_text("utf-8"))["cells"]:
            if cell["cell_type"] == "code":
                names |= imported("".join(cell["source"]))
    return names


def test_every_line_of_the_environment_says_what_uses_it():
    for number, line in enumerate((ROOT / "environment.yml").read_text("utf-8").splitlines(), 1):
        assert re.search(r"\S  # \w", line), f"environment.yml:{number} has no comment: {line}"


def test_environment_pins_exactly_what_the_project_declares():
    assert set(pins()) == declared()


def test_pins_stand_in_environment_alone():
    for line in REQUIREMENTS:
        assert "==" not in line, (
            f"pyproject.toml pins {line}; exact versions belong into environment.yml"
        )


def test_pins_are_at_least_the_declared_versions():
    def numbers(text: str) -> list[int]:
        return [int(part) for part in re.findall(r"\d+", text)]

    pinned = pins()
    for line in REQUIREMENTS:
        least = re.fullmatch(r"[\w.-]+>=([\d.]+)", line)
        assert least, f"pyproject.toml: {line} should say name>=version"
        assert numbers(pinned[normal(line)]) >= numbers(least[1])


@pytest.mark.parametrize(("name", "pin"), sorted(pins().items()))
def test_what_is_installed_is_what_is_pinned(name, pin):
    assert version(name).split("+")[0] == pin, (
        "run make again: it rebuilds .venv from environment.yml"
    )


def test_every_import_of_the_package_is_a_dependency():
    assert distributions(package_imports()) <= {
        normal(line) for line in [*PROJECT["dependencies"], *OPTIONAL]
    }


def test_every_import_of_tests_and_notebooks_is_declared():
    tests = set().union(
        *(imported(file.read_text("utf-8")) for file in (ROOT / "tests").glob("*.py"))
    )
    assert distributions(tests | notebook_imports()) <= declared()


def test_every_dependency_is_used():
    files = [*(ROOT / "zdce").glob("*.py"), *(ROOT / "tests").glob("*.py")]
    used = set().union(*(imported(file.read_text("utf-8")) for file in files)) | notebook_imports()
    assert declared() - distributions(used) <= set(COMMANDS)


def test_what_the_package_requires_it_imports_itself():
    """What tests and notebooks alone import belongs into an extra."""
    required = {normal(line) for line in PROJECT["dependencies"]}
    assert required - distributions(package_imports()) <= set(COMMANDS)


def test_what_runs_a_dependency_that_nothing_imports_is_there():
    used = distributions(package_imports())
    texts = {name: (ROOT / name).read_text("utf-8") for name in ("Makefile", "zdce/report.py")}
    assert set(COMMANDS) <= declared()
    for name, why in COMMANDS.items():
        assert name not in used, f"{name} is imported: it needs no excuse"
        if why.startswith("make "):
            assert f"\n{why.split()[1]}:" in texts["Makefile"]
    assert "ipykernel_launcher" in texts["zdce/report.py"]
    assert (
        "--nbval" in texts["Makefile"]
        and "ruff check" in texts["Makefile"]
        and "jupyter lab" in texts["Makefile"]
    )


def test_makefile_reads_every_pin():
    pattern = re.compile(r"^ *- ([a-z0-9_-]*==[^ ]*)", re.MULTILINE)
    found = pattern.findall((ROOT / "environment.yml").read_text("utf-8"))
    assert dict(line.split("==") for line in found) == pins()
