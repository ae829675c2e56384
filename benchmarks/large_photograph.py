"""Peak memory of a 200-megapixel photograph on every path, each in a process of its own.

    python benchmarks/large_photograph.py [--size 16320x12240] [--csv reports/study/speed/large.csv]

The photograph is a bundled one, enlarged, with noise, so that its JPEG has the length of a real
one. From file to file is what ``zdce enhance`` does, reading and writing included; from array to
array holds the photograph and its result.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from zdce import datasets, paths
from zdce.photos import Photo, read_photo, write_photo
from zdce.study.report import commit

# what is enhanced from where to where, model, path of the enhancer
CASES = (
    ("file", "zero-dce-improved", "faithful"),
    ("file", "zero-dce-improved", "fast"),
    ("file", "zero-dce", "faithful"),
    ("file", "zero-dce", "fast"),
    ("file", "auto", "faithful"),
    ("file", "zero-dce++-12x", "faithful"),
    ("file", "sci-medium", "faithful"),
    ("array", "zero-dce-improved", "faithful"),
    ("array", "zero-dce-improved", "fast"),
)
LIMIT_MB = 2 * 1024**3 / 1e6  # megabytes that any path may take


def photograph(width: int, height: int) -> np.ndarray:
    """A bundled photograph at that size, by repeating pixels, and noise: (height, width, 3)
    uint8.
    """
    image = datasets.samples("bundled")[0].image()
    rows, columns = (
        np.arange(n) * m // n for n, m in zip((height, width), image.shape[:2], strict=True)
    )
    out = np.empty((height, width, 3), np.uint8)
    noise = np.random.default_rng(0).integers(0, 6, (64, width, 3), np.uint8)
    for top in range(0, height, 64):
        part = image[rows[top : top + 64]][:, columns]
        out[top : top + 64] = np.minimum(part, 249) + noise[: len(part)]
    return out


# One enhancement in a process of its own, as the command does it: bytes before it and at its
# largest moment, seconds.
CASE = """
import json, sys, time
from pathlib import Path
import numpy as np
import torch
from zdce import memory
from zdce.enhance import Enhancer
from zdce.folders import enhance_files

def megabytes(field):
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(field)) * 1024 / 1e6

kind, model, path, file = sys.argv[1:]
memory.keep_freed()
torch.set_num_threads(2)
enhancer = Enhancer(model, device="cpu", speed=path)
idle, started = megabytes("VmRSS"), time.perf_counter()
if kind == "file":
    outcome = enhance_files([file], Path(file).parent / "out", enhancer, progress=False)
    assert not outcome.failed, outcome.failed
else:
    enhancer(np.load(file))
seconds = time.perf_counter() - started
print(json.dumps({"idle_mb": idle, "peak_mb": megabytes("VmHWM"), "seconds": seconds}))
"""


def main() -> None:
    words = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    words.add_argument("--size", default="16320x12240", help="width x height")
    words.add_argument("--csv", type=Path, default=paths.reports("study") / "speed" / "large.csv")
    asked = words.parse_args()
    width, height = map(int, asked.size.split("x"))
    ours = ("MALLOC_", "GLIBC_")  # the caller's own settings of memory
    environment = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
    environment["PYTHONPATH"] = str(paths.PACKAGE.parent)
    rows = []
    with tempfile.TemporaryDirectory(prefix="zdce-large-") as folder:
        pixels = photograph(width, height)
        files = {"file": Path(folder) / "large.jpg", "array": Path(folder) / "large.npy"}
        np.save(files["array"], pixels)
        write_photo(Photo(pixels), files["file"])
        del pixels
        assert read_photo(files["file"]).pixels.shape == (height, width, 3)
        for kind, model, path in CASES:
            command = [sys.executable, "-c", CASE, kind, model, path, str(files[kind])]
            done = subprocess.run(command, capture_output=True, text=True, env=environment)
            told = json.loads(done.stdout.splitlines()[-1]) if done.returncode == 0 else {}
            rows.append({"from_to": kind, "model": model, "path": path} | told)
            if told:
                rows[-1]["under_limit"] = told["peak_mb"] < LIMIT_MB
            print(rows[-1] if told else done.stderr[-500:], flush=True)
        length = files["file"].stat().st_size
    table = pd.DataFrame(rows).assign(width=width, height=height, file_bytes=length, threads=2)
    table = table.assign(machine=platform.machine(), torch=torch.__version__, commit=commit())
    asked.csv.parent.mkdir(parents=True, exist_ok=True)
    table.to_csv(asked.csv, index=False, float_format="%.4g")


if __name__ == "__main__":
    main()
