"""Reports: what notebooks save; notebooks run one after the other and filed as offline pages."""

import logging
import os
import platform
import re
import shutil
import subprocess
import sys
import time
import warnings
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pandas as pd
import yaml
from matplotlib.figure import Figure

from zdce import __version__, paths
from zdce.files import atomic_write, lock
from zdce.study import claims as ledger
from zdce.study import pages, plots

# Libraries that ask for tqdm's widgets warn where there are none; progress here is plain lines.
warnings.filterwarnings("ignore", message="IProgress not found")

# Every notebook imports this module; what only a run needs is imported where it is used.
MACHINE = re.compile(r"\S*/(?:site-packages|ipykernel_\d+)/")  # folders that a warning names
STAMPED = ("torch", "numpy", "scikit-image", "pillow", "pandas")


def output() -> Path:
    """Where a notebook saves: ``ZDCE_REPORT_DIR``, which ``run`` sets, or reports/interactive."""
    return Path(os.environ.get("ZDCE_REPORT_DIR") or paths.reports("interactive")).absolute()


def _place(folder: str, name: str, suffix: str) -> Path:
    place = output() / folder / f"{name}{suffix}"
    place.parent.mkdir(parents=True, exist_ok=True)
    return place


def save_table(frame: pd.DataFrame, name: str, decimals: int = 3) -> pd.DataFrame:
    """Save ``frame`` as ``tables/<name>.csv`` (six significant digits), a named index as columns,
    and return it rounded, for display. Names begin with the notebook's number: ``06_scores``.
    """
    flat = frame.reset_index() if any(label is not None for label in frame.index.names) else frame
    place = _place("tables", name, ".csv")
    flat.to_csv(place, index=False, float_format="%.6g", lineterminator="\n")
    return frame.round(decimals)


def save_figure(figure: Figure, name: str, alt: str) -> plots.Shown:
    """Save ``figure`` as ``figures/<name>.jpg`` or ``.png`` and return it as :func:`plots.show`."""
    picture = plots.show(figure, alt, name)
    _place("figures", name, pages.SUFFIXES[picture.kind]).write_bytes(picture.data)
    return picture


def commit() -> str:
    """Short hash of the clone's commit, ``+`` if files but reports have changed; or ``unknown``."""
    changed = ["diff", "--quiet", "HEAD", "--", ":/", ":(exclude,top)reports"]
    try:
        known, clean = (
            subprocess.run(["git", "-C", paths.root(), *words], capture_output=True, timeout=20)
            for words in (["rev-parse", "--short", "HEAD"], changed)
        )
    except (OSError, subprocess.TimeoutExpired):
        return "unknown"
    return known.stdout.decode().strip() + "+" * (clean.returncode == 1) or "unknown"


def facts() -> dict[str, str]:
    """What results are made with: versions, device, threads, commit; not whose machine it is."""
    import torch

    device = f"cpu ({platform.machine()})"
    if torch.cuda.is_available():
        device = f"cuda ({torch.cuda.get_device_name()})"
    found = {"zdce": __version__, "commit": commit(), "Python": platform.python_version()}
    found |= {name: version(name) for name in STAMPED}
    return found | {"device": device, "threads": str(torch.get_num_threads())}


def stamp(seed: int) -> plots.Shown:
    """The :func:`facts` and the notebook's seed in one line."""
    found = facts() | {"seed": str(seed)}
    text = " · ".join(f"{name} {value}" for name, value in found.items())
    return plots.Shown(text, "text/html", pages.render("stamp.html.j2", facts=found))


def prose(*lines: str) -> plots.Shown:
    """Findings and captions whose numbers come from results: one Markdown paragraph a line."""
    return plots.Shown(text := "\n\n".join(lines), "text/markdown", text)


# ---- running -------------------------------------------------------------------------------------


