"""How long enhancing takes, version by version: the study's timing contract.

Every version runs in a process of its own, so that its threads, its compiler and its first calls
are its own. Versions of a group take turns (A B A B …), so that whatever slows the machine down
slows all of them; the device is waited for before a clock is read; what is reported are medians and
quartiles, and ratios taken within each turn.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import os
import platform
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import asdict, dataclass
from importlib.metadata import version as version_of
from multiprocessing import get_context
from pathlib import Path
from unittest.mock import patch

import numpy as np
import pandas as pd
from PIL import Image, ImageOps

from zdce import datasets, paths

PAUSE = 0.005  # seconds before each call: threads of the version before go to sleep
SECONDS, LEAST = 3.0, 3  # a version is called until it took so long, but no fewer times
BUSY = 0.2  # cores that other work may keep busy before a table says so
# Settings that leave machine code no more than AVX2, as most processors of the last ten years have
ONLY_AVX2 = {"NUMBA_CPU_NAME": "haswell", "NUMBA_CPU_FEATURES": "+avx2,+fma"}
# What each file of reports/study/speed measures: it names their fingerprint.
ENGINE = ("__init__", "engine/*", "auto", "enhance", "memory", "model", "peers", "postprocess")
SOURCES = {
    "paths": ENGINE,
    "filter": ("auto", "postprocess"),
    "large": (*ENGINE, "folders", "photos*"),
    "video": (*ENGINE, "steady", "video"),
    "training": ("__init__", "losses", "memory", "model", "step"),
}


def fingerprint(name: str, home: Path = paths.PACKAGE) -> str:
    """12 hexadecimal digits of the sha256 of the sources that a file of speeds measures.

    name: of the file, a key of :data:`SOURCES`. While they stay, what was measured counts.
    """
    digest = hashlib.sha256()
    for pattern in SOURCES[name]:
        for file in sorted(home.glob(f"{pattern}.py")):
            digest.update(f"{file.relative_to(home).as_posix()}\n".encode())
            digest.update(file.read_bytes().replace(b"\r\n", b"\n"))
    return digest.hexdigest()[:12]


def conditions(name: str, device: str = "cpu") -> dict[str, object]:
    """What the file ``name`` states beside its times: commit, fingerprint, device, versions."""
    import torch

    from zdce.study.report import commit

    vectors = torch.backends.cpu.get_cpu_capability()
    where = f"{os.cpu_count()} cores {platform.machine()} {vectors}"
    where = torch.cuda.get_device_name() if device == "cuda" else where
    there = [each for each in ("torch", "numba", "onnxruntime") if importlib.util.find_spec(each)]
    versions = ", ".join(f"{each} {version_of(each)}" for each in there)
    about = {"commit": commit(), "fingerprint": fingerprint(name)}
    return about | {"device": where, "versions": versions}


@dataclass(frozen=True)
class Version:
    """One way to enhance a photograph.

    model: a model's name or weights file. path: "chosen" for the engine that is chosen here, an
    engine's name for that one, "AVX2" for machine code with no more than that, "fast" for the
    chosen one on a reduced copy; "torch" for the network in PyTorch as it stands, "channels-last"
    and "torch.compile" for the same in another order of memory and compiled, "ONNX Runtime".
    """

    model: str
    path: str = "chosen"
    threads: int = 2
    device: str = "cpu"

    @property
    def label(self) -> str:
        """Its name in tables."""
        return f"{self.model}, {self.path}"


def ways(model: str, *paths: str) -> list[Version]:
    """A model's versions by their paths."""
    return [Version(model, path) for path in paths]


# Width and height of a photograph, and the versions that take turns on it; the first is the measure
GROUPS = (
    (
        (600, 400),
        ways("auto", "chosen", "AVX2", "reference")
        + ways("zero-dce++-12x", "torch", "torch.compile")
        + ways("sci-medium", "torch", "torch.compile"),
    ),
    (
        (600, 400),
        ways("zero-dce-improved", "chosen", "AVX2", "reference", "fast")
        + ways("zero-dce-improved", "torch", "torch.compile", "channels-last", "ONNX Runtime"),
    ),
    ((600, 400), ways("zero-dce", "chosen", "reference")),
    (
        (3840, 2160),
        ways("auto", "chosen", "AVX2", "reference")
        + ways("sci-medium", "torch.compile")
        + ways("zero-dce-improved", "chosen", "fast"),
    ),
)


