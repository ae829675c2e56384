"""Reports: what notebooks save, and the notebooks run one after the other and filed as pages that
open offline.
"""

from __future__ import annotations

import ast
import html
import json
import logging
import os
import platform
import re
import subprocess
import sys
import time
import warnings
from collections.abc import Iterable
from contextlib import closing
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
from zdce.study import pages, plots, readme

# Libraries that ask for tqdm's widgets warn where there are none; progress here is plain lines.
warnings.filterwarnings("ignore", message="IProgress not found")

# Every notebook imports this module to save its results; what only a run needs is imported where it
# is used, which spares each kernel a second or two.
if TYPE_CHECKING:
    import nbformat
    from jupyter_client.manager import AsyncKernelManager

NAME = re.compile(r"\d\d_\w+")
MACHINE = re.compile(r"\S*/(?:site-packages|ipykernel_\d+)/")  # folders that a warning names
STAMPED = ("torch", "numpy", "scikit-image", "pillow", "pandas")


def output() -> Path:
    """Folder that a notebook saves to: ``ZDCE_REPORT_DIR``, which ``run`` sets, or
    ``reports/interactive``.
    """
    return Path(os.environ.get("ZDCE_REPORT_DIR") or paths.reports("interactive")).absolute()


def _place(folder: str, name: str, suffix: str) -> Path:
    if not NAME.fullmatch(name):
        raise ValueError(f"name: {name!r} must start with its notebook's number, such as 06_scores")
    place = output() / folder / f"{name}{suffix}"
    place.parent.mkdir(parents=True, exist_ok=True)
    return place


def save_table(frame: pd.DataFrame, name: str, decimals: int = 3) -> pd.DataFrame:
    """Save ``frame`` as ``tables/<name>.csv`` (six significant digits) and return it rounded, for
    display.

    A named index is saved as columns, an unnamed one is dropped. Raises ValueError for a name
    without its number.
    """
    flat = frame.reset_index() if any(label is not None for label in frame.index.names) else frame
    place = _place("tables", name, ".csv")
    flat.to_csv(place, index=False, float_format="%.6g", lineterminator="\n")
    return frame.round(decimals)


def save_figure(figure: Figure, name: str, alt: str) -> plots.Picture:
    """Save ``figure`` as ``figures/<name>.jpg`` or ``.png`` and return the picture, for display.

    ``alt`` says in words what it shows; without it, and for a name without its number, ValueError.
    """
    picture = plots.show(figure, alt, name)
    _place("figures", name, pages.SUFFIXES[picture.mime]).write_bytes(picture.data)
    return picture


def commit() -> str:
    """Short hash of the clone's commit, with a ``+`` when files other than reports have changed
    since; ``unknown`` outside a clone.
    """

    def git(*words: str) -> subprocess.CompletedProcess:
        command = ["git", "-C", str(paths.root()), *words]
        return subprocess.run(command, capture_output=True, text=True, timeout=20)

    try:
        known = git("rev-parse", "--short", "HEAD")
        changed = git("diff", "--quiet", "HEAD", "--", ":/", ":(exclude,top)reports")
    except (OSError, subprocess.TimeoutExpired):
        return "unknown"
    if known.returncode != 0:
        return "unknown"
    return known.stdout.strip() + "+" * (changed.returncode == 1)


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


class prose(str):
    """Findings and captions whose numbers come from results: one Markdown paragraph a line. The
    plain form is the text itself, so that it can be compared.
    """

    def __new__(cls, *lines: str) -> prose:
        return super().__new__(cls, "\n\n".join(lines))

    __repr__ = _repr_markdown_ = str.__str__


# ---- running -------------------------------------------------------------------------------------


