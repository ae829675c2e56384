"""Files and folders of photographs and videos in, the same brighter out."""

from __future__ import annotations

import functools
import os
import sys
import tempfile
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from tqdm import tqdm

from zdce import video
from zdce.enhance import Enhancer
from zdce.files import atomic_write, content, escape_control_characters
from zdce.model import CurveNet
from zdce.photos import (
    MAX_BYTES,
    SUFFIXES,
    PhotoError,
    read_photo,
    write_photo,
)

LARGE = (
    2**25
)  # pixels of a photograph during which no other is read ahead, so that memory stays bounded


@dataclass
class Outcome:
    """What became of :func:`enhance_files`: the files written, (source, reason) of those that failed, and the files
    that were there already."""

    written: list[Path] = field(default_factory=list)
    failed: list[tuple[Path, str]] = field(default_factory=list)
    skipped: list[Path] = field(default_factory=list)

    def fail(self, source: Path, reason: str) -> None:
        """Note a failure and say so on stderr."""
        self.failed.append((source, reason))
        tqdm.write(escape_control_characters(reason), file=sys.stderr)


def enhance_files(
    sources: Iterable[str | os.PathLike],
    out: str | os.PathLike,
    enhancer: Enhancer,
    *,
    progress: bool = True,
    skip_done: bool = False,
    scheduler: str | None = None,
    video_speed: str | None = None,
) -> Outcome:
    """Enhance files, and folders with all that lies below them, into ``out``; format, name and place are kept.

    sources: files with a video suffix are videos, others are taken as photographs whatever their name; in folders,
    those with a photo or video suffix, hidden ones left out. out: a folder, created if need be; or a file name when
    the one source is a file and ``out`` has a suffix of the same kind.
    skip_done: leave photographs alone whose output is there and not older than they. scheduler: address of a Dask
    cluster that enhances instead; its workers need this package and the weights, but no folder shared with this
    machine. While one photograph is enhanced, the next is read and the one before written; large ones go alone.
    Videos follow the photographs, on this machine, one after another (:func:`zdce.video.enhance_video`), at
    ``video_speed``: "fast" unless told otherwise, or "faithful" where a network has no curves to estimate small.

    A photograph or video that fails gives one line on stderr, the rest is still done, and the outcome lists it. An
    output of an earlier run is replaced, an input never: ValueError, before anything is written, when an output would
    fall on an input, when two sources would share an output, and when there is no source. Source: ours.
    """
    sources, out = [Path(source) for source in sources], Path(out)
    outcome = Outcome()
    jobs = _plan(sources, out, outcome)
    for _, reason in outcome.failed:
        tqdm.write(escape_control_characters(reason), file=sys.stderr)
    if skip_done:
        outcome.skipped = [target for source, target in jobs if _is_done(source, target)]
        jobs = [(source, target) for source, target in jobs if not _is_done(source, target)]
    videos = [job for job in jobs if video.is_video(job[0])]
    jobs = [job for job in jobs if not video.is_video(job[0])]
    with tqdm(
        total=len(jobs), desc="enhance", unit="photo", disable=not (progress and jobs)
    ) as bar:
        run = _here if scheduler is None else functools.partial(_cluster, scheduler=scheduler)
        for source, target, reason in run(jobs, enhancer) if jobs else ():
            if reason is None:
                outcome.written.append(target)
            else:
                outcome.fail(source, reason)
            bar.update()
    for source, target, reason in _videos(videos, enhancer, video_speed, progress):
        if reason is None:
            outcome.written.append(target)
        else:
            outcome.fail(source, reason)
    return outcome


Job = tuple[Path, Path]  # source, target


