"""How long enhancing takes, version by version: the study's timing contract.

A version is a model and a path, the way in which it computes. Each runs in a process of its own.
Versions of a group take turns (A B A B …), so that whatever slows the machine down slows all of
them; what a clock is read around returns pixels, not work in progress; reported are medians and
quartiles, and ratios taken within each turn.
"""

import contextlib
import hashlib
import importlib.util
import os
import platform
import re
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from importlib.metadata import version as version_of
from multiprocessing import get_context, parent_process
from pathlib import Path
from threading import Thread
from typing import Any
from unittest.mock import patch

import numpy as np
import pandas as pd
import torch
from PIL import Image, ImageOps

from zdce import checkpoints, datasets, engine, export, memory, paths
from zdce.checkpoints import Model
from zdce.photos import Photo, read_photo, to_pixels, to_tensor, write_photo
from zdce.postprocess import apply_gamma

THREADS = 2  # of every version
PAUSE = 0.05  # seconds before each call: until then threads of ONNX Runtime before it keep spinning
SECONDS, LEAST = 3.0, 3  # a version is called until it took so long, but no fewer times
BUSY = 0.2  # cores that other work may keep busy before a table says so
# Settings that leave machine code no more than AVX2, as most processors of the last ten years have
ONLY_AVX2 = {"NUMBA_CPU_NAME": "haswell", "NUMBA_CPU_FEATURES": "+avx2,+fma"}
# What each file of reports/study/speed measures: it names their fingerprint.
ENGINE = ("__init__", "engine/*", "auto", "enhance", "memory", "model", "peers", "postprocess")
SOURCES = {
    "paths": ENGINE,
    "filter": ("auto", "postprocess"),
    "large": (*ENGINE, "color", "folders", "photos"),
    "video": (*ENGINE, "video"),
    "training": ("__init__", "losses", "memory", "model", "training"),
}


def fingerprint(name: str, home: Path = paths.PACKAGE) -> str:
    """The sha256, its first 12 digits, of the sources that the file of speeds ``name`` measures,
    without comments, docstrings and empty lines: while it stays, what was measured counts.
    """
    digest = hashlib.sha256()
    for pattern in SOURCES[name]:
        for file in sorted(home.glob(f"{pattern}.py")):
            digest.update(f"{file.relative_to(home).as_posix()}\n".encode())
            code = re.sub(r'"""[\s\S]*?"""|(^|  )# .*$', "", file.read_text("utf-8"), flags=re.M)
            digest.update(re.sub(r"\s*\n", "\n", code).encode())
    return f"sha256:{digest.hexdigest()[:12]}"  # else 12e345678901 would be read as a number


def conditions(name: str, device: str = "cpu") -> dict[str, object]:
    """What the file ``name`` states beside its times: commit, fingerprint, device, versions."""
    from zdce.study.report import commit

    vectors = torch.backends.cpu.get_cpu_capability()
    where = f"{os.cpu_count()} cores {platform.machine()} {vectors}"
    where = torch.cuda.get_device_name() if device == "cuda" else where
    there = [each for each in ("torch", "numba", "onnxruntime") if importlib.util.find_spec(each)]
    versions = ", ".join(f"{each} {version_of(each)}" for each in there)
    about = {"commit": commit(), "fingerprint": fingerprint(name)}
    return about | {"device": where, "versions": versions}


# --- versions -------------------------------------------------------------------------------------

Enhance = Callable[[np.ndarray], np.ndarray]  # (H, W, 3) uint8, rounded, with the model's gamma


def in_onnx_runtime(model: Model) -> Callable:
    """The network exported to ONNX, on the processor."""
    import onnxruntime

    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "network.onnx"
        export.to_onnx(model, file, gamma=1)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = THREADS
        on = {"providers": ["CPUExecutionProvider"]}
        session = onnxruntime.InferenceSession(file.read_bytes(), options, **on)
    return lambda image: torch.from_numpy(session.run(None, {"image": image.numpy()})[0])[None]


# path → what makes the network as it stands ready; any other path is an engine
PREPARED: dict[str, Callable[[Model], Callable]] = {
    "torch": lambda model: model.net,
    "channels-last": lambda model: model.net.to(memory_format=torch.channels_last),
    "torch.compile": lambda model: torch.compile(model.net, dynamic=False),
    "ONNX Runtime": in_onnx_runtime,
}
Group = tuple[tuple[int, int], Mapping[str, Sequence[str]]]
# Size of a photograph, and the versions that take turns on it: paths by model; ratios are to the
# first. Where the reference is measured, so are all engines that could run.
OURS, TORCH = ("chosen", "AVX2", "reference"), ("torch", "torch.compile")
GROUPS: Sequence[Group] = (
    ((600, 400), {"auto": OURS, "zero-dce++-12x": TORCH, "sci-medium": TORCH}),
    ((600, 400), {"zero-dce-improved": (*OURS, "fast", *TORCH, "channels-last", "ONNX Runtime")}),
    ((600, 400), {"zero-dce": ("chosen", "reference")}),
    (
        (3840, 2160),
        {"auto": OURS, "sci-medium": TORCH[1:], "zero-dce-improved": ("chosen", "fast")},
    ),
)