def run(
    profile: str = "quick", only: Iterable[str] | None = None, panels: str | None = None
) -> list[str]:
    """Run the notebooks with a profile's parameters and render ``reports/<profile>/``, index
    included.

    ``only``: numbers or names of notebooks (``01``, ``06_result_comparison``), None for all;
    ``panels``: photographs shown in figures, ``bundled`` or ``datasets``, for notebooks that have
    such a parameter (None: as the profile says). A notebook that fails leaves
    ``NN_name.failed.html`` and ``.ipynb`` and what was finished before stays. Returns a line for
    each notebook that failed. Raises ValueError, before anything runs, for an unknown notebook or
    profile and for a parameter that its notebook lacks or that has another type.
    """
    chosen, parameters = _choose(only), read_profile(profile)
    for book in chosen if panels is not None else []:
        if "panels" in declared(book):
            parameters.setdefault(book.stem, {})["panels"] = panels
    finished, failures = paths.reports(profile), []
    with (
        lock(finished, "reports"),
        scratch(finished.parent) as place,
        closing(_Kernel(place)) as kernel,
    ):
        for book in chosen:
            stage = place / book.stem
            stage.mkdir()
            print(f"{book.stem} ...", end=" ", flush=True)
            started = time.perf_counter()
            failure = _execute(book, parameters.get(book.stem, {}), stage, kernel)
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
    names = {name: book for book in books for name in (book.stem, book.stem[:2])}
    for name in only or []:
        if name not in names:
            there = ", ".join(book.stem for book in books)
            raise ValueError(f"only: no notebook {name!r}; there are {there}")
    return books if only is None else sorted({names[name] for name in only})


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
    """Parameters of each notebook from ``notebooks/profiles/<profile>.yaml``, checked against the
    notebooks.

    Raises ValueError naming profile, notebook and parameter when one is unknown or has another
    type.
    """
    folder = paths.notebooks() / "profiles"
    file = folder / f"{profile}.yaml"
    if not file.is_file():
        there = ", ".join(sorted(each.stem for each in folder.glob("*.yaml")))
        raise ValueError(f"profile: no {profile!r}; there are {there}")
    read = yaml.safe_load(file.read_text("utf-8")) or {}
    parameters = {stem: values or {} for stem, values in read.items()}
    for stem, values in parameters.items():
        book = paths.notebooks() / f"{stem}.ipynb"
        if not book.is_file():
            raise ValueError(f"{file.name}: {stem} is no notebook in {book.parent.name}/")
        kinds = declared(book)
        for name, value in values.items():
            if name not in kinds:
                has = ", ".join(kinds)
                what = f"{file.name}: {book.name} has no parameter {name!r}"
                raise ValueError(f"{what}; it has {has}")
            _check_type(f"{file.name}: {name} of {book.name}", value, kinds[name])
    return parameters


def _check_type(what: str, value: object, kind: str) -> None:
    """ValueError unless ``value`` is of ``kind``, such as ``float``; ``what`` names it."""
    known = {"float": (int, float), "int": int, "str": str, "bool": bool}
    if not isinstance(value, known[kind]) or isinstance(value, bool) != (kind == "bool"):
        hint = "; YAML reads 1e-4 as text: write 1.0e-4" * (kind == "float")
        raise ValueError(f"{what} must be {kind}, not {value!r}{hint}")


# What a notebook finds as in a process of its own: no names, counts from 1, options and generators
# as they begin.
FRESH = """
import os, sys, warnings
get_ipython().reset(new_session=True)
import os, sys, warnings
os.environ.update({values!r})
if "pandas" in sys.modules:
    with warnings.catch_warnings(action="ignore"):
        sys.modules["pandas"].reset_option("all")
if "torch" in sys.modules:
    sys.modules["torch"].manual_seed(67280421310721)
del os, sys, warnings
"""


class _Kernel:
    """The process that runs all notebooks: this Python with this package, started at the first."""

    def __init__(self, place: Path):
        searched = [str(paths.PACKAGE.parent), os.environ.get("PYTHONPATH")]
        self.place, self.manager = place, None
        self.environment = os.environ | {
            "IPYTHONDIR": str(place / "ipython"),  # without a user's start-up files
            "PYTHONPATH": os.pathsep.join(filter(None, searched)),
            "PYTHONWARNINGS": "ignore:IProgress not found",  # tqdm.auto of others asks for widgets
            # As many threads give the same sums on every machine, and leave a laptop usable.
            "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "2"),
        }

    def begin(self, **values: str) -> AsyncKernelManager:
        """Ready for a notebook: nothing is left of the one before, ``values`` are in the
        environment.
        """
        from jupyter_client.kernelspec import KernelSpecManager
        from jupyter_client.manager import AsyncKernelManager
        from jupyter_client.utils import run_sync

        if self.manager is None:
            self.manager = AsyncKernelManager(
                kernel_spec_manager=KernelSpecManager(kernel_dirs=[]),  # none of the user's kernels
                connection_file=str(self.place / "kernel.json"),
            )
            run_sync(self.manager.start_kernel)(cwd=str(paths.root()), env=self.environment)
        client = self.manager.blocking_client()
        client.start_channels()
        try:
            client.wait_for_ready(timeout=600)
            reply = client.execute_interactive(FRESH.format(values=values), store_history=False)
        finally:
            client.stop_channels()
        if reply["content"]["status"] != "ok":
            raise RuntimeError(f"{reply['content']['ename']}: {reply['content']['evalue']}")
        return self.manager

    def close(self) -> None:
        """End the process; the next notebook begins with a new one."""
        from jupyter_client.utils import run_sync

        if self.manager is not None:
            run_sync(self.manager.shutdown_kernel)(now=True)
            self.manager = None


