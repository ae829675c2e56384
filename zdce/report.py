"""Reports: what notebooks save, and the notebooks run through papermill and rendered as pages that open offline."""

from __future__ import annotations

import os
import platform
import re
import subprocess
from importlib.metadata import version
from pathlib import Path

import pandas as pd
import torch
from matplotlib.figure import Figure

from zdce import __version__, paths, plots

NAME = re.compile(r"\d\d_\w+")
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

    A named index is saved as columns, an unnamed one is dropped. Raises ValueError for a name without its number.
    """
    flat = frame.reset_index() if any(label is not None for label in frame.index.names) else frame
    flat.to_csv(_place("tables", name, ".csv"), index=False, float_format="%.6g", lineterminator="\n")
    return frame.round(decimals)


def load_table(name: str) -> pd.DataFrame:
    """A saved table: of this run, or of the finished reports beside it.

    Raises FileNotFoundError that says which notebook makes the table.
    """
    folders = [output(), Path(os.environ.get("ZDCE_REPORT_FINISHED") or output())]
    for folder in folders:
        if (folder / "tables" / f"{name}.csv").is_file():
            return pd.read_csv(folder / "tables" / f"{name}.csv")
    raise FileNotFoundError(
        f"tables/{name}.csv is not there: run notebook {name[:2]} first (zdce report --only {name[:2]})"
    )


def save_figure(figure: Figure | plots.Picture, name: str, alt: str = "") -> plots.Picture:
    """Save ``figure`` as ``figures/<name>.jpg`` or ``.png`` and return the picture, for display.

    A Figure needs its ``alt`` text here; a Picture from ``plots.show`` has one. Raises ValueError without it.
    """
    picture = plots.show(figure, alt) if isinstance(figure, Figure) else figure
    suffix = {"image/jpeg": ".jpg", "image/png": ".png"}[picture.mime]
    _place("figures", name, suffix).write_bytes(picture.data)
    return picture


def commit() -> str:
    """Short hash of the clone's commit, with a ``+`` when files have changed since; ``unknown`` outside a clone."""
    command = ["git", "-C", str(paths.root()), "describe", "--always", "--exclude=*", "--dirty=+"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=20)
    except (OSError, subprocess.TimeoutExpired):
        return "unknown"
    return done.stdout.strip() if done.returncode == 0 else "unknown"


def stamp(seed: int | None = None, device: str | None = None) -> pd.DataFrame:
    """What a result was made with: versions, device, threads, commit and seed, a row each; nothing about whose machine.

    ``device``: ``cpu`` or ``cuda``; None is what this machine has.
    """
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    hardware = torch.cuda.get_device_name() if device.startswith("cuda") else platform.machine()
    rows = {"zdce": __version__, "commit": commit(), "Python": platform.python_version()}
    rows |= {name: version(name) for name in STAMPED}
    rows |= {"device": f"{device} ({hardware})", "threads": str(torch.get_num_threads())}
    if seed is not None:
        rows["seed"] = str(seed)
    return pd.DataFrame({"value": rows})