def _here(jobs: list[Job], enhancer: Enhancer) -> Iterator[tuple[Path, Path, str | None]]:
    """(source, target, why it failed or None) in order; reading and writing go on beside the network."""
    with ThreadPoolExecutor(1) as reader, ThreadPoolExecutor(1) as writer:
        coming = reader.submit(read_photo, jobs[0][0]) if jobs else None
        writing: tuple[Job, Future] | None = None

        def written() -> Iterator[tuple[Path, Path, str | None]]:
            if writing:
                yield (*writing[0], _reason(writing[0][0], writing[1]))

        for job, after in zip(jobs, [*jobs[1:], None], strict=True):
            reading, coming = coming, None
            large = reading.exception() is None and reading.result().pixels.size > 3 * LARGE
            if after and not large:
                coming = reader.submit(read_photo, after[0])
            enhanced: Future = Future()
            try:
                enhanced.set_result(enhancer(reading.result()))
            except FAILURES as error:
                enhanced.set_exception(error)
            del reading
            yield from written()
            failed = enhanced.exception() is not None
            writing = (
                job,
                enhanced if failed else writer.submit(write_photo, enhanced.result(), job[1]),
            )
            del enhanced
            if large:
                yield from written()
                writing = None
            if after and large:
                coming = reader.submit(read_photo, after[0])
        yield from written()


def _videos(
    jobs: list[Job], enhancer: Enhancer, speed: str | None, progress: bool
) -> Iterator[tuple[Path, Path, str | None]]:
    """As :func:`_here`, for videos."""
    if jobs:
        speed = speed or ("fast" if isinstance(enhancer.net, CurveNet) else "faithful")
        if speed != enhancer.speed:
            enhancer = Enhancer(**enhancer.options | {"speed": speed})
    for source, target in jobs:
        done: Future = Future()
        try:
            done.set_result(video.enhance_video(source, target, enhancer, progress=progress))
        except FAILURES as error:
            done.set_exception(error)
        yield source, target, _reason(source, done)


FAILURES = (PhotoError, MemoryError, RuntimeError)  # RuntimeError: out of memory, in torch


def _reason(source: Path, done: Future) -> str | None:
    """Why it failed, None if it did not; what is no fault of a photograph is raised."""
    error = done.exception()
    if error is None:
        return None
    if not isinstance(error, FAILURES):
        raise error
    return str(error) if isinstance(error, PhotoError) else f"{source}: {_first_line(error)}"


def _is_done(source: Path, target: Path) -> bool:
    try:
        return target.stat().st_mtime_ns >= source.stat().st_mtime_ns
    except OSError:
        return False


def _cluster(
    jobs: list[Job], enhancer: Enhancer, scheduler: str
) -> Iterator[tuple[Path, Path, str | None]]:
    """As :func:`_here`, on the workers of a Dask cluster: file contents go there, and come back."""
    try:
        from distributed import Client, as_completed
    except ImportError:
        raise ValueError('--scheduler needs Dask: pip install "zdce[cluster]"') from None
    waiting = iter(jobs)
    with Client(scheduler) as client:
        most = 2 * max(1, sum(client.nthreads().values()))  # photographs on their way at a time
        running, done = {}, as_completed()

        def more() -> Iterator[tuple[Path, Path, str | None]]:
            """Submit one more; those that cannot be read are yielded instead."""
            for source, target in waiting:
                try:
                    data = content(source, MAX_BYTES)
                except OSError as error:
                    yield source, target, f"{source}: cannot be read: {error.strerror or error}"
                    continue
                future = client.submit(
                    _on_worker,
                    source.name,
                    target.name,
                    data,
                    enhancer.options,
                    pure=False,
                    retries=1,
                )
                running[future] = (source, target)
                done.add(future)
                return

        for _ in range(most):
            yield from more()
        if not running:
            return
        for future in done:
            source, target = running.pop(future)
            reason = None
            if future.status != "finished":
                reason = f"{source}: {_first_line(future.exception())}"
            else:
                data, reason = future.result()
                reason = _kept(data, target) if reason is None else f"{source}: {reason}"
            future.release()
            yield source, target, reason
            yield from more()


