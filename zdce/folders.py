"""Files and folders of photographs and videos in, the same brighter out."""

from __future__ import annotations

import functools
import importlib.metadata
import os
import sys
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from tqdm import tqdm

from zdce import photos, video
from zdce.enhance import Enhancer
from zdce.files import atomic_write, content, escape_control_characters
from zdce.model import CurveNet
from zdce.photos import Photo, PhotoError, read_photo, write_photo

LARGE = 2**25  # pixels of a photograph during which no other is read ahead: memory stays bounded
SHEET = 800  # pixels of the longer side of each half of a sheet, at most
SHEET_NAME = "_compare.jpg"
ONLY_READ = (*photos.HEIF_SUFFIXES, *photos.RAW_SUFFIXES)
KNOWN = (*photos.SUFFIXES, *video.SUFFIXES)  # what is read and written


@dataclass(frozen=True)
class Options:
    """How :func:`enhance_files` goes about it.

    format: suffix of another format, such as "jpg" for photographs or "mp4" for videos; files of
    that kind are written so, all others keep theirs. quality: 1 – 100, of JPEG, WebP and AVIF.
    suffix: text behind the names of outputs. compare: write a sheet with the photograph before and
    after beside each, ``NAME_compare.jpg``. skip_done: leave files alone whose output is there and
    not older than they. dry_run: plan and check everything, write nothing. scheduler: address of a
    Dask cluster that enhances photographs instead; its workers need this package and the weights,
    but no folder shared with this machine. video_speed: "fast" unless told otherwise, or "faithful"
    where a network has no curves to estimate small.
    """

    format: str | None = None
    quality: int | None = None
    suffix: str = ""
    compare: bool = False
    skip_done: bool = False
    dry_run: bool = False
    scheduler: str | None = None
    video_speed: str | None = None
    progress: bool = True

    def __post_init__(self) -> None:
        if self.format is not None and self.extension not in KNOWN:
            raise ValueError(f"format={self.format!r}: choose one of {', '.join(KNOWN)}")
        if self.quality is not None and not 1 <= self.quality <= 100:
            raise ValueError(f"quality={self.quality}: must lie in 1 – 100")
        if any(character in self.suffix for character in "/\\\0"):
            raise ValueError(f"suffix={self.suffix!r}: part of a file's name, so without / and \\")
        if self.compare and self.scheduler:
            raise ValueError("compare: sheets are made on this machine alone; leave scheduler out")

    @property
    def extension(self) -> str:
        return f".{(self.format or '').lower().removeprefix('.')}"

    def name(self, source: Path) -> str:
        """Of the output of a file."""
        kinds = photos.SUFFIXES if self.extension in photos.SUFFIXES else video.SUFFIXES
        old = source.suffix.lower()
        same_kind = video.is_video(source) == (self.extension in video.SUFFIXES)
        keeps = self.format is None or not same_kind or kinds.get(old) == kinds[self.extension]
        return source.stem + self.suffix + (source.suffix if keeps else self.extension)


@dataclass
class Outcome:
    """What became of :func:`enhance_files`.

    written: files, without sheets. failed: (source, reason). skipped: outputs that were there
    already. planned: (source, output) of a dry run. left_out: how many files of a folder were no
    photograph or video that is taken, by kind. notes: what could not travel along with a
    photograph, and the sources.
    """

    written: list[Path] = field(default_factory=list)
    failed: list[tuple[Path, str]] = field(default_factory=list)
    skipped: list[Path] = field(default_factory=list)
    planned: list[tuple[Path, Path]] = field(default_factory=list)
    left_out: Counter[str] = field(default_factory=Counter)
    notes: dict[str, list[Path]] = field(default_factory=dict)

    def fail(self, source: Path, reason: str) -> None:
        """Note a failure and say so on stderr."""
        self.failed.append((source, reason))
        tqdm.write(escape_control_characters(reason), file=sys.stderr)

    def done(self, result: Result) -> None:
        """Note what became of one file."""
        if result.reason is not None:
            return self.fail(result.source, result.reason)
        self.written.append(result.target)
        for note in result.notes:
            self.notes.setdefault(note, []).append(result.source)

    def lines(self) -> list[str]:
        """What is to be told at the end, once for all files."""
        lines = [f"not taken: {_counted(self.left_out)}"] if self.left_out else []
        for note, sources in self.notes.items():
            which = escape_control_characters(sources[0].name)
            which += f" and {len(sources) - 1} more" if len(sources) > 1 else ""
            lines.append(f"{which}: {note}")
        return lines


