"""Reports: notebooks run, pages that load nothing, and finished reports that only a finished one replaces."""

from __future__ import annotations

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

PARAMETERS = 'count: int = 2  # how many = a number\nrate: float = 0.5  # share\nname: str = "a"\npanels: str = "bundled"'
GOOD = [
    new_markdown_cell("# First & foremost\nIt counts. Then it stops."),
    new_code_cell(PARAMETERS, metadata={"tags": ["parameters"]}),
    new_code_cell(
        "import sys\nimport pandas as pd\nfrom zdce import plots, report\nprint(sys.executable)"
    ),
    new_code_cell(
        'report.save_table(pd.DataFrame({"n": range(count), "rate": rate}), "01_counts")'
    ),
    new_markdown_cell("**Table 1.1** Counts."),
    new_code_cell(
        'plots.show(plots.curve({"total": [3.0, 2.0, 1.0]}), alt="A falling line", name="01_loss")'
    ),
    new_markdown_cell("## Findings"),
    new_code_cell(
        "report.prose(f\"**R1** supported: {len(report.load_table('01_counts'))} rows, {panels}.\")"
    ),
    new_markdown_cell("## Limits and deviations\nNone."),
]
READS = [
    new_markdown_cell("# Second\nIt reads the first."),
    new_code_cell("step: int = 1  # unit", metadata={"tags": ["parameters"]}),
    new_code_cell("from zdce import report\nlen(report.load_table('01_counts'))"),
]


def write(study, stem: str, cells: list) -> None:
    book = new_notebook(
        cells=cells, metadata={"kernelspec": {"name": "python3", "display_name": "Python 3"}}
    )
    nbformat.write(book, study / "notebooks" / f"{stem}.ipynb")


def profile(study, text: str, name: str = "quick") -> None:
    (study / "notebooks" / "profiles" / f"{name}.yaml").write_text(text)


@pytest.fixture
def study(tmp_path, monkeypatch):
    """A clone with one notebook, as far as reports are concerned."""
    (tmp_path / "notebooks" / "profiles").mkdir(parents=True)
    monkeypatch.setattr(paths, "root", lambda: tmp_path)
    write(tmp_path, "01_first", GOOD)
    profile(tmp_path, "01_first:\n  count: 3\n")
    return tmp_path


@pytest.fixture(scope="module")
def rendered(tmp_path_factory):
    """Two finished notebooks, the second of which then fails."""
    study = tmp_path_factory.mktemp("study")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(paths, "root", lambda: study)
        (study / "notebooks" / "profiles").mkdir(parents=True)
        write(study, "01_first", GOOD)
        write(study, "02_second", READS)
        profile(study, "01_first:\n  count: 3\n")
        assert report.run(panels="datasets") == []
        pages = study / "reports" / "quick"
        before = (pages / "02_second.html").read_text("utf-8")
        write(
            study,
            "02_second",
            [*READS, new_code_cell("print('so far')"), new_code_cell("{}['gone']")],
        )
        failures = report.run(only=["02"])
    return pages, before, failures


def test_report_holds_page_notebook_table_and_figure(rendered):
    pages, _, _ = rendered
    book = nbformat.read(pages / "01_first.ipynb", as_version=4)
    assert book.cells[2].source == 'count = 3\npanels = "datasets"'
    assert pd.read_csv(pages / "tables" / "01_counts.csv")["n"].tolist() == [0, 1, 2]
    assert (pages / "figures" / "01_loss.png").read_bytes().startswith(b"\x89PNG")
    assert "3 rows, datasets" in (pages / "01_first.html").read_text("utf-8")


def test_kernel_is_the_running_interpreter(rendered):
    book = nbformat.read(rendered[0] / "01_first.ipynb", as_version=4)
    assert book.cells[3].outputs[0].text.strip() == sys.executable


def test_failure_keeps_the_finished_report_and_leaves_the_partial_one(rendered):
    pages, before, failures = rendered
    assert failures == ["02_second.ipynb failed in cell [4]: KeyError: 'gone'"]
    assert (pages / "02_second.html").read_text("utf-8") == before
    partial = (pages / "02_second.failed.html").read_text("utf-8")
    assert "so far" in partial and "KeyError" in partial and failures[0].split(":")[0] in partial
    assert (pages / "02_second.failed.ipynb").is_file()


