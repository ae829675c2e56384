"""Data sets by name: what they are, where they come from, and their photographs as arrays.

Every published file stands in ``data/manifest.csv`` with its size, sha256 and origin. A file is looked for in
``paths.data()`` first and then, if the mirror is a folder, there. ``bundled`` needs no file at all: it is made from
photographs inside scikit-image's package by a seeded camera model.
"""

from __future__ import annotations

import csv
import functools
import hashlib
import json
import os
import re
import shutil
import sys
import threading
import time
import warnings
import zlib
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path, PurePosixPath
from typing import BinaryIO
from urllib.parse import quote

import numpy as np
import requests
from PIL import Image
from tqdm import tqdm

from zdce import paths
from zdce.files import atomic_write, scratch
from zdce.photos import SUFFIXES, PhotoError, read_photo

with warnings.catch_warnings():
    warnings.filterwarnings(
        "ignore", message="IProgress not found"
    )  # of no use here: progress is plain lines
    import pooch

# --- the manifest -----------------------------------------------------------------------------------------------

ORIGIN = "https://raw.githubusercontent.com"


@dataclass(frozen=True)
class Entry:
    """One published file, a row of the manifest. ``size`` in bytes; ``scene`` and ``reference`` for low frames."""

    path: str
    size: int
    sha256: str
    repository: str
    commit: str
    upstream_path: str
    scene: str = ""
    reference: str = ""

    @property
    def origin(self) -> str:
        """Address where the file is published."""
        return f"{ORIGIN}/{self.repository}/{self.commit}/{quote(self.upstream_path)}"


@cache
def _read_manifest(path: Path) -> dict[str, Entry]:
    if not path.is_file():
        raise FileNotFoundError(
            f"{path}: no manifest; run from a clone of the project, where data/manifest.csv lies"
        )
    with path.open(newline="", encoding="utf-8") as file:
        rows = [
            Entry(row.pop("path"), int(row.pop("bytes")), *row.values())
            for row in csv.DictReader(file)
        ]
    return {entry.path: entry for entry in rows}


def manifest() -> dict[str, Entry]:
    """Every published file by its path in the manifest."""
    return _read_manifest(paths.manifest())


# --- the sets ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class DataSet:
    """A named set: what a table says of it, and the start of its files' paths in the manifest."""

    name: str
    title: str
    use: str
    licence: str
    source: str
    starts: tuple[str, ...] = ()

    def entries(self) -> list[Entry]:
        """Its files, in the manifest's order; none for ``bundled``."""
        if self.name == "sice-pairs":
            lows = [entry for entry in manifest().values() if entry.scene]
            wanted = {
                path for low in lows for path in (low.path, f"data/train_data/{low.reference}")
            }
            return [entry for entry in manifest().values() if entry.path in wanted]
        return (
            [entry for entry in manifest().values() if entry.path.startswith(self.starts)]
            if self.starts
            else []
        )

    @property
    def files(self) -> int:
        """Number of files: to fetch, or for ``bundled`` the photographs inside scikit-image."""
        return len(self.entries()) if self.starts else len(BUNDLED)

    @property
    def size(self) -> int:
        """Bytes to fetch in all; 0 for ``bundled``."""
        return sum(entry.size for entry in self.entries())


