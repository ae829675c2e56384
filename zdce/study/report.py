"""Reports: what notebooks save, and the notebooks run through papermill and rendered as pages that open offline."""

from __future__ import annotations

import ast
import base64
import copy
import html
import json
import logging
import os
import platform
import re
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd
import yaml
from matplotlib.figure import Figure

from zdce import __version__, paths
from zdce.files import atomic_write, lock, scratch
from zdce.study import claims as ledger
from zdce.study import plots

# Every notebook imports this module to save its results; what only a run needs is imported where it is used,
# which spares each kernel a second or two.
if TYPE_CHECKING:
    import nbformat

NAME = re.compile(r"\d\d_\w+")
SUFFIXES = {"image/jpeg": ".jpg", "image/png": ".png"}
NUMBER = re.compile(r"[-+−]?(\d[\d.,]*|inf)(e[-+]?\d+)?( ?%)?( ?± ?[\d.]+)?")
MACHINE = re.compile(r"\S*/(?:site-packages|ipykernel_\d+)/")  # folders that a warning names
GAPS = ("NaN", "None", "nan", "&lt;NA&gt;", "NaT")
MANY_ROWS = 10_000  # of a table, above which it is packed
STAMPED = ("torch", "numpy", "scikit-image", "pillow", "pandas")


def output() -> Path:
    """Folder that a notebook saves to: ``ZDCE_REPORT_DIR``, which ``run`` sets, or ``reports/interactive``."""
    return Path(os.environ.get("ZDCE_REPORT_DIR") or paths.reports("interactive")).absolute()


def _place(folder: str, name: str, suffix: str) -> Path:
    if not NAME.fullmatch(name):
        raise ValueError(f"name: {name!r} must start with its notebook's number, such as 06_scores")
    place = output() / folder / f"{name}{suffix}"
    place.parent.mkdir(parents=True, exist_ok=True)
    return place


def save_table(frame: pd.DataFrame, name: str, decimals: int = 3) -> pd.DataFrame:
    """Save ``frame`` as ``tables/<name>.csv`` (six significant digits) and return it rounded, for display.

    A table of more than 10,000 rows is packed, as ``.csv.gz``. A named index is saved as columns, an unnamed one is
    dropped. Raises ValueError for a name without its number.
    """
    flat = frame.reset_index() if any(label is not None for label in frame.index.names) else frame
    suffix, packed = (
        (".csv.gz", {"method": "gzip", "mtime": 0}) if len(flat) > MANY_ROWS else (".csv", None)
    )
    place = _place("tables", name, suffix)
    flat.to_csv(place, index=False, float_format="%.6g", lineterminator="\n", compression=packed)
    return frame.round(decimals)


def load_table(name: str) -> pd.DataFrame:
    """A saved table: of this run, or of the finished reports beside it.

    Raises FileNotFoundError that says which notebook makes the table.
    """
    folders = [output(), Path(os.environ.get("ZDCE_REPORT_FINISHED") or output())]
    for folder in folders:
        for file in (folder / "tables" / f"{name}.csv", folder / "tables" / f"{name}.csv.gz"):
            if file.is_file():
                return pd.read_csv(file)
    raise FileNotFoundError(
        f"tables/{name}.csv is not there: run notebook {name[:2]} first (zdce report --only {name[:2]})"
    )


def save_figure(figure: Figure | plots.Picture, name: str, alt: str = "") -> plots.Picture:
    """Save ``figure`` as ``figures/<name>.jpg`` or ``.png`` and return the picture, for display.

    A Figure needs its ``alt`` text here; a Picture from ``plots.show`` has one. Raises ValueError without it.
    """
    picture = (
        plots.show(figure, alt, name) if isinstance(figure, Figure) else replace(figure, name=name)
    )
    _place("figures", name, SUFFIXES[picture.mime]).write_bytes(picture.data)
    return picture


def commit() -> str:
    """Short hash of the clone's commit, with a ``+`` when files other than reports have changed since; ``unknown``
    outside a clone."""

    def git(*words: str) -> subprocess.CompletedProcess:
        command = ["git", "-C", str(paths.root()), *words]
        return subprocess.run(command, capture_output=True, text=True, timeout=20)

    try:
        known = git("rev-parse", "--short", "HEAD")
        changed = git("diff", "--quiet", "HEAD", "--", ":/", ":(exclude,top)reports")
    except (OSError, subprocess.TimeoutExpired):
        return "unknown"
    return (
        known.stdout.strip() + "+" * (changed.returncode == 1)
        if known.returncode == 0
        else "unknown"
    )


