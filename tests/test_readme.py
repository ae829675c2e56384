"""README and model card: short, generated where they state numbers, true where they name files."""

from __future__ import annotations

import re

import pandas as pd
import pytest
import soak

from zdce import paths
from zdce.study import readme

README = paths.root() / "README.md"
PAGES = [README, paths.root() / "data" / "README.md", paths.weights() / "README.md"]


@pytest.mark.parametrize("file", readme.blocks(), ids=lambda file: file.parent.name)
def test_generated_parts_equal_the_result_files(file):
    text = file.read_text("utf-8")
    for name, make in readme.blocks()[file].items():
        assert readme.replaced(text, name, make()) == text, (
            f"{name}: run `zdce report --profile study`"
        )


def test_a_missing_mark_is_told():
    assert (
        readme.replaced("<!-- a: x -->\nold\n<!-- /a -->", "a", "new")
        == "<!-- a: x -->\nnew\n<!-- /a -->"
    )
    with pytest.raises(ValueError, match="'b'"):
        readme.replaced("<!-- a: x -->\nold\n<!-- /a -->", "b", "new")


def test_long_runs_lost_nothing():
    table = pd.read_csv(paths.reports(readme.PROFILE) / "soak.csv")
    assert not table[soak.BAD].to_numpy().any()
    assert set(table["what"]) == {f"zdce {name}" for name in soak.COMMANDS}
    assert (table["outputs"] > 0).all()
    assert set(table[table["done"].str.startswith("killed")]["what"]) == set(table["what"])
    rows = {
        done: table[table["done"].str.startswith(done)]
        for done in ("killed", "many", "under ulimit", "4 workers")
    }
    assert (rows["killed"]["times"] >= 50).all() and sum(map(len, rows.values())) == len(table)
    assert rows["many"]["outputs"].item() >= 2000 and rows["4 workers"]["outputs"].item() >= 40
    assert rows["4 workers"]["times"].item() > 0 and len(rows["under ulimit"]) == 1
    few = rows["many"]["done"].str.extract(r"(\d+) MiB").astype(int).to_numpy().item()
    assert rows["many"]["peak_MiB"].item() < few + 64


def test_readme_is_short_and_holds_what_a_visitor_looks_for():
    text = README.read_text("utf-8")
    assert len(text.splitlines()) < 135
    for needed in (
        "make report",
        "make test",
        "zdce enhance",
        "LICENSE",
        "CITATION.cff",
        "![",
        "| notebook |",
    ):
        assert needed in text, needed


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.parent.name)
def test_links_inside_the_repository_lead_somewhere(page):
    for link in re.findall(r"\]\((?!https?://)([^)#]+)", page.read_text("utf-8")):
        assert (page.parent / link).exists(), link


def test_every_notebook_is_on_the_map():
    text = README.read_text("utf-8")
    for notebook in paths.notebooks().glob("[0-9]*.ipynb"):
        assert f"notebooks/{notebook.name}" in text
