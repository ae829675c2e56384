"""Data sets by name: what they are, where they lie, and their photographs as arrays.

Every published file stands in ``data/manifest.csv``. It is looked for in ``paths.data()`` and then,
if the mirror is a folder, there; ``zdce.fetch`` brings it. ``bundled`` needs no file at all: it is
made from photographs inside scikit-image's package.
"""

import csv
import hashlib
import json
import os
import re
import sys
import zlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path, PurePosixPath

import numpy as np
from PIL import Image
from tqdm import tqdm

from zdce import paths
from zdce.camera import CAMERA, expose
from zdce.files import atomic_write
from zdce.photos import SUFFIXES, read_photo, to_8_bits

# --- published files ------------------------------------------------------------------------------


@dataclass(frozen=True)
class Entry:
    """One published file, a row of the manifest; size in bytes."""

    path: str
    size: int
    sha256: str
    repository: str
    commit: str
    upstream_path: str
    scene: str = ""  # of the low frames of sice-pairs, as is their reference
    reference: str = ""


@cache
def manifest() -> dict[str, Entry]:
    """Every published file by its path in the manifest, which lies in a clone of the project."""
    if not (path := paths.root() / "data" / "manifest.csv").is_file():
        raise FileNotFoundError(f"{path}: no manifest; run from a clone of the project")
    with path.open(newline="", encoding="utf-8") as file:
        _, *rows = csv.reader(file)
    return {name: Entry(name, int(size), *rest) for name, size, *rest in rows}


@dataclass(frozen=True)
class DataSet:
    """A named set, a row of ``zdce/datasets.csv``; ``starts`` begin its files' paths."""

    name: str
    title: str
    licence: str
    starts: tuple[str, ...]

    def entries(self) -> list[Entry]:
        """Its files, in the manifest's order; none for ``bundled``."""
        every = [each for each in manifest().values() if each.path.startswith(self.starts)]
        if self.name != "sice-pairs":
            return every
        references = {f"data/train_data/{each.reference}" for each in every if each.scene}
        return [each for each in every if each.scene or each.path in references]


with (paths.PACKAGE / "datasets.csv").open(newline="", encoding="utf-8") as _file:
    DATASETS = {
        name: DataSet(name, title, licence, tuple(starts.split()))
        for name, title, licence, starts in list(csv.reader(_file))[1:]
    }


def dataset(name: str) -> DataSet:
    """The set of that name; ValueError, which lists the names, for another."""
    if name not in DATASETS:
        raise ValueError(f"name={name!r} is no data set; known: {', '.join(DATASETS)}")
    return DATASETS[name]


def kept_at(path: str) -> Path:
    """Where ``paths.data()`` keeps a manifest path: ``data/x`` as ``x``, ``weights/x`` as it is."""
    return paths.data() / path.removeprefix("data/")


def places_of(path: str) -> list[Path]:
    """Where the file of a manifest path may lie: the data folder, and a mirror that is a folder."""
    mirror = paths.mirror()
    local = [Path(mirror).expanduser() / path] if mirror and "://" not in mirror else []
    return [kept_at(path), *local]


def problem(place: Path, entry: Entry) -> str:
    """What is wrong with a file; nothing where its size and sha256 are the manifest's."""
    if not place.is_file():
        return "missing"
    if (size := place.stat().st_size) != entry.size:
        return f"{size} bytes instead of {entry.size}"
    with place.open("rb") as file:
        right = hashlib.file_digest(file, "sha256").hexdigest() == entry.sha256
    return "" if right else "wrong sha256"


def find(path: str) -> Path:
    """The file of a manifest path, ``data/...`` or ``weights/...``: in ``paths.data()`` or a
    mirror. Raises FileNotFoundError, which names the data set to fetch, if it lies in neither with
    the manifest's sha256.
    """
    if path not in manifest():
        raise FileNotFoundError(f"{path}: not a file of data/manifest.csv")
    entry, wrong = manifest()[path], ""
    for place in filter(Path.is_file, places_of(path)):
        if not (reason := problem(place, entry)):
            return place
        wrong = f" ({place}: {reason})"
    owner = next(name for name, each in DATASETS.items() if entry in each.entries())
    raise FileNotFoundError(f"{path}: not at hand{wrong}; run `zdce data fetch {owner}`")


def missing(name: str) -> list[Entry]:
    """The files of a set that are not there with the manifest's size; none for ``bundled``."""
    return [
        entry
        for entry in dataset(name).entries()
        if not any(p.is_file() and p.stat().st_size == entry.size for p in places_of(entry.path))
    ]


def at_hand(name: str) -> bool:
    """True if every file of the set is there with the manifest's size; always for ``bundled``."""
    return not missing(name)


# --- bundled photographs --------------------------------------------------------------------------