class Stamp(dict):
    """What a result was made with, shown as one line."""

    def __repr__(self) -> str:
        return " · ".join(f"{name} {value}" for name, value in self.items())

    def _repr_html_(self) -> str:
        parts = [f"{html.escape(name)} <b>{html.escape(value)}</b>" for name, value in self.items()]
        return f'<p class="stamp">{" · ".join(parts)}</p>'


def stamp(seed: int | None = None, device: str | None = None) -> Stamp:
    """Versions, device, threads, commit and seed, name to text; nothing about whose machine it is.

    ``device``: ``cpu`` or ``cuda``; None is what this machine has.
    """
    import torch

    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    hardware = torch.cuda.get_device_name() if device.startswith("cuda") else platform.machine()
    facts = {"zdce": __version__, "commit": commit(), "Python": platform.python_version()}
    facts |= {name: version(name) for name in STAMPED}
    facts |= {"device": f"{device} ({hardware})", "threads": str(torch.get_num_threads())}
    return Stamp(facts | ({} if seed is None else {"seed": str(seed)}))


class Prose(str):
    """Text that Jupyter renders as Markdown; its plain form is the text itself, so that it can be compared."""

    def __repr__(self) -> str:
        return str(self)

    def _repr_markdown_(self) -> str:
        return str(self)


def prose(*lines: str) -> Prose:
    """Findings and captions whose numbers come from results: one Markdown paragraph a line."""
    return Prose("\n\n".join(lines))


# ---- running -------------------------------------------------------------------------------------------------------


def run(
    profile: str = "quick", only: Iterable[str] | None = None, panels: str | None = None
) -> list[str]:
    """Run the notebooks with a profile's parameters and render ``reports/<profile>/``, index included.

    ``only``: numbers or names of notebooks (``01``, ``06_result_comparison``), None for all; ``panels``: photographs
    shown in figures, ``bundled`` or ``datasets``, for notebooks that have such a parameter (None: as the profile says).
    A notebook that fails leaves ``NN_name.failed.html`` and ``.ipynb`` and what was finished before stays.
    Returns a line for each notebook that failed. Raises ValueError, before anything runs, for an unknown notebook or
    profile and for a parameter that its notebook lacks or that has another type.
    """
    chosen = _choose(only)
    parameters = read_profile(profile)
    if panels is not None:
        for book in chosen:
            if "panels" in declared(book):
                parameters.setdefault(book.stem, {})["panels"] = panels
    finished = paths.reports(profile)
    failures = []
    with lock(finished, "reports"), scratch(finished.parent) as place, _this_interpreter(place):
        for book in chosen:
            stage = place / book.stem
            stage.mkdir()
            print(f"{book.stem} ...", end=" ", flush=True)
            started = time.perf_counter()
            failure = _execute(book, parameters.get(book.stem, {}), stage, finished)
            seconds = time.perf_counter() - started
            print(f"{seconds:.1f} s" + (" FAILED" if failure else ""), flush=True)
            _finish(book, profile, stage, finished, seconds, failure)
            failures += [failure] if failure else []
        write_index(profile)
    for failure in failures:
        print(failure, file=sys.stderr, flush=True)
    return failures


def _choose(only: Iterable[str] | None) -> list[Path]:
    books = sorted(paths.notebooks().glob("[0-9][0-9]_*.ipynb"))
    if only is None:
        return books
    for name in only:
        if not any(name in (book.stem, book.stem[:2]) for book in books):
            raise ValueError(
                f"only: no notebook {name!r}; there are {', '.join(book.stem for book in books)}"
            )
    return [book for book in books if book.stem in only or book.stem[:2] in only]


def declared(book: Path) -> dict[str, str]:
    """Names and types of a notebook's parameters, as its ``parameters`` cell annotates them.

    papermill's own reader drops, with a warning, a line whose comment holds an equals sign.
    """
    cells = json.loads(book.read_text("utf-8"))["cells"]
    tagged = [cell for cell in cells if "parameters" in cell["metadata"].get("tags", [])]
    lines = ast.parse("".join(tagged[0]["source"])).body if tagged else []
    return {
        line.target.id: ast.unparse(line.annotation)
        for line in lines
        if isinstance(line, ast.AnnAssign)
    }