@dataclass(frozen=True)
class Result:
    """Of one file: why it failed, or None; what was left out of the output."""

    source: Path
    target: Path
    reason: str | None
    notes: tuple[str, ...] = ()


Job = tuple[Path, Path]  # source, target


def enhance_files(
    sources: Iterable[str | os.PathLike], out: str | os.PathLike, enhancer: Enhancer, **options
) -> Outcome:
    """Enhance files, and folders with all that lies below them, into ``out``.

    sources: files with a video suffix are videos, others are taken as photographs whatever their
    name; in folders, those with a photo or video suffix, hidden ones left out. Name, place and
    format are kept unless ``options``, those of :class:`Options`, say otherwise; HEIC and raw files
    are read alone, so they need a format. out: a folder, created if need be; or a file name when
    the one source is a file and ``out`` has a suffix of the same kind. While one photograph is
    enhanced, the next is read and the one before written; large ones go alone. Videos follow the
    photographs, on this machine, one after another (:func:`zdce.video.enhance_video`).

    A photograph or video that fails gives one line on stderr, the rest is still done, and the
    outcome lists it. Files of the same name in ``out`` are replaced, an input never: ValueError,
    before anything is written, when an output would fall on an input, when two sources would share
    an output, and when there is no source. Source: ours.
    """
    outcome, options = Outcome(), Options(**options)
    jobs = _plan([Path(source) for source in sources], Path(out), options, outcome)
    if options.skip_done:
        outcome.skipped = [target for source, target in jobs if _is_done(source, target)]
        jobs = [job for job in jobs if not _is_done(*job)]
    if options.dry_run:
        outcome.planned = jobs
        return outcome
    videos = [job for job in jobs if video.is_video(job[0])]
    jobs = [job for job in jobs if not video.is_video(job[0])]
    hidden = not (options.progress and jobs)
    with tqdm(total=len(jobs), desc="enhance", unit="photo", disable=hidden) as bar:
        run = _here if options.scheduler is None else _cluster
        for result in run(jobs, enhancer, options) if jobs else ():
            outcome.done(result)
            bar.update()
    for result in _videos(videos, enhancer, options):
        outcome.done(result)
    return outcome


def _here(jobs: list[Job], enhancer: Enhancer, options: Options) -> Iterator[Result]:
    """In order; reading and writing go on beside the network, but for large photographs."""
    write = functools.partial(_write, settings=_settings(enhancer), quality=options.quality)
    with ThreadPoolExecutor(1) as reader, ThreadPoolExecutor(1) as writer:
        coming: Future | None = None
        writing: tuple[Job, Future] | None = None
        for job, after in zip(jobs, [*jobs[1:], None], strict=True):
            reading = coming or reader.submit(read_photo, job[0])
            large = reading.exception() is None and reading.result().pixels.size > 3 * LARGE
            coming = reader.submit(read_photo, after[0]) if after and not large else None
            done: Future = Future()
            try:
                before = _small(reading.result()) if options.compare else None
                enhanced = enhancer(reading.result())
            except FAILURES as error:
                done.set_exception(error)
            del reading
            if writing:
                yield _result(*writing)
            if not done.done():
                done = writer.submit(write, enhanced, job[1], before=before)
                del enhanced
            writing = job, done
            if large:
                yield _result(*writing)
                writing = None
        if writing:
            yield _result(*writing)