RESEARCH = "for research, no licence to redistribute"
DATASETS: dict[str, DataSet] = {
    each.name: each
    for each in (
        DataSet(
            "bundled",
            "Photographs inside scikit-image, darkened by a seeded camera model",
            "quick runs, tests, committed figures",
            "CC0 or public domain",
            "the installed scikit-image package",
        ),
        DataSet(
            "sice-train",
            "2,002 training photographs: neighbours are one scene at rising exposures",
            "training",
            f"{RESEARCH} (Zero-DCE: CC BY-NC 4.0)",
            "github.com/Li-Chongyi/Zero-DCE_extension",
            ("data/train_data/",),
        ),
        DataSet(
            "sice-pairs",
            "250 low frames of 95 scenes with a normal exposure of the same scene",
            "scoring with a reference, never training",
            f"{RESEARCH} (Zero-DCE: CC BY-NC 4.0)",
            "frames of sice-train",
            ("data/train_data/",),
        ),
        DataSet(
            "lime",
            "Nine test photographs and the study's published results on them",
            "reproduction, comparison without a reference",
            RESEARCH,
            "github.com/Aiemu/Zero-DCE-improved",
            ("data/test_data/LIME/", "data/published_results/LIME/"),
        ),
        DataSet(
            "dicm",
            "64 test photographs",
            "comparison without a reference",
            RESEARCH,
            "github.com/Li-Chongyi/Zero-DCE",
            ("data/test_data/DICM/",),
        ),
        DataSet(
            "bursts",
            "Six static night scenes, four frames each",
            "noise: what differs between the frames",
            f"{RESEARCH} (Zero-DCE: CC BY-NC 4.0)",
            "github.com/Li-Chongyi/Zero-DCE_extension",
            ("data/bursts/",),
        ),
        DataSet(
            "published-weights",
            "Weights of Zero-DCE, improved Zero-DCE, Zero-DCE++ and SCI (three)",
            "reproduction, comparison",
            RESEARCH,
            "the four repositories of their authors",
            ("weights/",),
        ),
        DataSet(
            "niqe-model",
            "NIQE's model of pristine photographs",
            "the NIQE metric",
            "for research, as released by its authors",
            "github.com/utlive/niqe",
            ("data/niqe_modelparameters.mat",),
        ),
    )
}


def _dataset(name: str) -> DataSet:
    if name not in DATASETS:
        raise ValueError(f"name={name!r} is no data set; known: {', '.join(DATASETS)}")
    return DATASETS[name]


def _owner(path: str) -> str:
    return next(
        name for name, each in DATASETS.items() if each.starts and path.startswith(each.starts)
    )


# --- where files lie --------------------------------------------------------------------------------------------


def _kept_at(path: str) -> Path:
    """Where ``paths.data()`` keeps a manifest path: ``data/x`` as ``x``, ``weights/x`` as it is; nothing outside."""
    parts = PurePosixPath(path).parts
    bad = any(part == ".." or re.search(r"[\\:\0]", part) for part in parts)
    if len(parts) < 2 or parts[0] not in ("data", "weights") or bad:
        raise ValueError(f"path={path!r} does not lie under data/ or weights/ of the manifest")
    return paths.data().joinpath(*(parts[1:] if parts[0] == "data" else parts))


def _is_address(mirror: str | os.PathLike) -> bool:
    return str(mirror).startswith(("http://", "https://"))


def _places(path: str) -> list[Path]:
    mirror = paths.mirror()
    local = [Path(mirror).expanduser() / path] if mirror and not _is_address(mirror) else []
    return [_kept_at(path), *local]


def _whole(place: Path, entry: Entry) -> bool:
    return place.is_file() and place.stat().st_size == entry.size


@functools.lru_cache(maxsize=10_000)
def _sha256(place: Path, _size: int, _changed: int) -> str:
    """Of a file as it is: hashed again when its length or time of change is another."""
    return pooch.file_hash(str(place))


def find(relative_path: str) -> Path:
    """The file of a manifest path (``data/...`` or ``weights/...``): in ``paths.data()``, or in a mirror folder.

    Raises FileNotFoundError, which names the data set to fetch, if it lies in neither with the manifest's sha256.
    """
    entry = manifest().get(str(relative_path))
    if entry is None:
        raise FileNotFoundError(f"{relative_path}: not a file of {paths.manifest()}")
    wrong = ""
    for place in _places(entry.path):
        if _whole(place, entry):
            about = place.stat()
            if _sha256(place, about.st_size, about.st_mtime_ns) == entry.sha256:
                return place
            wrong = f" (another file lies at {place})"
    raise FileNotFoundError(
        f"{entry.path}: not at hand{wrong}; run `zdce data fetch {_owner(entry.path)}`"
    )


def at_hand(name: str) -> bool:
    """True if every file of the set is there with the manifest's size; always for ``bundled``."""
    return all(
        any(_whole(place, entry) for place in _places(entry.path))
        for entry in _dataset(name).entries()
    )


# --- fetching and checking --------------------------------------------------------------------------------------