def test_nothing_unfinished_is_left_behind(rendered):
    assert [p.name for p in rendered[0].parent.iterdir()] == ["quick"]
    assert "ZDCE_REPORT_DIR" not in os.environ


def test_index_lists_reports_their_findings_and_failures(rendered):
    page = (rendered[0] / "index.html").read_text("utf-8")
    assert 'href="01_first.html"' in page and "First &amp; foremost" in page
    assert (
        "<p>It counts.</p>" in page and "<strong>R1</strong> supported: 3 rows, datasets." in page
    )
    assert 'href="tables/01_counts.csv"' in page and 'src="figures/01_loss.png"' in page
    assert 'href="02_second.failed.html"' in page
    assert "commit" in page and "torch" in page and "profile quick" in page


@pytest.mark.parametrize("name", ["01_first.html", "index.html", "02_second.failed.html"])
def test_pages_load_nothing_from_elsewhere(rendered, name):
    page = (rendered[0] / name).read_text("utf-8")
    assert not re.search(r"<script[^>]*\ssrc|<link[^>]*\shref|@import|url\(\s*['\"]?https?:", page)
    sources = re.findall(r"<(?:img|iframe|source|video)[^>]*\ssrc=\"([^\"]{0,40})", page)
    assert all(source.startswith(("data:", "figures/")) for source in sources)
    assert "require" not in page and "MathJax" not in page


def test_every_image_has_alt_text(rendered):
    page = (rendered[0] / "01_first.html").read_text("utf-8")
    images = re.findall(r"<img[^>]*>", page)
    assert len(images) == 1
    assert all(re.search(r'alt="[^"]+"', image) for image in images)


def test_page_has_contents_captions_and_folded_code(rendered):
    page = (rendered[0] / "01_first.html").read_text("utf-8")
    assert '<a href="#Findings">Findings</a>' in page
    assert '<p class="caption"><strong>Table 1.1</strong>' in page
    assert '<details class="code"><summary>' in page and '<details class="code" open' not in page
    assert "<title>First &amp; foremost</title>" in page


def test_first_screen_says_what_was_found(rendered):
    page = (rendered[0] / "01_first.html").read_text("utf-8")
    top, rest = page.split('<div class="parameters">', 1)
    assert "What was found" in top and "<strong>R1</strong> supported: 3 rows, datasets." in top
    assert "<strong>R1</strong> supported: 3 rows" in rest  # where it was found
    assert "What was found" not in rendered[1]  # a notebook without findings
    assert "What was found" not in (rendered[0] / "01_first.ipynb").read_text("utf-8")


def test_pages_name_no_folder_of_this_machine(rendered):
    pages, _, _ = rendered
    for file in pages.glob("*.html"):
        assert str(pages.parent.parent) not in file.read_text("utf-8"), file.name


def test_rerun_drops_tables_that_are_no_longer_made(tmp_path):
    for name in ("new/01_scores.csv", "old/01_scores.csv", "old/01_gone.csv", "old/02_other.csv"):
        file = tmp_path / name
        file.parent.mkdir(exist_ok=True)
        file.write_text(name)
    report._replace(tmp_path / "new", tmp_path / "old", "01_")
    assert sorted(file.name for file in (tmp_path / "old").iterdir()) == [
        "01_scores.csv",
        "02_other.csv",
    ]
    assert (tmp_path / "old" / "01_scores.csv").read_text() == "new/01_scores.csv"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "01_first:\n  cuont: 3\n",
            "quick.yaml: 01_first.ipynb has no parameter 'cuont'; it has count, rate, name",
        ),
        ("01_fist:\n  count: 3\n", "quick.yaml: 01_fist is no notebook"),
        (
            "01_first:\n  rate: 1e-4\n",
            "rate of 01_first.ipynb must be float, not '1e-4'.*write 1.0e-4",
        ),
        ("01_first:\n  count: 2.5\n", "count of 01_first.ipynb must be int, not 2.5"),
        ("01_first:\n  count: true\n", "must be int, not True"),
    ],
)
def test_wrong_profile_is_an_error_before_anything_runs(study, text, message):
    profile(study, text)
    with pytest.raises(ValueError, match=message):
        report.run()
    assert not (study / "reports").exists()