def enhancing(model: str, path: str) -> Enhance:
    """A version, on the processor. Its path is of :data:`PREPARED`, ``chosen`` or ``fast`` (the
    engine that is chosen, for a reduced copy), ``AVX2`` or an engine's name; ValueError if unknown.
    """
    loaded = checkpoints.load(model)
    if path in PREPARED:
        run = PREPARED[path](loaded)

        @torch.inference_mode()
        def enhance(pixels: np.ndarray) -> np.ndarray:
            return apply_gamma(to_pixels(run(to_tensor(pixels))[0].contiguous()), loaded.gamma)

        return enhance
    here = engine.candidates(loaded.net, "cpu", reduced=path == "fast")
    name = {"chosen": here[0].name, "fast": here[0].name, "AVX2": "compiled"}.get(path, path)
    for one in here:
        if one.name == name:
            return lambda pixels: one.render(pixels, gamma=loaded.gamma)
    known = ", ".join(f"{one.name} ({one.reason})" for one in here)
    raise ValueError(f"no engine {name!r} for {model} here, only {known}")


# --- processes ------------------------------------------------------------------------------------


STAGES: dict[str, Callable] = {}  # of the version in whose process this is


def _end_with_parent() -> None:
    parent_process().join()
    os._exit(1)


def _begin(model: str, path: str, file: Path) -> np.ndarray:
    Thread(target=_end_with_parent, daemon=True).start()
    for stream in (1, 2):  # libraries print while they compile
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream)
    memory.keep_freed()
    torch.set_num_threads(THREADS)
    written = file.with_name(f"{os.getpid()}.jpg")
    STAGES["decode"] = lambda file: read_photo(file).pixels
    STAGES["enhance"] = enhancing(model, path)
    STAGES["encode"] = lambda pixels: write_photo(Photo(pixels), written)
    return STAGES["enhance"](STAGES["decode"](file))


def _again(value: object) -> dict[str, float]:
    """Milliseconds of each stage on what the one before returned, in this machine's memory."""
    taken = {}
    for name, stage in STAGES.items():
        started = time.perf_counter()
        value = stage(value)
        taken[name] = 1000 * (time.perf_counter() - started)
    return taken


@contextlib.contextmanager
def worker(model: str, path: str, file: Path) -> Iterator[Callable[[], Any]]:
    """A process in which one version enhances one file again and again, as a function: the first
    call returns the enhanced photograph, (H, W, 3) uint8, when all is compiled; further ones
    milliseconds by stage. RuntimeError names the version when it fails or ends.
    """
    own = dict.fromkeys(("OMP_NUM_THREADS", "NUMBA_NUM_THREADS"), str(THREADS))
    own |= ONLY_AVX2 if path == "AVX2" else {}
    with ProcessPoolExecutor(1, get_context("spawn")) as process:
        with patch.dict(os.environ, own):  # which the process begins with
            begun = [process.submit(_begin, model, path, file)]

        def call() -> Any:
            time.sleep(PAUSE)
            try:
                return (begun.pop() if begun else process.submit(_again, file)).result()
            except Exception as error:  # whatever a version meets
                raise RuntimeError(f"{model}, {path}: {type(error).__name__}: {error}") from None

        yield call