TIMEOUT = 30  # seconds without a byte
SLOWEST = 4_000  # bytes a second, over a whole file and after TIMEOUT: a server that trickles holds nobody up for ever
CHUNK = 1 << 10  # bytes after which this is looked at
ATTEMPTS = 3  # per file, for failures that may pass
PAUSE = 0.5  # seconds before the second attempt, doubled before the third
LONGEST_PAUSE = 60  # seconds, if a server asks for patience (Retry-After)
UNREACHABLE = 8  # files in a row without a connection: the rest is not tried


@dataclass
class Fetched:
    """What `fetch` did, as paths in the manifest; ``failed`` maps each to its reason."""

    kept: list[str] = field(default_factory=list)  # there already, right sha256
    fetched: list[str] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)


class _Failure(Exception):
    """One attempt failed; ``pause`` is how long to wait before another (None: there is no point)."""

    def __init__(self, reason: str, pause: float | None = None, connected: bool = True):
        super().__init__(reason)
        self.pause, self.connected = pause, connected


def _right(place: Path, entry: Entry) -> bool:
    return _whole(place, entry) and pooch.file_hash(str(place)) == entry.sha256


def _entries(names: str | Iterable[str]) -> list[Entry]:
    """The files of several sets, each once."""
    names = [names] if isinstance(names, str) else list(names)
    return list(
        {entry.path: entry for name in names for entry in _dataset(name).entries()}.values()
    )


def fetch(
    names: str | Iterable[str],
    mirror: str | os.PathLike | None = None,
    jobs: int = 8,
    progress: bool = True,
) -> Fetched:
    """Bring sets into ``paths.data()``, ``jobs`` files at a time, from the mirror or from where they are published.

    ``mirror`` (default: ``paths.mirror()``) is a folder or an http(s) address that holds the manifest's paths. A file
    counts as there only after its sha256 was checked; files already there are kept, so a second call brings what is
    missing. A failing file stops no other: see ``Fetched.failed``. Raises ValueError for an unknown set or mirror.
    """
    mirror = mirror or paths.mirror()
    if mirror and not _is_address(mirror) and not Path(mirror).expanduser().is_dir():
        raise ValueError(f"mirror={str(mirror)!r} is neither a folder nor an http(s) address")
    if jobs < 1:
        raise ValueError(f"jobs={jobs} must be 1 or more")
    entries = _entries(names)
    result, silent, give_up = Fetched(), 0, threading.Event()
    bar = tqdm(
        total=len(entries),
        desc="fetching",
        unit="file",
        mininterval=1,
        file=sys.stdout,
        disable=not progress,
    )
    with bar, ThreadPoolExecutor(jobs) as pool:
        waiting = {pool.submit(_fetch_one, entry, mirror, give_up): entry.path for entry in entries}
        try:
            for future in as_completed(waiting):
                try:
                    (result.fetched if future.result() else result.kept).append(waiting[future])
                    silent = 0
                except (_Failure, OSError, ValueError) as error:
                    result.failed[waiting[future]] = str(error)
                    silent = (
                        silent + 1 if isinstance(error, _Failure) and not error.connected else 0
                    )
                if silent >= UNREACHABLE:
                    give_up.set()
                bar.update()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    return result


def _fetch_one(entry: Entry, mirror: str | os.PathLike | None, give_up: threading.Event) -> bool:
    """Bring one file; False if it was there. Whatever goes wrong leaves no file and no partial one."""
    target = _kept_at(entry.path)
    if _right(target, entry):
        return False
    if give_up.is_set():
        raise _Failure(
            f"not tried: no connection for {UNREACHABLE} files in a row", connected=False
        )
    with atomic_write(target) as partial:
        if _right(target, entry):  # another process was bringing it meanwhile
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
    if mirror and not _is_address(mirror):
        source = Path(mirror).expanduser() / entry.path
        if not source.is_file():
            raise _Failure(f"not in the mirror {mirror}")
        if source.stat().st_size != entry.size:
            raise _Failure(
                f"{source.stat().st_size} bytes in the mirror; expected {entry.size} bytes"
            )
        shutil.copyfile(source, partial)
        pause = None
    else:
        url = f"{str(mirror).rstrip('/')}/{quote(entry.path)}" if mirror else entry.origin
        _download(url, partial, entry.size)
        pause = 0.0
    if not _right(partial, entry):
        got = f"{partial.stat().st_size} bytes, sha256 {pooch.file_hash(str(partial))[:12]}…"
        raise _Failure(
            f"got {got}; expected {entry.size} bytes, sha256 {entry.sha256[:12]}…", pause
        )