def _kept(data: bytes, target: Path) -> str | None:
    """Write what a worker made, whole or not at all; why that failed, or None."""
    try:
        with atomic_write(target) as partial:
            partial.write_bytes(data)
    except OSError as error:
        return f"{target}: cannot be written: {error.strerror or error}"
    return None


def _on_worker(source: str, target: str, data: bytes, options: dict) -> tuple[bytes, str | None]:
    """On a worker of the cluster: a file's content → the enhanced file's content, and why it failed or None."""
    enhancer = _enhancer(tuple(sorted(options.items())))
    with tempfile.TemporaryDirectory(prefix="zdce-") as folder:
        before, after = Path(folder) / "in" / source, Path(folder) / "out" / target
        before.parent.mkdir()
        before.write_bytes(data)
        try:
            write_photo(enhancer(read_photo(before)), after)
        except FAILURES as error:
            return b"", _first_line(error).replace(f"{before}: ", "").replace(f"{after}: ", "")
        return after.read_bytes(), None


@functools.lru_cache(maxsize=2)
def _enhancer(options: tuple) -> Enhancer:
    return Enhancer(**dict(options))


def _plan(sources: list[Path], out: Path, outcome: Outcome) -> list[tuple[Path, Path]]:
    """(source, target) of all there is to do; folders without a photograph go to ``outcome.failed``."""
    known = (*SUFFIXES, *video.SUFFIXES)
    to_file = out.suffix.lower() in known and not out.is_dir()
    if not sources:
        raise ValueError("sources: name at least one photograph, video or folder")
    if to_file and (len(sources) > 1 or sources[0].is_dir()):
        raise ValueError(
            f"out={out}: a file name goes with a single photograph or video; name a folder for more"
        )
    if out.exists() and not out.is_dir() and not to_file:
        raise ValueError(
            f"out={out}: is a file without a photo suffix; name a folder, a photo or a video file"
        )
    jobs: dict[Path, Path] = {}  # by target
    for source in sources:
        unread: list[OSError] = []
        pairs = [(source, out)] if to_file else list(_targets(source, out, unread))
        for error in unread:
            outcome.failed.append(
                (Path(error.filename), f"{error.filename}: cannot be read: {error.strerror}")
            )
        if not pairs and not unread:
            outcome.failed.append(
                (source, f"{source}: holds no photographs or videos ({', '.join(known)})")
            )
        for path, target in pairs:
            owner = jobs.setdefault(target, path)
            if not _same(owner, path):
                raise ValueError(
                    f"{owner} and {path} would both be written to {target}: enhance them apart"
                )
    inputs = {_identity(path): path for path in jobs.values()}
    for target in jobs:
        if _identity(target) in inputs:
            raise ValueError(
                f"out={out}: would overwrite the input {inputs[_identity(target)]}; name another folder"
            )
    return [(path, target) for target, path in jobs.items()]


def _targets(source: Path, out: Path, unread: list[OSError]) -> Iterator[tuple[Path, Path]]:
    """(file, its place below ``out``) for a file or a folder; results of an earlier run inside it are left out.

    Folders that cannot be read go to ``unread``."""
    if not source.is_dir():
        yield source, out / source.name
        return
    for folder, folders, names in os.walk(source, onerror=unread.append):
        here = Path(folder)
        folders[:] = sorted(
            n for n in folders if not n.startswith(".") and not _same(here / n, out)
        )
        for name in sorted(names):
            if not name.startswith(".") and Path(name).suffix.lower() in (
                *SUFFIXES,
                *video.SUFFIXES,
            ):
                yield here / name, out / (here / name).relative_to(source)


def _same(one: Path, other: Path) -> bool:
    return _identity(one) == _identity(other)


def _identity(path: Path) -> tuple[int, int] | Path:
    """Equal for two names of one file."""
    try:
        stat = path.stat()
    except OSError:
        return path.absolute()
    return stat.st_dev, stat.st_ino


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [""])[0] or type(error).__name__