def enhancing(version: Version) -> Callable[[np.ndarray], np.ndarray]:
    """What enhances (H, W, 3) uint8 by this version: rounded, and through the model's gamma."""
    import torch

    from zdce import checkpoints, engine
    from zdce.photos import to_pixels, to_tensor
    from zdce.postprocess import apply_gamma

    model, path = checkpoints.load(version.model), version.path
    engines = engine.candidates(model.net, version.device, reduced=path == "fast")
    for one in engines:
        if path in ("chosen", "AVX2", "fast", one.name):
            return lambda pixels: one.render(pixels, gamma=model.gamma)
    order = torch.channels_last if path == "channels-last" else torch.contiguous_format
    net = model.net.to(version.device, memory_format=order).eval()
    runs = {
        "torch": lambda: net,
        "channels-last": lambda: net,
        "torch.compile": lambda: torch.compile(net, dynamic=False),
        "ONNX Runtime": lambda: _onnx(model, version.threads),
    }
    if path not in runs:
        names = ", ".join(one.name for one in engines)
        raise ValueError(f"path={path!r}: the engines of {version.model} here are {names}")
    run = runs[path]()

    def enhance(pixels: np.ndarray) -> np.ndarray:
        image = to_tensor(pixels).to(version.device).contiguous(memory_format=order)
        return apply_gamma(to_pixels(run(image)[0].contiguous()), model.gamma)

    return enhance


def _onnx(model, threads: int):
    import onnxruntime
    import torch

    from zdce import export

    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "network.onnx"
        export.to_onnx(model, file, gamma=1)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        session = onnxruntime.InferenceSession(
            file.read_bytes(), options, providers=["CPUExecutionProvider"]
        )
    return lambda image: [torch.from_numpy(session.run(None, {"image": image.numpy()})[0])]


def timed(
    stages: Mapping[str, Callable],
    value: object,
    synchronise: Callable[[], object] = lambda: None,
    clock: Callable[[], float] = time.perf_counter,
) -> tuple[dict[str, float], object]:
    """Milliseconds of each stage on what the one before returned, and what the last one returned;
    the device is waited for before its clock starts and before it stops.
    """
    taken = {}
    for name, stage in stages.items():
        synchronise()
        started = clock()
        value = stage(value)
        synchronise()
        taken[name] = 1000 * (clock() - started)
    return taken, value


_ready: dict = {}  # in a worker's process: the version's stages, and its device's wait


def _begin(version: Version) -> None:
    import torch

    from zdce import memory
    from zdce.photos import Photo, read_photo, write_photo

    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # what compilers have to say
    memory.keep_freed()
    torch.set_num_threads(version.threads)
    enhance = torch.inference_mode()(enhancing(version))

    def encode(pixels: np.ndarray) -> np.ndarray:
        write_photo(Photo(pixels), _ready["home"] / f"{os.getpid()}.jpg")
        return pixels

    _ready["stages"] = {"decode": lambda file: read_photo(file).pixels, "enhance": enhance}
    _ready["stages"]["encode"] = encode
    _ready["wait"] = torch.cuda.synchronize if version.device == "cuda" else lambda: None


def _once(file: Path, kept: bool = False) -> tuple[dict[str, float], np.ndarray | None]:
    _ready["home"] = file.parent
    taken, pixels = timed(_ready["stages"], file, _ready["wait"])
    return taken, pixels if kept else None