class _Bounded:
    """What a download may write to: no more bytes than were promised, and no slower than :data:`SLOWEST`."""

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
        raise _Failure(
            f"HTTP {code} from {url}", pause if code >= 500 or code in (408, 425, 429) else None
        ) from error
    except requests.exceptions.ChunkedEncodingError as error:
        raise _Failure(f"broken off: {url}", 0.0) from error
    except (requests.ConnectionError, requests.Timeout) as error:
        raise _Failure(
            f"no connection ({type(error).__name__}): {url}", 0.0, connected=False
        ) from error
    except requests.RequestException as error:
        raise _Failure(f"{type(error).__name__}: {url}") from error


def verify(names: str | Iterable[str]) -> dict[str, str]:
    """Hash every file of the sets where it lies (``paths.data()`` or a mirror folder): path → what is wrong with it."""
    wrong = {}
    for entry in _entries(names):
        place = next((place for place in _places(entry.path) if place.is_file()), None)
        if place is None:
            wrong[entry.path] = "missing"
        elif place.stat().st_size != entry.size:
            wrong[entry.path] = f"{place.stat().st_size} bytes instead of {entry.size}"
        elif not _right(place, entry):
            wrong[entry.path] = "wrong sha256"
    return wrong


def status() -> list[dict[str, str | int]]:
    """One row a set for ``zdce data list``: name, title, files, bytes, at_hand (files), where, use, licence, source."""
    rows = []
    for name, each in DATASETS.items():
        entries = each.entries()
        kept = sum(_whole(_kept_at(entry.path), entry) for entry in entries)
        there = sum(any(_whole(place, entry) for place in _places(entry.path)) for entry in entries)
        where = (
            "mirror"
            if not kept and there
            else "data folder"
            if kept == there and there
            else "data folder, mirror"
        )
        where = "installed" if not each.starts else where if there else "not fetched"
        count = {
            "files": each.files,
            "bytes": each.size,
            "at_hand": there if each.starts else each.files,
        }
        about = {"use": each.use, "licence": each.licence, "source": each.source}
        rows.append({"name": name, "title": each.title, **count, "where": where, **about})
    return rows


# --- bundled photographs ----------------------------------------------------------------------------------------

BUNDLED = (
    "astronaut",
    "coffee",
    "chelsea",
    "rocket",
    "retina",
)  # each CC0 or public domain, see data/README.md
BUNDLED_SIDE = 512  # pixels, the longest side: keeps the quick case quick
BUNDLED_STOPS = (2, 3, 4)  # under-exposure of the samples
BURST_STOPS, BURST_FRAMES = 3, 4
TRAINING_STOPS = (-2, -1.5, -1, 0, 1, 2, 3, 4)  # negative: over-exposed and clipped


@dataclass(frozen=True)
class Camera:
    """The camera that darkens the bundled photographs (ours); electrons per pixel and channel.

    Linear sensor with Poisson shot noise and Gaussian read noise, the Poissonian-Gaussian model of Foi et al.,
    IEEE TIP 17(10), 2008. Left out: colour filter mosaic, white balance, tone curve, denoising, JPEG. At three stops
    under, the noise is 1.5 – 2.3 grey levels; dark parts of the real `bursts` have 1.2 – 2.1 in five of six scenes.
    """

    white: float = (
        8000.0  # at white: assumes a full well of 32,000 (APS-C) at two stops above base ISO
    )
    read_noise: float = 3.0  # as JPEG XL's photon noise tool assumes for cameras of 2010 - 2020


CAMERA = Camera()