def _execute(book: Path, parameters: dict, stage: Path, kernel: _Kernel) -> str | None:
    """Run one notebook into ``stage``; None, or the line that says where it stopped."""
    import papermill

    for logger in ("papermill", "traitlets"):  # the second warns of channels left open for the next
        logging.getLogger(logger).setLevel(logging.ERROR)
    try:
        papermill.execute_notebook(
            str(book),
            str(stage / book.name),
            parameters,
            kernel_name="python3",
            language="python",
            progress_bar=False,
            cwd=str(paths.root()),
            coalesce_streams=True,
            km=kernel.begin(ZDCE_REPORT_DIR=str(stage)),
        )
    except papermill.PapermillExecutionError as error:
        message = (str(error.evalue).strip() or "no message").splitlines()[0]
        failure = f"{book.name} failed in cell [{error.exec_count}]: {error.ename}: {message}"
    except Exception as error:  # a dead kernel or a broken file fails this notebook alone
        message = (str(error).strip() or "no message").splitlines()[0]
        failure = f"{book.name} failed: {type(error).__name__}: {message}"
    else:
        return None
    kernel.close()
    return failure


# ---- filing --------------------------------------------------------------------------------------


def _finish(
    book: Path, profile: str, stage: Path, finished: Path, seconds: float, failure: str | None
) -> None:
    """Render what ``stage`` holds, then move it into place: over the old report if it finished,
    else beside it.
    """
    import nbformat

    if not (stage / book.name).is_file():
        return
    notebook = nbformat.read(stage / book.name, as_version=4)
    _clean(notebook)
    notebook.metadata.zdce = {"seconds": round(seconds, 1), **_made(profile)}
    page = pages.report_page(notebook, failure or "")
    for left in finished.glob(f"{book.stem}.failed.*"):
        left.unlink()
    if not failure:
        for folder in ("tables", "figures"):
            _replace(stage / folder, finished / folder, book.stem[:3])
    stem = book.stem + ".failed" * bool(failure)
    for suffix, text in ((".ipynb", nbformat.writes(notebook)), (".html", page)):
        with atomic_write(finished / f"{stem}{suffix}") as partial:
            partial.write_text(text, "utf-8")


def _made(profile: str) -> dict[str, str]:
    date = datetime.now(UTC).strftime("%Y-%m-%d")
    return {"profile": profile, "date": date, "commit": commit()}


def _replace(source: Path, target: Path, prefix: str) -> None:
    """Move the files of ``source`` into ``target``, in place of those that an earlier run left
    under ``prefix``.
    """
    target.mkdir(exist_ok=True)
    fresh = {file.name for file in source.glob("*")}
    for file in source.glob("*"):
        os.replace(file, target / file.name)
    for file in target.glob(f"{prefix}*"):
        if file.name not in fresh:
            file.unlink()


def _clean(notebook: nbformat.NotebookNode) -> None:
    """Take papermill's marks and folders of this machine out of an executed notebook."""
    notebook.metadata.pop("papermill", None)
    notebook.cells = [
        c for c in notebook.cells if "papermill-error-cell-tag" not in c.metadata.get("tags", [])
    ]
    for cell in notebook.cells:
        cell.metadata.pop("papermill", None)
        if "injected-parameters" in cell.metadata.get("tags", []):
            cell.source = cell.source.removeprefix("# Parameters\n").strip()
        for output in cell.get("outputs", []):
            if output.output_type == "stream":
                text = output.text.replace(f"{paths.root()}{os.sep}", "")
                output.text = MACHINE.sub("", text)


def write_index(profile: str) -> Path:
    """Write ``claims.csv`` and ``index.html`` of a profile from its finished reports; the page's
    path.
    """
    folder, made = paths.reports(profile), stamp()
    made.pop("commit")
    try:
        table = ledger.ledger(folder / "tables")
    except ValueError as error:  # a table of an earlier version
        print(error, file=sys.stderr, flush=True)
        table = ledger.ledger(folder / "none")
    glance, harm = ledger.glance(table), readme.soak(folder)
    page = pages.index_page(folder, _made(profile), made, table, glance, harm)
    with atomic_write(folder / "claims.csv") as partial:
        table.to_csv(partial, index=False)
    with atomic_write(folder / "index.html") as partial:
        partial.write_text(page, "utf-8")
    return folder / "index.html"
