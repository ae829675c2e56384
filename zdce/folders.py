"""Files and folders of photographs and videos in, the same brighter out."""

from __future__ import annotations

import functools
import os
import sys
import tempfile
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from zdce import __version__, photos, video
from zdce.enhance import Enhancer
from zdce.files import atomic_write, content, escape_control_characters
from zdce.model import CurveNet
from zdce.photos import Photo, PhotoError, read_photo, write_photo

LARGE = 2**25  # pixels of a photograph during which no other is read ahead: memory stays bounded
SHEET = 800  # pixels of the longer side of each half of a sheet, at most
SHEET_NAME = "_compare.jpg"
ONLY_READ = (*photos.HEIF_SUFFIXES, *photos.RAW_SUFFIXES, *video.ONLY_READ)
KNOWN = (*photos.SUFFIXES, *video.SUFFIXES)  # what is read and written
FAILURES = (PhotoError, MemoryError, RuntimeError)  # RuntimeError: out of memory, in torch

Job = tuple[Path, Path]  # source, target
Call = Callable[[Path, Path], tuple[str, ...]]  # source, target → what was left out
Done = tuple[str | None, tuple[str, ...]]  # why a job failed or None; what was left out


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
        kinds = video.SUFFIXES if video.is_video(source) else photos.SUFFIXES
        wanted = kinds.get(self.extension)  # None: of the other kind, or none named
        keeps = wanted is None or kinds.get(source.suffix.lower()) == wanted
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

    def done(self, job: Job, done: Done) -> None:
        """Note what became of one file."""
        (source, target), (reason, notes) = job, done
        if reason is not None:
            return self.fail(source, reason)
        self.written.append(target)
        for note in notes:
            self.notes.setdefault(note, []).append(source)

    def lines(self) -> list[str]:
        """What is to be told at the end, once for all files."""
        lines = [f"not taken: {_counted(self.left_out)}"] if self.left_out else []
        for note, sources in self.notes.items():
            which = escape_control_characters(sources[0].name)
            which += f" and {len(sources) - 1} more" if len(sources) > 1 else ""
            lines.append(f"{which}: {note}")
        return lines


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
    if len(jobs) > len(videos):
        jobs = [job for job in jobs if not video.is_video(job[0])]
        about = {"total": len(jobs), "desc": "enhance", "unit": "photo"}
        done = _photographs(jobs, enhancer, options)
        for each in tqdm(done, disable=not options.progress, **about):
            outcome.done(*each)
    for each in _videos(videos, enhancer, options) if videos else ():
        outcome.done(*each)
    return outcome


# What is done


def _photographs(
    jobs: list[Job], enhancer: Enhancer, options: Options
) -> Iterator[tuple[Job, Done]]:
    """What becomes of each, in order, on a cluster or here, where one is read, one enhanced and one
    written at a time.
    """
    with ExitStack() as stack:
        call, failures, workers = _here(enhancer, options.quality, options.compare), FAILURES, 3
        if options.scheduler:
            try:
                from distributed import Client
            except ImportError:
                raise ValueError('--scheduler needs Dask: pip install "zdce[cluster]"') from None
            client = stack.enter_context(Client(options.scheduler))
            call = functools.partial(_there, client, (enhancer.options, options.quality))
            failures, workers = Exception, 2 * max(1, sum(client.nthreads().values()))
        pool = stack.enter_context(ThreadPoolExecutor(workers))
        attempt = functools.partial(_attempt, call, failures=failures)
        yield from zip(jobs, pool.map(attempt, jobs), strict=True)


def _videos(jobs: list[Job], enhancer: Enhancer, options: Options) -> Iterator[tuple[Job, Done]]:
    """As :func:`_photographs`, one after another."""
    speed = options.video_speed or ("fast" if isinstance(enhancer.net, CurveNet) else "faithful")
    if speed != enhancer.speed:
        enhancer = Enhancer(**enhancer.options | {"speed": speed})

    def call(source: Path, target: Path) -> tuple[str, ...]:
        return video.enhance_video(source, target, enhancer, progress=options.progress).notes

    yield from ((job, _attempt(call, job)) for job in jobs)


def _attempt(call: Call, job: Job, failures=FAILURES) -> Done:
    """What ``call`` made of a job; what is no fault of the file is raised."""
    try:
        return None, call(*job)
    except failures as error:
        if isinstance(error, PhotoError):
            return str(error), ()
        line = (str(error).splitlines() or [""])[0] or type(error).__name__
        return f"{job[0]}: {line}", ()