# Each CC0 or in the public domain, see data/README.md.
BUNDLED = ("astronaut", "coffee", "chelsea", "rocket", "retina")
BUNDLED_SIDE = 512  # pixels, the longest side: keeps the quick case quick
BUNDLED_STOPS = (2, 3, 4)  # under-exposure of the samples
TRAINING_STOPS = (-2, -1.5, -1, 0, 1, 2, 3, 4)  # negative: over-exposed and clipped


@cache
def _clean(photo: str) -> np.ndarray:
    import skimage.data

    image = Image.fromarray(getattr(skimage.data, photo)())
    image.thumbnail((BUNDLED_SIDE, BUNDLED_SIDE), Image.Resampling.LANCZOS, reducing_gap=None)
    pixels = np.asarray(image)
    pixels.flags.writeable = False
    return pixels


def _bundled(photo: str, stops: float, frame: int = 0) -> np.ndarray:
    seed = (zlib.crc32(photo.encode()), int(100 * stops) % 2**32, frame)
    return expose(_clean(photo), stops, seed)


# --- photographs ----------------------------------------------------------------------------------


def read_8bit(path: Path) -> np.ndarray:
    """A photograph as (H, W, 3) uint8 sRGB."""
    return to_8_bits(read_photo(path).pixels)


@dataclass(frozen=True)
class Sample:
    """One photograph of a set, read when a method asks for it: (H, W, 3) uint8 sRGB."""

    dataset: str
    name: str  # file name, or photograph and exposure for bundled
    scene: str  # samples of one scene share it
    path: str = ""  # in the manifest; empty for bundled
    reference_path: str = ""
    published_path: str = ""
    stops: float = 0.0  # under-exposure, bundled only

    def image(self) -> np.ndarray:
        """The photograph."""
        return read_8bit(find(self.path)) if self.path else _bundled(self.scene, self.stops)

    def reference(self) -> np.ndarray | None:
        """The same scene well exposed (sice-pairs, bundled), for scoring alone; None elsewhere."""
        if self.dataset == "bundled":
            return _clean(self.scene).copy()
        return read_8bit(find(self.reference_path)) if self.reference_path else None

    def published_result(self) -> np.ndarray | None:
        """What the study's authors published for this photograph (lime); None elsewhere."""
        return read_8bit(find(self.published_path)) if self.published_path else None


def _natural(name: str) -> str:
    return re.sub(r"\d+", lambda digits: digits[0].zfill(20), name)