def _write(
    photo: Photo, target: Path, *, settings: str, quality: int | None, before: np.ndarray | None
) -> tuple[str, ...]:
    """Write a photograph, and its sheet where ``before`` is given; what could not travel along."""
    notes = write_photo(photo, target, quality=quality, settings=settings)
    if before is not None:
        after = _small(photo)
        line = np.full((len(after), 4, 3), np.iinfo(after.dtype).max, after.dtype)
        write_photo(Photo(np.hstack([before, line, after])), _sheet(target))
    return tuple(f"left out: {name}" for name in (*photo.notes, *notes))


def _small(photo: Photo) -> np.ndarray:
    """Its pixels, averaged down to what fits half a sheet."""
    height, width = photo.pixels.shape[:2]
    factor = -(-max(height, width) // SHEET)
    if min(height, width) < factor:
        factor = 1
    whole = photo.pixels[: height // factor * factor, : width // factor * factor]
    blocks = whole.reshape(height // factor, factor, width // factor, factor, 3)
    return np.rint(blocks.mean((1, 3), dtype=np.float32)).astype(photo.pixels.dtype)


def _settings(enhancer: Enhancer) -> str:
    """The line that outputs record: version and all that the result depends on."""
    weights = enhancer.options["weights"]
    model = Path(weights).name if weights else enhancer.options["model"]
    how = f"gamma {enhancer.gamma:g}, strength {enhancer.strength:g}, {enhancer.speed}"
    try:
        version = f" {importlib.metadata.version('zdce')}"
    except importlib.metadata.PackageNotFoundError:  # run from a folder, not installed
        version = ""
    return f"zdce{version}: model {model}, {how}"


def _videos(jobs: list[Job], enhancer: Enhancer, options: Options) -> Iterator[Result]:
    """As :func:`_here`, for videos."""
    if jobs:
        curves = isinstance(enhancer.net, CurveNet)
        speed = options.video_speed or ("fast" if curves else "faithful")
        if speed != enhancer.speed:
            enhancer = Enhancer(**enhancer.options | {"speed": speed})
    for source, target in jobs:
        done: Future = Future()
        try:
            made = video.enhance_video(source, target, enhancer, progress=options.progress)
            done.set_result(getattr(made, "notes", ()))
        except FAILURES as error:
            done.set_exception(error)
        yield _result((source, target), done)


FAILURES = (PhotoError, MemoryError, RuntimeError)  # RuntimeError: out of memory, in torch


def _result(job: Job, done: Future) -> Result:
    """What became of a job; what is no fault of a photograph is raised."""
    error = done.exception()
    if error is None:
        return Result(*job, None, tuple(done.result()))
    if not isinstance(error, FAILURES):
        raise error
    ours = isinstance(error, PhotoError)
    return Result(*job, str(error) if ours else f"{job[0]}: {_first_line(error)}")


def _is_done(source: Path, target: Path) -> bool:
    try:
        return target.stat().st_mtime_ns >= source.stat().st_mtime_ns
    except OSError:
        return False


def _cluster(jobs: list[Job], enhancer: Enhancer, options: Options) -> Iterator[Result]:
    """As :func:`_here`, on the workers of a Dask cluster: file contents go there, and come back."""
    try:
        from distributed import Client
    except ImportError:
        raise ValueError('--scheduler needs Dask: pip install "zdce[cluster]"') from None
    with Client(options.scheduler) as client:
        many = 2 * max(1, sum(client.nthreads().values()))  # photographs on their way at a time
        for start in range(0, len(jobs), many):
            sent = []
            for job in jobs[start : start + many]:
                try:
                    data = content(job[0], photos.MAX_BYTES)
                except OSError as error:
                    reason = f"{job[0]}: cannot be read: {error.strerror or error}"
                    yield Result(*job, reason)
                    continue
                words = (job[0].name, job[1].name, data, enhancer.options, options.quality)
                sent.append((job, client.submit(_on_worker, *words, pure=False, retries=1)))
            for job, future in sent:
                yield _brought(job, future)


def _brought(job: Job, future) -> Result:
    """Write what a worker made, whole or not at all."""
    source, target = job
    try:
        data, reason, notes = future.result()
    except Exception as error:
        return Result(*job, f"{source}: {_first_line(error)}")
    if reason is not None:
        return Result(*job, f"{source}: {reason}")
    try:
        with atomic_write(target) as partial:
            partial.write_bytes(data)
    except OSError as error:
        return Result(*job, f"{target}: cannot be written: {error.strerror or error}")
    return Result(*job, None, notes)


def _on_worker(
    source: str, target: str, data: bytes, options: dict, quality: int | None
) -> tuple[bytes, str | None, tuple[str, ...]]:
    """On a worker of the cluster: a file's content → the enhanced file's content, why it failed,
    notes.
    """
    enhancer = _enhancer(tuple(sorted(options.items())))
    with tempfile.TemporaryDirectory(prefix="zdce-") as folder:
        before, after = Path(folder) / "in" / source, Path(folder) / "out" / target
        before.parent.mkdir()
        before.write_bytes(data)
        how = {"settings": _settings(enhancer), "quality": quality, "before": None}
        try:
            notes = _write(enhancer(read_photo(before)), after, **how)
        except FAILURES as error:
            reason = _first_line(error).replace(f"{before}: ", "").replace(f"{after}: ", "")
            return b"", reason, ()
        return after.read_bytes(), None, notes


@functools.lru_cache(maxsize=2)
def _enhancer(options: tuple) -> Enhancer:
    return Enhancer(**dict(options))


# The plan


def _plan(sources: list[Path], out: Path, options: Options, outcome: Outcome) -> list[Job]:
    """All there is to do; what cannot be done goes to the outcome's ``failed`` and ``left_out``."""
    if not sources:
        raise ValueError("sources: name at least one photograph, video or folder")
    to_file = _is_file_name(sources, out, options)
    jobs: dict[Path, Path] = {}  # by target
    failed: list[tuple[Path, str]] = []
    for source in sources:
        if to_file:
            pairs = [(source, out)]
        elif source.is_dir():
            pairs = _found(source, out, options, outcome, failed)
        elif reason := _only_read(source, options):
            failed.append((source, f"{source}: {reason}"))
            continue
        else:
            pairs = [(source, out / options.name(source))]
        for path, target in sorted(pairs, key=lambda pair: pair[0].suffix != pair[1].suffix):
            _add(jobs, path, target, options)
    _check_inputs(jobs, out, options)
    for source, reason in failed:
        outcome.fail(source, reason)
    return [(path, target) for target, path in jobs.items()]


def _is_file_name(sources: list[Path], out: Path, options: Options) -> bool:
    """Whether ``out`` names the one output; ValueError where it is neither that nor a folder."""
    if out.is_dir():
        return False
    suffix, wrong = out.suffix.lower(), None
    if suffix in ONLY_READ:
        wrong = "HEIC and raw files are read, not written"
    elif suffix in KNOWN and (len(sources) > 1 or sources[0].is_dir()):
        wrong = "a file name goes with a single photograph or video; name a folder for more"
    elif suffix in KNOWN and (options.format or options.suffix):
        wrong = "is a file's name already; leave format and suffix out"
    elif suffix not in KNOWN and out.exists():
        wrong = "is a file without a photo suffix; name a folder, a photo or a video file"
    if wrong:
        raise ValueError(f"out={out}: {wrong}")
    return suffix in KNOWN


def _add(jobs: dict[Path, Path], path: Path, target: Path, options: Options) -> None:
    """Note a job; where its name is taken, one of another format keeps its old suffix within the
    name.
    """
    owner = jobs.get(target, path)
    if not _same(owner, path) and path.suffix != target.suffix:  # a raw file beside its JPEG
        target = target.with_name(path.name + options.suffix + target.suffix)
        owner = jobs.get(target, path)
    if not _same(owner, path):
        raise ValueError(
            f"{owner} and {path} would both be written to {target}: enhance them apart"
        )
    jobs.setdefault(target, path)


def _check_inputs(jobs: dict[Path, Path], out: Path, options: Options) -> None:
    """ValueError where an output, or a sheet, would fall on an input, or a sheet on an output."""
    inputs = {_identity(path): path for path in jobs.values()}
    sheets = [_sheet(target) for target in jobs if options.compare]
    for target in (*jobs, *sheets):
        if _identity(target) in inputs:
            which = inputs[_identity(target)]
            raise ValueError(f"out={out}: would overwrite the input {which}; name another folder")
    for sheet in sheets:
        if sheet in jobs:
            raise ValueError(f"compare: {sheet} is the output of {jobs[sheet]} already")


def _found(
    source: Path, out: Path, options: Options, outcome: Outcome, failed: list[tuple[Path, str]]
) -> list[Job]:
    """(file, its place below ``out``) in a folder; results of an earlier run inside it are passed
    over.

    What is not taken is counted in the outcome's ``left_out`` by kind; folders that cannot be read,
    and those that hold nothing, go to ``failed``.
    """
    jobs, left_out, unread, in_place = [], Counter(), [], _same(source, out)
    for folder, folders, names in os.walk(source, onerror=unread.append):
        here = Path(folder)
        left_out["hidden"] += sum(name.startswith(".") for name in (*folders, *names))
        linked = [name for name in folders if (here / name).is_symlink()]
        left_out["links to folders"] += sum(not name.startswith(".") for name in linked)
        folders[:] = sorted(
            n for n in folders if not n.startswith(".") and (in_place or not _same(here / n, out))
        )
        for path in (here / name for name in sorted(names) if not name.startswith(".")):
            beside = bool(options.suffix) and path.stem.endswith(options.suffix)
            if in_place and (beside or path.name.endswith(SHEET_NAME)):
                left_out["results of an earlier run"] += 1
            elif reason := _not_taken(path, options):
                left_out[reason] += 1
            else:
                jobs.append((path, out / path.relative_to(source).with_name(options.name(path))))
    failed += [(Path(e.filename), f"{e.filename}: cannot be read: {e.strerror}") for e in unread]
    if jobs or unread:
        outcome.left_out += left_out
    else:
        known = f"; not taken: {_counted(+left_out)}" if +left_out else f" ({', '.join(KNOWN)})"
        failed.append((source, f"{source}: holds no photographs or videos{known}"))
    return jobs


def _not_taken(path: Path, options: Options) -> str | None:
    """Kind of a file of a folder that is no job, with what would make it one; None for a job."""
    suffix, kind = path.suffix.lower(), escape_control_characters(path.suffix[1:].upper())
    if suffix in ONLY_READ:
        reason = _only_read(path, options)
        return reason and f"{kind} ({reason})"
    return None if suffix in KNOWN else kind or "without suffix"


def _only_read(path: Path, options: Options) -> str | None:
    """Why a HEIC or raw file cannot be a job; None for one that can, and for other files."""
    if path.suffix.lower() not in ONLY_READ:
        return None
    kind = "HEIC/HEIF" if path.suffix.lower() in photos.HEIF_SUFFIXES else "raw files"
    if extra := photos.needed_extra(path):
        return f'{kind} need an extra: pip install "zdce[{extra}]"'
    if options.extension not in photos.SUFFIXES:
        return f"{kind} are read, not written: add --format jpg, or tif for 16 bits"
    return None


def _counted(kinds: Counter[str]) -> str:
    return ", ".join(f"{count} {kind}" for kind, count in sorted(kinds.items()))


def _sheet(target: Path) -> Path:
    return target.with_name(target.stem + SHEET_NAME)


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