def run(profile: str = "quick", only: Iterable[str] | None = None) -> list[str]:
    """Run the notebooks with a profile's parameters and render ``reports/<profile>/``.

    ``only``: numbers or names of notebooks (``01``, ``06_result_comparison``), None for all. One
    that fails leaves ``NN_name.failed.html`` and ``.ipynb``, and what was finished before stays.
    Returns a line for each that failed. Raises ValueError for an unknown notebook, and as
    :func:`read_profile` and :func:`zdce.study.evaluation.sets`, before anything runs.
    """
    from zdce.study import evaluation

    books = sorted(paths.notebooks().glob("[0-9][0-9]_*.ipynb"))
    names = {name: book for book in books for name in (book.stem, book.stem[:2])}
    if unknown := [name for name in only or [] if name not in names]:
        there = ", ".join(book.stem for book in books)
        raise ValueError(f"only: no notebook {unknown[0]!r}; there are {there}")
    chosen = books if only is None else sorted({names[name] for name in only})
    parameters = read_profile(profile)
    for book in chosen:
        evaluation.sets(parameters.get(book.stem, {}).get("data", "bundled"))
    made = {"profile": profile, "date": f"{datetime.now(UTC):%Y-%m-%d}", "commit": commit()}
    finished, failures = paths.reports(profile), []
    place = finished.parent / f".partial-{profile}"
    with lock(finished, "reports"), ExitStack() as at_end:
        shutil.rmtree(place, ignore_errors=True)  # of a run that was killed
        place.mkdir()
        at_end.callback(shutil.rmtree, place, ignore_errors=True)
        for book in chosen:
            stage = place / book.stem
            stage.mkdir()
            print(f"{book.stem} ...", end=" ", flush=True)
            started = time.perf_counter()
            failure = _execute(book, parameters.get(book.stem, {}), stage)
            seconds = time.perf_counter() - started
            print(f"{seconds:.1f} s" + " FAILED" * bool(failure), flush=True)
            _finish(book, {"seconds": round(seconds, 1), **made}, stage, finished, failure)
            failures += [failure] if failure else []
        table = ledger.ledger(finished / "tables")
        page = pages.index_page(finished, made, facts(), table, ledger.glance(table))
        _write(finished / "claims.csv", table.to_csv(index=False))
        _write(finished / "index.html", page)
    for failure in failures:
        print(failure, file=sys.stderr, flush=True)
    return failures


def declared(book: Path) -> dict[str, str]:
    """Names and types of a notebook's parameters, as its ``parameters`` cell annotates them."""
    import papermill

    found = papermill.inspect_notebook(str(book))
    return {name: about["inferred_type_name"] for name, about in found.items()}


def read_profile(profile: str) -> dict[str, dict]:
    """Parameters of each notebook from ``notebooks/profiles/<profile>.yaml``; ValueError when a
    profile, notebook or parameter is unknown or a value has another type than declared.
    """
    folder = paths.notebooks() / "profiles"
    file = folder / f"{profile}.yaml"
    if not file.is_file():
        there = ", ".join(sorted(each.stem for each in folder.glob("*.yaml")))
        raise ValueError(f"profile: no {profile!r}; there are {there}")
    read = yaml.safe_load(file.read_text("utf-8")) or {}
    types = {"float": (int, float), "int": int, "str": str, "bool": bool}
    for stem, values in read.items():
        book = paths.notebooks() / f"{stem}.ipynb"
        if not book.is_file():
            raise ValueError(f"{file.name}: {stem} is no notebook in {book.parent.name}/")
        kinds = declared(book)
        for name, value in (values or {}).items():
            fits = isinstance(value, types.get(kind := kinds.get(name), ()))
            if not fits or isinstance(value, bool) != (kind == "bool"):
                known = ", ".join(f"{each}: {kind}" for each, kind in kinds.items())
                raise ValueError(f"{file.name}: {name}: {value!r}: {book.name} takes {known}")
    return {stem: values or {} for stem, values in read.items()}


