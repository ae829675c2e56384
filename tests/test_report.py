"""Reports: notebooks run, pages that load nothing, and finished reports that only a finished one
replaces.
"""

import os
import platform
import re
import sys

import nbformat
import numpy as np
import pandas as pd
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from zdce import paths
from zdce.study import plots, report

PARAMETERS = """count: int = 2  # how many
rate: float = 0.5  # share
name: str = "a"
data: str = "bundled"  # sets
panels: str = "bundled\""""
GOOD = [
    new_markdown_cell("# First & foremost\nIt counts. Then it stops."),
    new_code_cell(PARAMETERS, metadata={"tags": ["parameters"]}),
    new_code_cell("""import os, sys
import pandas as pd
from zdce.study import plots, report
print(sys.executable)
report.stamp(7)"""),
    new_code_cell("report.save_table(pd.DataFrame({'n': range(count)}), '01_counts')"),
    new_code_cell("report.save_figure(plots.figure()[0], '01_loss', 'Axes')"),
    new_markdown_cell("## Findings"),
    new_code_cell('report.prose(f"**R1** supported: {count} rows, {panels}.")'),
    new_markdown_cell("## Limits and deviations\nNone."),
]
SECOND = [
    new_markdown_cell("# Second\nIt follows the first."),
    new_code_cell("step: int = 1  # unit", metadata={"tags": ["parameters"]}),
    new_code_cell("import os\nprint(step)"),
]


def write(study, stem: str, cells: list) -> None:
    kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    book = new_notebook(cells=cells, metadata=kernel)
    nbformat.write(book, study / "notebooks" / f"{stem}.ipynb")


def profile(study, text: str) -> None:
    (study / "notebooks" / "profiles" / "quick.yaml").write_text(text)


@pytest.fixture
def study(tmp_path, monkeypatch):
    return clone(tmp_path, monkeypatch)


def clone(home, patch):
    """A clone with one notebook, as far as reports are concerned."""
    patch.setattr(paths, "root", lambda: home)
    (home / "notebooks" / "profiles").mkdir(parents=True)
    write(home, "01_first", GOOD)
    profile(home, "01_first:\n  count: 3\n  rate: 1\n")
    return home


@pytest.fixture(scope="module")
def rendered(tmp_path_factory):
    """Three notebooks, of which the second fails in a second run: the folder, its page before, the
    failures.
    """
    with pytest.MonkeyPatch.context() as patch:
        study = clone(tmp_path_factory.mktemp("study"), patch)
        write(study, "02_second", SECOND)
        assert report.run() == []
        finished = study / "reports" / "quick"
        before = (finished / "02_second.html").read_text("utf-8")
        fails = [*SECOND, new_code_cell("print('so far')"), new_code_cell("{}['gone']")]
        write(study, "02_second", fails)
        write(study, "03_third", SECOND)
        failures = report.run(only=["02", "03"])
    return finished, before, failures


def outputs(folder, stem: str) -> list[str]:
    book = nbformat.read(folder / f"{stem}.ipynb", as_version=4)
    return [o.text.strip() for c in book.cells for o in c.get("outputs", []) if "text" in o]


def test_notebooks_run_by_this_python_with_the_profiles_parameters(rendered):
    folder, _, _ = rendered
    assert outputs(folder, "01_first")[0] == sys.executable
    book = nbformat.read(folder / "01_first.ipynb", as_version=4)
    assert book.cells[2].source == "count = 3\nrate = 1"  # the profile's


def test_failure_keeps_the_finished_report_and_the_next_notebook_runs(rendered):
    folder, before, failures = rendered
    assert failures == ["02_second.ipynb failed in cell [4]: KeyError: 'gone'"]
    assert (folder / "02_second.html").read_text("utf-8") == before
    partial = (folder / "02_second.failed.html").read_text("utf-8")
    assert "so far" in partial and "KeyError" in partial and failures[0].split(":")[0] in partial
    assert (folder / "02_second.failed.ipynb").is_file() and (folder / "03_third.html").is_file()
    assert [p.name for p in folder.parent.iterdir()] == ["quick"]  # nothing unfinished is left
    assert "ZDCE_REPORT_DIR" not in os.environ


def test_a_kernel_that_dies_fails_its_notebook_alone_and_tables_no_longer_made_go(study):
    profile(study, "")
    write(study, "02_dies", [*SECOND, new_code_cell("os._exit(3)")])
    write(study, "03_third", SECOND)
    tables = study / "reports" / "quick" / "tables"
    tables.mkdir(parents=True)
    for name in ("01_gone.csv", "02_kept.csv"):
        (tables / name).write_text("n\n1\n")
    failures = report.run()
    assert len(failures) == 1 and failures[0].startswith("02_dies.ipynb failed: DeadKernelError")
    assert (study / "reports" / "quick" / "03_third.html").is_file()
    assert {file.name for file in tables.iterdir()} == {"01_counts.csv", "02_kept.csv"}