def _here(enhancer: Enhancer, quality: int | None, compare: bool = False) -> Call:
    """What enhances photographs on this machine, called by several threads.

    One is read at a time, none during a large one; one is enhanced at a time, on a GPU two, so that
    copies to and from it overlap with its work.
    """
    on_gpu = getattr(enhancer, "device", None) == torch.device("cuda")
    reading, enhancing = threading.Lock(), threading.Semaphore(2 if on_gpu else 1)
    how = {"quality": quality, "settings": _settings(enhancer)}

    def call(source: Path, target: Path) -> tuple[str, ...]:
        with ExitStack() as alone:
            alone.enter_context(reading)
            photo = read_photo(source)
            if photo.pixels.size <= 3 * LARGE:
                alone.close()
            before = _small(photo) if compare else None
            with enhancing:
                photo = enhancer(photo)
            lost = write_photo(photo, target, **how)
            if compare:
                after = _small(photo)
                line = np.full((len(after), 4, 3), np.iinfo(after.dtype).max, after.dtype)
                write_photo(Photo(np.hstack([before, line, after])), _sheet(target))
        return tuple(f"left out: {name}" for name in (*photo.notes, *lost))

    return call


def _small(photo: Photo) -> np.ndarray:
    """Its pixels, averaged down to what fits half a sheet."""
    height, width = photo.pixels.shape[:2]
    factor = min(-(-max(height, width) // SHEET), height, width)
    whole = photo.pixels[: height // factor * factor, : width // factor * factor]
    blocks = whole.reshape(height // factor, factor, width // factor, factor, 3)
    return np.rint(blocks.mean((1, 3), dtype=np.float32)).astype(photo.pixels.dtype)


def _settings(enhancer: Enhancer) -> str:
    """The line that outputs record: version and all that the result depends on."""
    weights = enhancer.options["weights"]
    model = Path(weights).name if weights else enhancer.options["model"]
    how = f"gamma {enhancer.gamma:g}, strength {enhancer.strength:g}, {enhancer.speed}"
    return f"zdce {__version__}: model {model}, {how}"


def _there(client, how: tuple, source: Path, target: Path) -> tuple[str, ...]:
    """As :func:`_here`, on a Dask cluster: the file's content goes there, and comes back."""
    words = (source.name, target.name, content(source, photos.MAX_BYTES), *how)
    made, (reason, notes) = client.submit(_on_worker, *words, pure=False, retries=1).result()
    if reason is not None:
        raise PhotoError(f"{source}: {reason}")
    with atomic_write(target) as partial:
        partial.write_bytes(made)
    return notes


def _on_worker(
    source: str, target: str, data: bytes, options: dict, quality: int | None
) -> tuple[bytes, Done]:
    """On a worker of the cluster: from the content of a file to that of the enhanced one."""
    with tempfile.TemporaryDirectory(prefix="zdce-") as folder:
        before, after = Path(folder) / "in" / source, Path(folder) / "out" / target
        before.parent.mkdir()
        before.write_bytes(data)
        call = _on_this_worker(tuple(sorted(options.items())), quality)
        reason, notes = _attempt(call, (before, after))
        if reason is not None:
            return b"", (reason.replace(f"{before}: ", "").replace(f"{after}: ", ""), ())
        return after.read_bytes(), (None, notes)


@functools.lru_cache(maxsize=2)
def _on_this_worker(options: tuple, quality: int | None) -> Call:
    return _here(Enhancer(**dict(options)), quality)


# What is planned


def _plan(sources: list[Path], out: Path, options: Options, outcome: Outcome) -> list[Job]:
    """All there is to do; what cannot be done goes to the outcome's ``failed`` and ``left_out``."""
    if not sources:
        raise ValueError("sources: name at least one photograph, video or folder")
    to_file = _is_file_name(sources, out, options)
    jobs: dict[Path, Path] = {}  # by target
    for source in sources:
        if to_file:
            pairs = [(source, out)]
        elif source.is_dir():
            pairs = _found(source, out, options, outcome)
        elif source.suffix.lower() in ONLY_READ and (reason := _not_taken(source, options)):
            pairs = []
            outcome.fail(source, f"{source}: {reason}")
        else:
            pairs = [(source, out / options.name(source))]
        for path, target in sorted(pairs, key=lambda pair: pair[0].suffix != pair[1].suffix):
            if path.suffix != target.suffix and not _same(jobs.get(target, path), path):
                # as a raw file beside its JPEG: its own suffix stays within the name
                target = target.with_name(path.name + options.suffix + target.suffix)
            if not _same(owner := jobs.setdefault(target, path), path):
                shared = f"{owner} and {path} would both be written to {target}"
                raise ValueError(f"{shared}: enhance them apart")
    _check_inputs(jobs, out, options)
    return [(path, target) for target, path in jobs.items()]


def _is_file_name(sources: list[Path], out: Path, options: Options) -> bool:
    """Whether ``out`` names the one output; ValueError where it is neither that nor a folder."""
    if out.is_dir():
        return False
    suffix, wrong = out.suffix.lower(), None
    if suffix in ONLY_READ:
        wrong = f"{suffix} files are read, not written"
    elif suffix in KNOWN and (len(sources) > 1 or sources[0].is_dir()):
        wrong = "a file name goes with a single photograph or video; name a folder for more"
    elif suffix in KNOWN and (options.format or options.suffix):
        wrong = "names a file, so format and suffix are not needed; or name a folder"
    elif suffix not in KNOWN and out.exists():
        wrong = "is a file without a photo suffix; name a folder, a photo or a video file"
    if wrong:
        raise ValueError(f"out={out}: {wrong}")
    return suffix in KNOWN


def _check_inputs(jobs: dict[Path, Path], out: Path, options: Options) -> None:
    """ValueError where an output, or a sheet, would fall on an input, or a sheet on an output."""
    inputs = {_identity(path): path for path in jobs.values()}
    sheets = [_sheet(target) for target in jobs if options.compare]
    for target in (*jobs, *sheets):
        if which := inputs.get(_identity(target)):
            raise ValueError(f"out={out}: would overwrite the input {which}; name another folder")
    for sheet in sheets:
        if sheet in jobs:
            raise ValueError(f"compare: {sheet} is the output of {jobs[sheet]} already")


def _found(source: Path, out: Path, options: Options, outcome: Outcome) -> list[Job]:
    """(file, its place below ``out``) in a folder; results of an earlier run inside it are passed
    over, and what is not taken is counted.
    """
    jobs, left_out, unread, in_place = [], Counter(), [], _same(source, out)
    for folder, folders, names in os.walk(source, onerror=unread.append):
        here = Path(folder)
        left_out["hidden"] += sum(name.startswith(".") for name in (*folders, *names))
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        left_out["links to folders"] += sum((here / name).is_symlink() for name in folders)
        folders[:] = [name for name in folders if in_place or not _same(here / name, out)]
        for path in (here / name for name in sorted(names) if not name.startswith(".")):
            beside = bool(options.suffix) and path.stem.endswith(options.suffix)
            if in_place and (beside or path.name.endswith(SHEET_NAME)):
                left_out["results of an earlier run"] += 1
            elif reason := _not_taken(path, options):
                left_out[reason] += 1
            else:
                jobs.append((path, out / path.relative_to(source).with_name(options.name(path))))
    for error in unread:
        outcome.fail(Path(error.filename), f"{error.filename}: cannot be read: {error.strerror}")
    if jobs or unread:
        outcome.left_out += left_out
    else:
        reason = f"holds no photographs or videos ({', '.join(KNOWN)})"
        if +left_out:
            reason = f"holds nothing that is taken: {_counted(+left_out)}"
        outcome.fail(source, f"{source}: {reason}")
    return jobs


def _not_taken(path: Path, options: Options) -> str | None:
    """Kind of a file of a folder that is no job, with what would make it one; None for a job."""
    suffix, kind = path.suffix.lower(), escape_control_characters(path.suffix[1:].upper())
    if suffix not in ONLY_READ:
        return None if suffix in KNOWN else kind or "without suffix"
    raw = "raw: " if suffix in photos.RAW_SUFFIXES else ""
    if extra := photos.needed_extra(path):
        return f'{kind} ({raw}needs an extra: pip install "zdce[{extra}]")'
    written, add = photos.SUFFIXES, "jpg, or tif for 16 bits"
    if video.is_video(path):
        kind, written, add = f"{kind} video", video.SUFFIXES, "mp4"
    reason = f"{kind} ({raw}read, not written: add --format {add})"
    return None if options.extension in written else reason


def _is_done(source: Path, target: Path) -> bool:
    try:
        return target.stat().st_mtime_ns >= source.stat().st_mtime_ns
    except OSError:
        return False


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