def read_profile(profile: str) -> dict[str, dict]:
    """Parameters of each notebook from ``notebooks/profiles/<profile>.yaml``, checked against the notebooks.

    Raises ValueError naming profile, notebook and parameter when one is unknown or has another type.
    """
    folder = paths.notebooks() / "profiles"
    file = folder / f"{profile}.yaml"
    if not file.is_file():
        raise ValueError(
            f"profile: no {profile!r}; there are {', '.join(sorted(p.stem for p in folder.glob('*.yaml')))}"
        )
    parameters = {
        stem: values or {}
        for stem, values in (yaml.safe_load(file.read_text("utf-8")) or {}).items()
    }
    for stem, values in parameters.items():
        book = paths.notebooks() / f"{stem}.ipynb"
        if not book.is_file():
            raise ValueError(f"{file.name}: {stem} is no notebook in {book.parent.name}/")
        kinds = declared(book)
        for name, value in values.items():
            if name not in kinds:
                raise ValueError(
                    f"{file.name}: {book.name} has no parameter {name!r}; it has {', '.join(kinds)}"
                )
            _check_type(f"{file.name}: {name} of {book.name}", value, kinds[name])
    return parameters


def _check_type(what: str, value: object, kind: str) -> None:
    outer, _, inner = kind.partition("[")
    if outer in ("list", "tuple") and isinstance(value, list):
        for item in value:
            _check_type(what, item, inner.rstrip("]").split(",")[0])
    wanted = {
        "float": (int, float),
        "int": int,
        "str": str,
        "bool": bool,
        "list": list,
        "tuple": list,
        "dict": dict,
    }
    if outer not in wanted or (
        isinstance(value, wanted[outer]) and (outer == "bool" or not isinstance(value, bool))
    ):
        return
    hint = ""
    if isinstance(value, str) and re.fullmatch(r"[+-]?[\d.]+e[+-]?\d+", value, re.IGNORECASE):
        mantissa, exponent = value.lower().split("e")
        sign = "" if exponent[0] in "+-" else "+"
        hint = f"; YAML reads it as text: write {mantissa if '.' in mantissa else mantissa + '.0'}e{sign}{exponent}"
    raise ValueError(f"{what} must be {kind}, not {value!r}{hint}")


@contextmanager
def _this_interpreter(scratch: Path) -> Iterator[None]:
    """Kernels are the running Python with this package, whatever kernels and start-up files the user has."""
    kernel = scratch / "jupyter" / "kernels" / "python3"
    kernel.mkdir(parents=True)
    command = [sys.executable, "-Xfrozen_modules=off", "-m", "ipykernel_launcher", "--log-level=50"]
    command += ["-f", "{connection_file}"]
    spec = {"argv": command, "display_name": "Python 3", "language": "python"}
    (kernel / "kernel.json").write_text(json.dumps(spec))
    with _environment(
        JUPYTER_PATH=kernel.parent.parent,
        JUPYTER_RUNTIME_DIR=scratch / "runtime",
        IPYTHONDIR=scratch / "ipython",
        PYTHONPATH=os.pathsep.join(
            filter(None, [str(paths.PACKAGE.parent), os.environ.get("PYTHONPATH")])
        ),
        PYTHONWARNINGS="ignore:IProgress not found",  # tqdm.auto, imported by others, asks for widgets
        PYDEVD_DISABLE_FILE_VALIDATION=1,
    ):
        yield