def busy() -> tuple[float, float]:
    """Seconds of a clock, and of processor that others than this process and its ended children
    used; NaN outside Linux.
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


# --- measuring ------------------------------------------------------------------------------------


def measure(
    versions: Mapping[str, Callable[[], dict[str, float]]], seconds: float = SECONDS
) -> pd.DataFrame:
    """Times of every version: one row a call, with version, round and ms by stage. Round 0 is the
    warm-up; then they take turns, each until it took ``seconds`` and ran :data:`LEAST` times.
    """
    rows, spent, number = [], dict.fromkeys(versions, 0.0), 0
    while asked := [v for v in versions if spent[v] < seconds or number <= LEAST]:
        for label in asked:
            started = time.perf_counter()
            rows.append({"version": label, "round": number} | versions[label]())
            spent[label] += time.perf_counter() - started if number else 0.0
        number += 1
    return pd.DataFrame(rows)


def summary(times: pd.DataFrame) -> pd.DataFrame:
    """Times of :func:`measure` without the warm-up: one row a version.

    ms: median of what lies between decoding and encoding, with quartiles ms_low and ms_high; ratio:
    the median of the quotients with the first version within a round, with quartiles; n: rounds;
    decode_ms, encode_ms: medians.
    """
    warm = times[times["round"] > 0].rename(columns={"enhance": "ms"})
    first = warm[warm["version"] == times["version"].iloc[0]].set_index("round")["ms"]
    each = warm.assign(ratio=warm["ms"] / warm["round"].map(first)).groupby("version", sort=False)
    figures, stages = each[["ms", "ratio"]], each[["decode", "encode"]].median()
    low, high = (figures.quantile(q).add_suffix(s) for q, s in ((0.25, "_low"), (0.75, "_high")))
    parts = [figures.median(), low, high, stages.add_suffix("_ms")]
    return pd.concat(parts, axis=1).assign(n=each.size()).reset_index()


def agreement(results: Mapping[tuple[str, str], np.ndarray]) -> pd.DataFrame:
    """How far results by model and path lie from those of the engine "reference": version, model,
    path, within_1 (share of values within one grey level), furthest (grey levels).
    """
    rows = []
    for (model, path), pixels in results.items():
        rows.append({"version": f"{model}, {path}", "model": model, "path": path})
        if path != "fast" and (model, "reference") in results:
            apart = np.abs(results[model, "reference"].astype(int) - pixels)
            rows[-1] |= {"within_1": (apart <= 1).mean(), "furthest": apart.max()}
    return pd.DataFrame(rows, columns=["version", "model", "path", "within_1", "furthest"])


def compare(
    groups: Sequence[Group] = GROUPS, seconds: float = SECONDS
) -> tuple[pd.DataFrame, list[str]]:
    """The table of ``zdce speed``, and what could not be measured here, a line each: figures of
    :func:`summary`, :func:`agreement` and :func:`conditions` on a bundled photograph.
    """
    image = Image.fromarray(datasets.samples("bundled")[0].image())
    parts, missing, about = [], [], conditions("paths")
    for number, (size, models) in enumerate(groups):
        before, at = busy(), {"group": number, "width": size[0], "height": size[1]}
        with tempfile.TemporaryDirectory(prefix="zdce-speed-") as folder:
            file = Path(folder) / "photograph.jpg"
            ImageOps.fit(image, size, Image.Resampling.BICUBIC).save(file, quality=95)
            part, failed = _in_turn(models, file, seconds)
        parts.append(part.assign(**at, other_work=other_work(before)))
        missing += failed
    return pd.concat(parts, ignore_index=True).assign(**about), missing


def _in_turn(
    models: Mapping[str, Sequence[str]], file: Path, seconds: float
) -> tuple[pd.DataFrame, list[str]]:
    calls, results, missing = {}, {}, []
    with contextlib.ExitStack() as stack:
        for model, asked in models.items():
            whole = engines(model)[1:] if "reference" in asked else []
            for path in [*asked, *(one.name for one in whole)]:
                if (model, path) not in calls:
                    calls[model, path] = stack.enter_context(worker(model, path, file))
        for version, call in calls.items():  # all have begun: they compile at a time
            try:
                results[version] = call()
            except RuntimeError as error:
                missing.append(f"not measured: {error}")
        times = measure({", ".join(version): calls[version] for version in results}, seconds)
    return agreement(results).merge(summary(times)).assign(threads=THREADS), missing


def engines(model: str) -> list[engine.Reference]:
    return engine.candidates(checkpoints.load(model).net, "cpu")


def as_text(table: pd.DataFrame, missing: Sequence[str] = ()) -> str:
    """What :func:`compare` found as lines for a terminal, with the engine chosen for each model."""
    names = ["width", "height", "version", "ms", "ms_low", "ms_high", "ratio", "within_1"]
    shown = table[[*names, "decode_ms", "encode_ms"]]
    lines = [shown.to_string(index=False, float_format="{:.4g}".format, na_rep="–"), ""]
    for (model, width, height), part in table.groupby(["model", "width", "height"], sort=False):
        ms = part.set_index("path")["ms"]
        if "chosen" in ms:
            here = engines(model)
            ms[here[0].name] = ms["chosen"]
            times = ", ".join(f"{one.name} {ms[one.name]:.1f} ms" for one in here if one.name in ms)
            chosen = f"{here[0].name} is chosen ({here[0].reason})"
            lines.append(f"{model}, {width}×{height}: {chosen}: {times}")
    about = table.iloc[0]
    where = f"{about['device']}, {about['threads']} threads, {about['versions']}"
    lines += [*missing, f"{where}, commit {about['commit']}", contention(table["other_work"].max())]
    return "\n".join(lines)
