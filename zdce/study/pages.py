"""Executed notebooks as pages that open offline, and the index of a profile's reports:
templates/page.html.j2.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from zdce import __version__, paths

# What a page needs is imported where it is used: notebooks import the study without a second of it.
if TYPE_CHECKING:
    import nbformat

TEMPLATES = paths.PACKAGE / "study" / "templates"
SUFFIXES = {"image/jpeg": ".jpg", "image/png": ".png"}
NUMBER = re.compile(r"[-+−]?(\d[\d.,]*|inf)(e[-+]?\d+)?( ?%)?( ?± ?[\d.]+)?")
GAPS = ("NaN", "None", "nan", "&lt;NA&gt;", "NaT")


def report_page(notebook: nbformat.NotebookNode, notice: str = "") -> str:
    """An executed notebook as one HTML page; ``notice`` is said at its top.

    Below the title stands what was found: the first paragraph of the findings.
    """
    import nbformat
    from nbconvert import HTMLExporter

    about, finding = notebook.metadata.get("zdce", {}), _paragraph(notebook, "## Findings")
    if finding and not notice:
        box = (
            f'<div class="found"><p class="label">What was found</p><p>{_inline(finding)}</p></div>'
        )
        notebook = nbformat.from_dict(notebook)  # a copy
        notebook.cells[0] = nbformat.v4.new_markdown_cell(f"{notebook.cells[0].source}\n\n{box}")
    exporter = HTMLExporter(
        template_name="basic",
        template_file=str(TEMPLATES / "cells.html.j2"),
        anchor_link_text="#",
    )
    exporter.register_filter("tidy", _tidy_tables)
    body, _ = exporter.from_notebook_node(notebook)
    body = re.sub(r"<p>(?=<strong>(?:Figure|Table) )", '<p class="caption">', body)
    headings = r'<h([23]) id="([^"]+)">(.*?)<a class="anchor-link"'
    return _page(
        "report",
        about,
        title=_title(notebook),
        notice=notice,
        body=body,
        contents=re.findall(headings, body, re.DOTALL),
    )


def index_page(
    folder: Path, about: dict, stamp: dict, claims: pd.DataFrame, glance: str, soak: str = ""
) -> str:
    """The index of the finished reports in ``folder``.

    ``about``: profile, date and commit; ``stamp``: what else the results were made with;
    ``claims``: the ledger; ``glance``: its verdicts at a glance, in Markdown; ``soak``: what long
    runs with faults found, in Markdown.
    """
    import nbformat
    from nbconvert.filters import markdown2html

    files = [f for f in sorted(folder.glob("[0-9][0-9]_*.ipynb")) if ".failed" not in f.name]
    books = {file.stem: nbformat.read(file, as_version=4) for file in files}
    failed = {file.name.removesuffix(".failed.html") for file in folder.glob("*.failed.html")}
    cards = [_card(folder, name, books.get(name), name in failed) for name in [*books, *failed]]
    listed = {
        kind: sorted(file.name for file in (folder / kind).glob("*"))
        for kind in ("tables", "figures")
    }
    sections = [("claims", "The claims"), ("reports", "Reports")]
    sections += [("soak", "What the commands were put through")] if soak else []
    sections += [(kind, kind.capitalize()) for kind, files in listed.items() if files]
    return _page(
        "index",
        about,
        title="Zero-DCE: a reproduction study",
        lead=about | {name: stamp[name] for name in ("device", "threads") if name in stamp},
        stamp={name: text for name, text in stamp.items() if name not in ("device", "threads")},
        contents=[(2, name, text) for name, text in sections],
        claims=claims.to_dict("records"),
        glance=markdown2html(glance),
        cards={card["name"]: card for card in cards}.values(),
        listed=listed,
        soak=markdown2html(soak),
        names={book.stem[:2]: book.stem for book in paths.notebooks().glob("[0-9]*.ipynb")},
    )


def named_pictures(notebook: nbformat.NotebookNode) -> Iterator[tuple[str, str, str]]:
    """File name, alt text and base64 data of the pictures that carry a name."""
    for cell in notebook.cells:
        for output in cell.get("outputs", []):
            for kind, suffix in SUFFIXES.items():
                about = output.get("metadata", {}).get(kind, {})
                if "name" in about:
                    yield about["name"] + suffix, about["alt"], output.data[kind]


def _page(kind: str, about: dict, **parts: object) -> str:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    jinja = Environment(
        loader=FileSystemLoader(TEMPLATES), autoescape=True, undefined=StrictUndefined
    )
    facts = [about.get("date"), f"profile {about['profile']}" if "profile" in about else None]
    facts += [f"{about['seconds']:.0f} s" if "seconds" in about else None]
    commit = about.get("commit", "unknown")
    return jinja.get_template("page.html.j2").render(
        {"notice": "", **parts},
        kind=kind,
        facts=" · ".join(filter(None, facts)),
        css=(TEMPLATES / "report.css").read_text("utf-8"),
        footer=f"zdce {__version__}, commit {commit}. This page needs no network.",
    )


def _card(folder: Path, name: str, book: nbformat.NotebookNode | None, failed: bool) -> dict:
    """What the index says of one report; of one that never finished, where its failure is shown."""
    card = {"name": name, "failed": failed, "finished": book is not None, "picture": None}
    if book is None:
        return card | {"photograph": None}
    there = [each for each in named_pictures(book) if (folder / "figures" / each[0]).is_file()]
    photographs = [each for each in there if each[0].endswith(".jpg")]
    smallest = min(photographs, key=lambda each: len(each[2]), default=None)
    about = book.metadata.get("zdce", {})
    meta = (f"{about.get('seconds', 0):.0f} s", about.get("date", ""))
    return card | {
        "title": _title(book),
        "about": _inline(re.split(r"(?<=[.!?])\s+(?=[A-Z])", _paragraph(book, "# "))[0]),
        "finding": _inline(_paragraph(book, "## Findings")),
        "picture": [*photographs, *there][0] if there else None,
        "photograph": smallest,
        "meta": " · ".join([*meta, f"commit {about.get('commit', 'unknown')}"]),
    }


def _title(notebook: nbformat.NotebookNode) -> str:
    found = re.search(r"^# (.+)", notebook.cells[0].source if notebook.cells else "", re.MULTILINE)
    return found[1].strip() if found else "Untitled"


def _paragraph(notebook: nbformat.NotebookNode, heading: str) -> str:
    """The first paragraph after the heading that starts so, of text cells and rendered Markdown
    alike.
    """
    texts = []
    for cell in notebook.cells:
        texts += [cell.source] if cell.cell_type == "markdown" else []
        texts += [
            output.get("data", {}).get("text/markdown", "") for output in cell.get("outputs", [])
        ]
    found = re.search(rf"^{heading}.*\n+((?:(?!#).+\n?)+)", "\n\n".join(texts), re.MULTILINE)
    return " ".join(found[1].split()).removeprefix("- ") if found else ""


def _inline(text: str) -> str:
    """Markdown of one line as HTML without its paragraph."""
    from nbconvert.filters import markdown2html

    return re.sub(r"^<p>|</p>\s*$", "", markdown2html(text).strip())


def _tidy_tables(text: str) -> str:
    """pandas' tables without borders, scoped style and running index; numbers to the right, gaps as
    dashes.
    """
    text = re.sub(r"<style scoped>.*?</style>", "", text, flags=re.DOTALL)
    text = re.sub(r'(<tr) style="text-align: \w+;"', r"\1", text).replace(' border="1"', "")
    return re.sub(r"<table.*?</table>", lambda match: _tidy(match[0]), text, flags=re.DOTALL)


def _tidy(table: str) -> str:
    found = re.findall(r"<tr>(.*?)</tr>", table, re.DOTALL)
    rows = [re.findall(r"<t[dh]>(.*?)</t[dh]>", row, re.DOTALL) for row in found]
    if len(rows) < 2 or "span=" in table or len({len(row) for row in rows}) > 1:
        return table  # grouped heads: left as they are
    columns = [
        ["–" if cell in GAPS else cell for cell in column] for column in zip(*rows, strict=True)
    ]
    if columns[0] == ["", *map(str, range(len(rows) - 1))]:
        columns = columns[1:]
    marks = [
        ' class="n"' if all(cell == "–" or NUMBER.fullmatch(cell) for cell in column[1:]) else ""
        for column in columns
    ]

    def line(cells: tuple[str, ...], tag: str) -> str:
        pairs = zip(marks, cells, strict=True)
        return f"<tr>{''.join(f'<{tag}{mark}>{cell}</{tag}>' for mark, cell in pairs)}</tr>"

    head, *body = zip(*columns, strict=True)
    lines = "".join(line(cells, "td") for cells in body)
    return f"<table><thead>{line(head, 'th')}</thead><tbody>{lines}</tbody></table>"
