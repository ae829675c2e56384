"""Files and folders of photographs and videos in, the same brighter out."""

import functools
import os
import sys
import threading
from collections import Counter
from collections.abc import Iterable, Iterator
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from mimetypes import guess_type
from pathlib import Path

import numpy as np
from PIL import Image
from tqdm import tqdm

from zdce import __version__, photos, video
from zdce.enhance import Enhancer
from zdce.files import escape_control_characters
from zdce.model import CurveNet
from zdce.photos import Photo, PhotoError, read_photo, write_photo

LARGE = 2**25  # pixels of a photograph during which no other is read ahead: memory stays bounded
SHEET = 800  # pixels of the longer side of each half of a sheet, at most
SHEET_NAME = "_compare.jpg"
ONLY_READ = (*photos.HEIF_SUFFIXES, *photos.RAW_SUFFIXES, *video.ONLY_READ)
FORMATS = {False: photos.SUFFIXES, True: video.SUFFIXES}  # of photographs, of videos: by suffix
KNOWN = (*photos.SUFFIXES, *video.SUFFIXES)  # what is read and written
FAILURES = (PhotoError, MemoryError, RuntimeError)  # RuntimeError: out of memory, in torch

Job = tuple[Path, Path]  # source, target
Notes = tuple[str, ...]  # what could not travel along
READING, ENHANCING = threading.Lock(), threading.Lock()  # one photograph at a time each
_enhancer = functools.lru_cache(maxsize=2)(Enhancer)  # of a worker of a cluster


@dataclass
class Options:
    """How :func:`enhance_files` goes about it."""

    format: str | None = None  # suffix of another, of photographs or of videos; the others keep it
    quality: int | None = None  # 1 – 100, of JPEG, WebP and AVIF
    suffix: str = ""  # text behind the names of outputs
    compare: bool = False  # also write NAME_compare.jpg: a photograph before and after
    skip_done: bool = False  # leave files alone whose output is not older
    dry_run: bool = False  # plan and check, write nothing
    scheduler: str | None = None  # of a Dask cluster whose workers see the same files
    video_speed: str | None = None  # faithful, or fast (default, where a network has curves)

    def __post_init__(self) -> None:
        if self.format:
            self.format = f".{self.format.lower().removeprefix('.')}"
            if self.format not in KNOWN:
                raise ValueError(f"format={self.format!r}: choose one of {', '.join(KNOWN)}")

    def renamed(self, source: Path) -> Path:
        """The file's path with its output's name."""
        formats = FORMATS[video.is_video(source)]
        wanted = formats.get(self.format)  # None: of the other kind, or none named
        same = wanted is None or formats.get(source.suffix.lower()) == wanted
        suffix = source.suffix if same else self.format
        return source.with_name(source.stem + self.suffix + suffix)


@dataclass
class Outcome:
    """What became of :func:`enhance_files`."""

    written: list[Path] = field(default_factory=list)  # without sheets
    failed: list[tuple[Path, str]] = field(default_factory=list)  # source, reason
    skipped: list[Path] = field(default_factory=list)  # outputs that were there already
    planned: list[Job] = field(default_factory=list)  # of a dry run
    left_out: Counter[str] = field(default_factory=Counter)  # files of folders not taken, by kind
    notes: dict[str, list[Path]] = field(default_factory=dict)  # what could not travel: sources

    def fail(self, source: Path, reason: str | Exception) -> None:
        """Note a failure and say so on stderr, in one line that names the file."""
        if not isinstance(reason, PhotoError):
            line = (str(reason).splitlines() or [""])[0]
            reason = f"{source}: {line or type(reason).__name__}"
        self.failed.append((source, str(reason)))
        tqdm.write(escape_control_characters(str(reason)), file=sys.stderr)

    def lines(self) -> list[str]:
        """What is to be told at the end, once for all files."""
        kinds = ", ".join(f"{count} {kind}" for kind, count in sorted(self.left_out.items()))
        lines = [f"not taken: {kinds}"] if kinds else []
        for note, sources in self.notes.items():
            which = escape_control_characters(sources[0].name)
            which += f" and {len(sources) - 1} more" if len(sources) > 1 else ""
            lines.append(f"{which}: {note}")
        return lines


