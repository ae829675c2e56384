"""Shared fixtures and markers. Real photographs and published weights are used where they are at
hand.
"""

import os
import re
import shutil
from importlib.metadata import distributions, packages_distributions
from pathlib import Path

import pytest

import zdce  # noqa: F401 - says how threads of torch wait, before torch is imported


def pytest_addoption(parser):
    parser.addoption("--no-skips", action="store_true", help="a test that would be skipped fails")


def pytest_collection_modifyitems(items):
    for item in items:
        if "shared" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.conformance)


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item):
    report = (yield).get_result()
    if report.skipped and item.config.getoption("--no-skips"):
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longrepr
        report.outcome, report.longrepr = "failed", f"may not be skipped here: {reason}"


@pytest.fixture(scope="session")
def shared() -> Path:
    """Folder with the manifest's files: the study's photographs and the published weights."""
    mirror = os.environ.get("ZDCE_MIRROR")
    if not mirror:
        pytest.skip("set ZDCE_MIRROR to a folder with the files of data/manifest.csv to run this")
    if not (Path(mirror) / "manifest.csv").is_file():
        pytest.fail(f"ZDCE_MIRROR={mirror} holds no manifest.csv")
    return Path(mirror)


@pytest.fixture(scope="session")
def weights(tmp_path_factory) -> Path:
    """A weights file of a small network that brightens; its gamma is 1.3."""
    from pictures import trained

    from zdce import checkpoints

    path = tmp_path_factory.mktemp("weights") / "small.safetensors"
    checkpoints.save(path, trained(pooling="overlapping"), "small", gamma=1.3)
    return path


@pytest.fixture(scope="session")
def bare(tmp_path_factory) -> dict[str, str]:
    """The environment of a user who has this clone and nothing else: no data, no mirror, an empty
    home.
    """
    place = tmp_path_factory.mktemp("bare")
    own = {name: str(place / name) for name in ("home", "data", "runs")}
    for folder in own.values():
        Path(folder).mkdir()
    hidden = ("ZDCE_", "JUPYTER", "IPYTHON", "NUMBA_", "MPL", "XDG_", "PYTEST")
    kept = {key: value for key, value in os.environ.items() if not key.startswith(hidden)}
    kept |= {"HOME": own["home"], "ZDCE_DATA": own["data"], "ZDCE_RUNS": own["runs"]}
    kept |= {"OMP_NUM_THREADS": "2", "PYTHONPATH": str(Path(__file__).resolve().parent.parent)}
    return kept


# An import of a module that is None in this table finds nothing.
HIDES = "import sys; sys.modules.update(dict.fromkeys({names!r}))"


@pytest.fixture(scope="session")
def without(tmp_path_factory) -> Path:
    """A folder for PYTHONPATH with which Python finds only what ``pip install .`` without extras
    brings.
    """

    def canonical(requirement: str) -> str:
        return re.sub(r"[-_.]+", "-", re.match(r"[\w.-]+", requirement)[0]).lower()

    requires = {canonical(each.name): each.requires or [] for each in distributions()}
    brought, todo = set(), ["zdce", "papermill"]
    while todo:
        name = todo.pop()
        if name not in brought:
            brought.add(name)
            todo += [canonical(s) for s in requires.get(name, []) if "extra ==" not in s]
    owners = packages_distributions().items()
    hidden = {module for module, names in owners if not brought & set(map(canonical, names))}
    folder = tmp_path_factory.mktemp("without")
    (folder / "sitecustomize.py").write_text(HIDES.format(names=hidden - {"pip", "setuptools"}))
    return folder


@pytest.fixture(scope="session")
def browser(tmp_path_factory):
    """Headless Chromium, driven by selenium; tells what pages log and ask for."""
    driver = shutil.which("chromedriver")
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    if not (driver and chromium):
        message = "install Chromium and its driver to run this (Debian: chromium, chromium-driver)"
        pytest.fail(message) if os.environ.get("CI") == "true" else pytest.skip(message)
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for word in ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"):
        options.add_argument(word)
    options.add_argument(f"--user-data-dir={tmp_path_factory.mktemp('browser')}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    browser = webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))
    browser.set_page_load_timeout(600)
    yield browser
    browser.quit()