@contextmanager
def _environment(**values: object) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in values}
    os.environ.update({name: str(value) for name, value in values.items()})
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def _execute(book: Path, parameters: dict, stage: Path, finished: Path) -> str | None:
    """Run one notebook into ``stage``; None, or the line that says where it stopped."""
    import papermill

    logging.getLogger("papermill").setLevel(
        logging.ERROR
    )  # it warns of parameters that it cannot read; we have
    try:
        with _environment(ZDCE_REPORT_DIR=stage, ZDCE_REPORT_FINISHED=finished):
            papermill.execute_notebook(
                str(book),
                str(stage / book.name),
                parameters,
                kernel_name="python3",
                language="python",
                progress_bar=False,
                cwd=str(paths.root()),
                coalesce_streams=True,
            )
    except papermill.PapermillExecutionError as error:
        message = (str(error.evalue).strip() or "no message").splitlines()[0]
        return f"{book.name} failed in cell [{error.exec_count}]: {error.ename}: {message}"
    except Exception as error:  # a dead kernel or a broken file fails this notebook alone
        return f"{book.name} failed: {type(error).__name__}: {(str(error).strip() or 'no message').splitlines()[0]}"
    return None


# ---- rendering -----------------------------------------------------------------------------------------------------


def _finish(
    book: Path, profile: str, stage: Path, finished: Path, seconds: float, failure: str | None
) -> None:
    """Render what ``stage`` holds, then move it into place: over the old report if it finished, beside it if not."""
    import nbformat

    if not (stage / book.name).is_file():
        return
    notebook = nbformat.read(stage / book.name, as_version=4)
    _clean(notebook)
    notebook.metadata.zdce = {
        "profile": profile,
        "seconds": round(seconds, 1),
        "date": _today(),
        "commit": commit(),
    }
    suffix = ".failed" if failure else ""
    page = render(notebook, failure or "")
    for name in (f"{book.stem}.failed.html", f"{book.stem}.failed.ipynb"):
        (finished / name).unlink(missing_ok=True)
    if not failure:
        _save_figures(notebook, stage / "figures")
        for folder in ("tables", "figures"):
            _replace(stage / folder, finished / folder, book.stem[:3])
    for name, text in (
        (f"{book.stem}{suffix}.ipynb", nbformat.writes(notebook)),
        (f"{book.stem}{suffix}.html", page),
    ):
        with atomic_write(finished / name) as partial:
            partial.write_text(text, "utf-8")


def _replace(source: Path, target: Path, prefix: str) -> None:
    """Move the files of ``source`` into ``target``, in place of those that an earlier run left under ``prefix``."""
    target.mkdir(exist_ok=True)
    fresh = {file.name for file in source.glob("*")}
    for file in source.glob("*"):
        os.replace(file, target / file.name)
    for file in target.glob(f"{prefix}*"):
        if file.name not in fresh:
            file.unlink()


def _clean(notebook: nbformat.NotebookNode) -> None:
    """Take papermill's marks, folders of this machine and redrawn progress bars out of an executed notebook."""
    notebook.metadata.pop("papermill", None)
    notebook.cells = [
        c for c in notebook.cells if "papermill-error-cell-tag" not in c.metadata.get("tags", [])
    ]
    for cell in notebook.cells:
        cell.metadata.pop("papermill", None)
        if cell.cell_type != "code":
            continue
        if "injected-parameters" in cell.metadata.get("tags", []):
            cell.source = cell.source.removeprefix("# Parameters\n").strip()
        cell.outputs = [output for output in cell.outputs if not _is_bar(output)]
        for output in cell.outputs:
            if output.output_type == "stream":
                lines = [line.rsplit("\r", 1)[-1] for line in output.text.split("\n")]
                output.text = MACHINE.sub(
                    "", "\n".join(lines).replace(f"{paths.root()}{os.sep}", "")
                )


def _is_bar(output: nbformat.NotebookNode) -> bool:
    """Whether an output is nothing but tqdm's bars on stderr, known by share, count and rate."""
    if output.output_type != "stream" or output.name != "stderr":
        return False
    return all(re.search(r"\d+%\|.*\|.*\[.*\]|^\s*$", line) for line in output.text.split("\n"))


def _named_pictures(notebook: nbformat.NotebookNode) -> Iterator[tuple[str, str, str]]:
    """File name, alt text and base64 data of the pictures that carry a name."""
    for cell in notebook.cells:
        for output in cell.get("outputs", []):
            for kind, suffix in SUFFIXES.items():
                about = output.get("metadata", {}).get(kind, {})
                if "name" in about:
                    yield about["name"] + suffix, about["alt"], output.data[kind]


def _save_figures(notebook: nbformat.NotebookNode, folder: Path) -> None:
    for name, _, data in _named_pictures(notebook):
        folder.mkdir(exist_ok=True)
        (folder / name).write_bytes(base64.b64decode(data))