def enhance_files(
    sources: Iterable[str | os.PathLike], out: str | os.PathLike, enhancer: Enhancer, **options
) -> Outcome:
    """Enhance files, and folders with all that lies below them, into ``out``.

    sources: files with a video suffix are videos, others photographs whatever their name; in
    folders, those with a photo or video suffix that are not hidden. Name, place and format are kept
    unless ``options``, those of :class:`Options`, say otherwise; HEIC and raw files are read alone,
    so they need a format. out: a folder, or a file for one source.

    What fails gives a line on stderr, and the rest is done. Files of the same name in ``out`` are
    replaced, an input never: ValueError, before anything is written, when an output would fall on
    an input, or two sources share an output. Source: ours.
    """
    outcome, options = Outcome(), Options(**options)
    table = _plan([Path(source) for source in sources], Path(out), options, outcome)
    done = {job for job in table if options.skip_done and _is_done(*job)}
    outcome.skipped = [job[1] for job in table if job in done]
    jobs = sorted((job for job in table if job not in done), key=lambda job: video.is_video(job[0]))
    if options.dry_run:
        outcome.planned = jobs
        return outcome
    failures = Exception if options.scheduler else FAILURES  # of a cluster: whatever it meets
    with ExitStack() as stack:
        started = iter(_started(jobs, enhancer, options, stack))
        for source, target in tqdm(jobs, "enhance", unit="file", disable=None):  # on a terminal
            try:
                if video.is_video(source):
                    notes = _video(enhancer, options.video_speed, source, target)
                else:
                    notes = next(started).result()
            except failures as error:
                outcome.fail(source, error)
                continue
            outcome.written.append(target)
            for note in notes:
                outcome.notes.setdefault(note, []).append(source)
    return outcome


# What is done


def _started(
    jobs: list[Job], enhancer: Enhancer, options: Options, stack: ExitStack
) -> list[Future[Notes]]:
    """The photographs, begun: one is read and one enhanced at a time; or on a cluster."""
    wanted = [job for job in jobs if not video.is_video(job[0])]
    how = options.quality, options.compare
    if options.scheduler:
        pool = stack.enter_context(cluster(options.scheduler))
        network = tuple(enhancer.options.items())
        places = ((source.absolute(), target.absolute()) for source, target in wanted)
        return [pool.submit(_on_worker, network, *how, *place) for place in places]
    pool = ThreadPoolExecutor(3)
    stack.callback(pool.shutdown, cancel_futures=True)
    return [pool.submit(_enhanced, enhancer, *how, *job) for job in wanted]


@contextmanager
def cluster(scheduler: str) -> Iterator[Executor]:
    """The Dask cluster at an address (``tcp://host:8786``) as what the standard library calls an
    executor; what was not begun is cancelled at the end. Raises ValueError without Dask.
    """
    try:
        from distributed import Client
    except ImportError:
        raise ValueError('--scheduler needs Dask: pip install "zdce[cluster]"') from None
    with Client(scheduler) as client:
        pool = client.get_executor(pure=False)
        try:
            yield pool
        finally:
            pool.shutdown(wait=False)


def _on_worker(network: tuple, quality: int | None, compare: bool, *job: Path) -> Notes:
    return _enhanced(_enhancer(**dict(network)), quality, compare, *job)


def _video(enhancer: Enhancer, speed: str | None, source: Path, target: Path) -> Notes:
    speed = speed or ("fast" if isinstance(enhancer.net, CurveNet) else "faithful")
    if speed != enhancer.speed:
        enhancer = Enhancer(**enhancer.options | {"speed": speed})
    return video.enhance_video(source, target, enhancer).notes


def _enhanced(
    enhancer: Enhancer, quality: int | None, compare: bool, source: Path, target: Path
) -> Notes:
    """A photograph read, enhanced and written, called by several threads."""
    model = Path(enhancer.options["weights"] or enhancer.options["model"]).name
    how = f"gamma {enhancer.gamma:g}, strength {enhancer.strength:g}, {enhancer.speed}"
    settings = f"zdce {__version__}: model {model}, {how}"
    with ExitStack() as alone:
        alone.enter_context(READING)
        photo = read_photo(source)
        if photo.pixels.size <= 3 * LARGE:
            alone.close()
        before = _small(photo) if compare else None
        with ENHANCING:
            photo = enhancer(photo)
        lost = write_photo(photo, target, quality=quality, settings=settings)
        if compare:
            line = np.full((len(before), 4, 3), 255, np.uint8)
            sheet = Photo(np.hstack([before, line, _small(photo)]))
            write_photo(sheet, target.with_name(target.stem + SHEET_NAME))
    return tuple(f"left out: {name}" for name in (*photo.notes, *lost))


