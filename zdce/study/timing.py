"""How long enhancing takes, how much memory it needs, and what both could be: the study's timing contract.

Every version runs in a process of its own, so that its threads, its memory and its first calls are its own. They take
turns (A B A B …), so that whatever slows the machine down slows all of them; the device is waited for before a clock
is read; what is reported are medians and quartiles, and ratios taken within each turn.
"""

from __future__ import annotations

import contextlib
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image, ImageOps

from zdce import datasets, paths
from zdce.photos import Photo, write_photo

STAGES = ("decode", "prepare", "network", "finish", "encode")
PAUSE = 0.005  # seconds before each call: threads of the version before go to sleep
STRIP_PIXELS = 2**20  # what plain PyTorch is given at a time
BUSY = 0.2  # cores that other work may keep busy before a table says so

FRAMES = {
    "600×400": (600, 400),
    "4K": (3840, 2160),
}  # (width, height) at which all paths and peers are compared
FRAME_MS = 33.0  # of a frame of video at 30 a second

# (width, height) of photographs 1 – 9 of `lime`, as they stand in the files
LIME_SIZES = (
    (720, 680),
    (560, 420),
    (500, 375),
    (370, 415),
    (1039, 789),
    (326, 326),
    (450, 450),
    (490, 365),
    (450, 500),
)

# --- photographs ----------------------------------------------------------------------------------------------


def lime_photographs(real: bool, share: float = 1.0) -> dict[str, np.ndarray]:
    """Nine photographs ``1`` – ``9`` of the sizes of `lime`, (H, W, 3) uint8: its own, or bundled ones resized.

    share: of the pixels, 1 for all. Raises FileNotFoundError where the real ones are not at hand.
    """
    if real:
        images = [sample.image() for sample in datasets.samples("lime")]
    else:
        bundled = datasets.samples("bundled")
        images = [bundled[number % len(bundled)].image() for number in range(len(LIME_SIZES))]
    side = share**0.5
    return {
        str(number): _resized(image, round(width * side), round(height * side))
        for number, (image, (width, height)) in enumerate(zip(images, LIME_SIZES, strict=True), 1)
    }


def sized_photographs(megapixels: Iterable[float]) -> dict[str, np.ndarray]:
    """A bundled photograph resized to 3:2 at each size: name such as ``0.1 MP`` → (H, W, 3) uint8."""
    image = datasets.samples("bundled")[0].image()
    sides = {f"{size:g} MP": (size * 1e6 / 1.5) ** 0.5 for size in megapixels}
    return {
        name: _resized(image, round(1.5 * height), round(height)) for name, height in sides.items()
    }


def framed_photographs(sizes: Mapping[str, tuple[int, int]] | None = None) -> dict[str, np.ndarray]:
    """A bundled photograph cut and resized to each (width, height), default :data:`FRAMES`: name → (H, W, 3) uint8."""
    image = Image.fromarray(datasets.samples("bundled")[0].image())
    fit = Image.Resampling.BICUBIC
    return {
        name: np.asarray(ImageOps.fit(image, size, fit)) for name, size in (sizes or FRAMES).items()
    }


def _resized(image: np.ndarray, width: int, height: int) -> np.ndarray:
    if image.shape[:2] == (height, width):
        return image
    return np.asarray(Image.fromarray(image).resize((width, height), Image.Resampling.BICUBIC))


# --- versions -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Version:
    """One way to enhance a photograph. label: its name in tables; model: a model's name or weights file; threads of
    the processor; keep_freed: memory that it frees stays with its process (``zdce.memory``); device: cpu or cuda; path:
    "plain" for the network in PyTorch as it stands, "compiled" for the same through ``torch.compile``, or the
    enhancer's own "faithful" or "fast"."""

    label: str
    model: str
    threads: int = 2
    keep_freed: bool = True
    device: str = "cpu"
    path: str = "plain"


