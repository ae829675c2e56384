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
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from importlib.metadata import version as version_of
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image, ImageOps

from zdce import datasets, paths

STAGES = ("decode", "enhance", "encode")
PAUSE = 0.005  # seconds before each call: threads of the version before go to sleep
SECONDS, LEAST = 3.0, 3  # a version is called until it took so long, but no fewer times
BUSY = 0.2  # cores that other work may keep busy before a table says so
# Settings that leave machine code no more than AVX2, as most processors of the last ten years have
ONLY_AVX2 = {"NUMBA_CPU_NAME": "haswell", "NUMBA_CPU_FEATURES": "+avx2,+fma"}
# What each file of reports/study/speed measures: it names their fingerprint.
ENGINE = ("engine/*", "auto", "enhance", "memory", "model", "peers", "postprocess")
SOURCES = {
    "paths": ENGINE,
    "filter": ("auto", "postprocess"),
    "large": (*ENGINE, "folders", "photos*"),
    "video": (*ENGINE, "steady", "video"),
    "training": ("losses", "memory", "model", "step"),
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


# --- versions -------------------------------------------------------------------------------------


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


def ways(model: str, *paths: str) -> tuple[Version, ...]:
    """A model's versions by their paths."""
    return tuple(Version(model, path) for path in paths)


# (width, height) of a photograph, and the versions that take turns on it; the first is the measure
Group = tuple[tuple[int, int], tuple[Version, ...]]
_OURS = ("chosen", "AVX2", "reference")
_TORCH = ("torch", "torch.compile")
GROUPS: tuple[Group, ...] = (
    (
        (600, 400),
        ways("auto", *_OURS) + ways("zero-dce++-12x", *_TORCH) + ways("sci-medium", *_TORCH),
    ),
    (
        (600, 400),
        ways("zero-dce-improved", *_OURS, "fast", *_TORCH, "channels-last", "ONNX Runtime"),
    ),
    ((600, 400), ways("zero-dce", "chosen", "reference")),
    (
        (3840, 2160),
        ways("auto", *_OURS)
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
    net, order = model.net.to(version.device).eval(), torch.contiguous_format
    if path == "ONNX Runtime":
        run = _onnx(model, version.threads)
    elif path in ("torch", "channels-last", "torch.compile"):
        order = torch.channels_last if path == "channels-last" else order
        net = net.to(memory_format=order)
        run = torch.compile(net, dynamic=False) if path == "torch.compile" else net
    else:
        names = ", ".join(one.name for one in engines)
        raise ValueError(f"path={path!r}: the engines of {version.model} here are {names}")

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
) -> dict[str, float]:
    """Milliseconds of each stage on what the one before returned; the device is waited for before
    its clock starts and before it stops.
    """
    taken = {}
    for name, stage in stages.items():
        synchronise()
        started = clock()
        value = stage(value)
        synchronise()
        taken[name] = 1000 * (clock() - started)
    return taken


# --- processes ------------------------------------------------------------------------------------


def _serve() -> None:
    """A worker process: reads names of files as lines, answers each with a line of JSON."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # whatever else is printed stays out of the answers

    def answer(content: object) -> None:
        print(json.dumps(content), file=answers, flush=True)

    def encode(pixels: np.ndarray) -> None:
        write_photo(Photo(pixels), home / f"{os.getpid()}.jpg")
        results.append(pixels)

    try:
        version = Version(**json.loads(sys.argv[1]))
        import torch

        from zdce import memory
        from zdce.photos import Photo, read_photo, write_photo

        memory.keep_freed()
        torch.set_num_threads(version.threads)
        stages = {"decode": lambda file: read_photo(file).pixels, "enhance": enhancing(version)}
        stages["encode"], results = encode, []
        wait = torch.cuda.synchronize if version.device == "cuda" else lambda: None
        answer({})
        with torch.inference_mode():
            for file in map(str.strip, sys.stdin):
                home = Path(file).parent
                answer(timed(stages, file, wait))
                if len(results) == 1:
                    np.save(home / f"{os.getpid()}.npy", results[0])
    except Exception as error:
        answer({"error": f"{type(error).__name__}: {error}"})


class Worker:
    """A process that runs one version; calling it with a file enhances it and returns milliseconds
    by stage. ``result()`` is what its first call made, (H, W, 3) uint8.

    Raises RuntimeError that names the version when its process failed or ended.
    """

    def __init__(self, version: Version, folder: Path) -> None:
        self.version, self.folder = version, folder
        own = ("MALLOC_", "GLIBC_", "NUMBA_CPU_")  # the caller's settings would blur the comparison
        kept = {name: value for name, value in os.environ.items() if not name.startswith(own)}
        kept["OMP_NUM_THREADS"] = kept["NUMBA_NUM_THREADS"] = str(version.threads)
        home = [str(paths.PACKAGE.parent), *filter(None, [os.environ.get("PYTHONPATH")])]
        kept["PYTHONPATH"] = os.pathsep.join(home)
        code = "from zdce.study import timing; timing._serve()"
        words = [sys.executable, "-c", code, json.dumps(asdict(version))]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
        environment = kept | (ONLY_AVX2 if version.path == "AVX2" else {})
        self.process = subprocess.Popen(words, env=environment, text=True, **pipes)

    def answer(self) -> dict:
        """The next answer of the process; its first one says that it is ready."""
        text = self.process.stdout.readline()
        ended = {} if text else {"error": f"its process ended (exit code {self.process.wait()})"}
        content = json.loads(text) if text else ended
        if "error" in content:
            raise RuntimeError(f"version {self.version.label!r}: {content['error']}")
        return content

    def ask(self, file: Path) -> None:
        """Let it enhance a file; :meth:`answer` waits until it has."""
        with contextlib.suppress(OSError):  # where it has ended, the missing answer says so
            print(file, file=self.process.stdin, flush=True)

    def __call__(self, file: Path) -> dict[str, float]:
        time.sleep(PAUSE)
        self.ask(file)
        return self.answer()

    def result(self) -> np.ndarray:
        return np.load(self.folder / f"{self.process.pid}.npy")

    def close(self) -> None:
        """End the process."""
        self.process.stdin.close()
        try:
            self.process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.process.stdout.close()


@contextlib.contextmanager
def workers(versions: Iterable[Version], folder: Path) -> Iterator[dict[str, Worker]]:
    """Running processes by label, which start together."""
    running = {version.label: Worker(version, folder) for version in versions}
    try:
        for worker in running.values():
            worker.answer()
        yield running
    finally:
        for worker in running.values():
            worker.close()


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
    if other > BUSY:
        return f"WARNING: {told}: these times are too long and their ratios unsure"
    return f"quiet: {told}"


# --- measuring ------------------------------------------------------------------------------------


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
    for path, needed, extra in (("ONNX", "onnxscript", "export"), ("AVX2", "numba", "fast")):
        if version.path.startswith(path) and not importlib.util.find_spec(needed):
            return f'{version.label}: not at hand; pip install "zdce[{extra}]" brings it'
    return ""


def compare(
    groups: tuple[Group, ...] = GROUPS, seconds: float = SECONDS
) -> tuple[pd.DataFrame, list[str]]:
    """The table of ``zdce speed``, and what could not be measured here, a line each.

    Versions of each group in turn on a bundled photograph: width, height, settings of the version,
    figures of :func:`summary` and :func:`agreement`, cores of other work, and :func:`conditions`.
    """
    image = Image.fromarray(datasets.samples("bundled")[0].image())
    parts, missing, about = [], [], conditions("paths")
    for number, (size, versions) in enumerate(groups):
        missing += filter(None, map(lacking, versions))
        before, there = busy(), [version for version in versions if not lacking(version)]
        with tempfile.TemporaryDirectory(prefix="zdce-speed-") as folder:
            file = Path(folder) / "photograph.jpg"
            ImageOps.fit(image, size, Image.Resampling.BICUBIC).save(file, quality=95)
            with workers(there, Path(folder)) as running:
                for worker in running.values():  # what is compiled, they compile at a time
                    worker.ask(file)
                for worker in running.values():
                    worker.answer()
                part = summary(measure(running, file, seconds))
                results = {worker.version: worker.result() for worker in running.values()}
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
    lines = []
    for _, part in table.groupby("group", sort=False):
        size = f"{part['width'].iloc[0]}×{part['height'].iloc[0]}"
        quartiles = zip(part["ms_low"], part["ms_high"], strict=True)
        shown = pd.DataFrame(
            {
                size: part["version"],
                "ms": part["ms"].map("{:.1f}".format),
                "quartiles": [f"{low:.1f} – {high:.1f}" for low, high in quartiles],
                "times the first": part["ratio"].map("{:.2f}".format),
                "within 1 level": part["within_1"].map("{:.3%}".format).replace("nan%", "–"),
                "decode, encode": part[["decode_ms", "encode_ms"]].round(1).agg(list, axis=1),
            }
        )
        lines += [shown.to_string(index=False), ""]
    about = table.iloc[0]
    lines += [*choices(), *missing]
    where = f"{about['device']}, {about['threads']} threads, {about['versions']}"
    lines.append(f"{where}, commit {about['commit']}")
    return "\n".join([*lines, contention(table["other_work"].max())])