@cache
def _clean(photo: str) -> np.ndarray:
    import skimage.data

    image = Image.fromarray(getattr(skimage.data, photo)())
    image.thumbnail((BUNDLED_SIDE, BUNDLED_SIDE), Image.Resampling.LANCZOS, reducing_gap=None)
    pixels = np.asarray(image)
    pixels.flags.writeable = False
    return pixels


def expose(
    pixels: np.ndarray, stops: float, seed: int | Iterable[int], camera: Camera = CAMERA
) -> np.ndarray:
    """A photograph taken again with ``stops`` less light (more, if negative): (H, W, 3) uint8 sRGB in and out.

    sRGB (IEC 61966-2-1) → linear light × 2^-stops → electrons with shot and read noise → clipped at white → sRGB,
    rounded to 8 bits. Same seed, same picture. Source: ours; parameters in ``Camera``.
    """
    rng = np.random.default_rng(seed)
    level = np.arange(256) / 255
    linear = np.where(level <= 0.04045, level / 12.92, ((level + 0.055) / 1.055) ** 2.4)
    electrons = (linear * camera.white * 2.0**-stops)[pixels]
    electrons = rng.poisson(electrons) + rng.normal(0.0, camera.read_noise, pixels.shape)
    light = np.clip(electrons / camera.white, 0, 1)
    encoded = np.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055)
    return np.round(255 * encoded).astype(np.uint8)


def _bundled(photo: str, stops: float, frame: int = 0) -> np.ndarray:
    return expose(
        _clean(photo), stops, (zlib.crc32(photo.encode()), int(100 * stops) % 2**32, frame)
    )


# --- photographs ------------------------------------------------------------------------------------------------


def _decode(path: Path) -> np.ndarray:
    pixels = read_photo(path).pixels
    return pixels if pixels.dtype == np.uint8 else np.round(pixels / 257).astype(np.uint8)


@dataclass(frozen=True)
class Sample:
    """One photograph of a set. Nothing is read before a method asks for it; arrays are (H, W, 3) uint8 sRGB."""

    dataset: str
    name: str  # file name, or photograph and exposure for bundled
    scene: str  # samples of one scene share it
    path: str = ""  # in the manifest; empty for bundled
    reference_path: str = ""
    published_path: str = ""
    stops: float = 0.0  # under-exposure, bundled only

    def image(self) -> np.ndarray:
        """The photograph."""
        return _decode(find(self.path)) if self.path else _bundled(self.scene, self.stops)

    def reference(self) -> np.ndarray | None:
        """The same scene well exposed (sice-pairs, bundled), for scoring alone; None where there is none."""
        if self.dataset == "bundled":
            return _clean(self.scene).copy()
        return _decode(find(self.reference_path)) if self.reference_path else None

    def published_result(self) -> np.ndarray | None:
        """What the study's authors published for this photograph (lime); None elsewhere."""
        return _decode(find(self.published_path)) if self.published_path else None


def _natural(name: str) -> list:
    return [
        (0, int(part), "") if part.isdigit() else (1, 0, part)
        for part in re.split(r"(\d+)", name)
        if part
    ]


def _sample(name: str, entry: Entry) -> Sample:
    file = PurePosixPath(entry.path)
    if name == "sice-pairs":
        return Sample(
            name, file.name, entry.scene, entry.path, f"data/train_data/{entry.reference}"
        )
    if name == "lime":
        return Sample(
            name,
            file.name,
            file.stem,
            entry.path,
            published_path=f"data/published_results/LIME/{file.name}",
        )
    return Sample(name, file.name, file.stem.split("_")[0], entry.path)