def test_pages_say_what_was_found_and_the_index_leads_to_all(rendered):
    folder, before, _ = rendered
    index = (folder / "index.html").read_text("utf-8")
    links = {link for link in re.findall(r'(?:href|src)="([^"#]+)"', index) if ":" not in link}
    made = {"01_first.html", "tables/01_counts.csv", "figures/01_loss.png"}
    assert links >= made | {"02_second.failed.html", "../try.html"}
    assert pd.read_csv(folder / "tables" / "01_counts.csv")["n"].tolist() == [0, 1, 2]
    page = (folder / "01_first.html").read_text("utf-8")
    finding = "<strong>R1</strong> supported: 3 rows, bundled."
    for text in (index, page):
        assert finding in text and "First &amp; foremost" in text and "torch" in text
    assert page.index(finding) < page.index('"parameters"') < page.rindex(finding)  # on top as well
    assert "What was found" not in before  # a notebook without findings


@pytest.mark.parametrize("name", ["01_first.html", "index.html", "02_second.failed.html"])
def test_pages_load_nothing_from_elsewhere_and_describe_every_picture(rendered, name):
    page = (rendered[0] / name).read_text("utf-8")
    assert not re.search(r"<script[^>]*\ssrc|<link[^>]*\shref|@import|url\(\s*['\"]?https?:", page)
    sources = re.findall(r"<(?:img|iframe|source|video)[^>]*\ssrc=\"([^\"]{0,40})", page)
    assert all(source.startswith(("data:", "figures/")) for source in sources)
    assert "require" not in page and "MathJax" not in page
    images = re.findall(r"<img[^>]*>", page)
    assert all(re.search(r'alt="[^"]+"', image) for image in images)
    assert len(images) == (0 if "failed" in name else 1)
    text = re.sub(r"[\w+/=]{200,}", "", page)  # without pictures
    for mine in (rendered[0].parent.parent, platform.node()):
        assert not re.search(rf"\b{re.escape(str(mine).strip('/'))}\b", text)


@pytest.mark.parametrize(
    ("text", "options", "message"),
    [
        ("01_first:\n  cuont: 3\n", {}, "cuont: 3: 01_first.ipynb takes count: int, rate: float"),
        ("01_fist:\n  count: 3\n", {}, "quick.yaml: 01_fist is no notebook"),
        ("01_first:\n  rate: 1e-4\n", {}, "rate: '1e-4'"),  # which YAML reads as text
        ("01_first:\n  count: 2.5\n", {}, "count: 2.5"),
        ("01_first:\n  count: true\n", {}, "count: True"),
        ("01_first:\n  data: bundled,limes\n", {}, "'limes'"),
        ("", {"profile": "slow"}, "'slow'.*quick"),
        ("", {"only": ["09"]}, "'09'.*01_f"),
    ],
)
def test_wrong_profile_or_notebook_is_an_error_before_anything_runs(study, text, options, message):
    profile(study, text)
    with pytest.raises(ValueError, match=message):
        report.run(**options)
    assert not (study / "reports").exists()


def test_tables_and_figures_are_saved_under_names_with_a_number(study):
    table = pd.DataFrame({"name": ["a", "b"], "value": [1 / 3, np.nan]})
    assert report.save_table(table, "01_values", decimals=2)["value"][0] == 0.33
    file = report.output() / "tables" / "01_values.csv"
    assert file.read_bytes() == b"name,value\na,0.333333\nb,\n"
    picture = report.save_figure(plots.figure()[0], "01_empty", alt="Empty axes")
    assert (report.output() / "figures" / "01_empty.png").read_bytes() == picture.data


@pytest.mark.parametrize("suffix", ["html", "ipynb", "csv"])
def test_committed_reports_name_no_machine_and_no_user(suffix):
    folders = r"(?<![\w.])/(?:home|root|Users|tmp|work|mnt|opt|var)/\w|[A-Z]:\\\\\w|file://"
    pictures = r'data:[\w/+.-]+;base64,[\w+/=\s]+|"image/\w+": "[^"]+"'
    for file in (paths.PACKAGE.parent / "reports" / "study").rglob(f"*.{suffix}"):
        text = re.sub(pictures, "", file.read_text("utf-8"))
        assert not (found := re.search(folders, text)), (file.name, found)