def samples(name: str, limit: int = 0, part: str = "") -> list[Sample]:
    """The photographs of a set in a fixed order: by scene for pairs and bursts, by number
    elsewhere; ValueError for a set that holds none.

    ``limit`` > 0 takes that many, evenly spaced. ``part``: only scenes of this :func:`half`.
    """
    if name in ("published-weights", "niqe-model"):
        raise ValueError(f"name={name!r} holds no photographs")
    shots = [(photo, stops) for photo in BUNDLED for stops in BUNDLED_STOPS]
    every = [Sample("bundled", f"{photo}-{k}ev", photo, stops=k) for photo, k in shots]
    if (each := dataset(name)).starts:
        shown = [entry for entry in each.entries() if entry.path.startswith(each.starts[0])]
        every = [_sample(name, entry) for entry in shown if entry.scene or name != "sice-pairs"]
        every.sort(key=lambda s: (_natural(s.scene), _natural(s.name)))
    every = [sample for sample in every if part in ("", half(sample.scene))]
    if not limit or limit >= len(every):
        return every
    return [every[(2 * i + 1) * len(every) // (2 * limit)] for i in range(limit)]


def _sample(name: str, entry: Entry) -> Sample:
    file = PurePosixPath(entry.path)
    more, scene = {}, file.stem.split("_")[0]
    if name == "sice-pairs":
        more, scene = {"reference_path": f"data/train_data/{entry.reference}"}, entry.scene
    elif name == "lime":
        more = {"published_path": f"data/published_results/LIME/{file.name}"}
    return Sample(name, file.name, scene, entry.path, **more)


HALVES = ("choosing", "reporting")


def half(scene: str) -> str:
    """Half of sice-pairs to which a scene belongs: settings are chosen on ``choosing`` alone, and
    ``reporting`` gives their figures. A bit of the sha256 of the scene's name decides (ours).
    """
    return HALVES[hashlib.sha256(scene.encode()).digest()[0] & 1]


def bursts(name: str) -> dict[str, list[np.ndarray]]:
    """Four frames of static scenes that differ by noise alone, of ``bursts`` or ``bundled``."""
    if name == "bundled":
        return {photo: [_bundled(photo, 3, frame) for frame in range(4)] for photo in BUNDLED}
    if name != "bursts":
        raise ValueError(f"name={name!r} has no bursts; use 'bursts' or 'bundled'")
    scenes: dict[str, list[np.ndarray]] = {}
    for sample in samples(name):
        scenes.setdefault(sample.scene, []).append(sample.image())
    return scenes


# --- training sets --------------------------------------------------------------------------------


NOT_OVER = "-not-over"  # after a training set's name: without its over-exposed photographs
OVER_EXPOSED, UNDER_EXPOSED = 170, 85  # ours: mean in grey levels from which a photograph is so


@dataclass(frozen=True, eq=False)
class TrainingSet:
    """Photographs ready for training: (N, size, size, 3) uint8 sRGB, and their files' names."""

    images: np.ndarray
    names: list[str]

    def __len__(self) -> int:
        return len(self.names)


def _training_files(source: str) -> list[tuple[str, Path]]:
    """Names and files of a training folder or of sice-train, in numeric order."""
    if source == "sice-train":
        return [(sample.name, find(sample.path)) for sample in samples(source)]
    folder = Path(source).expanduser()
    if source in DATASETS or not folder.is_dir():
        raise ValueError(f"name_or_folder={source!r}: train on sice-train, bundled or a folder")
    files = [file for file in folder.rglob("[!.]*") if file.suffix.lower() in SUFFIXES]
    if not files:
        raise ValueError(f"{folder}: no photographs to train on ({' '.join(SUFFIXES)})")
    named = [(file.relative_to(folder).as_posix(), file) for file in files]
    return sorted(named, key=lambda pair: _natural(pair[0]))


def training_set(
    name_or_folder: str | os.PathLike, size: int = 256, progress: bool = True
) -> TrainingSet:
    """Photographs to train on, decoded and resized once (Lanczos, aspect not kept: released code).

    Takes ``sice-train`` (in its published order), ``bundled`` (40 pictures: the bundled photographs
    from two stops over to four under), either with :data:`NOT_OVER` after it, or a folder. Kept
    under ``paths.data()/cache``, by the files' names, sizes and times. Raises ValueError for
    anything else and a folder without photographs, PhotoError for a file that cannot be read,
    FileNotFoundError for a set that is not fetched.
    """
    source = str(name_or_folder)
    if source in (f"sice-train{NOT_OVER}", f"bundled{NOT_OVER}"):
        whole = training_set(source.removesuffix(NOT_OVER), size, progress)
        kept = np.flatnonzero(_means(whole.images) <= OVER_EXPOSED)
        return TrainingSet(whole.images[kept], [whole.names[k] for k in kept])
    if source == "bundled":
        shots = [(photo, k) for photo in BUNDLED for k in TRAINING_STOPS]
        photographs = [(f"{photo}{-k:+g}ev", partial(_bundled, photo, k)) for photo, k in shots]
        key = [CAMERA.white, CAMERA.read_noise, BUNDLED_SIDE, *(name for name, _ in photographs)]
    else:
        files = _training_files(source)
        photographs = [(name, partial(read_8bit, file)) for name, file in files]
        key = [(name, file.stat().st_size, file.stat().st_mtime_ns) for name, file in files]
    digest = hashlib.sha256(json.dumps(key).encode()).hexdigest()[:16]
    cached = paths.data() / "cache" / f"{digest}-{size}.npy"
    if not cached.is_file():
        _build_cache(cached, [read for _, read in photographs], size, progress)
    return TrainingSet(np.load(cached, mmap_mode="c"), [name for name, _ in photographs])


def _build_cache(
    file: Path, photographs: list[Callable[[], np.ndarray]], size: int, progress: bool
) -> None:
    def resized(read: Callable[[], np.ndarray]) -> bytes:
        image = Image.fromarray(read())
        return image.resize((size, size), Image.Resampling.LANCZOS).tobytes()

    bar = {"desc": "decoding", "unit": "photo", "mininterval": 1, "file": sys.stdout}
    pool = ThreadPoolExecutor(os.cpu_count())
    with pool, atomic_write(file) as part, part.open("wb") as stream:
        shape = (len(photographs), size, size, 3)
        header = {"descr": "|u1", "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(stream, header)
        images = pool.map(resized, photographs)
        for image in tqdm(images, total=len(photographs), disable=not progress, **bar):
            stream.write(image)


def _means(images: np.ndarray) -> np.ndarray:
    """Mean grey level of each of (N, H, W, 3) uint8, from every fourth pixel and row."""
    return images[:, ::4, ::4].mean(axis=(1, 2, 3), dtype=np.float64)


def exposure_warning(images: np.ndarray) -> str:
    """A sentence if (N, H, W, 3) uint8 lack over- or under-exposed photographs, else nothing: the
    paper trains on both.
    """
    means, among = _means(images), f"among {len(images)}"
    if not (means > OVER_EXPOSED).any():
        return f"no over-exposed photographs {among}: expect washed-out bright areas"
    if not (means < UNDER_EXPOSED).any():
        return f"no under-exposed photographs {among}: expect dark areas to stay dark"
    return ""
