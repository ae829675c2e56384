"""Peak memory of a 200-megapixel photograph on every path, each in a process of its own.

    python benchmarks/large_photograph.py [--size 16320x12240] [--csv reports/study/speed/large.csv]

The photograph is a bundled one, enlarged, with noise, so that its JPEG has the length of a real one. From file to file
is what ``zdce enhance`` does, reading and writing included; from array to array holds the photograph and its result.
"""

from __future__ import annotations

import argparse
import json
import platform
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from zdce import datasets, paths, speed
from zdce.photos import Photo, read_photo, write_photo
from zdce.report import commit

# what is enhanced from where to where, model, path of the enhancer
CASES = (
    ("file", "zero-dce-improved", "faithful"),
    ("file", "zero-dce-improved", "fast"),
    ("file", "zero-dce", "faithful"),
    ("file", "zero-dce", "fast"),
    ("file", "zero-dce-context", "faithful"),
    ("file", "zero-dce++-12x", "faithful"),
    ("file", "sci-medium", "faithful"),
    ("array", "zero-dce-improved", "faithful"),
    ("array", "zero-dce-improved", "fast"),
)
LIMIT = 2 * 1024**3  # bytes that any path may take


def photograph(width: int, height: int) -> np.ndarray:
    """A bundled photograph at that size, by repeating pixels, and noise: (height, width, 3) uint8."""
    image = datasets.samples("bundled")[0].image()
    rows, columns = (np.arange(n) * m // n for n, m in zip((height, width), image.shape[:2], strict=True))
    out = np.empty((height, width, 3), np.uint8)
    noise = np.random.default_rng(0).integers(0, 6, (64, width, 3), np.uint8)
    for top in range(0, height, 64):
        part = image[rows[top : top + 64]][:, columns]
        out[top : top + 64] = np.minimum(part, 249) + noise[: len(part)]
    return out


def case(kind: str, model: str, path: str, file: str) -> dict[str, float]:
    """One enhancement in this process: bytes before it and at the largest moment, seconds."""
    from zdce import memory
    from zdce.enhance import Enhancer, enhance_files

    memory.keep_freed()  # as the command does
    torch.set_num_threads(2)
    enhancer = Enhancer(model, device="cpu", speed=path)
    enhancer(np.full((300, 600, 3), 20, np.uint8))
    idle, started = speed._memory("VmRSS"), time.perf_counter()
    if kind == "file":
        outcome = enhance_files([file], Path(file).parent / "out", enhancer, progress=False)
        if outcome.failed:
            raise RuntimeError(outcome.failed[0][1])
    else:
        pixels = np.load(file)
        started = time.perf_counter()
        enhancer(pixels)
    return {"idle": idle, "peak": speed._memory("VmHWM"), "seconds": time.perf_counter() - started}


def main() -> None:
    words = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    words.add_argument("--size", default="16320x12240", help="width x height")
    words.add_argument("--csv", type=Path, default=paths.reports("study") / "speed" / "large.csv")
    words.add_argument("--case", nargs=4, help=argparse.SUPPRESS)
    asked = words.parse_args()
    if asked.case:
        print(json.dumps(case(*asked.case)))
        return
    width, height = map(int, asked.size.split("x"))
    rows = []
    with tempfile.TemporaryDirectory(prefix="zdce-large-") as folder:
        pixels = photograph(width, height)
        files = {"file": Path(folder) / "large.jpg", "array": Path(folder) / "large.npy"}
        np.save(files["array"], pixels)
        write_photo(Photo(pixels), files["file"])
        del pixels
        assert read_photo(files["file"]).pixels.shape == (height, width, 3)
        for kind, model, path in CASES:
            command = [sys.executable, __file__, "--case", kind, model, path, str(files[kind])]
            done = subprocess.run(command, capture_output=True, text=True)
            told = json.loads(done.stdout.splitlines()[-1]) if done.returncode == 0 else {}
            rows.append({"from_to": kind, "model": model, "path": path} | told)
            if told:
                rows[-1]["under_limit"] = told["peak"] < LIMIT
            print(rows[-1] if told else done.stderr[-500:], flush=True)
        length = files["file"].stat().st_size
    table = pd.DataFrame(rows).assign(width=width, height=height, file_bytes=length, threads=2)
    table = table.assign(machine=platform.machine(), torch=torch.__version__, commit=commit())
    asked.csv.parent.mkdir(parents=True, exist_ok=True)
    table.to_csv(asked.csv, index=False, float_format="%.4g")


if __name__ == "__main__":
    main()