PATHS = (
    Version("improved, plain", "zero-dce-improved"),
    Version("improved, faithful", "zero-dce-improved", path="faithful"),
    Version("improved, fast", "zero-dce-improved", path="fast"),
    Version("original, plain", "zero-dce"),
    Version("original, faithful", "zero-dce", path="faithful"),
    Version("original, fast", "zero-dce", path="fast"),
)
PEERS = (
    Version("Zero-DCE++ at 1/12", "zero-dce++-12x"),
    Version("Zero-DCE++ at 1/12, compiled", "zero-dce++-12x", path="compiled"),
    Version("SCI", "sci-medium"),
    Version("SCI, compiled", "sci-medium", path="compiled"),
)
ONE_THREAD = (
    Version("improved, faithful, 1 thread", "zero-dce-improved", threads=1, path="faithful"),
    Version("improved, fast, 1 thread", "zero-dce-improved", threads=1, path="fast"),
)
ALL = (*PATHS, *PEERS, *ONE_THREAD)
FEW = (*PATHS[:3], *(peer for peer in PEERS if peer.path == "plain"))  # what starts within seconds
PAIR = (Version("original", "zero-dce"), Version("improved", "zero-dce-improved"))
SETTINGS = (
    *PAIR,
    Version("original, 1 thread", "zero-dce", threads=1),
    Version("improved, 1 thread", "zero-dce-improved", threads=1),
    Version("original, memory returned", "zero-dce", keep_freed=False),
    Version("improved, memory returned", "zero-dce-improved", keep_freed=False),
)