def render(notebook: nbformat.NotebookNode, notice: str = "", kind: str = "report") -> str:
    """A notebook as one HTML page that loads nothing from anywhere; ``notice`` is said at its top.

    ``kind``: ``report`` or ``index``, the class of the page's body. A report says below its title what was found: the
    first lines of its findings.
    """
    from nbconvert import HTMLExporter

    about = notebook.metadata.get("zdce", {})
    facts = [about.get("date"), f"profile {about['profile']}" if "profile" in about else None]
    facts += [f"{about['seconds']:.0f} s" if kind == "report" and "seconds" in about else None]
    page = {
        "title": _title(notebook),
        "kind": kind,
        "notice": notice,
        "facts": " · ".join(filter(None, facts)),
        "css": (paths.PACKAGE / "study" / "templates" / "report.css").read_text("utf-8"),
        "footer": f"zdce {__version__}, commit {about.get('commit', 'unknown')}. This page needs no network.",
    }
    exporter = HTMLExporter(
        template_name="basic",
        template_file=str(paths.PACKAGE / "study" / "templates" / "report.html.j2"),
        anchor_link_text="#",
    )
    exporter.register_filter("tidy", _tidy_tables)
    found = _found(notebook) if kind == "report" and not notice else ""
    if found:
        notebook = copy.deepcopy(notebook)
        notebook.cells[0].source += f"\n\n{found}"
    body, _ = exporter.from_notebook_node(notebook, resources={"page": page})
    body = re.sub(r"<p>(?=<strong>(?:Figure|Table) )", '<p class="caption">', body)
    return body.replace("<!--contents-->", _contents(body), 1)


def _found(notebook: nbformat.NotebookNode) -> str:
    """The first lines of the findings as a box for the page's first screen; empty where nothing was found."""
    finding = _first_line(_after(notebook, "## Findings"))
    lines = "".join(f"<p>{_inline(line)}</p>" for line in _sentences(finding))
    return f'<div class="found"><p class="label">What was found</p>{lines}</div>' if finding else ""


def _contents(body: str) -> str:
    headings = re.findall(r'<h([23]) id="([^"]+)">(.*?)<a class="anchor-link"', body, re.DOTALL)
    lines = [
        f'<li class="h{level}"><a href="#{name}">{text}</a></li>' for level, name, text in headings
    ]
    return f"<ul>{''.join(lines)}</ul>"


def _tidy_tables(text: str) -> str:
    """pandas' tables without borders, scoped style and running index; numbers to the right, gaps as dashes."""
    text = re.sub(r"<style scoped>.*?</style>", "", text, flags=re.DOTALL)
    text = re.sub(r'(<tr) style="text-align: \w+;"', r"\1", text).replace(' border="1"', "")
    return re.sub(r"<table.*?</table>", lambda match: _tidy_table(match[0]), text, flags=re.DOTALL)


def _tidy_table(text: str) -> str:
    rows = [
        re.findall(r"<t[dh]>(.*?)</t[dh]>", row, re.DOTALL)
        for row in re.findall(r"<tr>.*?</tr>", text, re.DOTALL)
    ]
    if len(rows) < 2 or "span=" in text or len({len(row) for row in rows}) > 1:
        return text  # grouped heads: left as they are
    columns = [
        [head, *("–" if cell in GAPS else cell for cell in cells)]
        for head, *cells in zip(*rows, strict=True)
    ]
    if columns[0] == ["", *map(str, range(len(rows) - 1))]:
        columns = columns[1:]
    kinds = [
        ' class="n"' if all(cell == "–" or NUMBER.fullmatch(cell) for cell in c[1:]) else ""
        for c in columns
    ]
    lines = []
    for number, row in enumerate(zip(*columns, strict=True)):
        tag = "td" if number else "th"
        lines.append(
            f"<tr>{''.join(f'<{tag}{k}>{cell}</{tag}>' for k, cell in zip(kinds, row, strict=True))}</tr>"
        )
    return f"<table><thead>{lines[0]}</thead><tbody>{''.join(lines[1:])}</tbody></table>"


# ---- index ---------------------------------------------------------------------------------------------------------

