"""Bringing data sets from where they are published, or from a mirror: right bytes or none.

No server sends more bytes than were promised, trickles for ever, or is asked again for what is not
there; one that asks for patience gets it. A process that was killed leaves nothing behind.
"""

import os
import shutil
import sys
import time
from collections.abc import Iterable
from concurrent.futures import CancelledError, ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote

import requests
from tqdm import tqdm

from zdce import paths
from zdce.datasets import Entry, dataset, kept_at, places_of, problem
from zdce.files import atomic_write, escape_control_characters

ORIGIN = "https://raw.githubusercontent.com"
TIMEOUT = 30  # seconds without a byte
SLOWEST = 4_000  # bytes a second over a whole file, after TIMEOUT
CHUNK = 1 << 10  # bytes after which that is looked at
ATTEMPTS = 3  # per file, for failures that may pass
PAUSE = 0.5  # seconds before the second attempt, doubled before the third
LONGEST_PAUSE = 60  # seconds, if a server asks for patience (Retry-After)
NO_CONNECTION = (requests.ConnectionError, requests.Timeout)
UNREACHABLE = 8  # files in a row without a connection: the rest is not tried


@dataclass
class Fetched:
    """What :func:`fetch` did, as paths in the manifest; ``failed`` maps each to its reason."""

    kept: list[str] = field(default_factory=list)  # there already, right sha256
    fetched: list[str] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)


def _entries(names: str | Iterable[str]) -> list[Entry]:
    names = [names] if isinstance(names, str) else names
    return list(dict.fromkeys(entry for name in names for entry in dataset(name).entries()))


def fetch(
    names: str | Iterable[str], mirror: str | os.PathLike | None = None, progress: bool = True
) -> Fetched:
    """Bring sets into ``paths.data()``, eight files at a time, from the mirror or their origin.

    mirror: a folder or an http(s) address that holds the manifest's paths; default:
    ``paths.mirror()``. A second call brings what is missing; a failing file stops no other. Raises
    ValueError for an unknown set or mirror.
    """
    mirror = str(mirror or paths.mirror() or "")
    if mirror and "://" not in mirror and not Path(mirror).expanduser().is_dir():
        raise ValueError(f"{mirror=} is neither a folder nor an http(s) address")
    silent, pool, result = 0, ThreadPoolExecutor(8), Fetched()
    running = {pool.submit(_fetch_one, entry, mirror): entry.path for entry in _entries(names)}
    bar = {"desc": "fetching", "unit": "file", "mininterval": 1, "file": sys.stdout}
    try:
        for future in tqdm(as_completed(running), total=len(running), disable=not progress, **bar):
            silent = silent + 1 if isinstance(future.exception(), NO_CONNECTION) else 0
            if silent == UNREACHABLE:
                break
    finally:
        pool.shutdown(cancel_futures=True)
    for future, path in running.items():
        try:
            (result.fetched if future.result() else result.kept).append(path)
        except CancelledError:
            result.failed[path] = f"not tried: no connection for {UNREACHABLE} files in a row"
        except (OSError, ValueError) as error:
            result.failed[path] = escape_control_characters(str(error))
    return result


def verify(names: str | Iterable[str]) -> dict[str, str]:
    """Hash every file of the sets where it lies, data or mirror folder: path → what is wrong."""
    wrong = {}
    for entry in _entries(names):
        places = places_of(entry.path)
        if reason := problem(next(filter(Path.is_file, places), places[0]), entry):
            wrong[entry.path] = reason
    return wrong


def _fetch_one(entry: Entry, mirror: str) -> bool:
    """Bring one file; False if it was there. Whatever goes wrong leaves no file, nor a part."""
    target = kept_at(entry.path)
    if not problem(target, entry):
        return False
    origin = f"{ORIGIN}/{entry.repository}/{entry.commit}/{quote(entry.upstream_path)}"
    url = f"{mirror.rstrip('/')}/{quote(entry.path)}" if mirror else origin
    with atomic_write(target) as partial:
        if "://" not in url:
            source = Path(mirror).expanduser() / entry.path
            if reason := problem(source, entry):
                raise OSError(f"{reason} in the mirror {mirror}")
            shutil.copyfile(source, partial)
            return True
        for attempt in range(ATTEMPTS):
            try:
                _download(url, partial, entry)
                break
            except OSError as error:
                if (pause := _pause(error)) is None or attempt == ATTEMPTS - 1:
                    raise
                time.sleep(max(pause, PAUSE * 2**attempt))
    return True


def _download(url: str, partial: Path, entry: Entry) -> None:
    """One attempt: the file's bytes into ``partial``, checked; OSError if it cannot be."""
    until = time.monotonic() + TIMEOUT + entry.size / SLOWEST
    with requests.get(url, stream=True, timeout=TIMEOUT) as answer, partial.open("wb") as file:
        answer.raise_for_status()
        for data in answer.iter_content(CHUNK):
            file.write(data)
            if file.tell() > entry.size:
                raise OSError(f"more than the {entry.size} bytes expected: {url}")
            if time.monotonic() > until:
                raise OSError(f"too slow: {url}")
    if reason := problem(partial, entry):
        raise OSError(f"{reason}: {url}")


def _pause(error: OSError) -> float | None:
    """Seconds before another attempt; None where the server refused, and would again."""
    if (answer := getattr(error, "response", None)) is None:
        return 0.0
    if answer.status_code < 500 and answer.status_code != 429:
        return None
    after = answer.headers.get("Retry-After", "")
    return min(int(after), LONGEST_PAUSE) if after.isdecimal() else 0.0
