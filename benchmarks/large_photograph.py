"""Peak memory of the largest photographs, from file to file as ``zdce enhance`` does it.

    python benchmarks/large_photograph.py [--megapixels 200] [--csv reports/study/speed/large.csv]

Each case is a process of its own. The photographs are bundled ones, enlarged, with noise, so that
their files are as long as real ones. Three minutes.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import imagecodecs
import numpy as np
import pandas as pd
import tifffile

from zdce import datasets, paths
from zdce.study import timing

LIMIT_MB = 2 * 1024**3 / 1e6  # megabytes that any photograph may take
# file, share of the megapixels asked for, model, path of the enhancer
CASES = (
    ("8-bit.jpg", 1.0, "auto", "faithful"),
    ("8-bit.jpg", 1.0, "zero-dce-improved", "fast"),
    ("8-bit.png", 0.5, "auto", "faithful"),
    ("16-bit.tif", 0.435, "auto", "faithful"),
    ("16-bit.tif", 0.435, "zero-dce-improved", "fast"),
    ("32-bit.tif", 0.2, "auto", "faithful"),
    ("8-bit.jpg", 0.12, "zero-dce-improved", "faithful"),
)
# One enhancement as the command does it: megabytes before it and at its largest moment, seconds.
CODE = """
import json, sys, time
from pathlib import Path
import torch
from zdce import memory
from zdce.enhance import Enhancer
from zdce.folders import enhance_files

def megabytes(field):
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(field)) * 1024 / 1e6

memory.keep_freed()
torch.set_num_threads(2)
file, model, path = sys.argv[1:]
enhancer = Enhancer(model, device="cpu", speed=path)
idle, started = megabytes("VmRSS"), time.perf_counter()
outcome = enhance_files([file], Path(file).parent / "out", enhancer)
assert not outcome.failed, outcome.failed
seconds = time.perf_counter() - started
print(json.dumps({"idle_mb": idle, "peak_mb": megabytes("VmHWM"), "seconds": seconds}))
"""


def photograph(pixels: float) -> np.ndarray:
    """A bundled photograph of so many pixels, by repeating them, and noise: (H, W, 3) uint8."""
    image = datasets.samples("bundled")[0].image()
    height = round((pixels / 1.5) ** 0.5)
    rows, columns = (
        np.arange(n) * m // n
        for n, m in zip((height, height * 3 // 2), image.shape[:2], strict=True)
    )
    out = np.empty((height, len(columns), 3), np.uint8)
    noise = np.random.default_rng(0).integers(0, 6, (64, len(columns), 3), np.uint8)
    for top in range(0, height, 64):
        part = image[rows[top : top + 64]][:, columns]
        out[top : top + 64] = np.minimum(part, 249) + noise[: len(part)]
    return out


def write(file: Path, pixels: np.ndarray) -> None:
    """The photograph in the depth that the file's name says."""
    if file.suffix == ".jpg":
        file.write_bytes(imagecodecs.jpeg_encode(pixels, level=95))
    elif file.suffix == ".png":
        file.write_bytes(imagecodecs.png_encode(pixels, level=1))
    else:
        deep = pixels * np.uint16(257) if file.name.startswith("16") else np.float32(pixels) / 255
        tifffile.imwrite(file, deep, photometric="rgb")


def main() -> None:
    words = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    words.add_argument("--megapixels", type=float, default=200, help="of the largest photograph")
    words.add_argument("--csv", type=Path, default=paths.reports("study") / "speed" / "large.csv")
    asked = words.parse_args()
    rows, about = [], timing.conditions("large")
    for name, share, model, path in CASES:
        with tempfile.TemporaryDirectory(prefix="zdce-large-") as folder:
            file, pixels = Path(folder) / name, photograph(share * asked.megapixels * 1e6)
            write(file, pixels)
            row = {"file": name, "megapixels": pixels.shape[0] * pixels.shape[1] / 1e6}
            row |= {"file_mb": file.stat().st_size / 1e6, "model": model, "path": path}
            del pixels
            command = [sys.executable, "-c", CODE, str(file), model, path]
            done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            raise SystemExit(f"{name}: {done.stderr[-500:]}")
        rows.append(row | json.loads(done.stdout.splitlines()[-1]))
        rows[-1]["under_2_gib"] = rows[-1]["peak_mb"] < LIMIT_MB
        print(rows[-1], flush=True)
    table = pd.DataFrame(rows).assign(threads=2, **about)
    asked.csv.parent.mkdir(parents=True, exist_ok=True)
    table.to_csv(asked.csv, index=False, float_format="%.4g")


if __name__ == "__main__":
    main()