ABOUT = """# Zero-DCE: a reproduction study

Zero-DCE brightens dark photographs with a small network that learns without references: it estimates a curve for every
pixel and applies it eight times. This study reproduces the published network and its improved variant, measures where
they go wrong (bright areas, noise, lost details) and tests which changes repair it.
"""


def write_index(profile: str) -> Path:
    """Write ``index.html`` of a profile from its finished reports; returns its path."""
    import nbformat

    folder = paths.reports(profile)
    files = sorted(f for f in folder.glob("[0-9][0-9]_*.ipynb") if not f.stem.endswith(".failed"))
    books = {file.stem: nbformat.read(file, as_version=4) for file in files}
    failed = {file.name.removesuffix(".failed.html") for file in folder.glob("*.failed.html")}
    made = stamp()
    facts = {"profile": profile, "date": _today()} | {
        name: made.pop(name) for name in ("commit", "device", "threads")
    }
    cells = [ABOUT, _strip(folder, books), _facts(facts) + made._repr_html_(), "## Reports"]
    cards = [_card(folder, name, book, name in failed) for name, book in books.items()]
    cards += [_failed_card(name) for name in sorted(failed - set(books))]
    cells.append(
        f'<div class="cards">{"".join(cards)}</div>'
        if cards
        else "No report has been finished yet."
    )
    table = ledger.claims(folder / "tables")
    with atomic_write(folder / "claims.csv") as partial:
        table.to_csv(partial, index=False)
    cells[3:3] = ["## The claims", ledger.glance(table), _ledger(table)]
    for title in ("Tables", "Figures"):
        files = sorted((folder / title.lower()).glob("*"))
        items = [
            f'<li><a href="{title.lower()}/{file.name}">{file.name}</a></li>' for file in files
        ]
        cells += [f"## {title}", f'<ul class="files">{"".join(items)}</ul>'] if files else []
    index = nbformat.v4.new_notebook(cells=[nbformat.v4.new_markdown_cell(text) for text in cells])
    index.metadata.zdce = {"profile": profile, "date": _today(), "commit": commit()}
    with atomic_write(folder / "index.html") as partial:
        partial.write_text(render(index, kind="index"), "utf-8")
    return folder / "index.html"


def _today() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%d")


def _facts(facts: dict) -> str:
    pairs = [
        f"<div><dt>{html.escape(k)}</dt><dd>{html.escape(str(v))}</dd></div>"
        for k, v in facts.items()
    ]
    return f'<dl class="lead-facts">{"".join(pairs)}</dl>'


def _ledger(table: pd.DataFrame) -> str:
    """The ledger as a table: claim, verdict, the reports that tested it; what was measured unfolds below."""
    rows = []
    for row in table.itertuples():
        reports = " ".join(
            f'<a href="{name}.html">{name[:2]}</a>' for name in _reports(row.notebook)
        )
        parts = "".join(f"<li>{html.escape(part)}</li>" for part in row.measured.split("; "))
        more = [f"n: {html.escape(row.n)}"] * bool(row.n) + [
            f"rests on: {html.escape(row.budget)}"
        ] * bool(row.budget)
        details = f"<details><summary>what was measured</summary><ul>{parts}</ul><p>{'<br>'.join(more)}</p></details>"
        verdict = f'<td class="verdict {row.verdict.split()[0]} {row.verdict.split()[-1]}">{row.verdict}</td>'
        cells = f"<td>{row.claim}</td><td>{html.escape(row.statement)}{details}</td>{verdict}<td>{reports}</td>"
        rows.append(f"<tr>{cells}</tr>")
    head = "<tr><th>claim</th><th>what it says</th><th>verdict</th><th>report</th></tr>"
    table = f'<table class="ledger"><thead>{head}</thead><tbody>{"".join(rows)}</tbody></table>'
    rule = (
        "A claim is split into parts, each with a rule that the numbers meet or miss. *Supported*: all parts hold. "
        "*Not supported*: none that could be tested does. *Partly*: some do. The whole table: [claims.csv](claims.csv)."
    )
    return f'<div class="table">{table}</div>\n\n{rule}'


def _reports(numbers: str) -> list[str]:
    """Names of the notebooks with these numbers, such as ``01, 07``."""
    wanted = numbers.split(", ") if numbers else []
    return [
        book.stem
        for book in sorted(paths.notebooks().glob("[0-9]*.ipynb"))
        if book.stem[:2] in wanted
    ]


