"""Bringing data sets from where they are published, or from a mirror: right bytes or none.

No server sends more bytes than were promised, trickles for ever, or is asked again for what is not
there; one that asks for patience gets it. A process that was killed leaves nothing behind.
"""

from __future__ import annotations

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
from zdce.files import atomic_write

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


class _Failure(Exception):
    """One attempt failed; ``pause``: seconds before another, None if there is no point in one."""

    def __init__(self, reason: str, pause: float | None = 0.0):
        super().__init__(reason)
        self.pause = pause


def _entries(names: str | Iterable[str]) -> list[Entry]:
    names = [names] if isinstance(names, str) else names
    return list(dict.fromkeys(entry for name in names for entry in dataset(name).entries()))


def fetch(
    names: str | Iterable[str],
    mirror: str | os.PathLike | None = None,
    jobs: int = 8,
    progress: bool = True,
) -> Fetched:
    """Bring sets into ``paths.data()``, ``jobs`` files at a time, from the mirror or their origin.

    mirror: a folder or an http(s) address that holds the manifest's paths; default:
    ``paths.mirror()``. A second call brings what is missing; a failing file stops no other. Raises
    ValueError for an unknown set or mirror.
    """
    mirror = str(mirror or paths.mirror() or "")
    if mirror and "://" not in mirror and not Path(mirror).expanduser().is_dir():
        raise ValueError(f"{mirror=} is neither a folder nor an http(s) address")
    silent, pool, result = 0, ThreadPoolExecutor(jobs), Fetched()
    running = {pool.submit(_fetch_one, entry, mirror): entry.path for entry in _entries(names)}
    bar = {"desc": "fetching", "unit": "file", "mininterval": 1, "file": sys.stdout}
    try:
        for future in tqdm(as_completed(running), total=len(running), disable=not progress, **bar):
            cause = getattr(future.exception(), "__cause__", None)
            silent = silent + 1 if isinstance(cause, NO_CONNECTION) else 0
            if silent == UNREACHABLE:
                break
    finally:
        pool.shutdown(cancel_futures=True)
    for future, path in running.items():
        try:
            (result.fetched if future.result() else result.kept).append(path)
        except CancelledError:
            result.failed[path] = f"not tried: no connection for {UNREACHABLE} files in a row"
        except (_Failure, OSError) as error:
            result.failed[path] = str(error)
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
    with atomic_write(target) as partial:
        for attempt in range(ATTEMPTS):
            try:
                _transfer(entry, mirror, partial)
                break
            except _Failure as failure:
                if failure.pause is None or attempt == ATTEMPTS - 1:
                    raise
                time.sleep(max(failure.pause, PAUSE * 2**attempt))
    return True


def _transfer(entry: Entry, mirror: str, partial: Path) -> None:
    """One attempt: the file's bytes into ``partial``, checked."""
    if mirror and "://" not in mirror:
        source = Path(mirror).expanduser() / entry.path
        if reason := problem(source, entry):
            raise _Failure(f"{reason} in the mirror {mirror}", None)
        shutil.copyfile(source, partial)
    else:
        origin = f"{ORIGIN}/{entry.repository}/{entry.commit}/{quote(entry.upstream_path)}"
        url = f"{mirror.rstrip('/')}/{quote(entry.path)}" if mirror else origin
        _download(url, partial, entry.size)
    if reason := problem(partial, entry):
        raise _Failure(f"came with {reason}")


def _download(url: str, partial: Path, size: int) -> None:
    until = time.monotonic() + TIMEOUT + size / SLOWEST
    try:
        with requests.get(url, stream=True, timeout=TIMEOUT) as answer, partial.open("wb") as file:
            answer.raise_for_status()
            for data in answer.iter_content(CHUNK):
                file.write(data)
                if file.tell() > size:
                    raise _Failure(f"more than the {size} bytes expected")
                if time.monotonic() > until:
                    raise _Failure(f"too slow: {url}")
    except requests.HTTPError as error:
        code, after = error.response.status_code, error.response.headers.get("Retry-After", "")
        pause = min(int(after), LONGEST_PAUSE) if after.isdigit() else 0.0
        passes = code == 429 or code >= 500
        raise _Failure(f"HTTP {code} from {url}", pause if passes else None) from error
    except requests.RequestException as error:
        raise _Failure(f"no answer ({type(error).__name__}): {url}") from error
