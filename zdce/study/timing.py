"""How long enhancing takes, how much memory it needs, and what both could be: the study's timing
contract.

Every version runs in a process of its own, so that its threads, its memory and its first calls are
its own. They take turns (A B A B …), so that whatever slows the machine down slows all of them; the
device is waited for before a clock is read; what is reported are medians and quartiles, and ratios
taken within each turn.
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

# Seconds of the nine photographs of `lime` as the improved study published them: a GPU, one call
# each, no warm-up and no synchronisation.
PUBLISHED_SECONDS = {
    "original": (0.02394, 0.01396, 0.01197, 0.00997, 0.03890, 0.00898, 0.01296, 0.01197, 0.01396),
    "improved": (0.01596, 0.01197, 0.00898, 0.00798, 0.03491, 0.00598, 0.00898, 0.00898, 0.01097),
}  # fmt: skip
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

# --- photographs ----------------------------------------------------------------------------------


def framed_photographs(sizes: Mapping[str, tuple[int, int]] | None = None) -> dict[str, np.ndarray]:
    """A bundled photograph cut and resized to each (width, height), default :data:`FRAMES`: name →
    (H, W, 3) uint8.
    """
    image = Image.fromarray(datasets.samples("bundled")[0].image())
    fit = Image.Resampling.BICUBIC
    return {
        name: np.asarray(ImageOps.fit(image, size, fit)) for name, size in (sizes or FRAMES).items()
    }


def _resized(image: np.ndarray, width: int, height: int) -> np.ndarray:
    if image.shape[:2] == (height, width):
        return image
    return np.asarray(Image.fromarray(image).resize((width, height), Image.Resampling.BICUBIC))


# --- versions -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Version:
    """One way to enhance a photograph. label: its name in tables; model: a model's name or weights
    file; threads of the processor; keep_freed: memory that it frees stays with its process
    (``zdce.memory``); device: cpu or cuda; path: "plain" for the network in PyTorch as it stands,
    "compiled" for the same through ``torch.compile``, or the enhancer's own "faithful" or "fast".
    """

    label: str
    model: str
    threads: int = 2
    keep_freed: bool = True
    device: str = "cpu"
    path: str = "plain"


PATHS = (
    Version("improved, plain", "zero-dce-improved"),
    Version("auto", "auto", path="faithful"),
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


def steps(version: Version) -> tuple[dict[str, Callable[[Any], Any]], Callable[[], object]]:
    """What the version does, stage by stage, each on what the one before returned; and how to wait
    for its device.

    From a file to a file, for the paths "plain" and "compiled": decode → (H, W, 3) uint8; prepare →
    (1, 3, H, W) float32 in [0, 1] on the device; network → the same, enhanced; finish → (H, W, 3)
    uint8 after rounding and gamma; encode → JPEG in a temporary folder. The faithful path does the
    three in between in one, told as network; the fast one has a network that gives curves of a
    reduced copy, and bends the photograph by them in finish.
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
        side = (max(1, STRIP_PIXELS // width), width)
        for tile in tiles(height, width, halo(enhancer.net), side):
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
    """Milliseconds of each stage; the device is waited for before its clock starts and before it
    stops.
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


def _memory(field: str) -> int:
    """Bytes of this process: VmRSS now, or VmHWM at its largest moment.

    ``ru_maxrss`` starts at the size of the process that started this one, which hides a smaller
    child, so that it is the way out only where there is no /proc.
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
                else:
                    answer({"idle": idle, "peak": _memory("VmHWM")})
    except Exception as error:
        answer({"error": f"{type(error).__name__}: {error}"})


class Worker:
    """A process that runs one version; calling it with a file enhances it and returns milliseconds
    by stage.
    """

    code = "from zdce.study import timing; timing._serve()"

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
        """One request, one answer. Raises RuntimeError that names the version when its process
        failed or ended.
        """
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
    """Versions by label, each a running :class:`Worker`, for a ``with`` block; they start all at
    once.

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
        """Peak memory of each process so far, less what it held before its first photograph:
        version, idle_mb, peak_mb (megabytes of 10⁶ bytes).
        """
        told = {label: worker.ask(do="memory") for label, worker in self.items()}
        rows = [
            (label, each["idle"] / 1e6, (each["peak"] - each["idle"]) / 1e6)
            for label, each in told.items()
        ]
        return pd.DataFrame(rows, columns=["version", "idle_mb", "peak_mb"])

    def other_work(self) -> float:
        """Cores that processes other than ours kept busy since the block began, on average; NaN
        outside Linux.
        """
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
        """What a table states beside its times: load average before, other work meanwhile (cores),
        machine, torch, commit.
        """
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
    """Processor seconds that all processes together have used since the machine started; NaN
    outside Linux.
    """
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
    """Whether other work was running, for print, from :meth:`Workers.conditions`; starts with
    WARNING if so.
    """
    other, load = float(conditions["other_work"]), conditions["load_before"]
    if np.isnan(other):
        return f"other work is not known on this system; load average before: {load}"
    if other > BUSY:
        return (
            f"WARNING: other work kept {other:.2f} cores busy meanwhile "
            f"(load average before: {load});\n"
            "these times are too long and their ratios unsure"
        )
    return f"quiet: other work kept {other:.2f} cores busy meanwhile (load average before: {load})"


# --- measuring ------------------------------------------------------------------------------------


def measure(
    versions: Mapping[str, Callable[..., dict[str, float]]], files: Mapping[str, Path], repeats: int
) -> pd.DataFrame:
    """Times of every version on every file: one row a call, with version, photograph, repeat and ms
    by stage.

    Repeat 0 is the published way of timing: version after version, photographs in order, one call
    each, nothing waited for. It is the warm-up of what follows: ``repeats`` rounds in which
    versions take turns on each file.
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
    """Times of :func:`measure` over its repeats, the first calls left out: one row a photograph and
    version.

    ms: median, with quartiles ms_low and ms_high; ratio: how many times faster than ``reference``,
    the median over rounds of the quotient within a round, with its quartiles; n: rounds; first_ms:
    the call of repeat 0.
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


def described(versions: Iterable[Version]) -> pd.DataFrame:
    """Versions and their settings, one row each."""
    return pd.DataFrame([asdict(version) for version in versions]).rename(
        columns={"label": "version"}
    )


def from_pixels(times: pd.DataFrame) -> pd.DataFrame:
    """Times of :func:`measure` with a column ``pixels``: from 8 bits to 8 bits, all but decoding
    and encoding.
    """
    return times.assign(pixels=times[["prepare", "network", "finish"]].sum(axis=1))


def compare(
    versions: Iterable[Version] = ALL,
    repeats: int = 5,
    sizes: Mapping[str, tuple[int, int]] | None = None,
) -> tuple[pd.DataFrame, dict[str, object]]:
    """The table of ``zdce speed``: versions in turn on one bundled photograph of each size, and the
    conditions.

    sizes: name → (width, height), default 600×400 and 4K. One row a photograph and version:
    settings, median of every stage (ms), from 8 bits to 8 bits (``pixels_ms``) with quartiles, its
    ratio to the first version, peak memory of the version (MB, over all photographs) and
    conditions, commit included.
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


def choices(device: str = "cpu") -> dict[str, str]:
    """Which engine enhances by each of this project's models on a device, and why."""
    from zdce import checkpoints, engine

    chosen = {}
    for model in ("auto", "zero-dce-improved", "zero-dce"):
        first, *others = engine.candidates(checkpoints.load(model).net, device)
        rest = f"; could also run: {', '.join(other.name for other in others)}" if others else ""
        chosen[model] = f"engine {first.name} ({first.reason}){rest}"
    return chosen


def as_text(table: pd.DataFrame) -> str:
    """The table of :func:`compare` as lines for a terminal: ratios, milliseconds with quartiles,
    stages, memory.
    """
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
    lines += [f"{name}: {told}" for name, told in choices().items()]
    lines += [
        f"{about['n']} rounds; ratio: to the first line, in turn; peak memory: over all sizes",
        f"{', '.join(sorted(set(table['device'])))} ({about['machine']}), "
        f"torch {about['torch']}, commit "
        f"{about['commit']}{devices}",
    ]
    return "\n".join(lines)