class Worker:
    """A process that runs one version; calling it with a file enhances it and returns milliseconds
    by stage. Raises RuntimeError that names the version when its process failed or ended.
    """

    def __init__(self, version: Version) -> None:
        self.version = version
        own = ("MALLOC_", "GLIBC_", "NUMBA_CPU_")  # the caller's settings would blur the comparison
        kept = {name: value for name, value in os.environ.items() if not name.startswith(own)}
        kept["OMP_NUM_THREADS"] = kept["NUMBA_NUM_THREADS"] = str(version.threads)
        kept |= ONLY_AVX2 if version.path == "AVX2" else {}
        self.pool = ProcessPoolExecutor(1, get_context("spawn"))
        with patch.dict(os.environ, kept, clear=True):
            self.begun = self.pool.submit(_begin, version)

    def answer(self, future: Future):
        """The result of what was asked of the process."""
        try:
            return future.result()
        except Exception as error:
            raise RuntimeError(f"version {self.version.label!r}: {error}") from error

    def __call__(self, file: Path) -> dict[str, float]:
        time.sleep(PAUSE)
        return self.answer(self.pool.submit(_once, file))[0]


@contextlib.contextmanager
def workers(versions: Iterable[Version]) -> Iterator[dict[str, Worker]]:
    """Running processes by label, which start together."""
    running = {version.label: Worker(version) for version in versions}
    try:
        for worker in running.values():
            worker.answer(worker.begun)
        yield running
    finally:
        for worker in running.values():
            worker.pool.shutdown()


def busy() -> tuple[float, float]:
    """Seconds since some moment, and seconds of processor that others than this process and its
    ended children used since then; NaN outside Linux.
    """
    try:
        fields = list(map(int, Path("/proc/stat").read_text().split(maxsplit=9)[1:9]))
    except OSError:
        return time.monotonic(), float("nan")
    machine = sum(fields) - fields[3] - fields[4]  # all but idle and waiting for disks
    return time.monotonic(), machine / os.sysconf("SC_CLK_TCK") - sum(os.times()[:4])


def other_work(before: tuple[float, float]) -> float:
    """Cores that others kept busy since :func:`busy` told ``before``, on average."""
    wall, others = (now - then for now, then in zip(busy(), before, strict=True))
    return round(max(0.0, others) / wall, 2)


def contention(other: float) -> str:
    """Whether other work kept cores busy, for print; starts with WARNING if so."""
    if np.isnan(other):
        return "other work is not known on this system"
    told = f"other work kept {other:.2f} cores busy meanwhile"
    warning = f"WARNING: {told}: these times are too long and their ratios unsure"
    return warning if other > BUSY else f"quiet: {told}"


def measure(
    versions: Mapping[str, Callable[[Path], dict[str, float]]],
    file: Path,
    seconds: float = SECONDS,
    clock: Callable[[], float] = time.perf_counter,
) -> pd.DataFrame:
    """Times of every version on a file: one row a call, with version, round and ms by stage.

    Round 0 is the warm-up. Then the versions take turns, each until it took ``seconds`` and ran
    three times or more.
    """
    rows, spent = [], dict.fromkeys(versions, 0.0)
    for number in range(10**6):
        asked = [label for label in versions if spent[label] < seconds or number <= LEAST]
        for label in asked:
            started = clock()
            rows.append({"version": label, "round": number} | versions[label](file))
            spent[label] += clock() - started if number else 0.0
        if not asked:
            break
    return pd.DataFrame(rows)


def summary(times: pd.DataFrame) -> pd.DataFrame:
    """Times of :func:`measure` without the warm-up: one row a version.

    ms: median of what lies between decoding and encoding, with quartiles ms_low and ms_high; ratio:
    how many times as long as the first version takes, the median over rounds of the quotient within
    a round, with its quartiles; n: rounds; decode_ms, encode_ms: medians.
    """
    warm = times[times["round"] > 0].set_index(["version", "round"])
    first = warm["enhance"].xs(times["version"].iloc[0], level="version")
    quotients = warm["enhance"].div(first, level="round").dropna()
    told = {}
    for name, values in {"ms": warm["enhance"], "ratio": quotients}.items():
        groups = values.groupby(level="version", sort=False)
        told |= {name: groups.median(), f"{name}_low": groups.quantile(0.25)}
        told[f"{name}_high"] = groups.quantile(0.75)
    each = warm.groupby(level="version", sort=False)
    stages = each[["decode", "encode"]].median().add_suffix("_ms")
    return pd.DataFrame(told).assign(n=each.size()).join(stages).reset_index()