def steps(version: Version) -> tuple[dict[str, Callable[[Any], Any]], Callable[[], object]]:
    """What the version does, stage by stage, each on what the one before returned; and how to wait for its device.

    From a file to a file, for the paths "plain" and "compiled": decode → (H, W, 3) uint8; prepare → (1, 3, H, W)
    float32 in [0, 1] on the device; network → the same, enhanced; finish → (H, W, 3) uint8 after rounding and gamma;
    encode → JPEG in a temporary folder. The faithful path does the three in between in one, told as network; the fast
    one has a network that gives curves of a reduced copy, and bends the photograph by them in finish.
    """
    import torch

    from zdce.engine.reference import halo
    from zdce.engine.tiling import tiles
    from zdce.enhance import SPEEDS, Enhancer
    from zdce.photos import read_photo, to_pixels, to_tensor
    from zdce.postprocess import apply_gamma

    is_file = Path(version.model).suffix in (".safetensors", ".pth", ".pt")
    path = version.path if version.path in SPEEDS else "faithful"
    enhancer = Enhancer(
        **{"weights" if is_file else "model": version.model}, device=version.device, speed=path
    )
    out = Path(tempfile.gettempdir()) / f"zdce-speed-{os.getpid()}.jpg"
    net = torch.compile(enhancer.net, dynamic=False) if version.path == "compiled" else enhancer.net

    def network(image):
        """In plain PyTorch: whole, or in strips of a megapixel where the photograph is large."""
        height, width = image.shape[-2:]
        if height * width <= STRIP_PIXELS or halo(enhancer.net) is None:
            return net(image)[0]
        out = torch.empty_like(image)
        for tile in tiles(
            height, width, halo(enhancer.net), (max(1, STRIP_PIXELS // width), width)
        ):
            strip = net(image[..., tile.seen_rows, tile.seen_columns])[0]
            out[..., tile.rows, tile.columns] = strip[(..., *tile.inside)]
        return out

    def encode(pixels):
        write_photo(Photo(pixels), out)
        out.unlink()

    stages = {
        "decode": lambda file: read_photo(file).pixels,
        "prepare": lambda pixels: to_tensor(pixels).to(enhancer.device),
        "network": network,
        "finish": lambda image: apply_gamma(to_pixels(image), enhancer.gamma),
        "encode": encode,
    }
    if version.path in SPEEDS:  # one pass from 8 bits to 8 bits
        stages |= {
            "prepare": lambda pixels: pixels,
            "network": enhancer,
            "finish": lambda pixels: pixels,
        }
    if version.path == "fast":
        stages["network"] = lambda pixels: (pixels, enhancer.engine.curves(pixels))
        stages["finish"] = lambda given: enhancer.engine.render(*given, gamma=enhancer.gamma)
    return stages, torch.cuda.synchronize if enhancer.device.type == "cuda" else (lambda: None)


def timed(
    stages: Mapping[str, Callable[[Any], Any]],
    value: Any,
    synchronise: Callable[[], object] = lambda: None,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, float]:
    """Milliseconds of each stage; the device is waited for before its clock starts and before it stops."""
    taken = {}
    for name, stage in stages.items():
        synchronise()
        started = clock()
        value = stage(value)
        synchronise()
        taken[name] = 1000 * (clock() - started)
    return taken


# --- processes ------------------------------------------------------------------------------------------------

# Kinds of work inside a network, by the framework's names for it.
KINDS = {
    "convolution": ("convolution", "conv2d"),
    "pooling and its layout": ("max_pool", "contiguous", "clone", "copy_", "to"),
    "joining": ("cat",),
    "ReLU and tanh": ("relu", "clamp_min", "tanh"),
    "curve": ("mul", "sub", "add", "split", "narrow", "slice"),
}


def _kind(operation: str) -> str:
    name = operation.removeprefix("aten::").strip("_")
    for kind, words in KINDS.items():
        if any(word.strip("_") == name or (len(word) > 4 and word in operation) for word in words):
            return kind
    return "other"


def _by_kind(call: Callable[[], object]) -> dict[str, float]:
    """Milliseconds of one call by kind of work, as the framework's own profiler tells them."""
    from torch.profiler import ProfilerActivity, profile

    with profile(activities=[ProfilerActivity.CPU]) as told:
        call()
    kinds = dict.fromkeys([*KINDS, "other"], 0.0)
    for event in told.key_averages():
        kinds[_kind(event.key)] += event.self_cpu_time_total / 1000
    return kinds


def _memory(field: str) -> int:
    """Bytes of this process: VmRSS now, or VmHWM at its largest moment.

    ``ru_maxrss`` starts at the size of the process that started this one, which hides a smaller child, so that it is
    the way out only where there is no /proc.
    """
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(1024 * int(each.split()[1]) for each in lines if each.startswith(f"{field}:"))
    except (OSError, StopIteration):
        import resource

        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (
            1 if sys.platform == "darwin" else 1024
        )


def _serve() -> None:
    """A worker process: reads requests as lines of JSON, answers each with one."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # whatever else is printed stays out of the answers

    def answer(content: object) -> None:
        print(json.dumps(content), file=answers, flush=True)

    try:
        version = Version(**json.loads(sys.argv[1]))
        import torch

        from zdce import memory

        kept = memory.keep_freed() if version.keep_freed else False
        torch.set_num_threads(version.threads)
        stages, synchronise = steps(version)
        idle = _memory("VmRSS")
        device = torch.cuda.get_device_name() if version.device == "cuda" else platform.machine()
        answer({"kept": kept, "device": device, "torch": torch.__version__})
        with torch.inference_mode():
            for request in map(json.loads, sys.stdin):
                file = request.get("file")
                if request["do"] == "time":
                    answer(
                        timed(stages, file, synchronise if request["synchronise"] else lambda: None)
                    )
                elif request["do"] == "kinds":
                    image = stages["prepare"](stages["decode"](file))
                    answer(_by_kind(lambda image=image: stages["network"](image)))
                else:
                    answer({"idle": idle, "peak": _memory("VmHWM")})
    except Exception as error:
        answer({"error": f"{type(error).__name__}: {error}"})


class Worker:
    """A process that runs one version; calling it with a file enhances it and returns milliseconds by stage."""

    code = "from zdce import speed; speed._serve()"

    def __init__(self, version: Version) -> None:
        self.version = version
        ours = (
            "MALLOC_",
            "GLIBC_",
        )  # the caller's own settings of memory would blur the comparison of them
        environment = {
            name: value for name, value in os.environ.items() if not name.startswith(ours)
        }
        environment["OMP_NUM_THREADS"] = str(version.threads)
        home = [str(paths.PACKAGE.parent), *filter(None, [os.environ.get("PYTHONPATH")])]
        environment["PYTHONPATH"] = os.pathsep.join(home)
        words = [sys.executable, "-c", self.code, json.dumps(asdict(version))]
        pipe = subprocess.PIPE
        self.process = subprocess.Popen(
            words, env=environment, stdin=pipe, stdout=pipe, stderr=subprocess.DEVNULL, text=True
        )
        self.about: dict = {}

    def start(self) -> Worker:
        """Wait until its network is loaded."""
        self.about = self._answer()
        return self

    def __call__(self, file: str | os.PathLike, synchronise: bool = True) -> dict[str, float]:
        time.sleep(PAUSE)
        return self.ask(do="time", file=os.fspath(file), synchronise=synchronise)

    def ask(self, **request: object) -> dict:
        """One request, one answer. Raises RuntimeError that names the version when its process failed or ended."""
        with contextlib.suppress(OSError):  # where it has ended, the missing answer says so
            print(json.dumps(request), file=self.process.stdin, flush=True)
        return self._answer()

    def _answer(self) -> dict:
        text = self.process.stdout.readline()
        content = (
            json.loads(text)
            if text
            else {"error": f"its process ended (exit code {self.process.wait()})"}
        )
        if "error" in content:
            raise RuntimeError(f"version {self.version.label!r}: {content['error']}")
        return content

    def close(self) -> None:
        """End the process."""
        self.process.stdin.close()
        try:
            self.process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.process.stdout.close()


class Workers(dict):
    """Versions by label, each a running :class:`Worker`, for a ``with`` block; they start all at once.

    Raises RuntimeError naming the version that cannot run.
    """

    def __init__(
        self, versions: Iterable[Version], worker: Callable[[Version], Worker] = Worker
    ) -> None:
        super().__init__()
        self.worker = worker
        self.versions = list(versions)

    def __enter__(self) -> Workers:
        self.folder = tempfile.TemporaryDirectory(prefix="zdce-speed-")
        self.load = os.getloadavg()[0] if hasattr(os, "getloadavg") else float("nan")
        try:
            self.update({version.label: self.worker(version) for version in self.versions})
            with ThreadPoolExecutor(len(self)) as pool:
                list(pool.map(Worker.start, self.values()))
        except BaseException:
            self.__exit__()
            raise
        self.before = self._seconds()
        return self

    def __exit__(self, *_failure: object) -> None:
        for worker in self.values():
            worker.close()
        self.folder.cleanup()

    def files(self, images: Mapping[str, np.ndarray]) -> dict[str, Path]:
        """(H, W, 3) uint8 by name → JPEG files (quality 95) that last as long as the block."""
        files = {name: Path(self.folder.name) / f"{name.replace(' ', '-')}.jpg" for name in images}
        for name, file in files.items():
            write_photo(Photo(images[name]), file)
        return files

    def memory(self) -> pd.DataFrame:
        """Peak memory of each process so far, less what it held before its first photograph: version, idle_mb,
        peak_mb (megabytes of 10⁶ bytes)."""
        told = {label: worker.ask(do="memory") for label, worker in self.items()}
        rows = [
            (label, each["idle"] / 1e6, (each["peak"] - each["idle"]) / 1e6)
            for label, each in told.items()
        ]
        return pd.DataFrame(rows, columns=["version", "idle_mb", "peak_mb"])

    def kinds(self, file: Path, repeats: int = 3) -> pd.DataFrame:
        """Where a network's time goes: median milliseconds, a row a kind of work, a column a version."""
        rounds = [
            {label: worker.ask(do="kinds", file=str(file)) for label, worker in self.items()}
            for _ in range(repeats)
        ]
        middle = {label: pd.DataFrame([each[label] for each in rounds]).median() for label in self}
        return pd.DataFrame(middle).rename_axis("kind")

    def other_work(self) -> float:
        """Cores that processes other than ours kept busy since the block began, on average; NaN outside Linux."""
        (wall, machine, own), (wall_before, machine_before, own_before) = (
            self._seconds(),
            self.before,
        )
        return max(0.0, (machine - machine_before) - (own - own_before)) / max(
            wall - wall_before, 1e-9
        )

    def _seconds(self) -> tuple[float, float, float]:
        ours = [os.getpid(), *(worker.process.pid for worker in self.values())]
        return time.monotonic(), _machine_seconds(), sum(map(_process_seconds, ours))

    def conditions(self) -> dict[str, object]:
        """What a table states beside its times: load average before, other work meanwhile (cores), machine, torch,
        commit."""
        from zdce.study.report import commit  # a worker does without the libraries of reports

        first = next(iter(self.values()))
        return {
            "load_before": round(self.load, 2),
            "other_work": round(self.other_work(), 2),
            "machine": f"{os.cpu_count()} cores {first.about['device']}",
            "torch": first.about["torch"],
            "commit": commit(),
        }


def _machine_seconds() -> float:
    """Processor seconds that all processes together have used since the machine started; NaN outside Linux."""
    try:
        numbers = [
            int(word) for word in Path("/proc/stat").read_text().splitlines()[0].split()[1:9]
        ]
    except (OSError, ValueError):
        return float("nan")
    return (sum(numbers) - numbers[3] - numbers[4]) / os.sysconf(
        "SC_CLK_TCK"
    )  # all but idle and waiting for disks


def _process_seconds(pid: int) -> float:
    try:
        words = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    except OSError:
        return float("nan")
    return (int(words[11]) + int(words[12])) / os.sysconf("SC_CLK_TCK")


def contention(conditions: Mapping[str, object]) -> str:
    """Whether other work was running, for print, from :meth:`Workers.conditions`; starts with WARNING if so."""
    other, load = float(conditions["other_work"]), conditions["load_before"]
    if np.isnan(other):
        return f"other work is not known on this system; load average before: {load}"
    if other > BUSY:
        return (
            f"WARNING: other work kept {other:.2f} cores busy meanwhile (load average before: {load});\n"
            "these times are too long and their ratios unsure"
        )
    return f"quiet: other work kept {other:.2f} cores busy meanwhile (load average before: {load})"


# --- measuring ------------------------------------------------------------------------------------------------


def measure(
    versions: Mapping[str, Callable[..., dict[str, float]]], files: Mapping[str, Path], repeats: int
) -> pd.DataFrame:
    """Times of every version on every file: one row a call, with version, photograph, repeat and ms by stage.

    Repeat 0 is the published way of timing: version after version, photographs in order, one call each, nothing
    waited for. It is the warm-up of what follows: ``repeats`` rounds in which versions take turns on each file.
    """
    rows = []

    def call(label: str, name: str, repeat: int) -> None:
        taken = versions[label](files[name], synchronise=repeat > 0)
        rows.append({"version": label, "photograph": name, "repeat": repeat} | taken)

    for label in versions:
        for name in files:
            call(label, name, 0)
    for repeat in range(1, repeats + 1):
        for name in files:
            for label in versions:
                call(label, name, repeat)
    return pd.DataFrame(rows)


def summary(times: pd.DataFrame, reference: str, stage: str = "network") -> pd.DataFrame:
    """Times of :func:`measure` over its repeats, the first calls left out: one row a photograph and version.

    ms: median, with quartiles ms_low and ms_high; ratio: how many times faster than ``reference``, the median over
    rounds of the quotient within a round, with its quartiles; n: rounds; first_ms: the call of repeat 0.
    """
    key = ["photograph", "version"]
    first = times[times["repeat"] == 0].set_index(key)[stage]
    warm = times[times["repeat"] > 0].set_index([*key, "repeat"])[stage]
    other = warm.xs(reference, level="version").reindex(warm.index.droplevel("version")).to_numpy()
    told = {}
    for name, values in {"ms": warm, "ratio": other / warm}.items():
        groups = values.groupby(level=key, sort=False)
        told |= {
            name: groups.median(),
            f"{name}_low": groups.quantile(0.25),
            f"{name}_high": groups.quantile(0.75),
        }
    table = pd.DataFrame(told).assign(n=warm.groupby(level=key, sort=False).size(), first_ms=first)
    return table.reset_index()


def growth(table: pd.DataFrame) -> pd.DataFrame:
    """How time grows with pixels, from a summary with a column megapixels: one row a version.

    slope: of the logarithms, 1 where twice the pixels take twice as long; ms_per_megapixel at the largest size.
    """
    rows = []
    for version, part in table.sort_values("megapixels").groupby("version", sort=False):
        slope = (
            np.polyfit(np.log(part["megapixels"]), np.log(part["ms"]), 1)[0]
            if len(part) > 1
            else float("nan")
        )
        last = part.iloc[-1]
        rows.append(
            {
                "version": version,
                "slope": slope,
                "ms_per_megapixel": last["ms"] / last["megapixels"],
                "n": len(part),
            }
        )
    return pd.DataFrame(rows)


def described(versions: Iterable[Version]) -> pd.DataFrame:
    """Versions and their settings, one row each."""
    return pd.DataFrame([asdict(version) for version in versions]).rename(
        columns={"label": "version"}
    )


def from_pixels(times: pd.DataFrame) -> pd.DataFrame:
    """Times of :func:`measure` with a column ``pixels``: from 8 bits to 8 bits, all but decoding and encoding."""
    return times.assign(pixels=times[["prepare", "network", "finish"]].sum(axis=1))


def compare(
    versions: Iterable[Version] = ALL,
    repeats: int = 5,
    sizes: Mapping[str, tuple[int, int]] | None = None,
) -> tuple[pd.DataFrame, dict[str, object]]:
    """The table of ``zdce speed``: versions in turn on one bundled photograph of each size, and the conditions.

    sizes: name → (width, height), default 600×400 and 4K. One row a photograph and version: settings, median of every
    stage (ms), from 8 bits to 8 bits (``pixels_ms``) with quartiles, its ratio to the first version, peak memory of the
    version (MB, over all photographs) and conditions, commit included.
    """
    versions, sizes = list(versions), dict(sizes or FRAMES)
    with Workers(versions) as workers:
        times = from_pixels(measure(workers, workers.files(framed_photographs(sizes)), repeats))
        memory, conditions = workers.memory(), workers.conditions()
    key = ["photograph", "version"]
    stages = (
        times[times["repeat"] > 0].groupby(key, sort=False)[list(STAGES)].median().add_suffix("_ms")
    )
    told = summary(times, versions[0].label, "pixels")
    told = told.rename(
        columns={"ms": "pixels_ms", "ms_low": "pixels_low_ms", "ms_high": "pixels_high_ms"}
    )
    table = told.rename(columns={"first_ms": "first_call_ms"}).merge(
        stages.reset_index(), on=key, sort=False
    )
    table = (
        described(versions)
        .merge(table, on="version", sort=False)
        .merge(memory, on="version", sort=False)
    )
    at = pd.DataFrame(
        [(name, *size) for name, size in sizes.items()], columns=["photograph", "width", "height"]
    )
    return at.merge(table, on="photograph", sort=False).assign(**conditions), conditions


def goals(table: pd.DataFrame) -> pd.DataFrame:
    """What the paths are to reach, from :func:`compare` over paths and peers: one row a goal.

    Columns: goal; photograph; against: the version that is compared with; ms of both; ratio; wanted; held. The fast
    path is held against the fastest peer, whichever that is.
    """
    rows = []
    for name, part in table.groupby("photograph", sort=False):
        ms = part.set_index("version")["pixels_ms"]

        def row(goal, ours, other, wanted, ms=ms, name=name):
            ratio = ms[other] / ms[ours]
            rows.append(
                (
                    goal,
                    name,
                    other,
                    ms[ours],
                    ms[other],
                    ratio,
                    wanted,
                    "yes" if ratio >= wanted else "no",
                )
            )

        for net in ("improved", "original"):
            if f"{net}, plain" in ms and name == next(iter(FRAMES)):
                row(f"{net}, faithful", f"{net}, faithful", f"{net}, plain", 4.0)
        peers = ms[ms.index.intersection([peer.label for peer in PEERS])]
        if len(peers):
            row("improved, fast", "improved, fast", peers.idxmin(), 3.0)
        if name == "4K":
            ours = ms["improved, fast"]
            held = "yes" if ours <= FRAME_MS else "no"
            rows.append(
                (
                    "improved, fast: a frame",
                    name,
                    "33 ms",
                    ours,
                    FRAME_MS,
                    FRAME_MS / ours,
                    1.0,
                    held,
                )
            )
    return pd.DataFrame(
        rows,
        columns=["goal", "photograph", "against", "ms", "against_ms", "ratio", "wanted", "held"],
    )


def agreement(
    on: str, limit: int = 0, models: Iterable[str] = ("zero-dce-improved", "zero-dce")
) -> pd.DataFrame:
    """Whether the faithful path gives what plain PyTorch gives: one row a model.

    on, limit: photographs of a data set. Columns: model, gamma, photographs, and over all their pixels same and
    within_1 (shares whose channels all agree, or lie within one grey level) and furthest (grey levels).
    """
    import torch

    from zdce.enhance import Enhancer
    from zdce.photos import to_pixels, to_tensor
    from zdce.postprocess import apply_gamma

    rows, images = [], [sample.image() for sample in datasets.samples(on, limit)]
    for model in models:
        enhancer, apart = Enhancer(model, device="cpu"), []
        for image in images:
            with torch.inference_mode():
                plain = apply_gamma(to_pixels(enhancer.net(to_tensor(image))[0]), enhancer.gamma)
            apart.append(np.abs(enhancer(image).astype(int) - plain).max(axis=2).ravel())
        each = np.concatenate(apart)
        told = {"same": (each == 0).mean(), "within_1": (each <= 1).mean(), "furthest": each.max()}
        rows.append({"model": model, "gamma": enhancer.gamma, "photographs": len(images)} | told)
    return pd.DataFrame(rows)


def machine_limits(repeats: int = 5) -> dict[str, float]:
    """What this machine's cores reach together: bytes copied and multiply-adds done a second, the best of ``repeats``.

    copy: bytes read and written, of arrays too large for its caches; float32, bfloat16: products of large matrices.
    """
    import torch

    from zdce.engine.tiling import parallel

    count = torch.get_num_threads()
    source, target = (np.ones((count, 2**26), np.uint8) for _ in range(2))

    def copy():
        parallel(lambda part: np.copyto(target[part], source[part]), range(count))

    reached = {"copy": 2 * source.nbytes / _quickest(copy, repeats)}
    for kind in (torch.float32, torch.bfloat16):
        matrix = torch.ones(1536, 1536, dtype=kind)
        reached[str(kind).removeprefix("torch.")] = 1536**3 / _quickest(
            lambda m=matrix: m @ m, repeats
        )
    return reached


def _quickest(call: Callable[[], object], repeats: int) -> float:
    """Seconds of the quickest of ``repeats`` calls, after one that does not count."""
    call()
    taken = []
    for _ in range(repeats):
        started = time.perf_counter()
        call()
        taken.append(time.perf_counter() - started)
    return min(taken)


def beside_limits(table: pd.DataFrame, reached: Mapping[str, float]) -> pd.DataFrame:
    """The enhancer's own paths of :func:`compare` on two threads beside what :func:`machine_limits` allows.

    bytes: what has to pass through memory, each pixel read once and written once, and once more read for the reduced
    copy; multiply_adds: of the network on what it sees, as it computes them (``winograd.products`` with numba);
    copy_ms, arithmetic_ms: what these take at full rate; times: measured over the larger of the two.
    """
    from zdce import checkpoints
    from zdce.engine import winograd
    from zdce.engine.reference import factor_for
    from zdce.model import multiply_adds

    nets = {model: checkpoints.load(model).net for model in {path.model for path in PATHS}}
    machine_code = winograd.numba is not None
    count = winograd.products if machine_code else multiply_adds
    rows = []
    own = {path.label: path for path in PATHS if path.path != "plain"}
    for each in table[table["version"].isin(own)].itertuples():
        quick, seen = own[each.version].path == "fast", (each.height, each.width)
        if quick:
            factor = factor_for(*seen)
            seen = (-(-each.height // factor), -(-each.width // factor))
        moved, done = (9 if quick else 6) * each.width * each.height, count(nets[each.model], *seen)
        copy, arithmetic = 1000 * moved / reached["copy"], 1000 * done / reached["float32"]
        times = each.pixels_ms / max(copy, arithmetic)
        rows.append(
            (each.photograph, each.version, each.pixels_ms, moved, done, copy, arithmetic, times)
        )
    columns = [
        "photograph",
        "version",
        "ms",
        "bytes",
        "multiply_adds",
        "copy_ms",
        "arithmetic_ms",
        "times",
    ]
    return pd.DataFrame(rows, columns=columns)


def as_text(table: pd.DataFrame) -> str:
    """The table of :func:`compare` as lines for a terminal: ratios, milliseconds with quartiles, stages, memory."""
    lines = []
    for _, part in table.groupby("photograph", sort=False):
        shown = pd.DataFrame(
            {
                "version": part["version"],
                "ratio": part["ratio"].map("{:.2f} ×".format),
                "8 bits to 8 bits": part["pixels_ms"].map("{:.1f} ms".format),
                "quartiles": [
                    f"{low:.1f} – {high:.1f}"
                    for low, high in zip(part["pixels_low_ms"], part["pixels_high_ms"], strict=True)
                ],
                "first call": part["first_call_ms"].map("{:.1f} ms".format),
                **{stage: part[f"{stage}_ms"].map("{:.1f} ms".format) for stage in STAGES},
                "peak memory": part["peak_mb"].map("{:.0f} MB".format),
            }
        )
        size = f"{part.iloc[0]['width']}×{part.iloc[0]['height']}"
        lines += [f"{size}:", shown.to_string(index=False)]
    about = table.iloc[0]
    devices = "; no accelerator was timed" if set(table["device"]) == {"cpu"} else ""
    lines += [
        f"{about['n']} rounds; ratio: to the first line, in turn; peak memory: over all sizes",
        f"{', '.join(sorted(set(table['device'])))} ({about['machine']}), torch {about['torch']}, commit "
        f"{about['commit']}{devices}",
    ]
    return "\n".join(lines)
