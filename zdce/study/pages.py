"""Executed notebooks as pages that open offline, and the index of reports, by ``templates/``."""

import re
from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree

import jinja2
import pandas as pd

from zdce import __version__, paths

# nbformat and nbconvert are imported where they are used: notebooks import this without a second.
TEMPLATES = paths.PACKAGE / "study" / "templates"
SUFFIXES = {"image/jpeg": ".jpg", "image/png": ".png"}
NUMBER = re.compile(r"–|[-+−]?(\d[\d.,]*|inf)(e[-+]?\d+)?( ?%)?( ?± ?[\d.]+)?")
KINDS = ("tables", "figures")  # folders of a report beside its pages
GAPS = ("NaN", "None", "nan", "<NA>", "NaT")


def render(template: str, **parts: object) -> str:
    """A file of ``templates/``, filled; what is no Markup is escaped."""
    loader = jinja2.FileSystemLoader(TEMPLATES)
    jinja = jinja2.Environment(loader=loader, autoescape=True, undefined=jinja2.StrictUndefined)
    jinja.filters |= {"inline": _inline, "title": _title, "paragraph": _paragraph}
    return jinja.get_template(template).render(parts, version=__version__)


def report_page(notebook: dict, notice: str = "") -> str:
    """An executed notebook as one HTML page; below its title its first finding, or ``notice``."""
    import nbformat
    from nbconvert import HTMLExporter

    if (finding := _paragraph(notebook, "## Findings")) and not notice:
        notebook = nbformat.from_dict(notebook)  # a copy
        box = render("found.html.j2", finding=_inline(finding))
        notebook.cells[0] = nbformat.v4.new_markdown_cell(f"{notebook.cells[0].source}\n\n{box}")
    cells = str(TEMPLATES / "cells.html.j2")
    exporter = HTMLExporter(template_name="basic", template_file=cells, anchor_link_text="#")
    exporter.register_filter("tidy", _tidy_tables)
    body, _ = exporter.from_notebook_node(notebook)
    body = re.sub(r"<p>(?=<strong>(?:Figure|Table) )", '<p class="caption">', body)
    headings = r'<h([23]) id="([^"]+)">(.*?)<a class="anchor-link"'
    parts = {"title": _title(notebook), "notice": notice, "body": body}
    contents = re.findall(headings, body, re.DOTALL)
    about = notebook.metadata.get("zdce", {})
    return render("page.html.j2", kind="report", about=about, contents=contents, **parts)


def index_page(folder: Path, about: dict, facts: dict, claims: pd.DataFrame, glance: str) -> str:
    """The index of the finished reports in ``folder``, with ``soak.csv`` where that lies there.

    ``about``: profile, date and commit; ``facts``, ``claims``, ``glance``: of ``report.facts``,
    ``claims.ledger`` and ``claims.glance``.
    """
    import nbformat
    from nbconvert.filters import markdown2html

    cards, soak = {}, folder / "soak.csv"
    for name in sorted({file.name.partition(".")[0] for file in folder.glob("[0-9][0-9]_*")}):
        cards[name] = {"book": None}
        if (file := folder / f"{name}.ipynb").is_file():
            book = nbformat.read(file, as_version=4)
            there = [p for p in _named_pictures(book) if (folder / "figures" / p[0]).is_file()]
            photographs = [each for each in there if each[0].endswith(".jpg")]
            smallest = min(photographs, key=lambda each: len(each[2]), default=None)
            shown = {"picture": [*photographs, *there, None][0], "photograph": smallest}
            cards[name] = {"book": book} | shown
    parts = {"claims": claims.to_dict("records"), "glance": markdown2html(glance), "cards": cards}
    parts["failed"] = {file.name.partition(".")[0] for file in folder.glob("*.failed.html")}
    parts["listed"] = {kind: sorted(f.name for f in (folder / kind).glob("*")) for kind in KINDS}
    parts["names"] = {book.stem[:2]: book.stem for book in paths.notebooks().glob("[0-9]*.ipynb")}
    parts["soak"] = pd.read_csv(soak).to_dict("records") if soak.is_file() else []
    return render("page.html.j2", kind="index", about=about, facts=facts, **parts)


def _named_pictures(notebook: dict) -> Iterator[tuple[str, str, str]]:
    """File name, alt text and base64 data of the pictures that carry a name."""
    for output in (output for cell in notebook.cells for output in cell.get("outputs", [])):
        for kind, suffix in SUFFIXES.items():
            about = output.get("metadata", {}).get(kind, {})
            if "name" in about:
                yield about["name"] + suffix, about["alt"], output.data[kind]


def _title(notebook: dict) -> str:
    found = re.search(r"^# (.+)", notebook.cells[0].source if notebook.cells else "", re.MULTILINE)
    return found[1].strip() if found else "Untitled"


def _paragraph(notebook: dict, heading: str) -> str:
    """The first paragraph after the heading that starts so, in cells or rendered Markdown."""
    texts = []
    for cell in notebook.cells:
        texts += [cell.source] if cell.cell_type == "markdown" else []
        texts += [out.get("data", {}).get("text/markdown", "") for out in cell.get("outputs", [])]
    found = re.search(rf"^{heading}.*\n+((?:(?!#).+\n?)+)", "\n\n".join(texts), re.MULTILINE)
    return " ".join(found[1].split()).removeprefix("- ") if found else ""


def _inline(text: str) -> str:
    """Markdown of one line as HTML without its paragraph."""
    from nbconvert.filters import markdown2html

    return re.sub(r"^<p>|</p>\s*$", "", markdown2html(text).strip())


def _tidy_tables(text: str) -> str:
    """pandas' tables without borders, scoped style and unnamed row numbers; figures to the right,
    gaps as dashes.
    """
    text = re.sub(r"<style scoped>.*?</style>", "", text, flags=re.DOTALL)
    return re.sub(r"<table.*?</table>", lambda match: _tidy(match[0]), text, flags=re.DOTALL)


def _tidy(text: str) -> str:
    table = ElementTree.fromstring(text)
    rows = [*table.iter("tr")]
    for element in (table, *rows):
        element.attrib.clear()
    if "span=" not in text and len({len(row) for row in rows}) == 1:  # else heads are grouped
        for cell in table.findall("tbody/tr/th"):
            cell.tag = "td"
        if rows[0][0].text is None and all((row[0].text or "").isdigit() for row in rows[1:]):
            for row in rows:
                row.remove(row[0])
        for head, *cells in zip(*rows, strict=True):
            for cell in cells:
                cell.text = "–" if cell.text in GAPS else cell.text
            if all(NUMBER.fullmatch(cell.text or "") for cell in cells):
                for cell in (head, *cells):
                    cell.set("class", "n")
    return ElementTree.tostring(table, "unicode", "html")
