"""``pytest --nbval-lax notebooks`` needs no other words: nbval's settings stand here."""

from __future__ import annotations

import os
from pathlib import Path

HERE = Path(__file__).resolve().parent


def pytest_configure(config):
    if not (getattr(config.option, "nbval", False) or getattr(config.option, "nbval_lax", False)):
        return
    config.option.nbval_current_env = True
    config.option.nbval_cell_timeout = min(config.option.nbval_cell_timeout, 600)
    config.option.nbval_sanitize_with = config.option.nbval_sanitize_with or str(
        HERE / ".sanitize.cfg"
    )
    # Kernels inherit these: this clone's package, and as many threads as stored sums were made
    # with.
    searched = [str(HERE.parent), os.environ.get("PYTHONPATH", "")]
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, searched))
    os.environ.setdefault("OMP_NUM_THREADS", "2")
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # a busy machine: as zdce/__init__.py
    os.environ.setdefault("PYTHONWARNINGS", "ignore:IProgress not found")  # tqdm.auto of others