def _strip(folder: Path, books: dict[str, nbformat.NotebookNode]) -> str:
    """A photograph from each report that shows any, side by side, each leading to its report; empty without one."""
    shown = []
    for name, book in books.items():
        photographs = [each for each in _named_pictures(book) if each[0].endswith(".jpg")]
        here = [each for each in photographs if (folder / "figures" / each[0]).is_file()]
        if here:
            file, alt, _ = min(here, key=lambda each: len(each[2]))
            picture = f'<img src="figures/{file}" alt="{html.escape(alt)}" loading="lazy">'
            shown.append(f'<a href="{name}.html">{picture}<span>{_inline(_title(book))}</span></a>')
    return f'<div class="strip">{"".join(shown)}</div>' if shown else ""


def _card(folder: Path, name: str, book: nbformat.NotebookNode, failed: bool) -> str:
    about = book.metadata.get("zdce", {})
    finding = _first_line(_after(book, "## Findings"))
    pictures = [
        (f, alt) for f, alt, _ in _named_pictures(book) if (folder / "figures" / f).is_file()
    ]
    picture = min(
        pictures, key=lambda each: not each[0].endswith(".jpg"), default=None
    )  # photographs before charts
    lines = ['<article class="card">']
    if picture:
        thumb = f'<img src="figures/{picture[0]}" alt="{html.escape(picture[1])}" loading="lazy">'
        lines.append(f'<a class="thumb" href="{name}.html" tabindex="-1">{thumb}</a>')
    lines += ['<div class="text">', f'<h3><a href="{name}.html">{_inline(_title(book))}</a></h3>']
    lines.append(f"<p>{_inline(_sentence(_first_line(_after(book, '# '))))}</p>")
    lines += [f'<p class="finding">{_inline(finding)}</p>'] if finding else []
    if failed:
        link = f'<a href="{name}.failed.html">see where</a>'
        lines.append(f'<p class="failed">The last run failed: {link}. This is the one before.</p>')
    facts = [
        f"{about.get('seconds', 0):.0f} s",
        about.get("date", ""),
        f"commit {about.get('commit', 'unknown')}",
    ]
    lines.append(
        f'<p class="meta">{" · ".join(facts)} · <a href="{name}.ipynb">notebook</a></p></div></article>'
    )
    return "".join(lines)


def _failed_card(name: str) -> str:
    return (
        f'<article class="card"><div class="text"><h3>{name}</h3><p class="failed">The run failed: '
        f'<a href="{name}.failed.html">see where</a>.</p></div></article>'
    )


def _title(notebook: nbformat.NotebookNode) -> str:
    match = re.search(r"^# (.+)", notebook.cells[0].source if notebook.cells else "", re.MULTILINE)
    return match[1].strip() if match else "Untitled"


def _after(notebook: nbformat.NotebookNode, heading: str) -> Iterator[str]:
    """Prose that follows the first heading that starts so, markdown cells and rendered text alike."""
    found = False
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            lines = cell.source.split("\n")
            start = (
                next((i for i, line in enumerate(lines) if line.startswith(heading)), None)
                if not found
                else None
            )
            found = found or start is not None
            if found:
                yield "\n".join(lines[start + 1 :] if start is not None else lines)
        elif found:
            yield from (
                output.data["text/markdown"]
                for output in cell.outputs
                if "text/markdown" in output.get("data", {})
            )


def _first_line(texts: Iterable[str]) -> str:
    for text in texts:
        for paragraph in re.split(r"\n\s*\n", text.strip()):
            if paragraph.strip() and not paragraph.startswith("#"):
                return " ".join(paragraph.split()).removeprefix("- ")
            if paragraph.startswith("#"):
                return ""
    return ""


def _sentence(text: str) -> str:
    return _sentences(text)[0]


def _sentences(text: str) -> list[str]:
    return re.split(r"(?<=[.!?])\s+(?=[A-Z*`])", text)


def _inline(text: str) -> str:
    """Markdown of one line as HTML without its paragraph."""
    from nbconvert.filters import markdown2html

    return re.sub(r"^<p>|</p>\s*$", "", markdown2html(text).strip())