def _small(photo: Photo) -> np.ndarray:
    """Its pixels in 8 bits, reduced to half a sheet: (h, w, 3)."""
    image = Image.fromarray(photos.to_8_bits(photo.pixels))
    image.thumbnail((SHEET, SHEET))
    return np.asarray(image)


# What is planned


def _plan(sources: list[Path], out: Path, options: Options, outcome: Outcome) -> list[Job]:
    """The table of what to do, a row a file; what is not taken goes to the outcome."""
    of_files = out.suffix.lower() in KNOWN + ONLY_READ or "image/" in str(guess_type(out.name)[0])
    to_file = of_files and not out.is_dir()
    if to_file and (len(sources) != 1 or sources[0].is_dir() or options.format or options.suffix):
        alone = "a single photograph or video, without format and suffix"
        raise ValueError(f"out={out}: a file goes with {alone}; name a folder")
    found = [(source, out) for source in sources]
    if not to_file:
        found = [job for source in sources for job in _found(source, out, options, outcome)]
    once = {(_identity(source), target): (source, target) for source, target in found}
    inputs = {identity: source for (identity, _), (source, _) in once.items()}
    written, table = {}, []
    for source, target in sorted(once.values(), key=lambda job: job[0].suffix != job[1].suffix):
        if target in written and source.suffix != target.suffix:
            # as a raw file beside its JPEG: its own suffix stays within the name
            target = target.with_name(source.name + options.suffix + target.suffix)
        sheets = [target.with_name(target.stem + SHEET_NAME)] if options.compare else []
        for output in (target, *sheets):
            if which := inputs.get(_identity(output)):
                raise ValueError(f"out={out}: would overwrite {which}; name another folder")
            if (other := written.setdefault(output, source)) != source:
                both = f"{other} and {source} would both be written to {output}"
                raise ValueError(f"{both}: enhance them apart")
        table.append((source, target))
    return table


def _found(source: Path, out: Path, options: Options, outcome: Outcome) -> Iterator[Job]:
    """A file, or those of a folder, with their places in ``out``; what is not taken is told."""
    if not source.is_dir():
        if source.suffix.lower() in ONLY_READ and (reason := _left_out(source, options)):
            outcome.fail(source, reason)
        else:
            yield source, out / options.renamed(source).name
        return
    place, unread, taken = _identity(out), [], 0
    in_place = _identity(source) == place
    for folder, folders, names in os.walk(source, onerror=unread.append):
        here = Path(folder)
        aside = [name for name in folders if name[0] == "." or (here / name).is_symlink()]
        below = sorted(set(folders) - set(aside))
        folders[:] = [name for name in below if in_place or _identity(here / name) != place]
        for path in (here / name for name in (*aside, *sorted(names))):
            beside = options.suffix and path.stem.endswith(options.suffix)
            if in_place and (beside or path.name.endswith(SHEET_NAME)):
                outcome.left_out["results of an earlier run"] += 1
            elif reason := _left_out(path, options):
                outcome.left_out[reason] += 1
            else:
                taken += 1
                yield path, out / options.renamed(path).relative_to(source)
    for error in unread:
        outcome.fail(Path(error.filename), f"cannot be read: {error.strerror}")
    if not taken and not unread:
        outcome.fail(source, "holds nothing that is taken")


def _left_out(path: Path, options: Options) -> str | None:
    """Kind of what is no job, with what would make it one; None for a job."""
    suffix, kind = path.suffix.lower(), escape_control_characters(path.suffix[1:].upper())
    if path.name.startswith("."):
        return "hidden"
    if path.is_dir():
        return "links to folders"
    if suffix not in ONLY_READ:
        return None if suffix in KNOWN else kind or "without suffix"
    kind = f"raw {kind}" if suffix in photos.RAW_SUFFIXES else kind
    if extra := photos.needed_extra(path):
        return f'{kind} (needs an extra: pip install "zdce[{extra}]")'
    kind, add = (f"{kind} video", "mp4") if video.is_video(path) else (kind, "jpg or tif")
    told = f"{kind} (read, not written: add --format {add})"
    return None if options.format in FORMATS[video.is_video(path)] else told


def _is_done(source: Path, target: Path) -> bool:
    there = source.exists() and target.exists()
    return there and target.stat().st_mtime_ns >= source.stat().st_mtime_ns


def _identity(path: Path) -> tuple[int, int] | Path:
    """Equal for two names of one file."""
    try:
        stat = path.stat()
    except OSError:
        return path.absolute()
    return stat.st_dev, stat.st_ino