def samples(name: str, limit: int = 0, part: str = "") -> list[Sample]:
    """The photographs of a set in a fixed order: by scene for pairs and bursts, by number elsewhere.

    ``limit`` > 0 takes that many, evenly spaced. ``part``: only scenes of this :func:`half`. Raises ValueError for a
    set without photographs.
    """
    dataset = _dataset(name)
    if limit < 0:
        raise ValueError(f"limit={limit} must be 0 (all) or more")
    if name in ("published-weights", "niqe-model"):
        raise ValueError(f"name={name!r} holds no photographs")
    if name == "bundled":
        every = [
            Sample(name, f"{photo}-{k}ev", photo, stops=k)
            for photo in BUNDLED
            for k in BUNDLED_STOPS
        ]
    else:
        entries = [entry for entry in dataset.entries() if entry.path.startswith(dataset.starts[0])]
        if name == "sice-pairs":
            entries = [entry for entry in entries if entry.scene]
        every = sorted(
            (_sample(name, entry) for entry in entries),
            key=lambda s: (_natural(s.scene), _natural(s.name)),
        )
    every = [sample for sample in every if part in ("", half(sample.scene))]
    if not limit or limit >= len(every):
        return every
    return [every[(2 * i + 1) * len(every) // (2 * limit)] for i in range(limit)]


HALVES = ("choosing", "reporting")


def half(scene: str) -> str:
    """Half of sice-pairs to which a scene belongs: ``choosing``, on which settings are chosen, or ``reporting``, which
    gives the figures of the settings chosen and is looked at for nothing else.

    The lowest bit of the first byte of the sha256 of the scene's name decides (ours): no photograph and no score can.
    """
    return HALVES[hashlib.sha256(scene.encode()).digest()[0] & 1]


def bursts(name: str) -> dict[str, list[np.ndarray]]:
    """Frames of static scenes that differ by noise alone, four each: ``bursts`` (six scenes) or ``bundled`` (five)."""
    if name == "bundled":
        return {
            photo: [_bundled(photo, BURST_STOPS, frame) for frame in range(BURST_FRAMES)]
            for photo in BUNDLED
        }
    if name != "bursts":
        raise ValueError(f"name={name!r} has no bursts; use 'bursts' or 'bundled'")
    scenes: dict[str, list[np.ndarray]] = {}
    for sample in samples(name):
        scenes.setdefault(sample.scene, []).append(sample.image())
    return scenes


# --- training sets ----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class TrainingSet:
    """Photographs ready for training: ``images`` (N, size, size, 3) uint8, a read-only memory map; their names."""

    images: np.ndarray = field(repr=False)
    names: list[str] = field(repr=False)

    def __len__(self) -> int:
        return len(self.names)


def _training_files(source: str) -> list[tuple[str, Path]]:
    """Names and files of a training folder or of sice-train, in numeric order."""
    if source == "sice-train":
        return [(sample.name, find(sample.path)) for sample in samples(source)]
    folder = Path(source).expanduser()
    if not folder.is_dir():
        raise ValueError(
            f"name_or_folder={source!r} is neither a folder nor one of: sice-train, bundled"
        )
    files = [
        file
        for file in folder.rglob("*")
        if file.suffix.lower() in SUFFIXES and not file.name.startswith(".")
    ]
    if not files:
        raise ValueError(
            f"{folder}: no photographs to train on; it needs files ending in {' '.join(SUFFIXES)}"
        )
    named = [(file.relative_to(folder).as_posix(), file) for file in files]
    return sorted(named, key=lambda pair: _natural(pair[0]))


def training_set(
    name_or_folder: str | os.PathLike, size: int = 256, progress: bool = True
) -> TrainingSet:
    """Photographs to train on, decoded and resized once (Lanczos, RGB, aspect not kept: as the released code).

    Takes ``sice-train`` (in its published order, 1.jpg … 2002.jpg), ``bundled`` (40 pictures: the bundled
    photographs from two stops over to four under) or a folder; ``sice-train-not-over`` and ``bundled-not-over`` are
    those without their over-exposed photographs (:data:`OVER_EXPOSED`). Kept under ``paths.data()/cache``, keyed by
    content. Other sets are for scoring and are refused with ValueError, as is a folder without photographs;
    PhotoError names a file that cannot be read.
    """
    source = str(name_or_folder)
    if source in (f"sice-train{NOT_OVER}", f"bundled{NOT_OVER}"):
        whole = training_set(source.removesuffix(NOT_OVER), size, progress)
        kept = np.flatnonzero(_means(whole.images) <= OVER_EXPOSED)
        return TrainingSet(whole.images[kept], [whole.names[k] for k in kept])
    if source in DATASETS and source not in ("sice-train", "bundled"):
        raise ValueError(
            f"name_or_folder={source!r} is for scoring; train on sice-train, bundled or a folder"
        )
    if size < 1:
        raise ValueError(f"size={size} must be 1 or more pixels")
    if source == "bundled":
        jobs = [(f"{photo}{-k:+g}ev", (photo, k)) for photo in BUNDLED for k in TRAINING_STOPS]
        key = [CAMERA.white, CAMERA.read_noise, BUNDLED_SIDE, *(name for name, _ in jobs)]
    else:
        jobs = _training_files(source)
        key = [(name, file.stat().st_size, file.stat().st_mtime_ns) for name, file in jobs]
    digest = hashlib.sha256(json.dumps([size, key]).encode()).hexdigest()[:16]
    label = (
        source
        if source in DATASETS
        else re.sub(r"\W+", "-", Path(source).expanduser().resolve().name) or "folder"
    )
    home = paths.data() / "cache" / f"{label}-{size}-{digest}"
    if not home.is_dir():
        _build_cache(home, jobs, size, progress)
    names = json.loads((home / "names.json").read_text(encoding="utf-8"))
    return TrainingSet(np.load(home / "images.npy", mmap_mode="r"), names)


def _build_cache(
    home: Path, jobs: list[tuple[str, Path | tuple[str, float]]], size: int, progress: bool
) -> None:
    """Decode and resize into a folder beside ``home``, which it becomes when it is complete."""
    with scratch(home.parent) as partial:
        shape = (len(jobs), size, size, 3)
        images = np.lib.format.open_memmap(
            partial / "images.npy", mode="w+", dtype=np.uint8, shape=shape
        )
        _reserve(partial / "images.npy")

        def place(index: int) -> str | None:
            what = jobs[index][1]
            try:
                pixels = _decode(what) if isinstance(what, Path) else _bundled(*what)
            except PhotoError as error:
                return str(error)
            images[index] = Image.fromarray(pixels).resize((size, size), Image.Resampling.LANCZOS)

        bar = {
            "total": len(jobs),
            "desc": "decoding",
            "unit": "photo",
            "file": sys.stdout,
            "disable": not progress,
        }
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            wrong = [
                line
                for line in tqdm(pool.map(place, range(len(jobs))), mininterval=1, **bar)
                if line
            ]
        if wrong:
            more = f" (and {len(wrong) - 1} more)" if len(wrong) > 1 else ""
            raise PhotoError(f"{wrong[0]}{more}; mend or remove it")
        images.flush()
        (partial / "names.json").write_text(
            json.dumps([name for name, _ in jobs]), encoding="utf-8"
        )
        try:
            partial.rename(home)
        except OSError:
            if not home.is_dir():  # another process was first: its content is the same
                raise


def _reserve(file: Path) -> None:
    """Room on the disk for all of a file: a full one is an OSError here, and the end of the process later."""
    if hasattr(os, "posix_fallocate"):
        with file.open("r+b") as stream:
            try:
                os.posix_fallocate(stream.fileno(), 0, file.stat().st_size)
            except OSError as error:
                raise OSError(error.errno, error.strerror, str(file)) from None


NOT_OVER = "-not-over"  # after a training set's name
OVER_EXPOSED, UNDER_EXPOSED = (
    170,
    85,
)  # a photograph's mean in grey levels, above and below which it counts so (ours)


def _means(images: np.ndarray) -> np.ndarray:
    """Mean grey level of each of (N, H, W, 3) uint8, from every fourth pixel of every fourth row."""
    return images[:, ::4, ::4].mean(axis=(1, 2, 3), dtype=np.float64)


def exposure_warning(images: np.ndarray) -> str | None:
    """A sentence if a training set (N, H, W, 3) uint8 lacks over- or under-exposed photographs, else None.

    The paper trains on both and reports that without over-exposed photographs bright areas come out washed out.
    """
    means = _means(images)
    among = f"among {len(means)}"
    if not (means > OVER_EXPOSED).any():
        return f"no over-exposed photographs {among}: expect washed-out bright areas"
    if not (means < UNDER_EXPOSED).any():
        return f"no under-exposed photographs {among}: expect dark areas to stay dark"
    return None