@pytest.mark.parametrize(
    "text", ["01_first:\n  rate: 1.0e-4\n", "01_first:\n  rate: 1\n", "01_first:\n", ""]
)
def test_right_profile_is_read(study, text):
    profile(study, text)
    assert set(report.read_profile("quick")) <= {"01_first"}


def test_unknown_profile_and_notebook_are_named(study):
    with pytest.raises(ValueError, match="'slow'; there are quick"):
        report.run("slow")
    with pytest.raises(ValueError, match="'09'; there are 01_first"):
        report.run(only=["09"])


def test_tables_come_back_as_saved(study):
    table = pd.DataFrame({"name": ["a", "b"], "value": [1 / 3, np.nan]})
    shown = report.save_table(table, "01_values", decimals=2)
    assert shown["value"][0] == 0.33
    back = report.load_table("01_values")
    assert back["value"][0] == 0.333333 and np.isnan(back["value"][1])
    assert (
        report.output() / "tables" / "01_values.csv"
    ).read_bytes() == b"name,value\na,0.333333\nb,\n"


def test_long_tables_are_packed_alike_each_time(study, monkeypatch):
    monkeypatch.setattr(report, "MANY_ROWS", 3)
    table, files = pd.DataFrame({"n": range(4)}), []
    for _ in range(2):
        report.save_table(table, "01_long")
        files.append((report.output() / "tables" / "01_long.csv.gz").read_bytes())
    assert files[0] == files[1] and report.load_table("01_long").equals(table)


def test_missing_table_says_what_makes_it(study):
    with pytest.raises(FileNotFoundError, match="zdce report --only 06"):
        report.load_table("06_scores")


def test_names_without_a_number_are_refused(study):
    with pytest.raises(ValueError, match="06_scores"):
        report.save_table(pd.DataFrame({"n": [1]}), "../scores")


def test_saved_figure_lies_beside_the_tables(study):
    picture = report.save_figure(plots.figure()[0], "01_empty", alt="Empty axes")
    assert (report.output() / "figures" / "01_empty.png").read_bytes() == picture.data


def test_stamp_names_versions_and_no_machine():
    stamp = report.stamp(seed=7)
    assert (
        stamp["seed"] == "7" and stamp["torch"].startswith("2.") and stamp["device"].startswith("c")
    )
    text = f"{stamp!r}{stamp._repr_html_()}"
    assert (
        not re.search(rf"\b{re.escape(platform.node())}\b", text)
        and os.path.expanduser("~") not in text
    )


def test_tables_lose_their_index_and_gain_alignment():
    frame = pd.DataFrame({"name": ["a", "b"], "value": [1.5, np.nan], "mixed": ["1", "x"]})
    text = report._tidy_tables(frame.to_html())
    assert '<thead><tr><th>name</th><th class="n">value</th><th>mixed</th></tr></thead>' in text
    assert '<tr><td>b</td><td class="n">–</td><td>x</td></tr>' in text


def test_grouped_heads_are_left_alone():
    frame = pd.DataFrame([[1, 2]], columns=pd.MultiIndex.from_product([["a"], ["b", "c"]]))
    assert "colspan" in report._tidy_tables(frame.to_html())


@pytest.mark.parametrize("suffix", ["html", "ipynb", "csv"])
def test_committed_reports_name_no_machine_and_no_user(suffix):
    folders = re.compile(
        r"(?<![\w.])/(?:home|root|Users|tmp|work|mnt|opt|var)/\w|[A-Z]:\\\\\w|file://"
    )
    for file in (paths.PACKAGE.parent / "reports" / "study").rglob(f"*.{suffix}"):
        text = re.sub(
            r'data:[\w/+.-]+;base64,[\w+/=\s]+|"image/\w+": "[^"]+"', "", file.read_text("utf-8")
        )
        assert not folders.search(text), (file.name, folders.search(text))
