"""Where things lie: the one place that knows folders, so notebooks and tests start anywhere."""

import os
from pathlib import Path

PACKAGE = Path(__file__).resolve().parent


def root() -> Path:
    """The clone this package runs from; the working directory where it was installed without."""
    home = PACKAGE.parent
    return home if (home / "data" / "manifest.csv").is_file() else Path.cwd()


def data() -> Path:
    """Where data sets are kept: ``ZDCE_DATA``, or ``data/`` of the clone."""
    return Path(os.environ.get("ZDCE_DATA") or root() / "data").expanduser().absolute()


def mirror() -> str | None:
    """Folder or address that holds the manifest's paths: ``ZDCE_MIRROR``, and nothing else."""
    return os.environ.get("ZDCE_MIRROR") or None


def weights() -> Path:
    """Weights trained by this project, shipped inside the package."""
    return PACKAGE / "weights"


def notebooks() -> Path:
    """The study's notebooks."""
    return root() / "notebooks"


def reports(profile: str = "") -> Path:
    """Rendered reports, of one profile if named."""
    return root() / "reports" / profile


def runs() -> Path:
    """Training runs: ``ZDCE_RUNS``, or ``runs/`` of the clone."""
    return Path(os.environ.get("ZDCE_RUNS") or root() / "runs").expanduser().absolute()
