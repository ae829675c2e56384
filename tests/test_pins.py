"""environment.yml, pyproject.toml and what is imported say the same."""

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
PROGRAMS |= {"onnx"}  # torch makes files with it
PROGRAMS |= {"pillow-heif", "rawpy"}  # imported by their names: zdce/photos.py


def normal(requirement: str) -> str:
    return re.match(r"[\w.-]+", requirement)[0].lower().replace("_", "-")


def declared(*but: str) -> set[str]:
    lines = [line for name, extra in EXTRAS.items() if name not in but for line in extra]
    return {normal(line) for line in [*PROJECT["dependencies"], *lines]} - {"zdce"}


def imported(*sources: str) -> set[str]:
    """Distributions that the sources import, without the standard library and this project's own
    modules.
    """
    nodes = [node for source in sources for node in ast.walk(ast.parse(source))]
    names = {a.name.split(".")[0] for n in nodes if isinstance(n, ast.Import) for a in n.names}
    names |= {n.module.split(".")[0] for n in nodes if isinstance(n, ast.ImportFrom)}
    ours = {file.stem for file in (ROOT / "tests").glob("*.py")} | {"zdce"}
    known = packages_distributions()
    there = names - set(sys.stdlib_module_names) - ours
    return {normal(known[name][0]) if name in known else f"{name}?" for name in there}


def sources(folder: str) -> list[str]:
    return [file.read_text("utf-8") for file in (ROOT / folder).rglob("*.py")]


BOOKS = [json.loads(f.read_text("utf-8"))["cells"] for f in (ROOT / "notebooks").glob("*.ipynb")]
CELLS = ["".join(c["source"]) for book in BOOKS for c in book if c["cell_type"] == "code"]
PACKAGE, OTHERS = sources("zdce"), [*sources("tests"), *CELLS]


def test_environment_pins_exactly_what_the_project_declares():
    entries = yaml.safe_load((ROOT / "environment.yml").read_text("utf-8"))["dependencies"]
    listed = next(entry["pip"] for entry in entries if isinstance(entry, dict))
    assert {line.split("==")[0] for line in listed if line != "-e ."} == declared()
    assert not [line for line in PROJECT["dependencies"] if "==" in line]
    (line,) = EXTRAS["all"]
    assert set(re.search(r"\[(.*)\]", line)[1].split(",")) == set(EXTRAS) - {"all"}


def test_every_import_is_declared():
    assert imported(*PACKAGE) <= declared(*DEVELOPERS)
    assert imported(*OTHERS) <= declared()


def test_every_dependency_is_used():
    assert declared() - imported(*PACKAGE, *OTHERS) <= PROGRAMS
