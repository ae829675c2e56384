"""environment.yml, pyproject.toml and what is imported say the same."""

from __future__ import annotations

import ast
import json
import re
import sys
import tomllib
from importlib.metadata import packages_distributions

import yaml

from zdce import paths

ROOT = paths.PACKAGE.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
EXTRAS = PROJECT["optional-dependencies"]
DEVELOPERS = ("all", "lab", "test")  # extras whose packages no user's command imports
# Declared, though no line imports them: what runs them instead.
PROGRAMS = {"ipykernel", "jupyterlab", "nbval", "pytest-xdist", "ruff"}
PROGRAMS |= {"pillow-heif", "rawpy"}  # imported by their names: zdce/photos.py


def normal(requirement: str) -> str:
    return re.match(r"[\w.-]+", requirement)[0].lower().replace("_", "-")


def declared(*but: str) -> set[str]:
    lines = [line for name, extra in EXTRAS.items() if name not in but for line in extra]
    return {normal(line) for line in [*PROJECT["dependencies"], *lines]} - {"zdce"}


def pins() -> dict[str, str]:
    entries = yaml.safe_load((ROOT / "environment.yml").read_text("utf-8"))["dependencies"]
    listed = next(entry["pip"] for entry in entries if isinstance(entry, dict))
    return dict(line.split("==") for line in listed if line != "-e .")


def imported(*sources: str) -> set[str]:
    """Distributions that the sources import, without the standard library and this project's own
    modules.
    """
    nodes = [node for source in sources for node in ast.walk(ast.parse(source))]
    names = {a.name.split(".")[0] for n in nodes if isinstance(n, ast.Import) for a in n.names}
    names |= {
        node.module.split(".")[0]
        for node in nodes
        if isinstance(node, ast.ImportFrom) and not node.level
    }
    ours = {file.stem for file in (ROOT / "tests").glob("*.py")} | {"zdce"}
    known = packages_distributions()
    there = names - set(sys.stdlib_module_names) - ours
    return {normal(known[name][0]) if name in known else f"{name}?" for name in there}


def package() -> list[str]:
    return [file.read_text("utf-8") for file in (ROOT / "zdce").rglob("*.py")]


def others() -> list[str]:
    """Tests and the notebooks' cells."""
    files = (ROOT / "tests").glob("*.py")
    books = [json.loads(f.read_text("utf-8")) for f in (ROOT / "notebooks").glob("*.ipynb")]
    cells = [c for book in books for c in book["cells"] if c["cell_type"] == "code"]
    return [file.read_text("utf-8") for file in files] + ["".join(c["source"]) for c in cells]


def test_environment_pins_exactly_what_the_project_declares():
    assert set(pins()) == declared()
    assert not [line for line in PROJECT["dependencies"] if "==" in line]


def test_all_installs_every_extra():
    (line,) = EXTRAS["all"]
    assert set(re.search(r"\[(.*)\]", line)[1].split(",")) == set(EXTRAS) - {"all"}


def test_every_import_is_declared():
    assert imported(*package()) <= declared(*DEVELOPERS)
    assert imported(*others()) <= declared()


def test_every_dependency_is_used():
    assert declared() - imported(*package(), *others()) <= PROGRAMS
