"""README, model card and the other pages in Markdown: generated from result files, short, and with
links that lead.
"""

import re

import pandas as pd
import pytest
import soak

from zdce import paths
from zdce.study import readme

ROOT = paths.PACKAGE.parent
PAGES = [
    *(ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "data" / "README.md"),
    *(paths.weights() / "README.md", *sorted((ROOT / "docs").glob("*.md"))),
]


@pytest.mark.parametrize("file", readme.blocks(), ids=lambda file: file.parent.name)
def test_generated_parts_equal_the_result_files(file):
    text = file.read_text("utf-8")
    for name, make in readme.blocks()[file].items():
        made = readme.replaced(text, name, make())
        assert made == text, f"{name}: run `zdce report --profile study`"


def test_a_missing_mark_is_told():
    with pytest.raises(ValueError, match="'b'"):
        readme.replaced("<!-- a: x -->\nold\n<!-- /a -->", "b", "new")


def test_long_runs_lost_nothing():
    table = pd.read_csv(paths.reports(readme.PROFILE) / "soak.csv")
    assert not table[soak.BAD].to_numpy().any() and (table["outputs"] > 0).all()
    killed = table[table["done"].str.startswith("killed")]
    assert set(killed["what"]) == {f"zdce {name}" for name in soak.COMMANDS}
    assert (killed["times"] >= 50).all()
    many = table[table["done"].str.startswith("many")].iloc[0]
    few = int(re.search(r"(\d+) MiB", many["done"])[1])
    assert many["outputs"] >= 2000 and many["peak_MiB"] < few + 64


@pytest.mark.parametrize("page", PAGES, ids=lambda page: f"{page.parent.name}-{page.stem}")
def test_links_inside_the_repository_lead_somewhere(page):
    for link in re.findall(r"\]\((?!https?://)([^)#]+)", page.read_text("utf-8")):
        assert (page.parent / link).exists(), link


def test_readme_is_short_and_every_notebook_is_on_its_map():
    text = (ROOT / "README.md").read_text("utf-8")
    assert len(text.splitlines()) <= 100
    for notebook in paths.notebooks().glob("[0-9]*.ipynb"):
        assert f"notebooks/{notebook.name}" in text
