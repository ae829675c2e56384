"""Shared fixtures. Real photographs and published weights are used where they are at hand."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from zdce import paths


@pytest.fixture(scope="session")
def shared() -> Path:
    """Folder with the manifest's files; where CI has one beside the clone, tests that need it may not skip."""
    mirror = paths.mirror()
    if mirror and (Path(mirror) / "manifest.csv").is_file():
        return Path(mirror)
    beside = paths.root().parent / "shared"
    if os.environ.get("CI") == "true" and beside.exists():
        pytest.fail(f"{beside.name} lies beside the clone but holds no manifest.csv")
    pytest.skip("no mirror folder: set ZDCE_MIRROR to run the conformance tests")