@contextmanager
def _kernel(stage: Path) -> Iterator[Any]:
    """The manager of the process that runs a notebook: this Python with this package."""
    from jupyter_client.kernelspec import KernelSpecManager
    from jupyter_client.manager import AsyncKernelManager
    from jupyter_client.utils import run_sync

    searched = [str(paths.PACKAGE.parent), os.environ.get("PYTHONPATH")]
    environment = os.environ | {
        "ZDCE_REPORT_DIR": str(stage),
        "IPYTHONDIR": str(stage / "ipython"),  # without a user's start-up files
        "PYTHONPATH": os.pathsep.join(filter(None, searched)),
        "PYTHONWARNINGS": "ignore:IProgress not found",  # tqdm.auto of others asks for widgets
        # As many threads give the same sums on every machine, and leave a laptop usable.
        "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "2"),
    }
    none = KernelSpecManager(kernel_dirs=[])  # of the user's kernels
    with TemporaryDirectory(prefix="zdce-") as folder:  # a socket's name may have 100 characters
        options = {"connection_file": f"{folder}/kernel", "kernel_spec_manager": none}
        if os.name == "posix" and len(folder) < 80:
            options["transport"] = "ipc"
        manager = AsyncKernelManager(**options)
        run_sync(manager.start_kernel)(cwd=str(paths.root()), env=environment)
        try:
            yield manager
        finally:
            run_sync(manager.shutdown_kernel)(now=True)


def _execute(book: Path, parameters: dict, stage: Path) -> str:
    """Run one notebook into ``stage``; the line that says where it stopped, if it did."""
    import papermill

    for logger in ("papermill", "traitlets"):
        logging.getLogger(logger).setLevel(logging.ERROR)
    options = {"kernel_name": "python3", "language": "python", "progress_bar": False}
    options |= {"cwd": str(paths.root()), "coalesce_streams": True}
    files = str(book), str(stage / book.name)
    try:
        with _kernel(stage) as kernel:
            papermill.execute_notebook(*files, parameters, km=kernel, **options)
        return ""
    except papermill.PapermillExecutionError as error:
        where, kind, message = f" in cell [{error.exec_count}]", error.ename, error.evalue
    except Exception as error:  # a dead kernel or a broken file fails this notebook alone
        where, kind, message = "", type(error).__name__, error
    message = (str(message).strip() or "no message").splitlines()[0]
    return f"{book.name} failed{where}: {kind}: {message}"


# ---- filing --------------------------------------------------------------------------------------


def _finish(book: Path, about: dict, stage: Path, finished: Path, failure: str) -> None:
    """Render ``stage`` and move it into place: over the old report, or beside it if it failed."""
    import nbformat

    if not (stage / book.name).is_file():
        return
    notebook = nbformat.read(stage / book.name, as_version=4)
    _clean(notebook)
    notebook.metadata.zdce = about
    page = pages.report_page(notebook, failure)
    for left in finished.glob(f"{book.stem}.failed.*"):
        left.unlink()
    for folder in pages.KINDS if not failure else ():
        (finished / folder).mkdir(exist_ok=True)
        fresh = {file.name: file for file in (stage / folder).glob("*")}
        for name, file in fresh.items():
            os.replace(file, finished / folder / name)
        for file in (finished / folder).glob(f"{book.stem[:3]}*"):
            if file.name not in fresh:  # an earlier run left it
                file.unlink()
    stem = book.stem + ".failed" * bool(failure)
    for suffix, text in ((".ipynb", nbformat.writes(notebook)), (".html", page)):
        _write(finished / f"{stem}{suffix}", text)


def _write(file: Path, text: str) -> None:
    with atomic_write(file) as partial:
        partial.write_text(text, "utf-8")


def _clean(notebook: dict) -> None:
    """Take papermill's marks and folders of this machine out of an executed notebook."""
    mark = "papermill-error-cell-tag"
    notebook.cells = [c for c in notebook.cells if mark not in c.metadata.get("tags", [])]
    for part in (notebook, *notebook.cells):
        part.metadata.pop("papermill", None)
    for cell in notebook.cells:
        if "injected-parameters" in cell.metadata.get("tags", []):
            cell.source = cell.source.removeprefix("# Parameters\n").strip()
        for output in cell.get("outputs", []):
            if output.output_type == "stream":
                text = output.text.replace(f"{paths.root()}{os.sep}", "")
                output.text = MACHINE.sub("", text)
