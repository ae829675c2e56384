"""Bringing data sets from where they are published, or from a mirror: right bytes or none.

pooch downloads and follows redirects. Around it stands what it leaves open: no more bytes than were
promised, no server that trickles for ever, no second request for what is not there, patience where
a server asks for it, and nothing left behind by a process that was killed.
"""

from __future__ import annotations

import os
import shutil
import sys
import time
import warnings
from collections.abc import Iterable
from concurrent.futures import CancelledError, ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO
from urllib.parse import quote

import requests
from tqdm import tqdm

from zdce import paths
from zdce.datasets import Entry, entries_of, is_address, kept_at, places_of, problem
from zdce.files import atomic_write

with warnings.catch_warnings():
    warnings.filterwarnings("ignore", message="IProgress not found")  # progress is plain lines here
    import pooch

TIMEOUT = 30  # seconds without a byte
SLOWEST = 4_000  # bytes a second over a whole file, after TIMEOUT
CHUNK = 1 << 10  # bytes after which that is looked at
ATTEMPTS = 3  # per file, for failures that may pass
PAUSE = 0.5  # seconds before the second attempt, doubled before the third
LONGEST_PAUSE = 60  # seconds, if a server asks for patience (Retry-After)
UNREACHABLE = 8  # files in a row without a connection: the rest is not tried


@dataclass
class Fetched:
    """What :func:`fetch` did, as paths in the manifest; ``failed`` maps each to its reason."""

    kept: list[str] = field(default_factory=list)  # there already, right sha256
    fetched: list[str] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)


class _Failure(Exception):
    """One attempt failed; ``pause``: how long to wait before another, None if there is no point."""

    def __init__(self, reason: str, pause: float | None = None, connected: bool = True):
        super().__init__(reason)
        self.pause, self.connected = pause, connected


def fetch(
    names: str | Iterable[str],
    mirror: str | os.PathLike | None = None,
    jobs: int = 8,
    progress: bool = True,
) -> Fetched:
    """Bring sets into ``paths.data()``, ``jobs`` files at a time, from the mirror or their origin.

    mirror: a folder or an http(s) address that holds the manifest's paths; default:
    ``paths.mirror()``. A file counts as there only after its sha256 was checked; files already
    there are kept, so a second call brings what is missing. A failing file stops no other: see
    ``Fetched.failed``. Raises ValueError for an unknown set or mirror.
    """
    mirror = mirror or paths.mirror()
    if mirror and not is_address(mirror) and not Path(mirror).expanduser().is_dir():
        raise ValueError(f"mirror={str(mirror)!r} is neither a folder nor an http(s) address")
    silent, pool, result = 0, ThreadPoolExecutor(jobs), Fetched()
    running = {pool.submit(_fetch_one, entry, mirror): entry.path for entry in entries_of(names)}
    bar = {"desc": "fetching", "unit": "file", "mininterval": 1, "file": sys.stdout}
    try:
        for future in tqdm(as_completed(running), total=len(running), disable=not progress, **bar):
            silent = 0 if getattr(future.exception(), "connected", True) else silent + 1
            if silent == UNREACHABLE:
                break
    finally:
        pool.shutdown(cancel_futures=True)
    for future, path in running.items():
        try:
            (result.fetched if future.result() else result.kept).append(path)
        except CancelledError:
            result.failed[path] = f"not tried: no connection for {UNREACHABLE} files in a row"
        except (_Failure, OSError, ValueError) as error:
            result.failed[path] = str(error)
    return result


def verify(names: str | Iterable[str]) -> dict[str, str]:
    """Hash every file of the sets where it lies, data or mirror folder: path → what is wrong."""
    found = {}
    for entry in entries_of(names):
        places = places_of(entry.path)
        found[entry.path] = problem(next(filter(Path.is_file, places), places[0]), entry)
    return {path: reason for path, reason in found.items() if reason}


def _fetch_one(entry: Entry, mirror: str | os.PathLike | None) -> bool:
    """Bring one file; False if it was there. Whatever goes wrong leaves no file, nor a part."""
    target = kept_at(entry.path)
    if not problem(target, entry):
        return False
    with atomic_write(target) as partial:
        if not problem(target, entry):  # another process was bringing it meanwhile
            shutil.copyfile(target, partial)
            return False
        for attempt in range(ATTEMPTS):
            try:
                _transfer(entry, mirror, partial)
                break
            except _Failure as failure:
                if failure.pause is None or attempt == ATTEMPTS - 1:
                    raise
                time.sleep(max(failure.pause, PAUSE * 2**attempt))
    return True


def _transfer(entry: Entry, mirror: str | os.PathLike | None, partial: Path) -> None:
    """One attempt: the file's bytes into ``partial``, checked."""
    pause = None
    if mirror and not is_address(mirror):
        source = Path(mirror).expanduser() / entry.path
        if not source.is_file() or source.stat().st_size != entry.size:
            raise _Failure(f"{problem(source, entry)} in the mirror {mirror}")
        shutil.copyfile(source, partial)
    else:
        pause = 0.0
        url = f"{str(mirror).rstrip('/')}/{quote(entry.path)}" if mirror else entry.origin
        _download(url, partial, entry.size)
    if reason := problem(partial, entry):
        raise _Failure(f"came with {reason}", pause)


class _Bounded:
    """What a download may write to: no more bytes than promised, no slower than SLOWEST."""

    def __init__(self, file: BinaryIO, size: int) -> None:
        self.file, self.left, self.size = file, size, size
        self.until = time.monotonic() + TIMEOUT + size / SLOWEST

    def write(self, data: bytes) -> int:
        self.left -= len(data)
        if self.left < 0:
            raise _Failure(f"more than the {self.size} bytes expected")
        if time.monotonic() > self.until:
            raise _Failure("too slow", 0.0)
        return self.file.write(data)

    def flush(self) -> None:
        self.file.flush()


def _download(url: str, partial: Path, size: int) -> None:
    try:
        with partial.open("wb") as file:
            pooch.HTTPDownloader(chunk_size=CHUNK, timeout=TIMEOUT)(url, _Bounded(file, size), None)
    except requests.HTTPError as error:
        code, after = error.response.status_code, error.response.headers.get("Retry-After", "")
        pause = min(int(after), LONGEST_PAUSE) if after.isdigit() else 0.0
        passes = code >= 500 or code in (408, 425, 429)
        raise _Failure(f"HTTP {code} from {url}", pause if passes else None) from error
    except requests.exceptions.ChunkedEncodingError as error:
        raise _Failure(f"broken off: {url}", 0.0) from error
    except (requests.ConnectionError, requests.Timeout) as error:
        reason = f"no connection ({type(error).__name__}): {url}"
        raise _Failure(reason, 0.0, connected=False) from error
    except requests.RequestException as error:
        raise _Failure(f"{type(error).__name__}: {url}") from error