def agreement(results: Mapping[Version, np.ndarray]) -> pd.DataFrame:
    """How far each version's result lies from that of its model's engine "reference": version,
    within_1 (share of values within one grey level), furthest (grey levels).
    """
    exact = {v.model: pixels.astype(int) for v, pixels in results.items() if v.path == "reference"}
    rows = []
    for version, pixels in results.items():
        if version.model in exact and version.path != "fast":
            apart = np.abs(exact[version.model] - pixels)
            rows.append((version.label, (apart <= 1).mean(), apart.max()))
    return pd.DataFrame(rows, columns=["version", "within_1", "furthest"])


def lacking(version: Version) -> str:
    """What a version needs and is not at hand, as a line; empty if nothing."""
    from zdce import checkpoints

    try:
        checkpoints.load(version.model)
    except FileNotFoundError:
        return f"{version.label}: not at hand; zdce data fetch published-weights brings it"
    needs = {"ONNX Runtime": ("onnxscript", "export"), "AVX2": ("numba", "fast")}
    needed, extra = needs.get(version.path, ("torch", ""))
    if importlib.util.find_spec(needed):
        return ""
    return f'{version.label}: not at hand; pip install "zdce[{extra}]" brings it'


def compare(groups=GROUPS, seconds: float = SECONDS) -> tuple[pd.DataFrame, list[str]]:
    """The table of ``zdce speed``, and what could not be measured here, a line each.

    Versions of each group in turn on a bundled photograph: width, height, settings of the version,
    figures of :func:`summary` and :func:`agreement`, cores of other work, and :func:`conditions`.
    """
    image = Image.fromarray(datasets.samples("bundled")[0].image())
    parts, missing, about = [], [], conditions("paths")
    for number, (size, versions) in enumerate(groups):
        missing += filter(None, map(lacking, versions))
        before, there = busy(), [version for version in versions if not lacking(version)]
        with tempfile.TemporaryDirectory(prefix="zdce-speed-") as folder, workers(there) as running:
            file = Path(folder) / "photograph.jpg"
            ImageOps.fit(image, size, Image.Resampling.BICUBIC).save(file, quality=95)
            # What is compiled, they compile at a time.
            first = [(worker, worker.pool.submit(_once, file, True)) for worker in running.values()]
            results = {worker.version: worker.answer(future)[1] for worker, future in first}
            part = summary(measure(running, file, seconds))
        settings = pd.DataFrame([{"version": v.label} | asdict(v) for v in there])
        part = settings.drop(columns="device").merge(part).merge(agreement(results), how="left")
        at = {"group": number, "width": size[0], "height": size[1]}
        parts.append(part.assign(**at, other_work=other_work(before)))
    return pd.concat(parts, ignore_index=True).assign(**about), missing


def choices(device: str = "cpu") -> list[str]:
    """Which engine enhances by each of this project's models on a device, and why."""
    from zdce import checkpoints, engine

    lines = []
    for model in ("auto", "zero-dce-improved", "zero-dce"):
        first, *others = engine.candidates(checkpoints.load(model).net, device)
        rest = ", ".join(other.name for other in others)
        lines.append(f"{model}: {first.name} ({first.reason}); could also run: {rest or 'none'}")
    return lines


def as_text(table: pd.DataFrame, missing: list[str]) -> str:
    """The table of :func:`compare` as lines for a terminal, and the choices."""
    lines, about = [], table.iloc[0]
    columns = {"ms": "ms", "ms_low": "25 %", "ms_high": "75 %", "ratio": "times the first"}
    columns |= {"within_1": "within 1 level", "decode_ms": "decode", "encode_ms": "encode"}
    for _, part in table.groupby("group", sort=False):
        size = f"{part['width'].iloc[0]}×{part['height'].iloc[0]}"
        shown = part.set_index("version")[list(columns)].rename_axis(size).reset_index()
        shown = shown.rename(columns=columns)
        lines += [shown.to_string(index=False, float_format="{:.4g}".format, na_rep="–"), ""]
    where = f"{about['device']}, {about['threads']} threads, {about['versions']}"
    lines += [*choices(), *missing, f"{where}, commit {about['commit']}"]
    return "\n".join([*lines, contention(table["other_work"].max())])
